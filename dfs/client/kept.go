package client

import (
	"fmt"
	"slices"
	"sync/atomic"

	"waggle/dfs/weaken"
	"waggle/dfs/wire"
	"waggle/dfs/wire/control"
)

// The one invariant of a writer: what was acknowledged to it is still there, or it
// says so. A chunk writer remembers what was acknowledged and is not durable yet,
// over the end of leases and sessions, and compares that with each lease that it
// gets: all that a lease begins with is durable on all of its replicas.

// maxUnsynced is how many ranges are told apart; after that neighbours, in the order
// in which they were written, become one.
const maxUnsynced = 1024

// acknowledged is what a chunk writer was told.
type acknowledged struct {
	chunk    uint64        // that it is about; another one has taken the place of a chunk that was truncated or removed
	holder   atomic.Uint64 // session that had the lease last; 0 if it was given back
	writer   uint64        // session under which all of it was written
	last     uint64        // sequence of the last acknowledged write, or of what the lease began with
	synced   uint64        // everything up to this sequence is durable on all replicas
	length   uint64        // bytes of the chunk
	unsynced []ackedRange  // what is behind it, in the order of the sequences
}

// ackedRange is bytes of a chunk up to the write with a sequence.
type ackedRange struct{ sequence, offset, end uint64 }

// note takes an acknowledgement.
func (a *acknowledged) note(f *wire.Frame) {
	if f.Type == wire.FrameSync || f.Flags&wire.FlagSync != 0 {
		a.synced = f.Sequence
		a.unsynced = slices.DeleteFunc(a.unsynced, func(r ackedRange) bool { return r.sequence <= a.synced })
	}
	if f.Type == wire.FrameSync {
		return
	}
	a.last = f.Sequence
	r := ackedRange{f.Sequence, f.Offset, f.Offset + uint64(f.Length)}
	a.length = max(a.length, r.end)
	if f.Flags&wire.FlagSync != 0 {
		return
	}
	if last := len(a.unsynced) - 1; last >= 0 && (a.unsynced[last].end == r.offset || len(a.unsynced) >= maxUnsynced) {
		before := a.unsynced[last]
		a.unsynced[last] = ackedRange{r.sequence, min(before.offset, r.offset), max(before.end, r.end)}
		return
	}
	a.unsynced = append(a.unsynced, r)
}

// compare takes the state that a lease begins with. It fails if something is not
// there that was acknowledged.
func (w *chunkWriter) compare(granted *control.LeaseReply, chunk uint64, under *session) error {
	begins := granted.NextSequence - 1
	known := granted.LastWriter == 0 || granted.LastWriter == w.writer || granted.LastWriter == under.id
	var err error
	switch {
	case weaken.On(weaken.CompareGrant):
	case chunk == w.chunk && granted.LastWriter == wire.WritesLost && len(w.unsynced) > 0:
		err = w.lostFrom(0, "all chunk servers that had them have lost writes")
	case chunk == w.chunk && !known && len(w.unsynced) > 0:
		err = w.lostFrom(0, "another client has written since, so it can't be told whether they were kept")
	case chunk == w.chunk && known && begins < w.last:
		err = w.lostFrom(begins, fmt.Sprintf("the chunk servers have the first %d of %d writes", begins, w.last))
	case !known && len(w.sent) > 0:
		err = ErrLeaseLost
	}
	w.chunk, w.writer = chunk, under.id
	w.holder.Store(under.id)
	w.last, w.synced, w.length, w.unsynced = begins, granted.Synced, granted.Length, nil
	return err
}

// lostFrom returns that all unsynced bytes behind a sequence are lost.
func (w *chunkWriter) lostFrom(kept uint64, reason string) error {
	lost := &LostError{Inode: w.key.inode, reason: reason}
	first, end := ^uint64(0), uint64(0)
	for _, r := range w.unsynced {
		if r.sequence > kept {
			first, end = min(first, r.offset), max(end, r.end)
		}
	}
	if end == 0 { // they had been said to be durable
		first, end = 0, w.length
	}
	lost.Offset, lost.Length = w.start+first, end-first
	return lost
}
