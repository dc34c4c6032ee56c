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
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// bufferSize is for what can't be received where it is needed.
const bufferSize = 1 << 20

// local is this machine's file system.
type local struct{}

func newLocal() local { return local{} }

func (local) stat(_ context.Context, path string) (entry, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return entry{}, err
	}
	return localEntry(path, info)
}

func localEntry(path string, info fs.FileInfo) (entry, error) {
	e := entry{name: info.Name(), mode: info.Mode(), size: info.Size(), modified: info.ModTime()}
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		e.file, e.links = fileID{uint64(s.Dev), s.Ino}, uint64(s.Nlink)
		e.changed = time.Unix(s.Ctim.Unix())
		e.grain = grainOf(path, e.modified, e.changed)
	}
	var err error
	if e.mode&fs.ModeSymlink != 0 {
		e.target, err = os.Readlink(path)
	}
	return e, err
}

func (local) list(_ context.Context, path string) iter.Seq2[entry, error] {
	return func(yield func(entry, error) bool) {
		entries, err := os.ReadDir(path)
		for _, d := range entries {
			var e entry
			info, err := d.Info()
			if err == nil {
				e, err = localEntry(path+"/"+d.Name(), info)
			}
			if errors.Is(err, fs.ErrNotExist) {
				continue // removed since
			}
			if e.err = err; err != nil {
				e.name = d.Name()
			}
			if !yield(e, nil) {
				return
			}
		}
		if err != nil {
			yield(entry{}, err)
		}
	}
}

// open opens a file. What has taken its place since it was found is not followed
// or waited for.
func (local) open(_ context.Context, path string, e entry) (content, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return content{}, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("copy %s: it is no file any more", path)
	}
	if err != nil {
		f.Close()
		return content{}, err
	}
	c := content{Reader: f, Closer: f}
	if s, ok := info.Sys().(*syscall.Stat_t); ok && s.Blocks*statBlock < info.Size() {
		c.nextData = func(offset int64) (start, end int64, err error) { return nextData(f, offset) }
	}
	return c, nil
}

// statBlock is the unit of stat(2)'s count of blocks, whatever the file system.
const statBlock = 512

// nextData finds the next bytes of a file that are no hole, and goes there.
func nextData(f *os.File, offset int64) (start, end int64, err error) {
	start, err = f.Seek(offset, unix.SEEK_DATA)
	if errors.Is(err, unix.ENXIO) {
		return 0, 0, io.EOF
	}
	if err == nil {
		end, err = f.Seek(start, unix.SEEK_HOLE)
	}
	if err == nil {
		_, err = f.Seek(start, io.SeekStart)
	}
	return start, end, err
}

func (local) mkdir(_ context.Context, path string) error { return os.Mkdir(path, 0o700) }

func (local) remove(_ context.Context, path string) error { return unlessMissing(os.Remove(path)) }

// unlessMissing returns err, but none if it says that there was nothing.
func unlessMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func (local) write(_ context.Context, j job, from content) (int64, error) {
	var n int64
	err := replace(j.to, func(partial string) error {
		f, err := os.OpenFile(partial, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return err
		}
		n, err = copySparse(f, from, j.entry.size)
		if err == nil {
			err = f.Chmod(j.entry.mode)
		}
		if closed := f.Close(); err == nil {
			err = closed
		}
		if err != nil {
			return err
		}
		return os.Chtimes(partial, time.Time{}, j.entry.modified)
	})
	return n, err
}

// replace has a file or link made under a temporary name, and gives it the name
// that it is to have.
func replace(path string, make func(partial string) error) error {
	partial := partialName(path)
	err := make(partial)
	if err == nil {
		err = os.Rename(partial, path)
	}
	if err != nil {
		err = errors.Join(err, unlessMissing(os.Remove(partial)))
	}
	return err
}

// copySparse copies all that r has to an empty file, and leaves holes for zeros.
// It returns how many bytes it has written.
func copySparse(f *os.File, r io.Reader, size int64) (int64, error) {
	w := &sparseWriter{file: f}
	if _, err := io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{r}, make([]byte, min(bufferSize, max(size, 1)))); err != nil {
		return w.written, err
	}
	if w.hole {
		return w.written, f.Truncate(w.offset)
	}
	return w.written, nil
}

// holeSize is the least that is left out of a file: a block of most file systems.
const holeSize = 4096

var zeros [holeSize]byte

// sparseWriter writes to a file from its beginning, but for blocks of zeros.
type sparseWriter struct {
	file    *os.File
	offset  int64
	written int64
	hole    bool // the last bytes were left out
}

func (w *sparseWriter) Write(p []byte) (int, error) {
	done := 0
	for done < len(p) {
		n, hole := w.span(p[done:])
		if !hole {
			m, err := w.file.WriteAt(p[done:done+n], w.offset)
			w.written += int64(m)
			if err != nil {
				return done + m, err
			}
		}
		w.hole = hole
		done, w.offset = done+n, w.offset+int64(n)
	}
	return done, nil
}

// span returns how many of the next bytes are all to be written, or all to be
// left out.
func (w *sparseWriter) span(p []byte) (n int, hole bool) {
	for n < len(p) {
		block := p[n:min(len(p), n+holeSize-int(w.offset+int64(n))%holeSize)]
		empty := len(block) == holeSize && bytes.Equal(block, zeros[:])
		if n > 0 && empty != hole {
			break
		}
		n, hole = n+len(block), empty
	}
	return n, hole
}

func (local) symlink(_ context.Context, path string, e entry) error {
	return replace(path, func(partial string) error {
		if err := os.Symlink(e.target, partial); err != nil {
			return err
		}
		at := unix.NsecToTimespec(e.modified.UnixNano())
		if err := unix.UtimesNanoAt(unix.AT_FDCWD, partial, []unix.Timespec{at, at}, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return fmt.Errorf("set the time of symbolic link %s: %w", path, err)
		}
		return nil
	})
}

func (local) link(_ context.Context, existing, path string) error {
	return replace(path, func(partial string) error { return os.Link(existing, partial) })
}

// allowsNoName says whether a file can't have one more name there.
func allowsNoName(err error) bool {
	for _, errno := range []error{unix.EMLINK, unix.EXDEV, unix.EPERM, unix.EOPNOTSUPP} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

func (local) chmod(_ context.Context, path string, mode fs.FileMode) error {
	return os.Chmod(path, mode)
}

func (local) chtimes(_ context.Context, path string, modified time.Time) error {
	return os.Chtimes(path, time.Time{}, modified)
}

// kept tries it out on a file that is removed again.
func (local) kept(path string, modified time.Time) time.Time {
	partial := partialName(path)
	f, err := os.OpenFile(partial, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return modified
	}
	defer os.Remove(partial)
	defer f.Close()
	if err := os.Chtimes(partial, time.Time{}, modified); err != nil {
		return modified
	}
	info, err := f.Stat()
	if err != nil {
		return modified
	}
	return info.ModTime()
}
