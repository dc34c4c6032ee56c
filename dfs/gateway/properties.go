package gateway

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"path"
	"slices"
	"strconv"
	"syscall"

	"waggle/dfs/client"
	"waggle/dfs/gateway/dav"
)

// propertiesXattr is the extended attribute that holds what clients have set of
// WebDAV properties, one after the other as XML. So they are changed at once, and
// go with the file wherever it goes, also by cp -a on a mounted file system.
const propertiesXattr = tagPrefix + "webdav"

// maxProperties bounds them, in bytes: it is what an extended attribute holds.
const maxProperties = 4096

// liveProperty is one that follows from the file.
type liveProperty struct {
	name  string
	value func(h *handler, p string, info *client.Info) *dav.Node // nil if there is none
}

// liveProperties can't be set, but for displayname (RFC 4918, 15.2).
var liveProperties = []liveProperty{
	{"resourcetype", func(_ *handler, _ string, info *client.Info) *dav.Node {
		if info.IsDir() {
			return dav.Element("resourcetype", dav.Element("collection"))
		}
		return dav.Element("resourcetype")
	}},
	{displayName, func(_ *handler, p string, _ *client.Info) *dav.Node { return dav.Element(displayName, path.Base(p)) }},
	{"getcontentlength", func(_ *handler, _ string, info *client.Info) *dav.Node {
		return ofFile(info, "getcontentlength", strconv.FormatInt(info.Size(), 10))
	}},
	{"getcontenttype", func(_ *handler, p string, info *client.Info) *dav.Node {
		return ofFile(info, "getcontenttype", contentType(p))
	}},
	{"getlastmodified", func(_ *handler, _ string, info *client.Info) *dav.Node {
		return dav.Element("getlastmodified", info.ModTime().UTC().Format(http.TimeFormat))
	}},
	{"getetag", func(_ *handler, _ string, info *client.Info) *dav.Node {
		return dav.Element("getetag", entityTag(info.Attributes()))
	}},
	{"supportedlock", func(*handler, string, *client.Info) *dav.Node { return dav.SupportedLock() }},
	{"lockdiscovery", func(h *handler, p string, _ *client.Info) *dav.Node {
		return dav.LockDiscovery(h.locks.Covering(p), pathHref)
	}},
}

const displayName = "displayname"

func ofFile(info *client.Info, name, value string) *dav.Node {
	if info.IsDir() {
		return nil
	}
	return dav.Element(name, value)
}

// isLive says whether a property follows from the file, and can't be set.
func isLive(name xml.Name) bool {
	return name.Space == dav.Namespace && name.Local != displayName &&
		slices.ContainsFunc(liveProperties, func(l liveProperty) bool { return l.name == name.Local })
}

// properties are those of one resource: what was set, then what follows from it.
func (h *handler) properties(p string, info *client.Info, set []*dav.Node) []*dav.Node {
	all := slices.Clone(set)
	for _, live := range liveProperties {
		if live.name == displayName && find(set, xml.Name{Space: dav.Namespace, Local: displayName}) != nil {
			continue
		}
		if value := live.value(h, p, info); value != nil {
			all = append(all, value)
		}
	}
	return all
}

func find(list []*dav.Node, name xml.Name) *dav.Node {
	for _, n := range list {
		if n.Name == name {
			return n
		}
	}
	return nil
}

// propfind answers with the properties of a resource, and of what is in it. Entries
// are sent as they come, so that a directory may have any number.
func (h *handler) propfind(w http.ResponseWriter, r *http.Request) error {
	depth, ok := dav.ParseDepth(r.Header, dav.Infinity)
	switch {
	case !ok:
		return refuse(http.StatusBadRequest, "Depth is 0 or 1")
	case depth == dav.Infinity: // a whole tree would have no limit (RFC 4918, 9.1)
		return &refusedError{status: http.StatusForbidden, text: "PROPFIND needs the header Depth: 0 or Depth: 1", condition: "propfind-finite-depth"}
	}
	p := path.Clean(r.URL.Path)
	info, err := h.g.client.Stat(r.Context(), p)
	if err != nil {
		return err
	}
	text, err := readBody(r)
	if err != nil {
		return err
	}
	query, err := dav.ParsePropfind(text)
	if err != nil {
		return err
	}
	f := &finder{handler: h, ctx: r.Context(), query: query, out: dav.NewMultistatus(w)}
	if err = f.resource(p, info, f.setOf(p)); err == nil && depth == dav.One && info.IsDir() {
		err = f.entries(p)
	}
	if err == nil {
		err = f.out.Close()
	}
	if err != nil && f.out.Begun() {
		panic(http.ErrAbortHandler) // so that the client sees that it is not all
	}
	return err
}

// finder writes the answer to a PROPFIND.
type finder struct {
	*handler
	ctx   context.Context
	query *dav.Propfind
	out   *dav.Multistatus
}

// wantsSet says whether properties that were set are asked for.
func (f *finder) wantsSet() bool {
	return f.query.All || f.query.NamesOnly || slices.ContainsFunc(f.query.Names, func(n xml.Name) bool { return !isLive(n) })
}

// setOf are the properties that were set of one resource.
func (f *finder) setOf(p string) []byte {
	if !f.wantsSet() {
		return nil
	}
	xattrs, err := f.g.client.Xattrs(f.ctx, p)
	if err != nil {
		return nil // it may not be read, or is gone
	}
	return xattrs[propertiesXattr]
}

func (f *finder) entries(directory string) error {
	xattr := ""
	if f.wantsSet() {
		xattr = propertiesXattr
	}
	for entry, err := range f.g.client.EntriesWith(f.ctx, directory, xattr) {
		if err != nil {
			return err
		}
		p, info, set := path.Join(directory, entry.Name()), entry.Stat(), entry.Xattr()
		if isReserved(p) {
			continue
		}
		if entry.Type() == fs.ModeSymlink { // shown as what it leads to, if that is anything
			if target, err := f.g.client.Stat(f.ctx, p); err == nil {
				info, set = target, f.setOf(p)
			}
		}
		if err := f.resource(p, info, set); err != nil {
			return err
		}
	}
	return nil
}

// resource writes the properties of one resource.
func (f *finder) resource(p string, info *client.Info, set []byte) error {
	all := f.properties(p, info, parseSet(set))
	found, missing := dav.Propstat{Status: http.StatusOK}, dav.Propstat{Status: http.StatusNotFound}
	if f.query.All || f.query.NamesOnly {
		found.Properties = all
	}
	if f.query.NamesOnly {
		for i, n := range all {
			found.Properties[i] = &dav.Node{Name: n.Name}
		}
	}
	for _, name := range f.query.Names {
		switch n := find(all, name); {
		case n == nil:
			missing.Properties = append(missing.Properties, &dav.Node{Name: name})
		case !f.query.All:
			found.Properties = append(found.Properties, n)
		}
	}
	url := pathHref(p)
	if info.IsDir() && p != "/" {
		url += "/"
	}
	if len(missing.Properties) == 0 {
		return f.out.Properties(url, found)
	}
	if len(found.Properties) == 0 {
		return f.out.Properties(url, missing)
	}
	return f.out.Properties(url, found, missing)
}

// pathHref is a path as a URL.
func pathHref(p string) string { return href(p, "") }

// parseSet reads properties as they are kept. What is no XML, because others than
// WebDAV clients have written it, counts as nothing.
func parseSet(text []byte) []*dav.Node {
	if len(text) == 0 {
		return nil
	}
	root, err := dav.Parse(slices.Concat([]byte("<set>"), text, []byte("</set>")))
	if err != nil {
		return nil
	}
	return root.Children()
}

// formatSet is the reverse of parseSet.
func formatSet(properties []*dav.Node) []byte {
	var b bytes.Buffer
	for _, n := range properties {
		n.Append(&b)
	}
	return b.Bytes()
}

// proppatch sets and removes properties: all that were asked for, or none.
func (h *handler) proppatch(w http.ResponseWriter, r *http.Request) error {
	p := path.Clean(r.URL.Path)
	info, err := h.g.client.Stat(r.Context(), p)
	if err != nil {
		return err
	}
	text, err := readBody(r)
	if err != nil {
		return err
	}
	changes, err := dav.ParsePropertyUpdate(text)
	if err != nil {
		return err
	}
	release, err := h.permit(r.Context(), r, target{path: p})
	if err != nil {
		return err
	}
	defer release()
	var refused func(xml.Name) bool
	failed := dav.Propstat{}
	if slices.ContainsFunc(changes, func(c dav.Change) bool { return isLive(c.Property.Name) }) {
		refused = isLive
		failed = dav.Propstat{Status: http.StatusForbidden, Error: "cannot-modify-protected-property"}
	} else if err := h.patch(r.Context(), p, changes); errors.Is(err, errTooManyProperties) || errors.Is(err, syscall.ENOSPC) {
		refused = func(xml.Name) bool { return true }
		failed = dav.Propstat{Status: http.StatusInsufficientStorage}
	} else if err != nil {
		return err
	}
	url := pathHref(p)
	if info.IsDir() && p != "/" {
		url += "/"
	}
	out := dav.NewMultistatus(w)
	return errors.Join(out.Properties(url, outcomes(changes, refused, failed)...), out.Close())
}

// outcomes says what became of each change: with a refused one, none was made.
func outcomes(changes []dav.Change, refused func(xml.Name) bool, failed dav.Propstat) []dav.Propstat {
	others := dav.Propstat{Status: http.StatusOK}
	if refused != nil {
		others.Status = http.StatusFailedDependency
	}
	for _, c := range changes {
		of := &others
		if refused != nil && refused(c.Property.Name) {
			of = &failed
		}
		if find(of.Properties, c.Property.Name) == nil {
			of.Properties = append(of.Properties, &dav.Node{Name: c.Property.Name})
		}
	}
	return slices.DeleteFunc([]dav.Propstat{others, failed}, func(p dav.Propstat) bool { return len(p.Properties) == 0 })
}

var errTooManyProperties = fmt.Errorf("the properties of a resource have at most %d bytes of XML", maxProperties)

// patch carries out changes in their order.
func (h *handler) patch(ctx context.Context, p string, changes []dav.Change) error {
	xattrs, err := h.g.client.Xattrs(ctx, p)
	if err != nil {
		return err
	}
	old, there := xattrs[propertiesXattr]
	set := parseSet(old)
	for _, c := range changes {
		set = slices.DeleteFunc(set, func(n *dav.Node) bool { return n.Name == c.Property.Name })
		if !c.Remove {
			set = append(set, c.Property)
		}
	}
	text := formatSet(set)
	switch {
	case len(text) > maxProperties:
		return errTooManyProperties
	case len(text) > 0:
		return h.g.client.SetXattr(ctx, p, propertiesXattr, text, client.XattrAny)
	case there:
		return h.g.client.RemoveXattr(ctx, p, propertiesXattr)
	}
	return nil
}
