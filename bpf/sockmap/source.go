package sockmap

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"

	"github.com/cilium/ebpf"
)

// Limits of a Source.
const (
	// MaxChecked bounds the bytes at a header's start that a Header can check.
	MaxChecked = 64
	// MaxBody bounds a body, which the kernel holds for a slow receiver: ask for a
	// part of this size at a time.
	MaxBody = 1 << 20
)

// Target is a connection that stays ready to be moved to.
type Target struct {
	relay *Relay
	end   *endpoint
	// position is how many bytes its TCP will ever have taken once it has all that
	// was moved and written, if known: finding out costs four system calls.
	position uint64
	known    bool
	moving   bool // the kernel may still hold moved bytes
}

// NewTarget makes a connection ready to be moved to. It can be used as before
// whenever nothing is being moved to it.
func (r *Relay) NewTarget(conn *net.TCPConn) (*Target, error) {
	end, err := newEndpoint(conn)
	if err == nil {
		err = r.occupy(end, func() error { return end.joinTargets(r.objects.Targets) })
	}
	if err != nil {
		return nil, fmt.Errorf("relay to %s: %w", conn.RemoteAddr(), err)
	}
	return &Target{relay: r, end: end}, nil
}

// Settle returns when the target's TCP has taken all that was moved to it. Only
// then may something else be written to its connection, as by anybody who does
// not know of it: the kernel would send that first.
func (t *Target) Settle(ctx context.Context) error {
	err := t.settle(ctx)
	t.known = false // from now on anybody may write
	return err
}

func (t *Target) settle(ctx context.Context) error {
	if !t.moving {
		return nil
	}
	if err := t.end.waitUntil(ctx, func(_, written uint64) bool { return written >= t.position }); err != nil {
		return fmt.Errorf("wait until %s has taken what was moved to it: %w", t.end.conn.RemoteAddr(), err)
	}
	t.moving = false
	return nil
}

// Write writes behind what was moved to the target. It waits for that as Settle
// does, and what is moved next costs less than after a write past the Target.
func (t *Target) Write(ctx context.Context, p []byte) (int, error) {
	if err := t.settle(ctx); err != nil {
		return 0, err
	}
	n, err := t.end.conn.Write(p)
	t.position += uint64(n)
	return n, err
}

// start is the position of the first byte that is moved next.
func (t *Target) start() (position uint64, err error) {
	if !t.known {
		if t.position, err = t.end.written(); err != nil {
			return 0, err
		}
		t.known = true
	}
	return t.position, nil
}

// Close ends that, before or after the connection is closed. Nothing may be
// being moved.
func (t *Target) Close() error { return t.relay.vacate(t.end, t.relay.objects.Targets) }

// Source is a connection whose answers can be moved elsewhere from their first
// byte on, at the cost of one map update each: for small bodies. From when it
// is made until it is closed, everything that arrives on the connection goes
// through the relay's programs, and what is not moved is read as usual; but
// splice, and so ReadFrom of another connection, does not see it.
type Source struct {
	relay *Relay
	end   *endpoint
	now   *transfer
	to    *Target // of now
}

// NewSource takes a connection on which nothing is due to arrive.
func (r *Relay) NewSource(conn *net.TCPConn) (*Source, error) {
	end, err := newEndpoint(conn)
	if err == nil {
		err = r.objects.Transfers.Put(end.cookie, &relayTransfer{Resident: 1})
	}
	if err == nil {
		err = r.occupy(end, func() error { return end.join(r.objects.Sources) })
	}
	if err != nil {
		return nil, fmt.Errorf("relay from %s: %w", conn.RemoteAddr(), err)
	}
	return &Source{relay: r, end: end}, nil
}

// Close closes the connection too: what waits to be read on it would be lost
// if only the relay left it.
func (s *Source) Close() error {
	return errors.Join(s.end.conn.Close(), s.relay.vacate(s.end, s.relay.objects.Sources), forget(s.relay.objects.Transfers, s.end.cookie))
}

// occupy puts a connection into its map for good.
func (r *Relay) occupy(end *endpoint, join func() error) error {
	if err := r.claim(end.cookie, end.cookie, nil); err != nil {
		return err
	}
	if err := join(); err != nil {
		r.release(end.cookie, end.cookie)
		return err
	}
	return nil
}

func (r *Relay) vacate(end *endpoint, sockets *ebpf.Map) error {
	defer r.release(end.cookie, end.cookie)
	return end.leave(sockets)
}

// Header is what an answer must begin with for its body to be moved.
type Header struct {
	// Length in bytes; the header is read from the source as usual.
	Length uint32
	// Value and Mask, of equal length, a multiple of 8, at most MaxChecked and at
	// most Length, are compared with the header's start: where a bit of Mask is
	// set, the header's must be Value's. An answer that differs is not moved. With
	// no Mask, every answer is.
	Value, Mask []byte
}

func (h Header) check() error {
	if len(h.Value) != len(h.Mask) || len(h.Mask)%8 != 0 || len(h.Mask) > MaxChecked || len(h.Mask) > int(h.Length) {
		return fmt.Errorf("a header of %d bytes can't be checked by %d bytes with a mask of %d: both must be the same multiple of 8, at most %d and at most the header",
			h.Length, len(h.Value), len(h.Mask), MaxChecked)
	}
	return nil
}

// Begin says that the next bytes to arrive on the source are a header and a
// body of n bytes, and that the body is to be moved to a target. Call it after
// Settle and what must be written to the target before the body, and before the
// request that is answered so. Then read the header, and call Wait.
func (s *Source) Begin(to *Target, header Header, n int64) error {
	if err := header.check(); err != nil {
		return err
	}
	if n <= 0 || n > MaxBody {
		return fmt.Errorf("relay %d bytes from %s: a body has 1 to %d", n, s.end.conn.RemoteAddr(), MaxBody)
	}
	if s.now != nil || to.moving {
		return fmt.Errorf("relay %d bytes from %s: %w", n, s.end.conn.RemoteAddr(), ErrBusy)
	}
	t := &transfer{relay: s.relay, n: uint64(n), source: s.end, target: to.end, ended: make(chan struct{}, 1)}
	state := relayTransfer{Header: header.Length, Resident: 1, Checked: uint32(len(header.Mask) / 8)}
	for i := range state.Checked {
		state.Expected[i] = binary.NativeEndian.Uint64(header.Value[8*i:])
		state.Mask[i] = binary.NativeEndian.Uint64(header.Mask[8*i:])
	}
	s.relay.listen(s.end.cookie, t.ended)
	var err error
	if t.startWritten, err = to.start(); err == nil {
		err = t.describe(&state)
	}
	if err != nil {
		return fmt.Errorf("relay %d bytes from %s to %s: %w", n, s.end.conn.RemoteAddr(), to.end.conn.RemoteAddr(), err)
	}
	s.now, s.to = t, to
	return nil
}

// Wait returns when the kernel has taken the whole body from the source. The
// header must have been read. If the source ends early, the error wraps
// io.ErrUnexpectedEOF, and once the target has settled it can be given the rest,
// from byte moved on, from elsewhere. After ErrUnexpectedHeader both connections
// go on as if Begin had not been called; after any other error they must be closed.
func (s *Source) Wait(ctx context.Context) (moved int64, err error) {
	t, to := s.now, s.to
	if t == nil {
		return 0, fmt.Errorf("relay from %s: nothing was begun", s.end.conn.RemoteAddr())
	}
	s.now, s.to = nil, nil
	moved, err = t.run(ctx)
	if moved > 0 {
		to.position, to.moving = to.position+uint64(moved), true
	}
	if err != nil {
		err = fmt.Errorf("relay %d bytes from %s to %s: %w", t.n, s.end.conn.RemoteAddr(), t.target.conn.RemoteAddr(), err)
	}
	return moved, err
}
