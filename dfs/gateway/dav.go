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
	"sync"
	"time"

	"golang.org/x/net/webdav"

	"waggle/dfs/client"
)

// maxListed bounds the entries of a directory that is listed at once.
const maxListed = 100_000

// davFS is the file system as package webdav knows it. Files that are written
// through it appear when they are closed.
type davFS struct{ g *Gateway }

// withheld are the permissions that nothing new gets, as with the usual umask:
// package webdav asks for all.
const withheld = 0o022

// davError says what package webdav asks about an error with os.IsNotExist and
// the like, which don't see what an error wraps.
func davError(err error) error {
	for _, known := range []error{fs.ErrNotExist, fs.ErrExist, fs.ErrPermission} {
		if errors.Is(err, known) {
			return &fs.PathError{Op: "webdav", Path: err.Error(), Err: known}
		}
	}
	return err
}

// davPath refuses what does not exist for clients.
func davPath(op, name string) error {
	if isReserved(name) {
		return &fs.PathError{Op: op, Path: name, Err: fs.ErrPermission}
	}
	return nil
}

// Mkdir implements webdav.FileSystem.
func (d davFS) Mkdir(ctx context.Context, name string, mode fs.FileMode) error {
	if err := davPath("mkdir", name); err != nil {
		return err
	}
	return davError(d.g.client.Mkdir(ctx, name, mode&^withheld))
}

// RemoveAll implements webdav.FileSystem.
func (d davFS) RemoveAll(ctx context.Context, name string) error {
	if path.Clean(name) == "/" {
		return &fs.PathError{Op: "remove", Path: name, Err: fs.ErrPermission}
	}
	if err := davPath("remove", name); err != nil {
		return err
	}
	return davError(d.g.client.RemoveAll(ctx, name))
}

// Rename implements webdav.FileSystem.
func (d davFS) Rename(ctx context.Context, from, to string) error {
	if err := errors.Join(davPath("rename", from), davPath("rename", to)); err != nil {
		return err
	}
	return davError(d.g.client.Rename(ctx, from, to))
}

// Stat implements webdav.FileSystem.
func (d davFS) Stat(ctx context.Context, name string) (fs.FileInfo, error) {
	if isReserved(name) {
		return nil, &fs.PathError{Op: "stat", Path: name, Err: fs.ErrNotExist}
	}
	info, err := d.g.client.Stat(ctx, name)
	if err != nil {
		return nil, davError(err)
	}
	return davInfo{info}, nil
}

// OpenFile implements webdav.FileSystem.
func (d davFS) OpenFile(ctx context.Context, name string, flags int, mode fs.FileMode) (webdav.File, error) {
	if err := davPath("open", name); err != nil {
		return nil, err
	}
	// Package webdav opens for writing what it only sets properties of, too, and
	// truncates what it writes: only that replaces the file.
	if flags&os.O_TRUNC != 0 {
		u, err := d.g.newUpload(ctx, name, mode)
		if err != nil {
			return nil, davError(err)
		}
		return u, nil
	}
	f, err := d.g.client.Open(ctx, name)
	if err != nil {
		return nil, davError(err)
	}
	return &davFile{File: f, g: d.g}, nil
}

// davInfo says what package webdav would find out by reading the file.
type davInfo struct{ *client.Info }

// ETag implements webdav.ETager.
func (i davInfo) ETag(context.Context) (string, error) { return entityTag(i.Attributes()), nil }

// ContentType implements webdav.ContentTyper.
func (i davInfo) ContentType(context.Context) (string, error) { return contentType(i.Name()), nil }

type davFile struct {
	*client.File
	g *Gateway
}

func (f *davFile) Stat() (fs.FileInfo, error) {
	info, err := f.File.Stat()
	if err != nil {
		return nil, err
	}
	return davInfo{info.(*client.Info)}, nil
}

// Readdir implements http.File, for all entries at once.
func (f *davFile) Readdir(int) ([]fs.FileInfo, error) {
	entries, err := f.ReadDir(-1)
	if err != nil {
		return nil, err
	}
	var list []fs.FileInfo
	for _, entry := range entries {
		if !isReserved(path.Join("/", f.Name(), entry.Name())) {
			list = append(list, davInfo{entry.(*client.Entry).Stat()})
		}
	}
	if len(list) > maxListed {
		return nil, &fs.PathError{Op: "list", Path: f.Name(), Err: errors.New("the directory has more entries than are listed at once")}
	}
	return list, nil
}

// upload is a file that is being written beside the one that it will replace.
type upload struct {
	*client.File
	g           *Gateway
	ctx         context.Context
	part, final string
	failed      error
	began       time.Time
	check       func() error // of what was stored, before it gets its name; may be nil
}

// cleanupTime bounds the calls that clean up after a client has gone.
const cleanupTime = 10 * time.Second

func (g *Gateway) newUpload(ctx context.Context, name string, mode fs.FileMode) (*upload, error) {
	parent, err := g.client.Stat(ctx, path.Dir(name))
	if err == nil && !parent.IsDir() {
		err = &fs.PathError{Op: "create", Path: name, Err: fs.ErrNotExist}
	}
	if err == nil {
		err = g.client.MkdirAll(ctx, g.uploads, 0o700)
	}
	if err != nil {
		return nil, err
	}
	mode &^= withheld
	if old, err := g.client.Stat(ctx, name); err == nil {
		mode = old.Mode().Perm()
	}
	u := &upload{g: g, ctx: ctx, began: time.Now(), part: g.uploads + "/" + rand.Text(), final: name}
	u.File, err = g.client.OpenFile(ctx, u.part, os.O_RDWR|os.O_CREATE|os.O_EXCL, client.FileOptions{Mode: mode})
	return u, err
}

// ReadFrom takes what is uploaded. If that ends early, Close leaves the old file.
func (u *upload) ReadFrom(r io.Reader) (int64, error) {
	n, err := u.File.ReadFrom(r)
	u.g.counts.uploaded.Add(n)
	u.failed = err
	return n, err
}

func (u *upload) Stat() (fs.FileInfo, error) {
	info, err := u.File.Stat()
	if err != nil {
		return nil, err
	}
	return davInfo{info.(*client.Info)}, nil
}

// Readdir implements http.File.
func (u *upload) Readdir(int) ([]fs.FileInfo, error) { return nil, fs.ErrInvalid }

// Close puts the whole file in the place of the old one, whose extended
// attributes it keeps.
func (u *upload) Close() error {
	err := errors.Join(u.failed, u.File.Close())
	if err == nil && u.check != nil {
		err = u.check()
	}
	if err == nil {
		err = u.keepTags()
	}
	if err == nil {
		err = u.g.client.Rename(u.ctx, u.part, u.final)
	}
	if outcome, ok := u.ctx.Value(outcomeKey{}).(*putOutcome); ok {
		outcome.err = err
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
	return err
}

func (u *upload) keepTags() error {
	tags, err := u.g.client.Xattrs(u.ctx, u.final)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for name, value := range tags {
		err = errors.Join(err, u.g.client.SetXattr(u.ctx, u.part, name, value, client.XattrAny))
	}
	return err
}

// outcomeKey is under which a PUT's outcome is in its context.
type outcomeKey struct{}

// putOutcome is what package webdav does not tell its client.
type putOutcome struct {
	replaces bool
	digest   func() string // of the body
	err      error
}

// putWriter replaces the status that package webdav chose.
type putWriter struct {
	http.ResponseWriter
	outcome *putOutcome
	tag     func() string
	refused bool
}

// Unwrap is for http.ResponseController.
func (w *putWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *putWriter) WriteHeader(status int) {
	switch {
	case w.outcome.err != nil:
		w.refused = true
		fail(w.ResponseWriter, w.outcome.err)
		return
	case status == http.StatusCreated:
		w.Header().Set("ETag", w.tag())
		w.Header().Set(digestHeader, w.outcome.digest())
		w.Header().Set(verifiedHeader, "yes")
		if w.outcome.replaces {
			status = http.StatusNoContent
		}
	}
	w.refused = status == http.StatusNoContent
	w.ResponseWriter.WriteHeader(status)
}

func (w *putWriter) Write(p []byte) (int, error) {
	if w.refused {
		return len(p), nil // the body was written with the status, or there is none
	}
	return w.ResponseWriter.Write(p)
}

// Limits of WebDAV locks.
const (
	maxLocks    = 10_000
	maxLockTime = time.Hour
)

// locks bounds the locks of clients, which package webdav keeps in memory.
type locks struct {
	webdav.LockSystem
	mu   sync.Mutex
	ends map[string]time.Time // by token
}

func newLocks() *locks {
	return &locks{LockSystem: webdav.NewMemLS(), ends: make(map[string]time.Time)}
}

// Create implements webdav.LockSystem.
func (l *locks) Create(now time.Time, details webdav.LockDetails) (string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.ends) >= maxLocks {
		for token, end := range l.ends {
			if now.After(end) {
				delete(l.ends, token)
			}
		}
	}
	if len(l.ends) >= maxLocks {
		return "", webdav.ErrLocked
	}
	if details.Duration < 0 || details.Duration > maxLockTime {
		details.Duration = maxLockTime
	}
	token, err := l.LockSystem.Create(now, details)
	if err == nil {
		l.ends[token] = now.Add(details.Duration)
	}
	return token, err
}

// Confirm implements webdav.LockSystem. Package webdav wants a client's tokens to
// be for both ends of a MOVE or COPY. Clients such as davfs2 have one for the end
// that they have locked, and RFC 4918 (7.5) asks for no other: the other end must
// only not be locked.
func (l *locks) Confirm(now time.Time, name0, name1 string, conditions ...webdav.Condition) (func(), error) {
	release, err := l.LockSystem.Confirm(now, name0, name1, conditions...)
	if !errors.Is(err, webdav.ErrConfirmationFailed) || name0 == "" || name1 == "" {
		return release, err
	}
	for _, ends := range [][2]string{{name0, name1}, {name1, name0}} {
		if release, err = l.confirmOne(now, ends[0], ends[1], conditions); err == nil {
			return release, nil
		}
	}
	return nil, webdav.ErrConfirmationFailed
}

// confirmOne confirms the locks of one name and holds the other meanwhile.
func (l *locks) confirmOne(now time.Time, locked, free string, conditions []webdav.Condition) (func(), error) {
	release, err := l.LockSystem.Confirm(now, locked, "", conditions...)
	if err != nil {
		return nil, err
	}
	token, err := l.LockSystem.Create(now, webdav.LockDetails{Root: free, Duration: maxLockTime, ZeroDepth: true})
	if err != nil {
		release()
		return nil, err
	}
	return func() {
		release()
		l.LockSystem.Unlock(now, token) // it was made just now
	}, nil
}

// Refresh implements webdav.LockSystem.
func (l *locks) Refresh(now time.Time, token string, duration time.Duration) (webdav.LockDetails, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if duration < 0 || duration > maxLockTime {
		duration = maxLockTime
	}
	details, err := l.LockSystem.Refresh(now, token, duration)
	if err == nil {
		l.ends[token] = now.Add(duration)
	}
	return details, err
}

// Unlock implements webdav.LockSystem.
func (l *locks) Unlock(now time.Time, token string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.ends, token)
	return l.LockSystem.Unlock(now, token)
}
