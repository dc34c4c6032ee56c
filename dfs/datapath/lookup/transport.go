package lookup

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
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
	address string
	slots   chan struct{} // one for each lookup under way

	mu     sync.Mutex
	idle   []*socket
	closed bool
}

// socket is used by one lookup at a time.
type socket struct {
	conn   net.Conn
	lastID uint64
	out    []byte
	in     []byte
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
	stop := context.AfterFunc(ctx, func() { s.conn.SetReadDeadline(time.Unix(1, 0)) })
	a, err := s.ask(ctx, q)
	if !stop() {
		// The function may still be about to set the deadline.
		s.conn.Close()
	} else {
		t.give(s)
	}
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
		failed = errors.Join(failed, s.conn.Close())
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
	return t.dial()
}

func (t *Transport) dial() (*socket, error) {
	conn, err := net.Dial("udp", t.address)
	if err != nil {
		return nil, fmt.Errorf("open a socket for lookups: %w", err)
	}
	return &socket{conn: conn, lastID: rand.Uint64(), in: make([]byte, wire.MaxAnswerSize+1)}, nil
}

func (t *Transport) give(s *socket) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		s.conn.Close()
		return
	}
	t.idle = append(t.idle, s)
}

func (s *socket) ask(ctx context.Context, q *wire.LookupRequest) (wire.LookupAnswer, error) {
	s.lastID++
	q.ID = s.lastID
	s.out = q.Append(s.out[:0])
	end := time.Now().Add(giveUp)
	for wait := firstWait; ; wait = min(2*wait, lastWait) {
		now := time.Now()
		if !now.Before(end) {
			return wire.LookupAnswer{}, fmt.Errorf("%w within %v: is the metadata server up?", ErrNoAnswer, giveUp)
		}
		a, err := s.askOnce(ctx, q.ID, now.Add(wait))
		switch {
		case err == nil:
			return a, nil
		case ctx.Err() != nil:
			return wire.LookupAnswer{}, ctx.Err()
		case errors.Is(err, os.ErrDeadlineExceeded):
		default:
			// Such as a port that is closed while the server starts again.
			if err := sleep(ctx, time.Until(now.Add(wait))); err != nil {
				return wire.LookupAnswer{}, err
			}
		}
	}
}

// askOnce sends the request and waits until deadline for its answer. Answers to
// earlier requests and malformed datagrams are passed over.
func (s *socket) askOnce(ctx context.Context, id uint64, deadline time.Time) (wire.LookupAnswer, error) {
	if err := s.conn.SetReadDeadline(deadline); err != nil {
		return wire.LookupAnswer{}, err
	}
	if err := ctx.Err(); err != nil {
		return wire.LookupAnswer{}, err
	}
	if _, err := s.conn.Write(s.out); err != nil {
		return wire.LookupAnswer{}, err
	}
	for {
		n, err := s.conn.Read(s.in)
		if err != nil {
			return wire.LookupAnswer{}, err
		}
		var a wire.LookupAnswer
		if a.Parse(s.in[:n]) == nil && a.ID == id {
			a.Inline = append([]byte(nil), a.Inline...) // s.in belongs to the next lookup
			return a, nil
		}
	}
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
