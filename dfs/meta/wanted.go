package meta

import (
	"context"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// wanted are the leases that somebody waits for. Those who want one wait in a
// queue, so that a writer who comes back at once does not always win.
type wanted struct {
	queue placeLocks

	mu     sync.Mutex
	freed  map[place]chan struct{} // closed when the lease may be free
	inodes map[uint64]int          // how many wait for one of its chunks
}

// want is a lease that somebody waits for, until forget is called.
type want struct {
	wanted *wanted
	place  place
	freed  chan struct{}
}

func (w *wanted) want(p place) *want {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.freed == nil {
		w.freed, w.inodes = make(map[place]chan struct{}), make(map[uint64]int)
	}
	freed := make(chan struct{}) // the queue's first is the only one who waits here
	w.freed[p] = freed
	w.inodes[p.inode]++
	return &want{w, p, freed}
}

func (w *want) forget() {
	w.wanted.mu.Lock()
	defer w.wanted.mu.Unlock()
	if w.wanted.freed[w.place] == w.freed {
		delete(w.wanted.freed, w.place)
	}
	if w.wanted.inodes[w.place.inode]--; w.wanted.inodes[w.place.inode] == 0 {
		delete(w.wanted.inodes, w.place.inode)
	}
}

// lookAgain is how often a lease is looked at that nobody has said to be free:
// sessions end, and leases lapse.
const lookAgain = 200 * time.Millisecond

// wait waits until the lease may be free.
func (w *want) wait(ctx context.Context, end time.Time) {
	timer := time.NewTimer(min(lookAgain, time.Until(end)))
	defer timer.Stop()
	select {
	case <-w.freed:
	case <-timer.C:
	case <-ctx.Done():
	}
}

// free tells who waits for a lease.
func (w *wanted) free(p place) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if freed := w.freed[p]; freed != nil {
		close(freed)
		delete(w.freed, p)
	}
}

// isWanted says whether somebody waits for a lease of one of an inode's chunks.
func (w *wanted) isWanted(inode uint64) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.inodes[inode] > 0
}

func busy(p place) error {
	return refusal(codes.Unavailable, "EBUSY: chunk %d of inode %d is being written by another session", p.index, p.inode)
}

func isBusy(err error) bool {
	return status.Code(err) == codes.Unavailable && strings.HasPrefix(status.Convert(err).Message(), "EBUSY:")
}
