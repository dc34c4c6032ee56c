package gateway

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path"
	"strings"
	"time"

	"waggle/dfs/client"
)

// withheld are the permissions that nothing new gets, as with the usual umask.
const withheld = 0o022

// cleanupTime bounds the calls that clean up after a client has gone.
const cleanupTime = 10 * time.Second

// upload is a file that is being written beside the one that it will replace.
type upload struct {
	*client.File
	g           *Gateway
	ctx         context.Context
	part, final string
	failed      error
	began       time.Time
	check       func() error // of what was stored, before it gets its name; may be nil
	// permit is asked once more at the end, because others may have changed or
	// locked the file meanwhile. What it returns is called when the file has its name.
	permit func(context.Context) (release func(), err error)

	replaced bool   // there was a file of this name
	tag      string // entity tag of the new one
}

// newPart is a name for what is to get its place when it is whole.
func (g *Gateway) newPart(ctx context.Context) (string, error) {
	return g.uploads + "/" + rand.Text(), g.client.MkdirAll(ctx, g.uploads, 0o700)
}

func (g *Gateway) newUpload(ctx context.Context, name string, permit func(context.Context) (func(), error)) (*upload, error) {
	parent, err := g.client.Stat(ctx, path.Dir(name))
	if err == nil && !parent.IsDir() {
		err = &fs.PathError{Op: "create", Path: name, Err: fs.ErrNotExist}
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, refuse(http.StatusConflict, "There is no directory to put the file in: "+err.Error())
	}
	if err != nil {
		return nil, err
	}
	u := &upload{g: g, ctx: ctx, began: time.Now(), final: name, permit: permit}
	if u.part, err = g.newPart(ctx); err != nil {
		return nil, err
	}
	mode := fs.FileMode(0o666 &^ withheld)
	if old, err := g.client.Stat(ctx, name); err == nil {
		mode = old.Mode().Perm()
	}
	u.File, err = g.client.OpenFile(ctx, u.part, os.O_RDWR|os.O_CREATE|os.O_EXCL, client.FileOptions{Mode: mode})
	return u, u.hidePart(err)
}

// hidePart has an error tell the name that the client knows.
func (u *upload) hidePart(err error) error {
	if err == nil {
		return nil
	}
	return &uploadError{err, u.part, u.final}
}

type uploadError struct {
	error
	part, final string
}

func (e *uploadError) Error() string { return strings.ReplaceAll(e.error.Error(), e.part, e.final) }

func (e *uploadError) Unwrap() error { return e.error }

// status is the answer's when all is in its place.
func (u *upload) status() int {
	if u.replaced {
		return http.StatusNoContent
	}
	return http.StatusCreated
}

// ReadFrom takes what is uploaded. If that ends early, Close leaves the old file.
func (u *upload) ReadFrom(r io.Reader) (int64, error) {
	n, err := u.File.ReadFrom(r)
	u.g.counts.uploaded.Add(n)
	u.failed = err
	return n, err
}

// Close puts the whole file in the place of the old one, whose extended
// attributes it keeps.
func (u *upload) Close() error {
	err := errors.Join(u.failed, u.File.Close())
	if u.failed != nil {
		err = u.failed // what it comes to is said once
	}
	if err == nil && u.check != nil {
		err = u.check()
	}
	if err == nil {
		err = u.place()
	}
	if err == nil {
		u.g.counts.took(uploaded, time.Since(u.began))
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), cleanupTime)
	defer cancel()
	if left := u.g.client.Remove(ctx, u.part); left != nil && !errors.Is(left, fs.ErrNotExist) {
		u.g.warn("part of an upload stays until the gateway starts again", "path", u.part, "reason", left)
	}
	return u.hidePart(err)
}

func (u *upload) place() error {
	release, err := u.permit(u.ctx)
	if err != nil {
		return err
	}
	defer release()
	old, err := u.g.client.Xattrs(u.ctx, u.final)
	u.replaced = err == nil
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for name, value := range old {
		if err := u.g.client.SetXattr(u.ctx, u.part, name, value, client.XattrAny); err != nil {
			return err
		}
	}
	if err := u.g.client.Rename(u.ctx, u.part, u.final); err != nil {
		return err
	}
	u.tag = u.g.tagOf(u.ctx, u.final)
	return nil
}
