package chunk

import (
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"waggle/dfs/chunk/replica"
	"waggle/dfs/datapath/read/shortcircuit"
	"waggle/dfs/weaken"
	"waggle/dfs/wire/control"
)

// A chunk server serves reads under a lease of the metadata server, which
// heartbeats extend. Without it others may have opened a newer epoch of a chunk
// meanwhile, without the replica here, and readers remember where they found it.
// A single replica is closed to readers by a fence. Writes need neither: replicas
// refuse older epochs, and a write is acknowledged only by all replicas of its
// epoch.

// errNotServing says that another replica must be asked.
var errNotServing = errors.New("this replica must not be read from now")

// servingLease is for how long a server may serve reads, and of which replicas.
type servingLease struct {
	lender *shortcircuit.Server // of replicas that others read by themselves
	until  atomic.Int64         // in shortcircuit.Now's time, in nanoseconds

	mu        sync.RWMutex
	fences    map[uint64]uint64 // by chunk: the epoch that a replica must have
	confirmed uint64            // number of the last fence
}

// forever is a lease that does not lapse: that of a server that has no metadata
// server.
const forever = math.MaxInt64

// lasts says whether the lease has not lapsed.
func (l *servingLease) lasts() bool { return shortcircuit.Now() < l.until.Load() }

// end gives up the lease.
func (l *servingLease) end() { l.set(0) }

func (l *servingLease) set(until int64) {
	l.until.Store(until)
	l.lender.LendUntil(until)
}

// close gives up the lease, of a server that is about to register. Fences stay.
func (l *servingLease) close() {
	if !weaken.On(weaken.ReportBeforeServing) {
		l.end()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.confirmed = 0 // another metadata server counts anew
}

// begin starts a lease after close, when the report, sent at a time, was answered
// with these fences.
func (l *servingLease) begin(sent int64, term time.Duration, fences []*control.Fence) {
	l.putUp(fences)
	l.set(sent + int64(term))
}

// extend extends a lease that lasts. It says whether it did; a server whose lease
// has lapsed must report its replicas before it serves again.
func (l *servingLease) extend(sent int64, term time.Duration, fences []*control.Fence) bool {
	l.putUp(fences)
	if !l.lasts() {
		return false
	}
	l.set(sent + int64(term))
	return true
}

func (l *servingLease) putUp(fences []*control.Fence) {
	if len(fences) == 0 {
		return
	}
	l.mu.Lock()
	for _, f := range fences {
		l.fences[f.Chunk] = max(l.fences[f.Chunk], f.Epoch)
		l.confirmed = max(l.confirmed, f.Number)
	}
	l.mu.Unlock()
	l.lender.TakeAllBack() // clients ask again for those that they may read
}

// forget is called when replicas were deleted.
func (l *servingLease) forget(chunks []uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, chunk := range chunks {
		delete(l.fences, chunk)
	}
}

func (l *servingLease) lastFence() uint64 {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.confirmed
}

// isFenced says whether a replica is closed to readers.
func (l *servingLease) isFenced(state replica.State) bool {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return state.Epoch < l.fences[state.Chunk]
}

// admits says whether a replica may be read from.
func (l *servingLease) admits(state replica.State) error {
	if !l.lasts() && !weaken.On(weaken.ServeUnderLease) {
		return fmt.Errorf("%w: this chunk server is out of touch with the metadata server", errNotServing)
	}
	if l.isFenced(state) && !weaken.On(weaken.FenceLeftBehind) {
		return fmt.Errorf("%w: epoch %d of chunk %d was left behind", errNotServing, state.Epoch, state.Chunk)
	}
	return nil
}
