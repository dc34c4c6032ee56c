package sockmap

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"
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
	// ErrLost: bytes that arrived behind the body at the very end of a transfer
	// were lost. The body was moved.
	ErrLost = errors.New("bytes behind the body were lost")
	// ErrUnexpectedHeader: an answer did not begin as expected. Nothing of it was
	// moved: it waits, header and all, to be read from its connection.
	ErrUnexpectedHeader = errors.New("answer's header is not the expected one")
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
	r, err := loadRelayWith(0)
	if err == nil {
		r.reading.Go(r.dispatch)
	}
	return r, err
}

// loadRelayWith makes a Relay that nobody dispatches the events of yet. The ring
// has room for so many bytes of them; 0 is the usual size.
func loadRelayWith(ring uint32) (*Relay, error) {
	r := &Relay{ended: make(map[uint64]chan struct{}), busy: make(map[uint64]bool)}
	spec, err := loadRelay()
	if err != nil {
		return nil, fmt.Errorf("read the programs of sockmap relay: %w", err)
	}
	if ring > 0 {
		spec.Maps["ended"].MaxEntries = ring
	}
	if err := spec.LoadAndAssign(&r.objects, nil); err != nil {
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

// dispatch wakes whoever waits for a transfer whose end the kernel reports. An
// end that found the ring full is not in it: once the ring is empty, all are woken
// if there was one, and look for themselves.
func (r *Relay) dispatch() {
	var record ringbuf.Record
	known := uint64(0)
	for r.events.ReadInto(&record) == nil {
		r.mu.Lock()
		wake(r.ended[cookieFrom(record.RawSample)])
		if record.Remaining == 0 {
			var missed uint64
			if r.objects.MissedEnds.Get(&missed) != nil || missed != known {
				for _, ended := range r.ended {
					wake(ended)
				}
			}
			known = missed
		}
		r.mu.Unlock()
	}
}

// wake lets a waiter look again; one that was told already need not be twice.
func wake(ended chan struct{}) {
	select {
	case ended <- struct{}{}: // never, if ended is nil
	default:
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
// moved is how many bytes to's TCP took, and at least how many after an error. If
// from ends early, the error wraps io.ErrUnexpectedEOF and to can be given the rest
// from elsewhere. After any other error but ErrNotEstablished and ErrBusy, both
// connections must be closed.
func (r *Relay) Relay(ctx context.Context, from, to *net.TCPConn, n int64) (moved int64, err error) {
	if n <= 0 {
		return 0, nil
	}
	t := &transfer{relay: r, n: uint64(n), ended: make(chan struct{}, 1)}
	if err = t.open(from, to); err == nil {
		moved, err = t.run(ctx)
		if err == nil || errors.Is(err, io.ErrUnexpectedEOF) {
			err = errors.Join(err, t.settle(ctx, moved))
		}
		left := t.leave()
		if err == nil {
			err = left
		}
		if err == nil {
			err = t.checkPosition()
		}
	}
	if err != nil {
		err = fmt.Errorf("relay %d bytes from %s to %s: %w", n, from.RemoteAddr(), to.RemoteAddr(), err)
	}
	return moved, err
}

// claim makes a connection, or both of a transfer, part of this relay once.
func (r *Relay) claim(source, target uint64, ended chan struct{}) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.busy[source] || r.busy[target] {
		return ErrBusy
	}
	r.busy[source], r.busy[target], r.ended[source] = true, true, ended
	return nil
}

// listen sends the ends of a source's transfers to another channel.
func (r *Relay) listen(source uint64, ended chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ended[source] = ended
}

func (r *Relay) release(source, target uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.busy, source)
	delete(r.busy, target)
	delete(r.ended, source)
}
