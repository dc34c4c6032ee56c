package chunk

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"waggle/dfs/chunk/replica"
	"waggle/dfs/dataconn"
	"waggle/dfs/datapath"
	"waggle/dfs/datapath/write"
	"waggle/dfs/wire"
)

// window is how many writes of a connection may wait for the replicas behind
// this one. Their data is gone from this server's memory by then.
const window = 8

// writes takes the writes of one connection. Each is passed on, applied here,
// and then waits for the acknowledgement of the replicas behind this one while
// the next is taken.
type writes struct {
	c      *connection
	path   write.Path
	bytes  *atomic.Int64 // of writes that were applied
	copied *atomic.Int64
	links  map[wire.Replica]*link
	head   []byte // room for a forwarded header
	extra  []byte // room for its Extra
	// waiting is nil until a first write has to wait; unanswered is how many do.
	waiting    chan waiting
	unanswered atomic.Int32
	ended      chan struct{}
}

// waiting is an answer that is due once next has acknowledged.
type waiting struct {
	answer  wire.Frame
	next    *link      // nil: nothing to wait for but the answers before
	asked   wire.Frame // what was passed on
	hops    int
	drained chan struct{} // not an answer: closed when it is reached
}

func newWrites(c *connection, path write.Path) *writes {
	w := &writes{c: c, copied: c.server.Counters().Counter(datapath.CopiedInUser), links: make(map[wire.Replica]*link)}
	w.choose(path)
	return w
}

// choose takes another path. No write is waiting.
func (w *writes) choose(path write.Path) {
	w.releaseLinks()
	w.path = path
	w.bytes = w.c.server.Counters().Counter("write_" + path.About().Name + "_bytes")
}

// take receives the rest of a write or sync, and carries it out. An error means
// that the connection can't go on.
func (w *writes) take() error {
	c := w.c
	if c.frame.Type == wire.FrameWrite {
		if err := c.receiveData(w.copied); err != nil {
			return err
		}
	} else {
		c.data = c.data[:0]
	}
	next, sums, err := c.frame.ParseWriteExtra()
	if err != nil {
		return w.answer(waiting{answer: c.answerFor(replica.State{}, err)})
	}
	unsummed := c.frame.Flags&wire.FlagUnsummed != 0
	if unsummed {
		sums = wire.AppendChecksums(nil, c.frame.Offset, c.data) // not reused: the answer may have to wait
		c.frame.Flags &^= wire.FlagUnsummed
	}
	r, err := c.server.store.Get(c.frame.Chunk)
	if err != nil {
		return w.answer(waiting{answer: c.answerFor(replica.State{}, err)})
	}
	// What this replica refuses is not passed on.
	if state, err := r.Admits(c.frame.Epoch, w.admitted()); err != nil {
		return w.answer(waiting{answer: c.answerFor(state, err)})
	}
	due := waiting{asked: wire.Frame{ID: c.frame.ID, Type: c.frame.Type}, hops: len(next)}
	if len(next) > 0 {
		if due.next, err = w.forward(next, sums); err != nil {
			a := c.answerFor(r.State(), nil)
			a.Status, a.Sequence, a.Extra = wire.StatusChainBroken, 1, []byte(oneLine(err))
			return w.answer(waiting{answer: a})
		}
	}
	state, err := w.apply(r, sums)
	due.answer = c.answerFor(state, err)
	if unsummed && err == nil {
		due.answer.Extra = sums
	}
	return w.answer(due)
}

// admitted returns the sequence that the replica must admit. A sync names the
// last write that must have been applied, or 0.
func (w *writes) admitted() uint64 {
	if w.c.frame.Type == wire.FrameSync && w.c.frame.Sequence > 0 {
		return w.c.frame.Sequence + 1
	}
	return w.c.frame.Sequence
}

// apply carries the request out on this server's replica.
func (w *writes) apply(r *replica.Replica, sums []byte) (replica.State, error) {
	f := &w.c.frame
	if f.Type == wire.FrameSync {
		return r.State(), r.Sync()
	}
	state, err := r.Write(replica.Write{Epoch: f.Epoch, Sequence: f.Sequence, Offset: f.Offset, Data: w.c.data, Sums: sums})
	if err == nil && f.Flags&wire.FlagSync != 0 {
		err = r.Sync()
	}
	if err == nil {
		w.bytes.Add(int64(len(w.c.data)))
		w.c.server.measures.stored.Add(int64(len(w.c.data)))
		w.c.server.measures.took(w.c.server.measures.write, w.c.began)
	}
	return state, err
}

// forward passes the request on to the first of next.
func (w *writes) forward(next []wire.Replica, sums []byte) (*link, error) {
	l, err := w.link(next[0])
	if err != nil {
		return nil, err
	}
	w.extra = wire.AppendWriteExtra(w.extra[:0], next[1:], sums)
	f := w.c.frame
	f.Extra = w.extra
	w.head = f.Append(w.head[:0])
	if err := l.forward(w.head, w.c.data, w.c.server.config.PeerTimeout); err != nil {
		return nil, err
	}
	return l, nil
}

// link returns the connection to a server that this connection's writes take.
// They have one for themselves: on a shared one, the writes of chains that run
// in a circle could wait for one another forever.
func (w *writes) link(to wire.Replica) (*link, error) {
	if l := w.links[to]; l != nil {
		if l.usable() {
			return l, nil
		}
		l.close()
		delete(w.links, to)
	}
	if len(w.links) >= wire.MaxReplicas { // the client's chunks are spread over many servers
		w.drain()
		w.releaseLinks()
	}
	l, err := w.c.server.links.get(w.c.server, to.Address, w.path)
	if err != nil {
		return nil, fmt.Errorf("pass the write on to server %d: %w", to.Server, err)
	}
	w.links[to] = l
	return l, nil
}

// answer sends an answer, or has it sent after those that wait.
func (w *writes) answer(due waiting) error {
	if due.next == nil && w.unanswered.Load() == 0 {
		return w.c.send(due.answer)
	}
	if w.waiting == nil {
		w.waiting, w.ended = make(chan waiting, window), make(chan struct{})
		go w.answerWaiting()
	}
	w.unanswered.Add(1)
	w.waiting <- due
	return nil
}

// answerWaiting sends the answers of writes in their order.
func (w *writes) answerWaiting() {
	defer close(w.ended)
	var head []byte
	for due := range w.waiting {
		if due.drained != nil {
			close(due.drained)
			continue
		}
		if due.next != nil {
			err := due.next.await(&due.asked, w.c.server.config.PeerTimeout*time.Duration(due.hops))
			w.chainEnded(&due.answer, err)
		}
		head = due.answer.Append(head[:0])
		if err := w.c.sendHead(head); err != nil {
			w.c.conn.Close() // the connection's own goroutine then ends, and says so
		}
		w.unanswered.Add(-1)
	}
}

// chainEnded puts how the replicas behind this one ended into the answer. What
// went wrong here comes first.
func (w *writes) chainEnded(a *wire.Frame, err error) {
	if err == nil || a.Status != wire.StatusOK {
		return
	}
	switch status := dataconn.StatusOf(err); status {
	case wire.StatusStaleEpoch, wire.StatusOutOfOrder:
		// The server has not failed: the chunk has another epoch there, or lacks what is
		// before this write. The writer has to ask for the lease again.
		a.Status, a.Extra = status, []byte(oneLine(err))
		return
	}
	a.Status, a.Sequence, a.Extra = wire.StatusChainBroken, 1, []byte(oneLine(err))
	var further *chainError
	if errors.As(err, &further) {
		a.Sequence = further.position
	}
}

// drain waits until every write was answered.
func (w *writes) drain() {
	if w.unanswered.Load() == 0 {
		return
	}
	drained := make(chan struct{})
	w.waiting <- waiting{drained: drained}
	<-drained
}

func (w *writes) releaseLinks() {
	for to, l := range w.links {
		w.c.server.links.put(l)
		delete(w.links, to)
	}
}

// close waits for the writes that were passed on: their links are used again.
func (w *writes) close() {
	if w.waiting != nil {
		close(w.waiting)
		<-w.ended
	}
	w.releaseLinks()
}
