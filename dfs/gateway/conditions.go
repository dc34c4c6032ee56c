package gateway

import (
	"context"
	"errors"
	"io/fs"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"

	"waggle/dfs/gateway/dav"
)

// target is what a request is going to change.
type target struct {
	path    string
	deep    bool // with all below it
	appears bool // it may be new, which changes its directory
	goes    bool // it is taken out of its directory
	// keepsLocks: locks of others may hold for it.
	keepsLocks bool
}

// permit claims what a request changes, and checks that its conditions hold and
// that its client has every lock. Release ends the claim.
func (h *handler) permit(ctx context.Context, r *http.Request, targets ...target) (release func(), err error) {
	condition, err := dav.ParseIf(r.Header["If"])
	if err != nil {
		return nil, refuse(http.StatusBadRequest, err.Error())
	}
	names := []claimed{{path: path.Clean(r.URL.Path)}}
	for _, t := range targets {
		names = append(names, claimed{t.path, t.deep})
	}
	for _, resource := range condition.Resources() {
		if p, ok := localPath(r, resource); ok {
			names = append(names, claimed{path: p})
		}
	}
	release, err = h.claims.take(ctx, names)
	if err != nil {
		return nil, err
	}
	if err = h.conditionsHold(ctx, r, condition); err == nil {
		err = h.hasLocks(ctx, condition.Tokens(), targets)
	}
	if err != nil {
		release()
		return nil, err
	}
	return release, nil
}

// conditionsHold evaluates the conditions of a request that changes something, in
// the order of RFC 9110 (13.2.2). If-Modified-Since and If-Range are for reading.
func (h *handler) conditionsHold(ctx context.Context, r *http.Request, condition dav.If) error {
	failed := func(name string) error {
		return refuse(http.StatusPreconditionFailed, "The condition "+name+" does not hold: nothing was changed")
	}
	info, err := h.g.client.Stat(ctx, r.URL.Path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	tag := ""
	if err == nil {
		tag = entityTag(info.Attributes())
	}
	if must := r.Header["If-Match"]; len(must) > 0 {
		if !tagListed(must, tag, false) {
			return failed("If-Match")
		}
	} else if since, err := http.ParseTime(r.Header.Get("If-Unmodified-Since")); err == nil && tag != "" {
		if info.ModTime().Unix() > since.Unix() {
			return failed("If-Unmodified-Since")
		}
	}
	if mustNot := r.Header["If-None-Match"]; len(mustNot) > 0 && tagListed(mustNot, tag, true) {
		return failed("If-None-Match")
	}
	if !h.ifHolds(ctx, r, condition) {
		return failed("If")
	}
	return nil
}

// tagListed says whether a list of entity tags has one; "" is the tag of what does
// not exist. What follows a malformed tag is not looked at, as in net/http.
func tagListed(values []string, tag string, weakly bool) bool {
	if tag == "" {
		return false
	}
	list := strings.TrimSpace(strings.Join(values, ","))
	if list == "*" {
		return true
	}
	for {
		list = strings.TrimLeft(list, ", \t")
		listed, rest, ok := dav.CutEntityTag(list)
		if !ok {
			return false
		}
		if weakly {
			listed = strings.TrimPrefix(listed, "W/")
		}
		if listed == tag {
			return true
		}
		list = rest
	}
}

// ifHolds evaluates the header If, of which there may be none.
func (h *handler) ifHolds(ctx context.Context, r *http.Request, condition dav.If) bool {
	return condition == nil || condition.Holds(func(resource string) dav.State {
		p, ok := path.Clean(r.URL.Path), true
		if resource != "" {
			p, ok = localPath(r, resource)
		}
		if !ok {
			return dav.State{}
		}
		s := dav.State{Tag: h.g.tagOf(ctx, p)}
		for _, lock := range h.locks.Covering(p) {
			s.Tokens = append(s.Tokens, lock.Token)
		}
		return s
	})
}

// localPath is the path of a URL, if that is this gateway's.
func localPath(r *http.Request, resource string) (string, bool) {
	u, err := url.Parse(resource)
	if err != nil || u.Host != "" && !strings.EqualFold(u.Host, r.Host) || checkPath(u) != nil {
		return "", false
	}
	return path.Clean(u.Path), true
}

// hasLocks says whether one of these tokens is of every resource that is locked.
// One is enough for each: of several locks all are shared.
func (h *handler) hasLocks(ctx context.Context, tokens []string, targets []target) error {
	var at, below []string // what is locked
	note := func(list *[]string, locks []dav.Lock, p string) {
		mine := func(l dav.Lock) bool { return slices.Contains(tokens, l.Token) }
		if len(locks) > 0 && !slices.ContainsFunc(locks, mine) && !slices.Contains(*list, p) {
			*list = append(*list, p)
		}
	}
	for _, t := range targets {
		if !t.keepsLocks {
			note(&at, h.locks.Covering(t.path), t.path)
		}
		if t.deep && !t.keepsLocks {
			for _, lock := range h.locks.Below(t.path) {
				note(&below, h.locks.Covering(lock.Root), lock.Root)
			}
		}
		// What lies directly in a locked directory is part of it (RFC 4918, 7.4).
		parent := path.Dir(t.path)
		if locks := h.locks.Covering(parent); len(locks) > 0 && (t.goes || t.appears && !h.g.exists(ctx, t.path)) {
			note(&at, locks, parent)
		}
	}
	switch {
	case len(at) > 0:
		return &refusedError{status: http.StatusLocked, text: "It is locked: " + strings.Join(at, ", "), condition: "lock-token-submitted", about: at}
	case len(below) > 0:
		return &refusedError{status: http.StatusMultiStatus, text: "It has what is locked in it: " + strings.Join(below, ", "),
			members: membersWith(http.StatusLocked, "lock-token-submitted", below)}
	}
	return nil
}

// exists says whether there is something of this name, if only a symbolic link.
func (g *Gateway) exists(ctx context.Context, p string) bool {
	_, err := g.client.Lstat(ctx, p)
	return err == nil
}

// tagOf is the entity tag of what a path names, "" if that is nothing.
func (g *Gateway) tagOf(ctx context.Context, name string) string {
	info, err := g.client.Stat(ctx, name)
	if err != nil {
		return ""
	}
	return entityTag(info.Attributes())
}
