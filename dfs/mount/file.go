package mount

import (
	"context"
	"errors"
	"io"
	stdfs "io/fs"
	"iter"
	"strings"
	"sync"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"waggle/dfs/client"
)

// handle is an open file.
type handle struct {
	mount *Mount
	file  *client.File
	flags uint32
	node  *node
}

// opened notes whose file the handle is.
func (h *handle) opened(n *node) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.handles++
	h.node = n
}

// kept are the flags of an open that mean something to the file system. The kernel
// has carried out the others.
const kept = syscall.O_ACCMODE | syscall.O_APPEND | syscall.O_TRUNC | syscall.O_CREAT | syscall.O_EXCL

func (m *Mount) open(path string, flags uint32, mode stdfs.FileMode) (*handle, error) {
	f, err := m.config.Client.OpenFile(m.background, path, int(flags&kept), client.FileOptions{Mode: mode})
	if err != nil {
		return nil, err
	}
	return &handle{mount: m, file: f, flags: flags}, nil
}

func (h *handle) writable() bool { return h.flags&syscall.O_ACCMODE != syscall.O_RDONLY }

// Read implements fs.FileReader.
func (h *handle) Read(_ context.Context, into []byte, offset int64) (fuse.ReadResult, syscall.Errno) {
	n, err := h.file.ReadAt(into, offset)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, errno(err)
	}
	h.mount.counts.read.Add(int64(n))
	return fuse.ReadResultData(into[:n]), 0
}

// Write implements fs.FileWriter. Every replica has the bytes when it returns. A
// file that is appended to finds its end itself, since others may append, too.
func (h *handle) Write(_ context.Context, data []byte, offset int64) (uint32, syscall.Errno) {
	var n int
	var err error
	if h.flags&syscall.O_APPEND != 0 {
		if n, err = h.file.Write(data); err == nil {
			err = h.file.Flush()
		}
	} else {
		n, err = h.file.WriteAt(data, offset)
	}
	h.mount.counts.written.Add(int64(n))
	return uint32(n), errno(err)
}

// Flush implements fs.FileFlusher: it is called for each close, and its error is
// what close returns.
func (h *handle) Flush(context.Context) syscall.Errno { return h.sync() }

// Fsync implements fs.FileFsyncer.
func (h *handle) Fsync(context.Context, uint32) syscall.Errno { return h.sync() }

func (h *handle) sync() syscall.Errno {
	if !h.writable() {
		return 0
	}
	return errno(h.file.Sync())
}

// Release implements fs.FileReleaser: nobody hears its error, but Flush has said
// what there was to say.
func (h *handle) Release(context.Context) syscall.Errno {
	err := h.file.Close()
	if h.node != nil {
		err = errors.Join(err, h.node.closed())
	}
	return errno(err)
}

// Allocate implements fs.FileAllocater. Space is not reserved: only the size
// follows. Holes can't be punched.
func (h *handle) Allocate(_ context.Context, offset, size uint64, mode uint32) syscall.Errno {
	switch mode {
	case unix.FALLOC_FL_KEEP_SIZE:
		return 0
	case 0:
	default:
		return syscall.EOPNOTSUPP
	}
	info, err := h.file.Stat()
	if err == nil && uint64(info.Size()) < offset+size {
		err = h.file.Truncate(int64(offset + size))
	}
	return errno(err)
}

// Lseek implements fs.FileLseeker. Where holes are is not known: all is data up to
// the end, behind which the one hole begins, as POSIX allows.
func (h *handle) Lseek(_ context.Context, offset uint64, whence uint32) (uint64, syscall.Errno) {
	info, err := h.file.Stat()
	switch {
	case err != nil:
		return 0, errno(err)
	case offset >= uint64(info.Size()):
		return 0, syscall.ENXIO
	case whence == unix.SEEK_HOLE:
		return uint64(info.Size()), 0
	case whence == unix.SEEK_DATA:
		return offset, 0
	}
	return 0, syscall.EINVAL
}

// entries is a directory as it is read.
type entries struct {
	mu   sync.Mutex
	next func() (*client.Entry, error, bool)
	stop func()
	// ahead is the entry that HasNext has found.
	ahead *client.Entry
	err   error
}

func newEntries(all iter.Seq2[*client.Entry, error]) *entries {
	e := &entries{}
	e.next, e.stop = iter.Pull2(all)
	return e
}

var _ fs.DirStream = (*entries)(nil)

// HasNext implements fs.DirStream.
func (e *entries) HasNext() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.ahead == nil && e.err == nil {
		entry, err, ok := e.next()
		for ok && err == nil && strings.HasPrefix(entry.Name(), hiddenPrefix) {
			entry, err, ok = e.next()
		}
		if ok {
			e.ahead, e.err = entry, err
		}
	}
	return e.ahead != nil || e.err != nil
}

// Next implements fs.DirStream.
func (e *entries) Next() (fuse.DirEntry, syscall.Errno) {
	if !e.HasNext() {
		return fuse.DirEntry{}, 0
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.err != nil {
		return fuse.DirEntry{}, errno(e.err)
	}
	a := e.ahead.Stat().Attributes()
	found := fuse.DirEntry{Name: e.ahead.Name(), Mode: a.Mode, Ino: a.Inode}
	e.ahead = nil
	return found, 0
}

// Close implements fs.DirStream.
func (e *entries) Close() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.stop()
}
