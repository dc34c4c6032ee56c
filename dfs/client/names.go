package client

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unicode/utf8"

	"golang.org/x/sync/errgroup"

	"waggle/dfs/wire/control"
)

// pageEntries is how many entries one call to read a directory asks for.
const pageEntries = 1024

// removeWorkers is how many entries RemoveAll removes at once.
const removeWorkers = 16

// Stat returns the attributes of what path names, following symbolic links.
func (c *Client) Stat(ctx context.Context, path string) (*Info, error) {
	f, err := c.find(ctx, path, want{follow: true})
	if err != nil {
		return nil, pathError("stat", path, err)
	}
	return newInfo(path, f.Attributes), nil
}

// Lstat is Stat that does not follow a symbolic link at the end of path.
func (c *Client) Lstat(ctx context.Context, path string) (*Info, error) {
	f, err := c.find(ctx, path, want{})
	if err != nil {
		return nil, pathError("lstat", path, err)
	}
	return newInfo(path, f.Attributes), nil
}

// ReadDir returns the entries of a directory, sorted by name.
func (c *Client) ReadDir(ctx context.Context, path string) ([]fs.DirEntry, error) {
	var entries []fs.DirEntry
	for entry, err := range c.Entries(ctx, path) {
		if err != nil {
			return nil, err
		}
		entries = append(entries, entry)
	}
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	return entries, nil
}

// Entries goes through a directory of any size, page by page, in no particular
// order. It ends with the first error.
func (c *Client) Entries(ctx context.Context, path string) iter.Seq2[*Entry, error] {
	return c.EntriesWith(ctx, path, "")
}

// EntriesWith is Entries that asks for an extended attribute of each entry, too,
// unless the name is empty: see Entry.Xattr.
func (c *Client) EntriesWith(ctx context.Context, path, xattr string) iter.Seq2[*Entry, error] {
	return func(yield func(*Entry, error) bool) {
		at, err := node(path, true)
		request := &control.ReadDirectoryRequest{Node: at, Limit: pageEntries, Xattr: xattr}
		for more := true; more; {
			var reply *control.ReadDirectoryReply
			if err == nil {
				reply, err = call(ctx, c, func(ctx context.Context, s *session) (*control.ReadDirectoryReply, error) {
					request.Session = s.id
					return c.control.ReadDirectory(ctx, request, wait)
				})
			}
			if err != nil {
				yield(nil, pathError("readdir", path, err))
				return
			}
			for _, entry := range reply.Entries {
				if !yield(newEntry(entry), nil) {
					return
				}
				request.After = entry.Name
			}
			more = reply.More && len(reply.Entries) > 0
		}
	}
}

// Mkdir makes a directory.
func (c *Client) Mkdir(ctx context.Context, path string, mode fs.FileMode) error {
	return pathError("mkdir", path, c.mkdir(ctx, path, mode))
}

func (c *Client) mkdir(ctx context.Context, path string, mode fs.FileMode) error {
	at, err := node(path, false)
	if err == nil && len(at.Names) == 0 {
		err = &remoteError{syscall.EEXIST, "this is the root"}
	}
	if err != nil {
		return err
	}
	_, err = c.mutate(ctx, &control.Mutation{Change: &control.Mutation_Mkdir{
		Mkdir: &control.Mkdir{Node: at, Mode: permissions(mode)}}})
	return err
}

// MkdirAll makes a directory and all that are missing above it.
func (c *Client) MkdirAll(ctx context.Context, path string, mode fs.FileMode) error {
	f, err := c.find(ctx, path, want{follow: true})
	switch {
	case err == nil && isDirectory(f.Mode):
		return nil
	case err == nil:
		return pathError("mkdir", path, &remoteError{syscall.ENOTDIR, ""})
	case !errors.Is(err, fs.ErrNotExist):
		return pathError("mkdir", path, err)
	}
	if parent := parentOf(path); parent != "" {
		if err := c.MkdirAll(ctx, parent, mode); err != nil {
			return err
		}
	}
	if err := c.mkdir(ctx, path, mode); err != nil && !errors.Is(err, fs.ErrExist) {
		return pathError("mkdir", path, err)
	}
	return nil
}

// parentOf returns path without its last name.
func parentOf(path string) string {
	path = strings.TrimRight(path, "/")
	return strings.TrimRight(path[:strings.LastIndexByte(path, '/')+1], "/")
}

// Remove removes a file, a symbolic link or an empty directory.
func (c *Client) Remove(ctx context.Context, path string) error {
	err := c.remove(ctx, path, false)
	if isErrno(err, syscall.EISDIR) {
		err = c.remove(ctx, path, true)
	}
	return pathError("remove", path, err)
}

func (c *Client) remove(ctx context.Context, path string, directory bool) error {
	at, err := node(path, false)
	if err != nil {
		return err
	}
	_, err = c.mutate(ctx, &control.Mutation{Change: &control.Mutation_Remove{
		Remove: &control.Remove{Node: at, Directory: directory}}})
	return err
}

// RemoveAll removes path and all below it, as far as that is possible, and
// returns the first error. It is no error if there is nothing.
func (c *Client) RemoveAll(ctx context.Context, path string) error {
	var first error
	c.RemoveTree(ctx, path, func(err error) { first = cmp.Or(first, err) })
	return first
}

// RemoveTree is RemoveAll that tells every failure: failed is called by one
// goroutine at a time.
func (c *Client) RemoveTree(ctx context.Context, path string, failed func(error)) {
	r := &remover{c: c, failed: failed}
	r.removeTree(ctx, path)
}

// remover removes trees. What can't be removed does not keep it from the rest.
type remover struct {
	c      *Client
	mu     sync.Mutex
	failed func(error)
	over   bool // nothing can be removed any more
}

func (r *remover) isOver(ctx context.Context) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.over || ctx.Err() != nil
}

// keep tells of an error other than that there was nothing, and says whether
// there is something left.
func (r *remover) keep(err error) (left bool) {
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.over {
		r.failed(err)
	}
	r.over = r.over || errors.Is(err, ErrUnavailable) || errors.Is(err, context.Canceled)
	return true
}

func (r *remover) removeTree(ctx context.Context, path string) (left bool) {
	err := r.c.Remove(ctx, path)
	for isErrno(err, syscall.ENOTEMPTY) {
		if r.empty(ctx, path) {
			return true
		}
		err = r.c.Remove(ctx, path) // again, if somebody has put something there since
	}
	return r.keep(err)
}

// empty removes the entries of a directory, many at once.
func (r *remover) empty(ctx context.Context, path string) (left bool) {
	var directories []string
	var files errgroup.Group
	files.SetLimit(removeWorkers)
	var remain atomic.Bool
	for entry, err := range r.c.Entries(ctx, path) {
		if err != nil {
			remain.Store(r.keep(err))
			break
		}
		if r.isOver(ctx) {
			remain.Store(true)
			break
		}
		child := path + "/" + entry.Name()
		if entry.IsDir() {
			directories = append(directories, child)
			continue
		}
		files.Go(func() error {
			if r.keep(pathError("remove", child, r.c.remove(ctx, child, false))) {
				remain.Store(true)
			}
			return nil
		})
	}
	files.Wait()
	for _, child := range directories {
		if r.isOver(ctx) || r.removeTree(ctx, child) {
			remain.Store(true)
		}
	}
	return remain.Load()
}

// Rename moves from to to, and replaces what is there if that is possible.
func (c *Client) Rename(ctx context.Context, from, to string) error {
	return pathError("rename", from+" to "+to, c.rename(ctx, from, to))
}

func (c *Client) rename(ctx context.Context, from, to string) error {
	source, err := node(from, false)
	if err != nil {
		return err
	}
	target, err := node(to, false)
	if err != nil {
		return err
	}
	_, err = c.mutate(ctx, &control.Mutation{Change: &control.Mutation_Rename{
		Rename: &control.Rename{From: source, To: target}}})
	return err
}

// Symlink makes a symbolic link at path that points to target.
func (c *Client) Symlink(ctx context.Context, target, path string) error {
	at, err := node(path, false)
	if err == nil {
		_, err = c.mutate(ctx, &control.Mutation{Change: &control.Mutation_Symlink{
			Symlink: &control.Symlink{Node: at, Target: []byte(target)}}})
	}
	return pathError("symlink", path, err)
}

// Readlink returns where a symbolic link points to.
func (c *Client) Readlink(ctx context.Context, path string) (string, error) {
	f, err := c.walk(ctx, path, want{})
	if err == nil && !isSymlink(f.Mode) {
		err = &remoteError{syscall.EINVAL, "not a symbolic link"}
	}
	return f.target, pathError("readlink", path, err)
}

// Link makes path another name of the file existing.
func (c *Client) Link(ctx context.Context, existing, path string) error {
	err := c.link(ctx, existing, path)
	return pathError("link", existing+" to "+path, err)
}

func (c *Client) link(ctx context.Context, existing, path string) error {
	source, err := node(existing, false)
	if err != nil {
		return err
	}
	at, err := node(path, false)
	if err != nil {
		return err
	}
	_, err = c.mutate(ctx, &control.Mutation{Change: &control.Mutation_Link{
		Link: &control.Link{Existing: source, Node: at}}})
	return err
}

// Chmod sets the permission bits of what path names.
func (c *Client) Chmod(ctx context.Context, path string, mode fs.FileMode) error {
	bits := permissions(mode)
	return pathError("chmod", path, c.setAttributes(ctx, path, true, &control.SetAttributes{Mode: &bits}))
}

// Chown sets the owner of what path names; -1 leaves an identity as it is.
func (c *Client) Chown(ctx context.Context, path string, uid, gid int) error {
	return pathError("chown", path, c.setAttributes(ctx, path, true, owner(uid, gid)))
}

// Lchown is Chown that does not follow a symbolic link at the end of path.
func (c *Client) Lchown(ctx context.Context, path string, uid, gid int) error {
	return pathError("lchown", path, c.setAttributes(ctx, path, false, owner(uid, gid)))
}

func owner(uid, gid int) *control.SetAttributes {
	change := new(control.SetAttributes)
	if uid >= 0 {
		u := uint32(uid)
		change.Uid = &u
	}
	if gid >= 0 {
		g := uint32(gid)
		change.Gid = &g
	}
	return change
}

// Chtimes sets the modification time of what path names. There is no access
// time.
func (c *Client) Chtimes(ctx context.Context, path string, modified time.Time) error {
	ns := nanoseconds(modified)
	return pathError("chtimes", path, c.setAttributes(ctx, path, true, &control.SetAttributes{ModifiedNs: &ns}))
}

// Lchtimes is Chtimes that does not follow a symbolic link at the end of path.
func (c *Client) Lchtimes(ctx context.Context, path string, modified time.Time) error {
	ns := nanoseconds(modified)
	return pathError("lchtimes", path, c.setAttributes(ctx, path, false, &control.SetAttributes{ModifiedNs: &ns}))
}

func (c *Client) setAttributes(ctx context.Context, path string, follow bool, change *control.SetAttributes) error {
	var err error
	if change.Node, err = node(path, follow); err != nil {
		return err
	}
	_, err = c.mutate(ctx, &control.Mutation{Change: &control.Mutation_SetAttributes{SetAttributes: change}})
	return err
}

// XattrFlag says what SetXattr demands.
type XattrFlag int

// What SetXattr can demand.
const (
	XattrAny     XattrFlag = iota
	XattrCreate            // the attribute must not exist
	XattrReplace           // the attribute must exist
)

// SetXattr sets an extended attribute of what path names.
func (c *Client) SetXattr(ctx context.Context, path, name string, value []byte, flag XattrFlag) error {
	return pathError("setxattr", path, c.setXattr(ctx, path, &control.SetXattr{
		Name: name, Value: bytes.Clone(value), Create: flag == XattrCreate, Replace: flag == XattrReplace}))
}

// RemoveXattr removes an extended attribute of what path names.
func (c *Client) RemoveXattr(ctx context.Context, path, name string) error {
	return pathError("removexattr", path, c.setXattr(ctx, path, &control.SetXattr{Name: name, Remove: true}))
}

func (c *Client) setXattr(ctx context.Context, path string, change *control.SetXattr) error {
	if !utf8.ValidString(change.Name) { // it could not be sent, nor could what goes in one call with it
		return &remoteError{syscall.EINVAL, fmt.Sprintf("attribute name %q is no UTF-8", change.Name)}
	}
	var err error
	if change.Node, err = node(path, true); err != nil {
		return err
	}
	_, err = c.mutate(ctx, &control.Mutation{Change: &control.Mutation_SetXattr{SetXattr: change}})
	return err
}

// Xattrs returns all extended attributes of what path names.
func (c *Client) Xattrs(ctx context.Context, path string) (map[string][]byte, error) {
	at, err := node(path, true)
	if err != nil {
		return nil, pathError("listxattr", path, err)
	}
	reply, err := call(ctx, c, func(ctx context.Context, s *session) (*control.Xattrs, error) {
		return c.control.GetXattrs(ctx, &control.NodeRequest{Session: s.id, Node: at}, wait)
	})
	return reply.GetValues(), pathError("listxattr", path, err)
}

// Xattr returns one extended attribute of what path names.
func (c *Client) Xattr(ctx context.Context, path, name string) ([]byte, error) {
	all, err := c.Xattrs(ctx, path)
	if err != nil {
		return nil, err
	}
	value, ok := all[name]
	if !ok {
		return nil, pathError("getxattr", path, &remoteError{syscall.ENODATA, name})
	}
	return value, nil
}
