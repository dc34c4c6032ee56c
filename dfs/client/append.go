package client

import (
	"context"
	"errors"
	"os"
	"syscall"
	"time"

	"waggle/dfs/weaken"
	"waggle/dfs/wire"
	"waggle/dfs/wire/control"
)

// How appending works. A small file takes a record in one mutation. Otherwise
// whoever appends holds the lease of the chunk in which the file ends, writes
// behind the end, and then has the metadata server move the end, which it does only
// if the end is still where the record began. So no two records overlap, whoever
// else writes, and a record is seen whole. The lease is given back soon, at once
// if another client waits for it.

// appendHold is for how long a lease is kept after a record, in case another one
// follows.
const appendHold = 30 * time.Millisecond

// Append writes p at the end of the file of that name, made if there is none, and
// returns where it begins. What others append at the same time stands before it or
// behind. It is durable when Append returns.
func (c *Client) Append(ctx context.Context, path string, p []byte) (offset int64, err error) {
	f, err := c.OpenFile(ctx, path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, FileOptions{Mode: 0o666})
	if err != nil {
		return 0, err
	}
	f.writing.Lock()
	err = f.keep(f.appendRecord(p))
	end := f.position
	f.writing.Unlock()
	return int64(end) - int64(len(p)), errors.Join(f.wrap("append", err), f.Close())
}

func (f *File) appends() bool { return f.flags&os.O_APPEND != 0 }

// gatherRecord keeps a small record until more follow or it is flushed. Records are
// not divided.
func (f *File) gatherRecord(p []byte) error {
	if f.buffer != nil && len(*f.buffer)+len(p) > writePiece {
		if err := f.flush(); err != nil {
			return err
		}
	}
	if f.buffer == nil {
		f.buffer = buffers.Get().(*[]byte)
	}
	*f.buffer = append(*f.buffer, p...)
	f.c.copied.Add(int64(len(p)))
	return nil
}

// appendRecord appends p as a whole. The file's position is behind it then.
func (f *File) appendRecord(p []byte) error {
	tries := newRetry(f.c.options.Patience)
	for len(p) > 0 {
		err := f.tryAppend(p)
		if err == nil || !errors.Is(err, syscall.EAGAIN) {
			return err
		}
		if err := tries.again(f.ctx, err); err != nil {
			return err
		}
	}
	return nil
}

// tryAppend fails with EAGAIN if the file has another end by now.
func (f *File) tryAppend(p []byte) error {
	if !f.chunked && len(p) <= wire.MaxInline {
		at, err := f.appendInline(p)
		if !isErrno(err, syscall.EFBIG) {
			f.position = at.Size
			return err
		}
	}
	end, err := f.leaseEnd()
	if err != nil {
		return err
	}
	unsaid, size := f.unsaid, f.end
	if err := f.putChunks(p, end, func() {}); err != nil {
		return err
	}
	for _, s := range spans(p, end, f.chunkSize) {
		if w := f.chunks[s.index]; w != nil {
			if err := w.wait(f.ctx); err != nil {
				return err
			}
		}
	}
	wanted, err := f.moveEnd(end, end+uint64(len(p)))
	if err != nil {
		f.unsaid, f.end = unsaid, size
		return err
	}
	f.position = end + uint64(len(p))
	return f.holdBriefly(wanted)
}

// appendInline appends to the inode record.
func (f *File) appendInline(p []byte) (wire.Attributes, error) {
	f.c.copied.Add(int64(len(p)))
	at, err := f.c.mutate(f.ctx, &control.Mutation{Change: &control.Mutation_WriteInline{WriteInline: &control.WriteInline{
		Node: &control.Node{Start: f.inode}, Append: true, Data: append([]byte(nil), p...)}}})
	if err == nil && !f.options.Modified.IsZero() { // to be set when the file is closed
		f.unsaid, f.end = true, max(f.end, at.Size)
	}
	return at, err
}

// leaseEnd gets the lease of the chunk in which the file ends, and returns where.
func (f *File) leaseEnd() (uint64, error) {
	if weaken.On(weaken.AppendOnce) {
		return max(f.known.Size, f.end), f.toChunks()
	}
	tries := newRetry(f.c.options.Patience)
	for {
		if err := f.toChunks(); err != nil {
			return 0, err
		}
		before, err := f.c.findInode(f.ctx, f.inode, want{})
		if err != nil {
			return 0, err
		}
		index := uint32(before.Size / uint64(f.chunkSize))
		if err := f.writer(index).lease(f.ctx, false); err != nil {
			return 0, err
		}
		// Nobody else appends from here on.
		now, err := f.c.findInode(f.ctx, f.inode, want{})
		if err != nil || uint32(now.Size/uint64(f.chunkSize)) == index {
			return now.Size, err
		}
		if err := f.leave(index); err != nil {
			return 0, err
		}
		if err := tries.again(f.ctx, errors.New("the file grows faster than it can be appended to")); err != nil {
			return 0, err
		}
	}
}

// moveEnd makes a record a part of the file. Wanted says that another client waits
// for a lease.
func (f *File) moveEnd(from, to uint64) (wanted bool, err error) {
	change := &control.SetSize{Node: &control.Node{Start: f.inode}, Size: to, GrowOnly: true, Spill: f.spill, OnlyFrom: &from,
		ModifiedNs: f.options.modifiedNs()}
	if weaken.On(weaken.AppendOnce) {
		change.OnlyFrom = nil
	}
	result, err := f.c.change(f.ctx, &control.Mutation{Change: &control.Mutation_SetSize{SetSize: change}})
	if err != nil {
		return false, err
	}
	f.unsaid, f.spill = false, false
	return result.Wanted, nil
}

// holdBriefly gives the leases back: now if somebody waits for one, or else soon.
func (f *File) holdBriefly(wanted bool) error {
	for index, w := range f.chunks {
		if !wanted {
			w.releaseAfter(appendHold)
		} else if err := f.leave(index); err != nil {
			return err
		}
	}
	return nil
}

// releaseAfter gives the lease back when nobody has used it for so long.
func (w *chunkWriter) releaseAfter(hold time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.hold = hold; w.timer == nil {
		w.timer = time.AfterFunc(hold, w.releaseIfIdle)
	} else {
		w.timer.Reset(hold)
	}
}

func (w *chunkWriter) releaseIfIdle() {
	if !w.mu.TryLock() {
		return // it is in use; whoever appends sets the timer again, or it is idle long enough
	}
	defer w.mu.Unlock()
	if ctx, cancel := context.WithTimeout(w.c.ctx, lastWords); ctx.Err() == nil {
		defer cancel()
		if w.isIdle() {
			w.release(ctx)
		}
	} else {
		cancel()
	}
}
