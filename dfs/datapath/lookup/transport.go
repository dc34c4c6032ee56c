package lookup

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"waggle/dfs/wire"
)

const (
	// maxSockets bounds the lookups that a Transport has under way.
	maxSockets = 64
	// firstWait is how long a Transport waits before it asks again; the wait
	// doubles up to lastWait, and all of them together last at most giveUp.
	firstWait = 50 * time.Millisecond
	lastWait  = time.Second
	giveUp    = 5 * time.Second
)

// ErrNoAnswer is wrapped by the error of a lookup that nobody answered.
var ErrNoAnswer = errors.New("no answer")

// Transport asks a metadata server for lookups. It is used by many goroutines
// at once; each lookup under way has a socket of its own, so that no goroutine
// has to wake another, and the kernel spreads them over the server's sockets.
type Transport struct {
	// Spin has lookups ask their sockets over and over for the answer, instead of
	// sleeping until it comes: soonest where a processor is idle, and at the expense
	// of everybody else where none is. It is set before the first lookup.
	Spin bool

	address string
	slots   chan struct{} // one for each lookup under way

	mu     sync.Mutex
	idle   []*socket
	closed bool
}

// Dial returns a Transport that asks the server at address, "host:port". Nothing
// is sent yet.
func Dial(address string) (*Transport, error) {
	resolved, err := net.ResolveUDPAddr("udp", address)
	if err != nil {
		return nil, fmt.Errorf("find the lookup server %q: %w", address, err)
	}
	return &Transport{address: resolved.String(), slots: make(chan struct{}, maxSockets)}, nil
}

// Lookup sends q, whose ID it chooses, until it is answered, for 5 seconds at
// most. An answer is no error whatever its status is. Lookup fails with
// ErrNoAnswer, net.ErrClosed, or the context's error.
func (t *Transport) Lookup(ctx context.Context, q *wire.LookupRequest) (wire.LookupAnswer, error) {
	select {
	case t.slots <- struct{}{}:
		defer func() { <-t.slots }()
	case <-ctx.Done():
		return wire.LookupAnswer{}, ctx.Err()
	}
	s, err := t.take()
	if err != nil {
		return wire.LookupAnswer{}, err
	}
	a, err := s.ask(ctx, q)
	t.give(s)
	if err != nil {
		return wire.LookupAnswer{}, fmt.Errorf("look up at %s: %w", t.address, err)
	}
	return a, nil
}

// Close ends the Transport. Lookups under way are still answered.
func (t *Transport) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	var failed error
	for _, s := range t.idle {
		failed = errors.Join(failed, s.close())
	}
	t.idle = nil
	return failed
}

func (t *Transport) take() (*socket, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil, fmt.Errorf("look up at %s: %w", t.address, net.ErrClosed)
	}
	if last := len(t.idle) - 1; last >= 0 {
		s := t.idle[last]
		t.idle = t.idle[:last]
		return s, nil
	}
	s, err := dial(t.address)
	if err == nil {
		s.spins = t.Spin
	}
	return s, err
}

func (t *Transport) give(s *socket) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed || !s.isGood() {
		_ = s.close() // nothing is lost with it
		return
	}
	t.idle = append(t.idle, s)
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
