package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"waggle/dfs/client"
	"waggle/dfs/wire"
)

// cleanTime bounds the removal of a partial file after the copy was cancelled.
const cleanTime = 5 * time.Second

// bufferSize is for what can't be received where it is needed.
const bufferSize = 1 << 20

// countingReader counts what is read.
type countingReader struct {
	io.Reader
	count *atomic.Int64
}

func (r *countingReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	r.count.Add(int64(n))
	return n, err
}

// local is this machine's file system.
type local struct{}

func (local) stat(_ context.Context, path string) (entry, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return entry{}, err
	}
	return localEntry(path, info)
}

func localEntry(path string, info fs.FileInfo) (entry, error) {
	e := entry{name: info.Name(), mode: info.Mode(), size: info.Size(), modified: info.ModTime()}
	var err error
	if e.mode&fs.ModeSymlink != 0 {
		e.target, err = os.Readlink(path)
	}
	return e, err
}

func (local) list(_ context.Context, path string) iter.Seq2[entry, error] {
	return func(yield func(entry, error) bool) {
		entries, err := os.ReadDir(path)
		if err != nil {
			yield(entry{}, err)
			return
		}
		for _, d := range entries {
			var e entry
			info, err := d.Info()
			if errors.Is(err, fs.ErrNotExist) {
				continue // removed since
			}
			if err == nil {
				e, err = localEntry(path+"/"+d.Name(), info)
			}
			if !yield(e, err) || err != nil {
				return
			}
		}
	}
}

func (local) open(_ context.Context, path string) (io.ReadCloser, error) { return os.Open(path) }

func (local) mkdir(_ context.Context, path string) error { return os.Mkdir(path, 0o700) }

func (local) remove(_ context.Context, path string) error { return unlessMissing(os.Remove(path)) }

// unlessMissing returns err, but none if it says that there was nothing.
func unlessMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func (local) write(_ context.Context, path string, e entry, r io.Reader) (n int64, err error) {
	partial := partialName(path)
	f, err := os.OpenFile(partial, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return 0, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(partial))
		}
	}()
	n, err = io.CopyBuffer(struct{ io.Writer }{f}, r, make([]byte, min(bufferSize, max(e.size, 1))))
	if err := errors.Join(err, f.Chmod(e.mode), f.Close()); err != nil {
		return n, err
	}
	if err := os.Chtimes(partial, time.Time{}, e.modified); err != nil {
		return n, err
	}
	return n, os.Rename(partial, path)
}

func (local) symlink(_ context.Context, path string, e entry) error {
	if err := os.Symlink(e.target, path); err != nil {
		return err
	}
	at := unix.NsecToTimespec(e.modified.UnixNano())
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{at, at}, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("set the time of symbolic link %s: %w", path, err)
	}
	return nil
}

func (local) chmod(_ context.Context, path string, mode fs.FileMode) error {
	return os.Chmod(path, mode)
}

func (local) chtimes(_ context.Context, path string, modified time.Time) error {
	return os.Chtimes(path, time.Time{}, modified)
}

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
	return entry{name: info.Name(), mode: info.Mode(), size: info.Size(), modified: info.ModTime()}
}

func (r *remote) list(ctx context.Context, path string) iter.Seq2[entry, error] {
	return func(yield func(entry, error) bool) {
		for d, err := range r.c.Entries(ctx, path) {
			if err != nil {
				yield(entry{}, err)
				return
			}
			// The name becomes part of a local path.
			if err := wire.CheckName([]byte(d.Name())); err != nil {
				yield(entry{}, fmt.Errorf("directory %s has an entry that can't be: %w", path, err))
				return
			}
			e := remoteEntry(d.Stat())
			e.target = d.Target()
			if !yield(e, nil) {
				return
			}
		}
	}
}

func (r *remote) open(ctx context.Context, path string) (io.ReadCloser, error) {
	f, err := r.c.Open(ctx, path)
	if err != nil {
		return nil, err
	}
	return f, nil
}

func (r *remote) mkdir(ctx context.Context, path string) error { return r.c.Mkdir(ctx, path, 0o700) }

func (r *remote) remove(ctx context.Context, path string) error {
	return unlessMissing(r.c.Remove(ctx, path))
}

// write makes a small file with one call.
func (r *remote) write(ctx context.Context, path string, e entry, from io.Reader) (int64, error) {
	options := client.FileOptions{Mode: e.mode | 0o200, Modified: e.modified}
	if e.size <= wire.MaxInline {
		content, err := io.ReadAll(io.LimitReader(from, wire.MaxInline+1))
		if err != nil {
			return 0, err
		}
		if len(content) <= wire.MaxInline {
			err = r.c.WriteFileWith(ctx, path, content, options)
			return int64(len(content)), errors.Join(err, r.finish(ctx, path, e, err))
		}
		return 0, fmt.Errorf("%s grew while it was copied: copy it again", e.name)
	}
	partial := partialName(path)
	n, err := r.writePartial(ctx, partial, options, from)
	if err == nil {
		err = r.finish(ctx, partial, e, nil)
	}
	if err == nil {
		err = r.c.Rename(ctx, partial, path)
	}
	if err != nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanTime)
		defer cancel()
		err = errors.Join(err, r.remove(ctx, partial))
	}
	return n, err
}

// finish takes away the permission to write that was given for the copy.
func (r *remote) finish(ctx context.Context, path string, e entry, err error) error {
	if err != nil || e.mode&0o200 != 0 {
		return nil
	}
	return r.c.Chmod(ctx, path, e.mode)
}

func (r *remote) writePartial(ctx context.Context, path string, options client.FileOptions, from io.Reader) (int64, error) {
	f, err := r.c.OpenFile(ctx, path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, options)
	if err != nil {
		return 0, err
	}
	n, err := f.ReadFrom(from)
	return n, errors.Join(err, f.Close())
}

func (r *remote) symlink(ctx context.Context, path string, e entry) error {
	if err := r.c.Symlink(ctx, e.target, path); err != nil {
		return err
	}
	return r.c.Lchtimes(ctx, path, e.modified)
}

func (r *remote) chmod(ctx context.Context, path string, mode fs.FileMode) error {
	return r.c.Chmod(ctx, path, mode)
}

func (r *remote) chtimes(ctx context.Context, path string, modified time.Time) error {
	return r.c.Chtimes(ctx, path, modified)
}
