package client

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"syscall"
	"time"

	"waggle/dfs/wire"
	"waggle/dfs/wire/control"
)

const (
	// cacheTime is for how long an open file believes what it knows.
	cacheTime = time.Second
	// maxLocations bounds the chunks whose location an open file remembers.
	maxLocations = 4096
)

// FileOptions describe a file that is made.
type FileOptions struct {
	Mode fs.FileMode // permission bits
	// Modified is the time of modification that the file has once it is closed;
	// zero: when it was written.
	Modified time.Time
	// ChunkSize (bytes, a power of two from 64 KiB to 64 MiB) and Replication;
	// 0: the client's default.
	ChunkSize, Replication uint32
}

// modifiedNs is Modified as a control call has it; nil if it is not set.
func (o *FileOptions) modifiedNs() *int64 {
	if o.Modified.IsZero() {
		return nil
	}
	ns := nanoseconds(o.Modified)
	return &ns
}

// File is an open file or directory. Its methods are those of os.File, and may
// be used by many goroutines at once. All of them end when the context does
// that it was opened with.
type File struct {
	c         *Client
	ctx       context.Context
	path      string
	flags     int
	options   FileOptions
	inode     uint64
	chunkSize uint32

	mu        sync.Mutex // for what is known of the file
	known     found      // without a location
	knownAt   time.Time  // zero: know nothing
	changes   uint64     // of the client when it was known
	locations map[uint32]wire.Location

	cursor   sync.Mutex // for Read, Write and Seek
	position uint64
	stream   *stream
	entries  []fs.DirEntry // of a directory, still to be read
	listed   bool

	writing  sync.Mutex // for everything that writes
	buffer   *[]byte    // what Write has gathered
	bufferAt uint64
	chunks   map[uint32]*chunkWriter
	chunked  bool   // this file writes to chunks
	spill    bool   // the bytes in the inode record are in chunk 0, too
	end      uint64 // of what was written, for the size
	unsaid   bool   // the metadata server does not know of all writes
	failed   error  // a write was lost
	closed   bool
}

var buffers = sync.Pool{New: func() any { b := make([]byte, 0, writePiece); return &b }}

// Open opens a file or a directory for reading.
func (c *Client) Open(ctx context.Context, path string) (*File, error) {
	return c.OpenFile(ctx, path, os.O_RDONLY, FileOptions{})
}

// Create makes a file, or empties the one there is, and opens it for reading
// and writing.
func (c *Client) Create(ctx context.Context, path string) (*File, error) {
	return c.OpenFile(ctx, path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, FileOptions{Mode: 0o666})
}

// OpenFile opens a file with the flags of package os. Options describe it if it
// is made.
func (c *Client) OpenFile(ctx context.Context, path string, flags int, options FileOptions) (*File, error) {
	f := &File{c: c, ctx: ctx, path: path, flags: flags, options: options}
	if err := f.open(); err != nil {
		return nil, pathError("open", path, err)
	}
	return f, nil
}

func (f *File) open() error {
	asked := time.Now()
	var at found
	var err error
	if f.flags&os.O_CREATE != 0 {
		at.Attributes, err = f.c.create(f.ctx, f.path, f.flags&os.O_EXCL != 0, f.flags&os.O_TRUNC != 0, nil, f.options)
		if at.InlineSize > 0 {
			asked = time.Time{} // its bytes are not known
		}
	} else {
		at, err = f.c.find(f.ctx, f.path, toOpen)
	}
	if err != nil {
		return err
	}
	if isDirectory(at.Mode) && f.writable() {
		return &remoteError{syscall.EISDIR, ""}
	}
	f.begin(&at, asked)
	if f.flags&(os.O_CREATE|os.O_TRUNC) == os.O_TRUNC && f.writable() {
		return f.truncate(0)
	}
	return nil
}

// toOpen is what opening a file looks up: all that is needed to read it, if it
// has one chunk.
var toOpen = want{inline: true, location: true, follow: true}

// begin makes f the open file that was found.
func (f *File) begin(at *found, asked time.Time) {
	f.inode, f.chunkSize = at.Inode, max(at.ChunkSize, wire.MinChunkSize)
	f.chunks = make(map[uint32]*chunkWriter)
	f.learn(at, asked, f.c.changesOf(f.inode))
}

func (f *File) writable() bool { return f.flags&(os.O_WRONLY|os.O_RDWR) != 0 }

// create makes a file. With replace the content of one there is becomes inline.
func (c *Client) create(ctx context.Context, path string, exclusive, replace bool, inline []byte, o FileOptions) (wire.Attributes, error) {
	at, err := node(path, true)
	if err != nil {
		return wire.Attributes{}, err
	}
	change := &control.Create{Node: at, Mode: permissions(o.Mode), Exclusive: exclusive, Replace: replace,
		ChunkSize: orDefault(o.ChunkSize, c.options.ChunkSize), Replication: orDefault(o.Replication, c.options.Replication)}
	if len(inline) > 0 {
		c.copied.Add(int64(len(inline)))
		change.Inline = bytes.Clone(inline) // the caller may go on before it is sent
	}
	change.ModifiedNs = o.modifiedNs()
	return c.mutate(ctx, &control.Mutation{Change: &control.Mutation_Create{Create: change}})
}

// ReadFile returns the content of a file. One of at most 1 KiB comes with its
// lookup.
func (c *Client) ReadFile(ctx context.Context, path string) ([]byte, error) {
	asked := time.Now()
	at, err := c.find(ctx, path, toOpen)
	if err != nil {
		return nil, pathError("open", path, err)
	}
	if isSmall(&at.Attributes) && !isDirectory(at.Mode) {
		return at.inline, nil
	}
	f := &File{c: c, ctx: ctx, path: path}
	f.begin(&at, asked)
	defer f.Close()
	content := make([]byte, f.known.Size)
	n, err := f.ReadAt(content, 0)
	if err == io.EOF { // it has been cut since
		err = nil
	}
	return content[:n], err
}

// WriteFile makes path a file with this content. Content of at most 1 KiB
// replaces a file's atomically; more of it is written to the file.
func (c *Client) WriteFile(ctx context.Context, path string, content []byte, mode fs.FileMode) error {
	return c.WriteFileWith(ctx, path, content, FileOptions{Mode: mode})
}

// WriteFileWith is WriteFile with more options.
func (c *Client) WriteFileWith(ctx context.Context, path string, content []byte, options FileOptions) error {
	if len(content) <= wire.MaxInline {
		_, err := c.create(ctx, path, false, true, content, options)
		return pathError("write", path, err)
	}
	f, err := c.OpenFile(ctx, path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, options)
	if err != nil {
		return err
	}
	if _, err = f.Write(content); err != nil {
		f.Close() // repeats the error
		return err
	}
	return f.Close()
}

// isSmall says whether all bytes of a file are in its inode record.
func isSmall(a *wire.Attributes) bool { return a.Size == uint64(a.InlineSize) }

// learn keeps what a lookup of the file and its first chunk has found, and what
// the time and the client's changes were before.
func (f *File) learn(at *found, asked time.Time, changes uint64) {
	f.known, f.knownAt, f.changes = *at, asked, changes
	f.locations = make(map[uint32]wire.Location)
	if at.location.Chunk != 0 {
		f.locations[0] = at.location
	}
}

func (f *File) fresh() bool {
	return time.Since(f.knownAt) < cacheTime && f.changes == f.c.changesOf(f.inode)
}

// view returns what is known of the file, or asks.
func (f *File) view() (found, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fresh() {
		return f.known, nil
	}
	asked, changes := time.Now(), f.c.changesOf(f.inode)
	at, err := f.c.findInode(f.ctx, f.inode, want{inline: true, location: true})
	if err != nil {
		return found{}, err
	}
	f.learn(&at, asked, changes)
	return f.known, nil
}

// location returns where a chunk is, as it is known or after asking.
func (f *File) location(ctx context.Context, index uint32) (wire.Location, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if l, ok := f.locations[index]; ok && f.fresh() {
		return l, nil
	}
	asked, changes := time.Now(), f.c.changesOf(f.inode)
	at, err := f.c.findInode(ctx, f.inode, want{location: true, index: index})
	if err != nil {
		return wire.Location{}, err
	}
	if !f.fresh() {
		f.locations = make(map[uint32]wire.Location)
		if at.Size != uint64(at.InlineSize) || at.Size == 0 {
			f.known, f.knownAt, f.changes = at, asked, changes
		}
	}
	if len(f.locations) >= maxLocations {
		clear(f.locations)
	}
	if at.location.Chunk != 0 { // another client may fill a hole at any time
		f.locations[index] = at.location
	}
	return at.location, nil
}

// forget drops the location of a chunk that turned out to be wrong.
func (f *File) forget(index uint32) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.locations, index)
}

// Name returns the path that the file was opened with.
func (f *File) Name() string { return f.path }

// Stat describes the file, with what was written so far.
func (f *File) Stat() (fs.FileInfo, error) {
	if err := f.say(); err != nil {
		return nil, f.wrap("stat", err)
	}
	at, err := f.view()
	if err != nil {
		return nil, f.wrap("stat", err)
	}
	return newInfo(f.path, at.Attributes), nil
}

// wrap names the file in an error. io.EOF stays as it is.
func (f *File) wrap(op string, err error) error {
	if err == io.EOF {
		return err
	}
	return pathError(op, f.path, err)
}

// ReadAt reads from an offset. Unlike Read it never reads ahead: it sees all
// writes to chunks that were acknowledged when it was called. Parts of a big
// read are read at once.
func (f *File) ReadAt(p []byte, offset int64) (int, error) {
	n, err := f.readAt(p, offset)
	return n, f.wrap("read", err)
}

func (f *File) readAt(p []byte, offset int64) (int, error) {
	if offset < 0 {
		return 0, &remoteError{syscall.EINVAL, fmt.Sprintf("offset %d", offset)}
	}
	at, err := f.toRead()
	if err != nil || len(p) == 0 {
		return 0, err
	}
	if uint64(offset) >= at.Size {
		return 0, io.EOF
	}
	n := min(uint64(len(p)), at.Size-uint64(offset))
	if isSmall(&at.Attributes) {
		f.c.copied.Add(int64(n))
		copy(p, at.inline[offset:])
	} else if err := f.readRange(f.ctx, p[:n], uint64(offset)); err != nil {
		return 0, err
	}
	if n < uint64(len(p)) {
		return int(n), io.EOF
	}
	return int(n), nil
}

// toRead returns what is known of a file that is to be read now.
func (f *File) toRead() (found, error) {
	switch {
	case f.isClosed():
		return found{}, fs.ErrClosed
	case f.flags&os.O_WRONLY != 0:
		return found{}, &remoteError{syscall.EBADF, "opened for writing only"}
	}
	if err := f.say(); err != nil {
		return found{}, err
	}
	at, err := f.view()
	if err == nil && isDirectory(at.Mode) {
		err = &remoteError{syscall.EISDIR, ""}
	}
	return at, err
}

// Read reads what is next, and ahead of that.
func (f *File) Read(p []byte) (int, error) {
	f.cursor.Lock()
	defer f.cursor.Unlock()
	n, err := f.read(p)
	f.position += uint64(n)
	return n, f.wrap("read", err)
}

func (f *File) read(p []byte) (int, error) {
	at, err := f.toRead()
	if err != nil || len(p) == 0 {
		return 0, err
	}
	if isSmall(&at.Attributes) || f.position >= at.Size {
		f.leaveStream()
		if f.position >= at.Size {
			return 0, io.EOF
		}
		n := copy(p, at.inline[f.position:])
		f.c.copied.Add(int64(n))
		return n, nil
	}
	if f.stream != nil && f.stream.size != at.Size {
		f.leaveStream()
	}
	if !f.c.streams() {
		return f.readNext(p, at.Size)
	}
	if f.stream == nil {
		f.stream = newStream(f, f.position, at.Size, len(p))
	}
	n, err := f.stream.read(f.ctx, p)
	if err == nil {
		return n, nil
	}
	f.leaveStream()
	if n > 0 {
		return n, nil // the next Read finds out what is wrong
	}
	return f.readNext(p, at.Size)
}

// readNext reads what is next without a stream.
func (f *File) readNext(p []byte, size uint64) (int, error) {
	k := min(uint64(len(p)), size-f.position, readAhead)
	if err := f.readRange(f.ctx, p[:k], f.position); err != nil {
		return 0, err // p may hold anything
	}
	return int(k), nil
}

func (f *File) leaveStream() {
	if f.stream != nil {
		f.stream.close()
		f.stream = nil
	}
}

// WriteTo writes the rest of the file to w.
func (f *File) WriteTo(w io.Writer) (written int64, err error) {
	buffer := make([]byte, 1<<20)
	for {
		n, err := f.Read(buffer)
		if n > 0 {
			m, err := w.Write(buffer[:n])
			written += int64(m)
			if err != nil {
				return written, err
			}
		}
		if err == io.EOF {
			return written, nil
		}
		if err != nil {
			return written, err
		}
	}
}

// Seek sets where the next Read or Write begins.
func (f *File) Seek(offset int64, whence int) (int64, error) {
	f.cursor.Lock()
	defer f.cursor.Unlock()
	position, err := f.seek(offset, whence)
	if err != nil {
		return 0, f.wrap("seek", err)
	}
	if uint64(position) != f.position {
		f.leaveStream()
		f.position, f.entries, f.listed = uint64(position), nil, false
	}
	return position, nil
}

func (f *File) seek(offset int64, whence int) (int64, error) {
	if f.isClosed() {
		return 0, fs.ErrClosed
	}
	switch whence {
	case io.SeekStart:
	case io.SeekCurrent:
		offset += int64(f.position)
	case io.SeekEnd:
		info, err := f.Stat()
		if err != nil {
			return 0, err
		}
		offset += info.Size()
	default:
		return 0, &remoteError{syscall.EINVAL, fmt.Sprintf("whence %d", whence)}
	}
	if offset < 0 {
		return 0, &remoteError{syscall.EINVAL, fmt.Sprintf("position %d", offset)}
	}
	return offset, nil
}

// ReadDir returns the next n entries of a directory, all that are left if n is
// not positive, as os.File does.
func (f *File) ReadDir(n int) ([]fs.DirEntry, error) {
	f.cursor.Lock()
	defer f.cursor.Unlock()
	if f.isClosed() {
		return nil, f.wrap("readdir", fs.ErrClosed)
	}
	if !f.listed {
		entries, err := f.c.ReadDir(f.ctx, f.path)
		if err != nil {
			return nil, err
		}
		f.entries, f.listed = entries, true
	}
	if n <= 0 || n > len(f.entries) {
		if n > 0 && len(f.entries) == 0 {
			return nil, io.EOF
		}
		n = len(f.entries)
	}
	next := f.entries[:n:n]
	f.entries = f.entries[n:]
	return next, nil
}
