package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path"
	"strings"
	"syscall"

	"waggle/dfs/client"
	"waggle/dfs/gateway/dav"
)

// transfer is a COPY or MOVE.
type transfer struct {
	from, to  string
	info      *client.Info // of what is at from
	overwrite bool
}

// transferOf reads what both methods have in common, and refuses what can't be
// done whatever the conditions. Stat is how to look at the source.
func (h *handler) transferOf(r *http.Request, stat func(context.Context, string) (*client.Info, error)) (t transfer, err error) {
	t.from = path.Clean(r.URL.Path)
	if t.to, err = destination(r); err != nil {
		return t, err
	}
	var ok bool
	if t.overwrite, ok = dav.ParseOverwrite(r.Header); !ok {
		return t, refuse(http.StatusBadRequest, "Overwrite is T or F")
	}
	if t.info, err = stat(r.Context(), t.from); err != nil {
		return t, err
	}
	if t.from == "/" || t.to == "/" {
		return t, refuse(http.StatusForbidden, "The root can't be replaced, copied or moved")
	}
	if err := h.needsParent(r, t.to); err != nil {
		return t, err
	}
	return t, h.apart(r.Context(), &t)
}

// destination is the path in the header Destination.
func destination(r *http.Request) (string, error) {
	u, err := url.Parse(r.Header.Get("Destination"))
	if err != nil || u.Path == "" || len(r.Header["Destination"]) > 1 {
		return "", refuse(http.StatusBadRequest, "The header Destination must be the URL of where it should go")
	}
	if u.Host != "" && !strings.EqualFold(u.Host, r.Host) {
		return "", refuse(http.StatusBadGateway, "The destination is on another server")
	}
	if err := checkPath(u); err != nil {
		return "", refuse(http.StatusBadRequest, "Bad destination: "+err.Error())
	}
	if isReserved(u.Path) {
		return "", refuse(http.StatusForbidden, "The destination does not exist for clients: it is the gateway's own")
	}
	return path.Clean(u.Path), nil
}

// apart refuses ends of which one is the other, or lies in the other, by whatever
// symbolic links (RFC 4918, 9.8.5 and 9.9.4).
func (h *handler) apart(ctx context.Context, t *transfer) error {
	from, err := h.g.realName(ctx, t.from)
	if err == nil && t.info.IsDir() {
		from, err = h.g.realPath(ctx, t.from)
	}
	if err != nil {
		return err
	}
	to, err := h.g.realName(ctx, t.to)
	if err != nil {
		return err
	}
	if from == to || dav.IsBelow(from, to) || dav.IsBelow(to, from) {
		return refuse(http.StatusForbidden, "Source and destination are the same, or one lies in the other")
	}
	return nil
}

// maxLinks bounds the symbolic links of one path, as Linux does.
const maxLinks = 40

// realPath is a path without symbolic links.
func (g *Gateway) realPath(ctx context.Context, p string) (string, error) {
	done, links := "/", 0
	for p = strings.Trim(p, "/"); p != ""; p = strings.Trim(p, "/") {
		name, rest, _ := strings.Cut(p, "/")
		at := path.Join(done, name)
		info, err := g.client.Lstat(ctx, at)
		if err != nil {
			return "", err
		}
		if info.Mode().Type() != fs.ModeSymlink {
			done, p = at, rest
			continue
		}
		if links++; links > maxLinks {
			return "", &fs.PathError{Op: "follow", Path: at, Err: syscall.ELOOP}
		}
		to, err := g.client.Readlink(ctx, at)
		if err != nil {
			return "", err
		}
		if strings.HasPrefix(to, "/") {
			done = "/"
		}
		p = to + "/" + rest
	}
	return done, nil
}

// realName is realPath that does not follow the last name, which need not exist.
func (g *Gateway) realName(ctx context.Context, p string) (string, error) {
	directory, err := g.realPath(ctx, path.Dir(p))
	return path.Join(directory, path.Base(p)), err
}

func (h *handler) move(w http.ResponseWriter, r *http.Request) error {
	t, err := h.transferOf(r, h.g.client.Lstat)
	if err != nil {
		return err
	}
	if depth, ok := dav.ParseDepth(r.Header, dav.Infinity); t.info.IsDir() && (!ok || depth != dav.Infinity) {
		return refuse(http.StatusBadRequest, "A directory is moved with all in it: Depth can only be infinity")
	}
	return h.carryOut(w, r, &t, []target{{path: t.from, deep: true, goes: true}}, func() error {
		if err := h.g.replace(r.Context(), t.from, t.to); err != nil {
			return err
		}
		h.locks.Removed(t.from, false) // locks don't move (RFC 4918, 7.6)
		return nil
	})
}

func (h *handler) copy(w http.ResponseWriter, r *http.Request) error {
	t, err := h.transferOf(r, h.g.client.Stat)
	if err != nil {
		return err
	}
	depth, ok := dav.ParseDepth(r.Header, dav.Infinity)
	if t.info.IsDir() && (!ok || depth == dav.One) {
		return refuse(http.StatusBadRequest, "A directory is copied with Depth: 0 or Depth: infinity")
	}
	return h.carryOut(w, r, &t, nil, func() error {
		return h.g.copyTree(r.Context(), &t, depth == dav.Infinity)
	})
}

// carryOut has the ends of a transfer change, if that is permitted.
func (h *handler) carryOut(w http.ResponseWriter, r *http.Request, t *transfer, also []target, do func() error) error {
	release, err := h.permit(r.Context(), r, append(also, target{path: t.to, deep: true, appears: true})...)
	if err != nil {
		return err
	}
	defer release()
	there := h.g.exists(r.Context(), t.to)
	if there && !t.overwrite {
		return refuse(http.StatusPreconditionFailed, "There is something of this name already, and Overwrite is F")
	}
	err = do()
	var partly *refusedError
	if err != nil && !errors.As(err, &partly) {
		return err
	}
	h.locks.Removed(t.to, true) // what was in there before
	switch {
	case err != nil:
		return err
	case there:
		w.WriteHeader(http.StatusNoContent)
	default:
		w.WriteHeader(http.StatusCreated)
	}
	return nil
}

// replace renames, whatever is at the new name. If a directory is there, or is to
// come where none is, what is there is first put aside, and comes back if the
// renaming fails.
func (g *Gateway) replace(ctx context.Context, from, to string) error {
	err := g.client.Rename(ctx, from, to)
	if err == nil {
		return g.removeSecondName(ctx, from, to)
	}
	inTheWay := false
	for _, errno := range []syscall.Errno{syscall.EISDIR, syscall.ENOTDIR, syscall.ENOTEMPTY, syscall.EEXIST} {
		inTheWay = inTheWay || errors.Is(err, errno)
	}
	if !inTheWay {
		return err
	}
	aside, failed := g.newPart(ctx)
	if failed == nil {
		failed = g.client.Rename(ctx, to, aside)
	}
	if failed != nil {
		return failed
	}
	if err := g.client.Rename(ctx, from, to); err != nil {
		return errors.Join(err, g.client.Rename(context.WithoutCancel(ctx), aside, to))
	}
	g.discard(aside)
	return nil
}

// removeSecondName ends a MOVE between two names of one file, of which rename
// leaves both, as POSIX wants it.
func (g *Gateway) removeSecondName(ctx context.Context, from, to string) error {
	old, err := g.client.Lstat(ctx, from)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	kept, err := g.client.Lstat(ctx, to)
	if err != nil || old.Attributes().Inode != kept.Attributes().Inode {
		return err // somebody has made another file of the old name
	}
	return g.client.Remove(ctx, from)
}

// discard removes what was put aside.
func (g *Gateway) discard(aside string) {
	ctx, cancel := context.WithTimeout(context.Background(), longTime)
	defer cancel()
	if err := g.client.RemoveAll(ctx, aside); err != nil {
		g.warn("what was replaced stays until the gateway starts again", "path", aside, "reason", err)
	}
}

// maxMembers bounds the failures of one COPY that its client is told.
const maxMembers = 1000

// copyTree makes a copy aside, and puts it in its place. What of a tree can't be
// copied is left out, and told: that is a *refusedError with members.
func (g *Gateway) copyTree(ctx context.Context, t *transfer, deep bool) error {
	aside, err := g.newPart(ctx)
	if err != nil {
		return err
	}
	c := copier{g: g, ctx: ctx, deep: deep, aside: aside, to: t.to}
	if err = c.copy(t.from, aside, t.info); err == nil {
		err = g.replace(ctx, aside, t.to)
	}
	if err != nil {
		g.discard(aside)
		return err
	}
	if len(c.failed) > 0 {
		return &refusedError{status: http.StatusMultiStatus, text: "Not all was copied", members: c.failed}
	}
	return nil
}

// copier copies a tree.
type copier struct {
	g         *Gateway
	ctx       context.Context
	deep      bool
	aside, to string // where the copy is made, and where it will be
	failed    []member
}

// copy copies what is at from. Links are copied as links: they may lead anywhere,
// or in a circle.
func (c *copier) copy(from, to string, info *client.Info) error {
	var err error
	switch info.Mode().Type() {
	case fs.ModeDir:
		return c.directory(from, to, info)
	case fs.ModeSymlink:
		var target string
		if target, err = c.g.client.Readlink(c.ctx, from); err == nil {
			err = c.g.client.Symlink(c.ctx, target, to)
		}
		return err
	case 0:
		err = c.file(from, to, info)
	default:
		return refuse(http.StatusForbidden, from+" is neither a file, nor a directory, nor a link")
	}
	if err == nil {
		err = c.attributes(from, to)
	}
	return err
}

func (c *copier) directory(from, to string, info *client.Info) error {
	if err := c.g.client.Mkdir(c.ctx, to, 0o700); err != nil {
		return err
	}
	if err := c.attributes(from, to); err != nil {
		return err
	}
	if c.deep {
		for entry, err := range c.g.client.Entries(c.ctx, from) {
			if err == nil {
				child := path.Join(to, entry.Name())
				err = c.leftOut(child, c.copy(path.Join(from, entry.Name()), child, entry.Stat()))
			}
			if err != nil {
				return err
			}
		}
	}
	return c.g.client.Chmod(c.ctx, to, info.Mode().Perm())
}

// leftOut notes what of the tree failed. It returns what ends all: no space, or a
// client that has gone.
func (c *copier) leftOut(at string, err error) error {
	status := statusOf(err)
	switch {
	case err == nil, errors.Is(err, fs.ErrNotExist): // it was removed meanwhile
		return nil
	case c.ctx.Err() != nil, status == http.StatusInsufficientStorage, status == http.StatusServiceUnavailable, len(c.failed) == maxMembers:
		return err
	}
	c.failed = append(c.failed, member{c.to + strings.TrimPrefix(at, c.aside), status, ""})
	if err := c.g.client.RemoveAll(c.ctx, at); err != nil { // half of it may be there
		return fmt.Errorf("remove what could not be copied: %w", err)
	}
	return nil
}

func (c *copier) file(from, to string, info *client.Info) error {
	source, err := c.g.client.Open(c.ctx, from)
	if err != nil {
		return err
	}
	defer source.Close()
	made, err := c.g.client.OpenFile(c.ctx, to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, client.FileOptions{Mode: info.Mode().Perm()})
	if err != nil {
		return err
	}
	_, err = io.Copy(made, source)
	return errors.Join(err, made.Close())
}

// attributes copies tags and properties.
func (c *copier) attributes(from, to string) error {
	all, err := c.g.client.Xattrs(c.ctx, from)
	for name, value := range all {
		err = errors.Join(err, c.g.client.SetXattr(c.ctx, to, name, value, client.XattrAny))
	}
	return err
}
