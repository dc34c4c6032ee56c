package sockmap

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"
)

// HeldLimit bounds the bytes of one transfer that the kernel holds for a slow
// receiver: redirected, and not yet acknowledged by it.
const HeldLimit = 1 << 20

// Errors of a Relay.
var (
	// ErrNotEstablished: one end of a connection was already closed, which the
	// kernel does not let into a socket map. Nothing was moved.
	ErrNotEstablished = errors.New("connection is not established in both directions")
	// ErrBusy: a connection is part of another transfer. Nothing was moved.
	ErrBusy = errors.New("connection is part of another transfer")
	// ErrReceiverGone: the connection that bytes are moved to failed.
	ErrReceiverGone = errors.New("receiver is gone")
)

// Relay moves bytes between pairs of TCP connections of this process.
type Relay struct {
	objects relayObjects
	events  *ringbuf.Reader
	reading sync.WaitGroup

	mu    sync.Mutex
	ended map[uint64]chan struct{} // by the source's cookie
	busy  map[uint64]bool          // by either end's cookie
}

// NewRelay loads the programs. One Relay serves all connections of a process.
func NewRelay() (*Relay, error) {
	r := &Relay{ended: make(map[uint64]chan struct{}), busy: make(map[uint64]bool)}
	if err := loadRelayObjects(&r.objects, nil); err != nil {
		return nil, fmt.Errorf("load the programs of sockmap relay: %w", err)
	}
	if err := r.attach(); err != nil {
		return nil, errors.Join(err, r.objects.Close())
	}
	events, err := ringbuf.NewReader(r.objects.Ended)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("read events of sockmap relay: %w", err), r.objects.Close())
	}
	r.events = events
	r.reading.Go(r.dispatch)
	return r, nil
}

func (r *Relay) attach() error {
	for _, p := range []struct {
		program *ebpf.Program
		as      ebpf.AttachType
	}{
		{r.objects.Parse, ebpf.AttachSkSKBStreamParser},
		{r.objects.Redirect, ebpf.AttachSkSKBStreamVerdict},
	} {
		err := link.RawAttachProgram(link.RawAttachProgramOptions{Target: r.objects.Sources.FD(), Program: p.program, Attach: p.as})
		if err != nil {
			return fmt.Errorf("attach %s to the sources of sockmap relay: %w", p.as, err)
		}
	}
	return nil
}

// Close ends the relay. Transfers must have ended.
func (r *Relay) Close() error {
	err := r.events.Close()
	r.reading.Wait()
	return errors.Join(err, r.objects.Close())
}

// dispatch wakes whoever waits for a transfer whose end the kernel reports.
func (r *Relay) dispatch() {
	var record ringbuf.Record
	for r.events.ReadInto(&record) == nil {
		r.mu.Lock()
		if ended := r.ended[cookieFrom(record.RawSample)]; ended != nil {
			select {
			case ended <- struct{}{}:
			default:
			}
		}
		r.mu.Unlock()
	}
}

// RelayCounters count all transfers since the relay was made.
type RelayCounters struct {
	RedirectedBytes    uint64 // never seen by this process
	RedirectedMessages uint64
	Refusals           uint64 // times that a slow receiver stopped a transfer for a while
}

// Counters sums the counts of all CPUs.
func (r *Relay) Counters() (RelayCounters, error) {
	var perCPU []relayCounts
	if err := r.objects.Counters.Lookup(uint32(0), &perCPU); err != nil {
		return RelayCounters{}, fmt.Errorf("read the counters of sockmap relay: %w", err)
	}
	var all RelayCounters
	for _, c := range perCPU {
		all.RedirectedBytes += c.RedirectedBytes
		all.RedirectedMessages += c.RedirectedMessages
		all.Refusals += c.Refusals
	}
	return all, nil
}

// Relay moves the next n bytes that from receives to to, in the kernel. It
// returns when to's TCP has all of them, so that what is then written to to
// follows them. What from receives behind them stays in from's queue.
//
// Nobody else may use from for reading or to for writing meanwhile. from's read
// deadline is cleared; ctx bounds the whole.
//
// moved is how many bytes to's TCP took. If from ends early, the error wraps
// io.ErrUnexpectedEOF and to can be given the rest from elsewhere. After any other
// error but ErrNotEstablished and ErrBusy, both connections must be closed.
func (r *Relay) Relay(ctx context.Context, from, to *net.TCPConn, n int64) (moved int64, err error) {
	if n <= 0 {
		return 0, nil
	}
	t := &transfer{relay: r, n: uint64(n), ended: make(chan struct{}, 1)}
	if err := t.open(from, to); err != nil {
		return 0, fmt.Errorf("relay %d bytes from %s to %s: %w", n, from.RemoteAddr(), to.RemoteAddr(), err)
	}
	moved, err = t.run(ctx)
	if closed := t.close(); err == nil {
		err = closed
	}
	if err != nil {
		err = fmt.Errorf("relay %d bytes from %s to %s: %w", n, from.RemoteAddr(), to.RemoteAddr(), err)
	}
	return moved, err
}

// claim makes the two ends this transfer's, and only its.
func (r *Relay) claim(source, target uint64, ended chan struct{}) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.busy[source] || r.busy[target] || source == target {
		return ErrBusy
	}
	r.busy[source], r.busy[target], r.ended[source] = true, true, ended
	return nil
}

func (r *Relay) release(source, target uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.busy, source)
	delete(r.busy, target)
	delete(r.ended, source)
}

// transfer is one call of Relay.
type transfer struct {
	relay        *Relay
	n            uint64
	source       *endpoint
	target       *endpoint
	startWritten uint64 // target's position before the first byte
	ended        chan struct{}
}

func (t *transfer) open(from, to *net.TCPConn) (err error) {
	if t.source, err = newEndpoint(from); err != nil {
		return err
	}
	if t.target, err = newEndpoint(to); err != nil {
		return err
	}
	if t.startWritten, err = t.target.written(); err != nil {
		return err
	}
	if err := t.relay.claim(t.source.cookie, t.target.cookie, t.ended); err != nil {
		return err
	}
	if err := t.join(); err != nil {
		return errors.Join(err, t.close())
	}
	return nil
}

// join puts the source in last: from then on the kernel moves bytes.
func (t *transfer) join() error {
	o := &t.relay.objects
	if err := t.target.join(o.Targets); err != nil {
		return err
	}
	state := relayTransfer{Target: t.target.cookie, Left: t.n, HeldLimit: HeldLimit}
	if err := o.Transfers.Put(t.source.cookie, &state); err != nil {
		return fmt.Errorf("describe the transfer: %w", err)
	}
	return t.source.join(o.Sources)
}

// close gives both connections back to TCP.
func (t *transfer) close() error {
	defer t.relay.release(t.source.cookie, t.target.cookie)
	o := &t.relay.objects
	err := errors.Join(t.source.leave(o.Sources), t.target.leave(o.Targets))
	if gone := o.Transfers.Delete(t.source.cookie); !errors.Is(gone, ebpf.ErrKeyNotExist) {
		err = errors.Join(err, gone)
	}
	return errors.Join(err, t.source.clearRefusal())
}

func (t *transfer) run(ctx context.Context) (moved int64, err error) {
	for {
		stopped := t.source.watch()
		select {
		case <-t.ended:
			err = nil
		case err = <-stopped:
			stopped = nil
		case <-ctx.Done():
			err = ctx.Err()
		}
		if stopped != nil {
			t.source.stopWatching(stopped)
		}
		if err != nil && !errors.Is(err, errRefused) && !errors.Is(err, io.EOF) {
			return t.moved(), err
		}
		state, failed := t.state()
		if failed != nil {
			return t.moved(), failed
		}
		switch {
		case state.Left == 0:
			err := t.waitWritten(ctx, t.n)
			return t.moved(), err
		case state.Outcome == relayOutcomeTARGET_GONE:
			return t.moved(), ErrReceiverGone
		case errors.Is(err, io.EOF):
			err := t.waitWritten(ctx, state.Redirected)
			return t.moved(), errors.Join(io.ErrUnexpectedEOF, err)
		}
		if err := t.resume(ctx, state.Redirected); err != nil {
			return t.moved(), err
		}
	}
}

func (t *transfer) state() (relayTransfer, error) {
	var state relayTransfer
	if err := t.relay.objects.Transfers.Lookup(t.source.cookie, &state); err != nil {
		return state, fmt.Errorf("look up the transfer's state: %w", err)
	}
	return state, nil
}

// moved is how many bytes of the transfer the target's TCP has taken.
func (t *transfer) moved() int64 {
	written, err := t.target.written()
	if err != nil {
		return 0
	}
	return int64(min(written-t.startWritten, t.n))
}

// resume waits until the target has acknowledged half of what may be held for
// it, and starts the source's parser again, which a refusal has stopped.
func (t *transfer) resume(ctx context.Context, redirected uint64) error {
	err := t.target.waitUntil(ctx, func(acknowledged, _ uint64) bool {
		return acknowledged+HeldLimit/2 >= t.startWritten+redirected
	})
	if err != nil {
		return err
	}
	sources := t.relay.objects.Sources
	if err := t.source.leave(sources); err != nil {
		return err
	}
	return t.source.join(sources)
}

// waitWritten waits until the target's TCP has taken that many bytes.
func (t *transfer) waitWritten(ctx context.Context, redirected uint64) error {
	return t.target.waitUntil(ctx, func(_, written uint64) bool { return written >= t.startWritten+redirected })
}

// Bounds between which waiting for a receiver backs off while it takes nothing.
const (
	shortestWait = 20 * time.Microsecond
	longestWait  = 64 * time.Millisecond
)

// waitUntil waits for done, which is told how far the endpoint's peer has
// acknowledged and how far its TCP has taken bytes. The kernel tells nobody.
func (e *endpoint) waitUntil(ctx context.Context, done func(acknowledged, written uint64) bool) error {
	var last uint64
	for wait := shortestWait; ; wait = min(2*wait, longestWait) {
		acknowledged, written, err := e.progress()
		if err != nil {
			return err
		}
		if done(acknowledged, written) {
			return nil
		}
		if acknowledged != last {
			last, wait = acknowledged, shortestWait
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
	}
}

// errRefused: the programs stopped reading the source.
var errRefused = unix.ECANCELED
