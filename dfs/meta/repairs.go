package meta

import (
	"cmp"
	"container/heap"
	"context"
	"slices"
	"sync"
	"time"
)

// How long what has failed waits before it is tried again: twice as long each time.
const (
	minRetry = 500 * time.Millisecond
	maxRetry = 30 * time.Second
)

// retryAfter is how long what has failed so often waits.
func retryAfter(tries int) time.Duration { return min(minRetry<<min(tries, 10), maxRetry) }

// repair is a chunk that waits to be repaired, or is being.
type repair struct {
	place
	// urgency is how many replicas are left: the fewer, the sooner.
	urgency int
	// suspect: its replicas may differ, or be fewer than recorded.
	suspect bool
	// failed are servers that its replica has failed on.
	failed []uint32

	tries   int       // that have failed
	due     time.Time // not before
	order   uint64    // of those as urgent: who came first
	running bool
	again   bool // it was asked for while it was running
	at      int  // in its heap
}

// repairQueue holds the chunks that wait for one kind of repair. Each is in it once.
type repairQueue struct {
	mu      sync.Mutex
	all     map[place]*repair
	ready   repairHeap // may be taken
	later   repairHeap // have failed, and wait
	order   uint64
	running int
	done    uint64
	failed  uint64
	wake    chan struct{} // holds an element when somebody may have to look
}

func newRepairQueue() *repairQueue {
	return &repairQueue{
		all: make(map[place]*repair),
		ready: repairHeap{before: func(a, b *repair) int {
			return cmp.Or(cmp.Compare(a.urgency, b.urgency), cmp.Compare(a.order, b.order))
		}},
		later: repairHeap{before: func(a, b *repair) int { return a.due.Compare(b.due) }},
		wake:  make(chan struct{}, 1),
	}
}

// add adds a repair, or makes the one of its place as urgent. One that waits after a
// failure goes on waiting, unless it has become more urgent.
func (q *repairQueue) add(asked repair) {
	q.mu.Lock()
	defer q.mu.Unlock()
	r := q.all[asked.place]
	if r == nil {
		r = &repair{place: asked.place, urgency: asked.urgency, suspect: asked.suspect, failed: asked.failed}
		q.all[r.place] = r
		q.push(&q.ready, r)
		return
	}
	r.suspect = r.suspect || asked.suspect
	for _, server := range asked.failed {
		if !slices.Contains(r.failed, server) {
			r.failed = append(r.failed, server)
		}
	}
	more := asked.urgency < r.urgency
	r.urgency = asked.urgency
	switch {
	case r.running:
		r.again = true
	case r.due.IsZero():
		heap.Fix(&q.ready, r.at)
	case more:
		heap.Remove(&q.later, r.at)
		r.due = time.Time{}
		q.push(&q.ready, r)
	}
}

func (q *repairQueue) push(h *repairHeap, r *repair) {
	q.order++
	r.order = q.order
	heap.Push(h, r)
	q.signal()
}

func (q *repairQueue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// take waits for the most urgent repair, which must be ended. It returns nil when
// ctx ends.
func (q *repairQueue) take(ctx context.Context) *repair {
	for {
		r, wait := q.next()
		if r != nil {
			return r
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-q.wake:
			timer.Stop()
		case <-timer.C:
		}
	}
}

// next returns the most urgent repair, or how long there is none.
func (q *repairQueue) next() (*repair, time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.later.Len() > 0 && time.Until(q.later.all[0].due) <= 0 {
		r := heap.Pop(&q.later).(*repair)
		r.due = time.Time{}
		heap.Push(&q.ready, r)
	}
	if q.ready.Len() > 0 {
		r := heap.Pop(&q.ready).(*repair)
		r.running, r.again = true, false
		q.running++
		if q.ready.Len() > 0 { // another worker may wait
			q.signal()
		}
		return r, 0
	}
	if q.later.Len() > 0 {
		return nil, time.Until(q.later.all[0].due)
	}
	return nil, maxRetry
}

// end ends a repair that was taken.
func (q *repairQueue) end(r *repair, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.running--
	r.running = false
	switch {
	case err != nil:
		q.failed++
		r.due = time.Now().Add(retryAfter(r.tries))
		r.tries++
		q.push(&q.later, r)
	case r.again:
		r.tries, r.failed = 0, nil
		q.push(&q.ready, r)
	default:
		q.done++
		delete(q.all, r.place)
	}
}

// state says how many wait, of them those after a failure, and how many are under
// way, were done, and have failed.
func (q *repairQueue) state() (waiting, retrying, running int, done, failed uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.ready.Len() + q.later.Len(), q.later.Len(), q.running, q.done, q.failed
}

// repairHeap is a heap.Interface.
type repairHeap struct {
	all    []*repair
	before func(a, b *repair) int
}

func (h *repairHeap) Len() int           { return len(h.all) }
func (h *repairHeap) Less(i, j int) bool { return h.before(h.all[i], h.all[j]) < 0 }
func (h *repairHeap) Swap(i, j int) {
	h.all[i], h.all[j] = h.all[j], h.all[i]
	h.all[i].at, h.all[j].at = i, j
}
func (h *repairHeap) Push(r any) {
	r.(*repair).at = len(h.all)
	h.all = append(h.all, r.(*repair))
}
func (h *repairHeap) Pop() any {
	last := h.all[len(h.all)-1]
	h.all = h.all[:len(h.all)-1]
	return last
}

// targets are the chunk servers that could not take a replica lately, because they
// are full or failing: nothing is sent to them for a while, twice as long each time.
type targets struct {
	mu     sync.Mutex
	failed map[uint32]failedTarget
}

type failedTarget struct {
	tries int
	until time.Time
}

func (t *targets) note(server uint32, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err == nil {
		delete(t.failed, server)
		return
	}
	if t.failed == nil {
		t.failed = make(map[uint32]failedTarget)
	}
	f := t.failed[server]
	t.failed[server] = failedTarget{f.tries + 1, time.Now().Add(retryAfter(f.tries))}
}

// avoided returns the servers that nothing is sent to now.
func (t *targets) avoided() (servers []uint32) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for id, f := range t.failed {
		if time.Now().Before(f.until) {
			servers = append(servers, id)
		}
	}
	return servers
}
