package client

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync/atomic"
	"syscall"

	"golang.org/x/sync/errgroup"

	"waggle/dfs/wire"
	"waggle/dfs/wire/control"
)

// Write writes at the file's position, or with O_APPEND at its end. Small
// writes are gathered; what was written is safe after Sync or Close, and an
// error of one Write may only show there or in the next.
func (f *File) Write(p []byte) (int, error) {
	f.cursor.Lock()
	defer f.cursor.Unlock()
	f.writing.Lock()
	defer f.writing.Unlock()
	n, err := f.write(p)
	f.position += uint64(n)
	return n, f.wrap("write", err)
}

func (f *File) write(p []byte) (int, error) {
	if err := f.toWrite(); err != nil || len(p) == 0 {
		return 0, err
	}
	f.leaveStream()
	if f.appends() {
		return f.writeRecord(p)
	}
	if len(p) >= writePiece {
		if err := f.flush(); err != nil {
			return 0, err
		}
		if err := f.putAndWait(p, f.position); err != nil {
			return 0, err
		}
		return len(p), nil
	}
	for done := 0; done < len(p); {
		n, err := f.gather(p[done:], f.position+uint64(done))
		if err != nil {
			return done, err
		}
		done += n
	}
	return len(p), nil
}

// writeRecord is write for O_APPEND. Small records are gathered.
func (f *File) writeRecord(p []byte) (int, error) {
	if len(p) < writePiece {
		return len(p), f.gatherRecord(p)
	}
	if err := f.flush(); err != nil {
		return 0, err
	}
	if err := f.keep(f.appendRecord(p)); err != nil {
		return 0, err
	}
	f.position -= uint64(len(p)) // where the caller adds it
	return len(p), nil
}

// toWrite says whether the file can be written.
func (f *File) toWrite() error {
	switch {
	case f.closed:
		return fs.ErrClosed
	case !f.writable():
		return &remoteError{syscall.EBADF, "opened for reading only"}
	}
	return f.failed
}

// gather puts bytes for offset into the buffer, which ends at a multiple of its
// size, and sends it when it is full.
func (f *File) gather(p []byte, offset uint64) (int, error) {
	if f.buffer != nil && offset != f.bufferAt+uint64(len(*f.buffer)) {
		if err := f.flush(); err != nil {
			return 0, err
		}
	}
	if f.buffer == nil {
		f.buffer, f.bufferAt = buffers.Get().(*[]byte), offset
	}
	n := min(uint64(len(p)), writePiece-offset%writePiece)
	*f.buffer = append(*f.buffer, p[:n]...)
	f.c.copied.Add(int64(n))
	if (offset+n)%writePiece == 0 {
		return int(n), f.flush()
	}
	return int(n), nil
}

// flush sends what was gathered, without waiting for the acknowledgement.
func (f *File) flush() error {
	if f.buffer == nil {
		return nil
	}
	buffer := f.buffer
	f.buffer = nil
	if f.appends() {
		err := f.appendRecord(*buffer)
		*buffer = (*buffer)[:0]
		buffers.Put(buffer)
		return f.keep(err)
	}
	return f.keep(f.put(*buffer, f.bufferAt, func() {
		*buffer = (*buffer)[:0]
		buffers.Put(buffer)
	}))
}

// keep remembers an error by which writes were lost, so that Close tells it.
func (f *File) keep(err error) error {
	if err != nil && f.failed == nil {
		f.failed = err
	}
	return err
}

// ReadFrom writes all that r has, without copying it inside the process.
func (f *File) ReadFrom(r io.Reader) (read int64, err error) {
	f.cursor.Lock()
	defer f.cursor.Unlock()
	f.writing.Lock()
	defer f.writing.Unlock()
	if err := f.toWrite(); err != nil {
		return 0, f.wrap("write", err)
	}
	f.leaveStream()
	if err := f.flush(); err != nil {
		return 0, f.wrap("write", err)
	}
	for {
		n, err := f.fill(r)
		if f.position += uint64(n); f.appends() && err == nil {
			err = f.flush() // what is read next starts another record
		}
		read += int64(n)
		if err == io.EOF {
			return read, nil
		}
		if err != nil {
			return read, f.wrap("write", err)
		}
	}
}

// fill fills a buffer from r and sends it.
func (f *File) fill(r io.Reader) (int, error) {
	f.buffer, f.bufferAt = buffers.Get().(*[]byte), f.position
	room := writePiece - f.position%writePiece
	if f.appends() {
		room = writePiece
	}
	n, err := readUpTo(r, (*f.buffer)[:room])
	*f.buffer = (*f.buffer)[:n]
	if n == 0 {
		buffers.Put(f.buffer)
		f.buffer = nil
		return 0, err
	}
	if uint64(n) < room {
		return n, err // stays in the buffer: more may follow
	}
	if failed := f.flush(); failed != nil {
		err = failed
	}
	return n, err
}

// readUpTo fills p unless an error comes before. io.ReadFull would make the same of
// a reader's end and of io.ErrUnexpectedEOF, with which a reader says that it was
// cut short.
func readUpTo(r io.Reader, p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var more int
		more, err = r.Read(p[n:])
		n += more
	}
	if n == len(p) {
		err = nil // comes again
	}
	return n, err
}

// WriteAt writes at an offset, and returns when every replica has it.
func (f *File) WriteAt(p []byte, offset int64) (int, error) {
	f.writing.Lock()
	defer f.writing.Unlock()
	if err := f.writeAt(p, offset); err != nil {
		return 0, f.wrap("write", err)
	}
	return len(p), nil
}

func (f *File) writeAt(p []byte, offset int64) error {
	if offset < 0 {
		return &remoteError{syscall.EINVAL, fmt.Sprintf("offset %d", offset)}
	}
	if err := f.toWrite(); err != nil || len(p) == 0 {
		return err
	}
	if f.appends() {
		return &remoteError{syscall.EINVAL, "opened for appending"}
	}
	if err := f.flush(); err != nil {
		return err
	}
	return f.putAndWait(p, uint64(offset))
}

// putAndWait writes p, and does not return before p may be changed.
func (f *File) putAndWait(p []byte, offset uint64) error {
	err := f.put(p, offset, nil)
	for _, s := range spans(p, offset, f.chunkSize) {
		if w := f.chunks[s.index]; w != nil {
			err = errors.Join(err, w.wait(f.ctx))
		}
	}
	return err
}

// put writes p to the inode record if all fits there, else to chunks. Free is
// called when p is not needed any more.
func (f *File) put(p []byte, offset uint64, free func()) error {
	if free == nil {
		free = func() {}
	}
	if !f.chunked && offset+uint64(len(p)) <= wire.MaxInline {
		done, err := f.putInline(p, offset)
		if done || err != nil {
			free()
			return err
		}
	}
	if err := f.toChunks(); err != nil {
		free()
		return err
	}
	return f.putChunks(p, offset, free)
}

// putInline writes to the inode record. Done is false if the file is not small
// any more.
func (f *File) putInline(p []byte, offset uint64) (done bool, err error) {
	f.c.copied.Add(int64(len(p)))
	_, err = f.c.mutate(f.ctx, &control.Mutation{Change: &control.Mutation_WriteInline{WriteInline: &control.WriteInline{
		Node: &control.Node{Start: f.inode}, Offset: offset, Data: append([]byte(nil), p...)}}})
	switch {
	case isErrno(err, syscall.EFBIG):
		return false, nil
	case err != nil:
		return false, err
	case !f.options.Modified.IsZero(): // to be set when the file is closed
		f.unsaid, f.end = true, max(f.end, offset+uint64(len(p)))
	}
	return true, nil
}

// toChunks makes sure that the bytes of a small file are in chunk 0 before
// others are written to chunks.
func (f *File) toChunks() error {
	if f.chunked {
		return nil
	}
	w := f.writer(0)
	if err := w.lease(f.ctx, true); err != nil {
		return err
	}
	at, err := f.c.findInode(f.ctx, f.inode, want{inline: true})
	if err != nil {
		return err
	}
	f.chunked, f.spill, f.end = true, isSmall(&at.Attributes), at.Size
	if !f.spill || at.Size == 0 {
		return nil
	}
	f.unsaid = true
	return w.write(f.ctx, 0, at.inline, nil)
}

// putChunks sends p in pieces to the chunks it lies in. Free is called when all
// of them are acknowledged.
func (f *File) putChunks(p []byte, offset uint64, free func()) error {
	var pieces atomic.Int32
	pieces.Store(1) // until all are sent
	done := func() {
		if pieces.Add(-1) == 0 {
			free()
		}
	}
	defer done()
	for _, s := range spans(p, offset, f.chunkSize) {
		w := f.writer(s.index)
		for len(s.p) > 0 {
			n := min(uint64(len(s.p)), writePiece-s.offset%writePiece)
			pieces.Add(1)
			if err := w.write(f.ctx, s.offset, s.p[:n], done); err != nil {
				return err
			}
			offset += n
			f.unsaid, f.end = true, max(f.end, offset)
			s.p, s.offset = s.p[n:], s.offset+n
		}
		f.leaveBefore(s.index)
	}
	return nil
}

// writer returns the writer of a chunk.
func (f *File) writer(index uint32) *chunkWriter {
	w := f.chunks[index]
	if w == nil {
		w = f.c.writers.get(chunkKey{f.inode, index}, f.chunkSize)
		f.chunks[index] = w
	}
	return w
}

// maxOpenChunks is how many chunks a file keeps leases of.
const maxOpenChunks = 4

// leaveBefore releases the chunk that lies furthest before index, when a file
// that is written from front to back has several.
func (f *File) leaveBefore(index uint32) {
	if len(f.chunks) <= maxOpenChunks {
		return
	}
	furthest := index
	for i := range f.chunks {
		if i != index && (furthest == index || i < furthest) {
			furthest = i
		}
	}
	f.keep(f.leave(furthest))
}

// leave makes what was written to a chunk safe, and releases it.
func (f *File) leave(index uint32) error {
	w := f.chunks[index]
	delete(f.chunks, index)
	err := w.sync(f.ctx)
	if err == nil {
		err = w.wait(f.ctx)
	}
	f.c.writers.put(w)
	return err
}

// say lets everybody know what was written, if there is anything.
func (f *File) say() error {
	f.writing.Lock()
	defer f.writing.Unlock()
	if f.failed != nil {
		return f.failed
	}
	if f.buffer == nil && !f.unsaid {
		return nil
	}
	return f.keep(f.publish(false))
}

// publish waits until all writes are acknowledged, and then tells the metadata
// server the size. With sync it also makes them durable, meanwhile.
func (f *File) publish(sync bool) error {
	if err := f.flush(); err != nil {
		return err
	}
	for _, w := range f.chunks {
		if err := w.wait(f.ctx); err != nil {
			return err
		}
	}
	if !sync || len(f.chunks) == 0 {
		return f.sendSize()
	}
	var group errgroup.Group
	group.Go(f.sendSize)
	for _, w := range f.chunks {
		group.Go(func() error {
			if err := w.sync(f.ctx); err != nil {
				return err
			}
			return w.wait(f.ctx)
		})
	}
	return group.Wait()
}

func (f *File) sendSize() error {
	if !f.unsaid {
		return nil
	}
	change := &control.SetSize{Node: &control.Node{Start: f.inode}, Size: f.end, GrowOnly: true, Spill: f.spill, ModifiedNs: f.options.modifiedNs()}
	_, err := f.c.mutate(f.ctx, &control.Mutation{Change: &control.Mutation_SetSize{SetSize: change}})
	if err == nil {
		f.unsaid, f.spill = false, false
	}
	return err
}

// Flush waits until every replica has what was written, and lets everybody know the
// file's size. Unlike Sync it makes nothing durable.
func (f *File) Flush() error { return f.wrap("flush", f.say()) }

// Sync makes everything durable that was written.
func (f *File) Sync() error {
	f.writing.Lock()
	defer f.writing.Unlock()
	err := f.toWrite()
	if err == nil {
		err = f.keep(f.publish(true))
	}
	return f.wrap("sync", err)
}

// Truncate sets the file's size in bytes. What is added is zeros.
func (f *File) Truncate(size int64) error {
	f.writing.Lock()
	defer f.writing.Unlock()
	err := f.toWrite()
	if err == nil && size < 0 {
		err = &remoteError{syscall.EINVAL, fmt.Sprintf("size %d", size)}
	}
	if err == nil {
		err = f.truncate(uint64(size))
	}
	return f.wrap("truncate", err)
}

func (f *File) truncate(size uint64) error {
	if err := f.keep(f.publish(false)); err != nil {
		return err
	}
	// The metadata server cuts chunks that nobody is writing to.
	for index := range f.chunks {
		if err := f.keep(f.leave(index)); err != nil {
			return err
		}
	}
	f.chunked, f.end = false, 0
	_, err := f.c.mutate(f.ctx, &control.Mutation{Change: &control.Mutation_SetSize{SetSize: &control.SetSize{
		Node: &control.Node{Start: f.inode}, Size: size, ModifiedNs: f.options.modifiedNs()}}})
	if !isErrno(err, syscall.EFBIG) || size <= wire.MaxInline {
		return err
	}
	// A small file becomes too large for its record.
	if err := f.toChunks(); err != nil {
		return err
	}
	f.unsaid, f.end = true, max(f.end, size)
	return f.keep(f.publish(false))
}

// Close makes everything durable that was written, and ends the use of the
// file. Its error is that of any write that was lost.
func (f *File) Close() error {
	f.cursor.Lock()
	defer f.cursor.Unlock()
	f.writing.Lock()
	defer f.writing.Unlock()
	if f.closed {
		return f.wrap("close", fs.ErrClosed)
	}
	f.closed = true
	f.leaveStream()
	err := f.failed
	if err == nil {
		err = f.publish(true)
	}
	if f.buffer != nil {
		buffers.Put(f.buffer)
		f.buffer = nil
	}
	for index, w := range f.chunks {
		f.c.writers.put(w)
		delete(f.chunks, index)
	}
	return f.wrap("close", err)
}

func (f *File) isClosed() bool {
	f.writing.Lock()
	defer f.writing.Unlock()
	return f.closed
}
