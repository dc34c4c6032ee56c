package sockmap

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// errRefused: the programs stopped reading the source.
var errRefused = unix.ECANCELED

// transfer is a body that moves from a source to a target.
type transfer struct {
	relay        *Relay
	n            uint64
	source       *endpoint
	target       *endpoint
	startWritten uint64 // target's position before the first byte
	startRead    uint64 // source's
	ended        chan struct{}
}

// open makes both connections part of the transfer, the source last: from then
// on the kernel moves bytes.
func (t *transfer) open(from, to *net.TCPConn) (err error) {
	if t.source, err = newEndpoint(from); err != nil {
		return err
	}
	if t.target, err = newEndpoint(to); err != nil {
		return err
	}
	if err := t.relay.claim(t.source.cookie, t.target.cookie, t.ended); err != nil {
		return err
	}
	o := &t.relay.objects
	if t.startRead, err = t.source.consumed(); err == nil {
		err = t.target.joinTargets(o.Targets)
	}
	if err == nil {
		t.startWritten, err = t.target.written()
	}
	if err == nil {
		err = t.describe(&relayTransfer{})
	}
	if err == nil {
		err = t.source.join(o.Sources)
	}
	if err != nil {
		return errors.Join(err, t.leave())
	}
	return nil
}

// describe tells the programs what to move: state with the transfer's own parts.
func (t *transfer) describe(state *relayTransfer) error {
	state.Target, state.Left, state.HeldLimit = t.target.cookie, t.n, HeldLimit
	if t.n <= HeldLimit { // it need never be stopped, whatever else the receiver has not acknowledged
		state.HeldLimit = math.MaxInt32
	}
	if err := t.relay.objects.Transfers.Put(t.source.cookie, state); err != nil {
		return fmt.Errorf("describe the transfer: %w", err)
	}
	return nil
}

// leave gives both connections back to TCP.
func (t *transfer) leave() error {
	defer t.relay.release(t.source.cookie, t.target.cookie)
	o := &t.relay.objects
	return errors.Join(t.source.settle(), t.source.leave(o.Sources), t.target.leave(o.Targets),
		t.source.settle(), forget(o.Transfers, t.source.cookie), t.source.clearRefusal())
}

// checkPosition finds out whether leaving the map lost bytes behind the body. The
// kernel drops what it is parsing at that moment. Once the parser has refused
// something it parses no more, so this takes bytes that arrive in the same instant.
func (t *transfer) checkPosition() error {
	position, err := t.source.consumed()
	if err != nil {
		return err
	}
	if want := t.startRead + t.n; position != want && position != want+1 { // a FIN counts as one
		return fmt.Errorf("%w: it stands at byte %d, not %d", ErrLost, position, want)
	}
	return nil
}

func forget(m *ebpf.Map, cookie uint64) error {
	if err := m.Delete(cookie); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("forget a transfer: %w", err)
	}
	return nil
}

// run sees the transfer to its end, at which the source is free again, and the
// kernel may still hold bytes for the target.
func (t *transfer) run(ctx context.Context) (redirected int64, err error) {
	var stopped error
	for {
		state, err := t.state()
		switch {
		case err != nil:
		case state.Outcome == relayOutcomeDONE:
			return int64(t.n), nil
		case state.Outcome == relayOutcomeTARGET_GONE:
			err = ErrReceiverGone
		case state.Outcome == relayOutcomeUNEXPECTED_HEADER:
			return 0, ErrUnexpectedHeader
		case errors.Is(stopped, errRefused):
			err = t.resume(ctx, state.Redirected)
		case errors.Is(stopped, io.EOF):
			return int64(state.Redirected), io.ErrUnexpectedEOF
		default:
			err = stopped
		}
		if err == nil {
			stopped, err = t.wait(ctx)
		}
		if err != nil {
			return t.moved(), err
		}
	}
}

// wait waits for the transfer's end, for a reason why its source stopped, or for ctx.
func (t *transfer) wait(ctx context.Context) (stopped, err error) {
	o := &t.relay.objects
	if err := o.Awaited.Put(t.source.cookie, uint8(1)); err != nil {
		return nil, fmt.Errorf("wait for the transfer: %w", err)
	}
	defer o.Awaited.Delete(t.source.cookie)
	if state, err := t.state(); err != nil || state.Outcome != relayOutcomeMOVING {
		return nil, err
	}
	watched := t.source.watch()
	select {
	case stopped = <-watched:
		return stopped, nil
	case <-t.ended:
	case <-ctx.Done():
		err = ctx.Err()
	}
	t.source.stopWatching(watched)
	return nil, err
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

// settle waits until the target's TCP has taken that many bytes.
func (t *transfer) settle(ctx context.Context, redirected int64) error {
	return t.target.waitUntil(ctx, func(_, written uint64) bool { return written >= t.startWritten+uint64(redirected) })
}

// Bounds between which waiting for a receiver backs off while it takes nothing.
const (
	shortestWait = 20 * time.Microsecond
	longestWait  = 64 * time.Millisecond
	// lateBy is by what part of the time that it took nothing a receiver's progress
	// may be noticed too late.
	lateBy = 8
)

// nextWait is for how long to wait for a receiver that has taken nothing for so
// long.
func nextWait(stalled time.Duration) time.Duration {
	return min(max(stalled/lateBy, shortestWait), longestWait)
}

// waitUntil waits for done, which is told how far the endpoint's peer has
// acknowledged and how far its TCP has taken bytes. The kernel tells nobody.
func (e *endpoint) waitUntil(ctx context.Context, done func(acknowledged, written uint64) bool) error {
	var last uint64
	for since := time.Now(); ; {
		acknowledged, written, err := e.progress()
		if err != nil {
			return err
		}
		if done(acknowledged, written) {
			return nil
		}
		if acknowledged != last {
			last, since = acknowledged, time.Now()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(nextWait(time.Since(since))):
		}
	}
}
