package client

import (
	"context"
	"fmt"
	"net"
	"syscall"

	"waggle/dfs/wire"
)

// MaxCarry bounds the bytes of one Carry. Each replica passes them on when it has
// them all, so less keeps a chain busier, and more takes fewer calls.
const MaxCarry = 512 << 10

// Load is bytes that are to be written to a file and are not in this process's
// memory, such as those in another connection's receive queue. All of its
// methods are called from within methods of the file.
type Load interface {
	// Deliver puts exactly the load's bytes onto a connection to a chunk server. It
	// is called at most once.
	Deliver(to *net.TCPConn) error
	// Delivered is called when all replicas have the load, with the CRC32C of each
	// piece that the blocks of the chunk cut it into, 4 bytes each.
	Delivered(sums []byte)
}

// CarryRoom is how many bytes one Carry at the file's position can take.
func (f *File) CarryRoom() int64 {
	f.cursor.Lock()
	defer f.cursor.Unlock()
	return int64(min(MaxCarry, uint64(f.chunkSize)-f.position%uint64(f.chunkSize)))
}

// Carry writes n bytes, from 1 to CarryRoom, at the file's position, for a
// caller that moves them itself. It returns before they are acknowledged.
//
// The first chunk server computes the checksums, so whoever wants to know that
// the right bytes were stored compares those that Delivered gets. The bytes
// can't be sent again: when a chunk server fails, what is on its way is lost
// (ErrUnavailable), and the file is of no more use.
func (f *File) Carry(n int64, load Load) error {
	f.cursor.Lock()
	defer f.cursor.Unlock()
	f.writing.Lock()
	defer f.writing.Unlock()
	err := f.carry(n, load)
	return f.wrap("write", err)
}

func (f *File) carry(n int64, load Load) error {
	if err := f.toWrite(); err != nil {
		return err
	}
	index, offset := f.position/uint64(f.chunkSize), f.position%uint64(f.chunkSize)
	if n <= 0 || n > MaxCarry || offset+uint64(n) > uint64(f.chunkSize) {
		return &remoteError{syscall.EINVAL, fmt.Sprintf("carry %d bytes to %d of a chunk of %d", n, offset, f.chunkSize)}
	}
	f.leaveStream()
	if err := f.flush(); err != nil {
		return err
	}
	if err := f.toChunks(); err != nil {
		return f.keep(err)
	}
	if err := f.writer(uint32(index)).carry(f.ctx, offset, uint32(n), load); err != nil {
		return f.keep(err)
	}
	f.position += uint64(n)
	f.unsaid, f.end = true, max(f.end, f.position)
	f.leaveBefore(uint32(index))
	return nil
}

// carry is write for bytes that are elsewhere.
func (w *chunkWriter) carry(ctx context.Context, offset uint64, n uint32, load Load) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.open(ctx); err != nil {
		return err
	}
	f := &sentFrame{cargo: &cargo{load: load}}
	f.frame = wire.Frame{Type: wire.FrameWrite, Flags: wire.FlagUnsummed, Chunk: w.location.Chunk, Offset: offset, Length: n}
	if w.c.options.SyncWrites {
		f.frame.Flags |= wire.FlagSync
	}
	w.dirty = !w.c.options.SyncWrites || w.dirty
	return w.push(ctx, f)
}

// cargo is the load of a frame.
type cargo struct {
	load  Load
	begun bool // it is not where it was any more
}

func (c *cargo) deliver(to *net.TCPConn) error {
	c.begun = true
	return c.load.Deliver(to)
}

func (c *cargo) acknowledge(f *wire.Frame, sums []byte) error {
	if len(sums) != 4*wire.Pieces(f.Offset, f.Length) {
		return fmt.Errorf("%w: %d bytes of checksums of a write of %d bytes at %d", wire.ErrMalformed, len(sums), f.Length, f.Offset)
	}
	c.load.Delivered(sums)
	return nil
}

// underWay says whether something was sent, and not acknowledged, that can't be
// sent again.
func (w *chunkWriter) underWay() bool {
	for _, f := range w.sent {
		if f.cargo != nil && f.cargo.begun {
			return true
		}
	}
	return false
}
