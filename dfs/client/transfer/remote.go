package transfer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"time"

	"waggle/dfs/client"
	"waggle/dfs/wire"
)

// cleanTime bounds the removal of a partial file after the copy was cancelled.
const cleanTime = 5 * time.Second

// remote is the file system of a client.
type remote struct{ c *client.Client }

func (r *remote) stat(ctx context.Context, path string) (entry, error) {
	info, err := r.c.Lstat(ctx, path)
	if err != nil {
		return entry{}, err
	}
	e := remoteEntry(info)
	if e.mode&fs.ModeSymlink != 0 {
		e.target, err = r.c.Readlink(ctx, path)
	}
	return e, err
}

func remoteEntry(info *client.Info) entry {
	a := info.Attributes()
	return entry{name: info.Name(), mode: info.Mode(), size: info.Size(), modified: info.ModTime(), changed: time.Unix(0, a.ChangedNs),
		grain: time.Nanosecond, file: fileID{inode: a.Inode}, links: uint64(a.Links)}
}

func (r *remote) list(ctx context.Context, path string) iter.Seq2[entry, error] {
	return func(yield func(entry, error) bool) {
		for d, err := range r.c.Entries(ctx, path) {
			if err != nil {
				yield(entry{}, err)
				return
			}
			e := remoteEntry(d.Stat())
			e.target = d.Target()
			// The name becomes part of a local path.
			if err := wire.CheckName([]byte(d.Name())); err != nil {
				e = entry{name: d.Name(), err: fmt.Errorf("directory %s has an entry that can't be: %w", path, err)}
			}
			if !yield(e, nil) {
				return
			}
		}
	}
}

func (r *remote) open(ctx context.Context, path string, _ entry) (content, error) {
	f, err := r.c.Open(ctx, path)
	if err != nil {
		return content{}, err
	}
	return content{Reader: f, Closer: f}, nil
}

func (r *remote) mkdir(ctx context.Context, path string) error { return r.c.Mkdir(ctx, path, 0o700) }

func (r *remote) remove(ctx context.Context, path string) error {
	return unlessMissing(r.c.Remove(ctx, path))
}

// write makes a small file with one call, and others under a temporary name.
func (r *remote) write(ctx context.Context, j job, from content) (int64, error) {
	if j.entry.size > wire.MaxInline || j.instead() {
		return r.writeNew(ctx, j.to, j.entry, from)
	}
	start, err := io.ReadAll(io.LimitReader(from, wire.MaxInline+1))
	if err != nil {
		return 0, err
	}
	if len(start) > wire.MaxInline { // it has grown meanwhile
		from.Reader, from.nextData = io.MultiReader(bytes.NewReader(start), from.Reader), nil
		return r.writeNew(ctx, j.to, j.entry, from)
	}
	if err := r.c.WriteFileWith(ctx, j.to, start, fileOptions(j.entry)); err != nil {
		return 0, err
	}
	return int64(len(start)), r.finish(ctx, j.to, j.entry)
}

// fileOptions allow the owner to write, for as long as the copy takes.
func fileOptions(e entry) client.FileOptions {
	return client.FileOptions{Mode: e.mode | 0o200, Modified: e.modified}
}

// finish takes away the permission to write that was given for the copy.
func (r *remote) finish(ctx context.Context, path string, e entry) error {
	if e.mode&0o200 != 0 {
		return nil
	}
	return r.c.Chmod(ctx, path, e.mode)
}

// writeNew makes a file under a temporary name, and gives it its name when it is
// complete.
func (r *remote) writeNew(ctx context.Context, path string, e entry, from content) (n int64, err error) {
	err = r.replace(ctx, path, func(partial string) error {
		if n, err = r.writePartial(ctx, partial, e, from); err != nil {
			return err
		}
		return r.finish(ctx, partial, e)
	})
	return n, err
}

// replace has a file or link made under a temporary name, and gives it the name
// that it is to have.
func (r *remote) replace(ctx context.Context, path string, make func(partial string) error) error {
	partial := partialName(path)
	err := make(partial)
	if err == nil {
		err = r.c.Rename(ctx, partial, path)
	}
	if err != nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanTime)
		defer cancel()
		client.AwaitLeft(ctx, err) // a name that is still being made can't be removed
		err = errors.Join(err, r.remove(ctx, partial))
	}
	return err
}

func (r *remote) writePartial(ctx context.Context, path string, e entry, from content) (int64, error) {
	f, err := r.c.OpenFile(ctx, path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, fileOptions(e))
	if err != nil {
		return 0, err
	}
	n, err := writeAll(f, e, from)
	if closed := f.Close(); err == nil { // otherwise Close repeats the error
		err = closed
	}
	return n, err
}

// writeAll writes what from holds to an empty file, but for its holes.
func writeAll(f *client.File, e entry, from content) (written int64, err error) {
	if from.nextData == nil {
		return f.ReadFrom(from)
	}
	at := int64(0)
	for {
		start, end, err := from.nextData(at)
		if err == io.EOF {
			break
		}
		if err == nil {
			_, err = f.Seek(start, io.SeekStart)
		}
		if err != nil {
			return written, err
		}
		n, err := f.ReadFrom(io.LimitReader(from, end-start))
		if written, at = written+n, end; err != nil {
			return written, err
		}
	}
	if at < e.size {
		return written, f.Truncate(e.size)
	}
	return written, nil
}

func (r *remote) symlink(ctx context.Context, path string, e entry) error {
	return r.replace(ctx, path, func(partial string) error {
		if err := r.c.Symlink(ctx, e.target, partial); err != nil {
			return err
		}
		return r.c.Lchtimes(ctx, partial, e.modified)
	})
}

func (r *remote) link(ctx context.Context, existing, path string) error {
	return r.replace(ctx, path, func(partial string) error { return r.c.Link(ctx, existing, partial) })
}

func (r *remote) chmod(ctx context.Context, path string, mode fs.FileMode) error {
	return r.c.Chmod(ctx, path, mode)
}

func (r *remote) chtimes(ctx context.Context, path string, modified time.Time) error {
	return r.c.Chtimes(ctx, path, modified)
}

func (r *remote) kept(_ string, modified time.Time) time.Time { return client.ClampTime(modified) }
