// Package relay holds the relay paths: ways to pass a body on from one TCP
// connection of a process to another, in the gateway from a chunk server to an
// HTTP client and the other way. Each is a file of this package that registers a
// Path in Paths; the gateway needs no change.
//
// An answer is a header and a body of a length that is known beforehand:
//
//	_, err = target.Write(ctx, response) // what must stand before the body
//	err = source.Begin(target, header, n)
//	_, err = up.Write(request)
//	_, err = io.ReadFull(up, head)  // header.Length bytes
//	moved, err := source.Move(ctx)  // exactly n bytes, from up to down
//
// Begin comes before the request, because a path in the kernel has to know
// where a small body goes before it arrives.
//
// A request is taken apart by who receives it, because its header is HTTP, and
// so the beginning of its body has arrived before anyone knows where to:
//
//	_, err = up.Write(header)
//	moved, err := relay.Pass(ctx, down, up, n)
package relay

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"waggle/bpf/sockmap"
	"waggle/dfs/datapath"
)

// MaxBody bounds the bytes of one body: a longer one is asked for in parts.
const MaxBody = sockmap.MaxBody

// ErrUpstream is wrapped by errors of Move after which only the source is of no
// more use: it ended or failed, exactly the returned number of bytes was moved,
// and the target can be given the rest from elsewhere.
var ErrUpstream = errors.New("upstream ended before the body did")

// ErrBusy: Begin was called again before Move or Decline.
var ErrBusy = errors.New("a body is being moved already")

// ErrHalfClosed is wrapped by errors of NewTarget and NewSource for a connection
// whose peer sends no more. A path in the kernel can't take it any more.
var ErrHalfClosed = sockmap.ErrNotEstablished

// Header is what an answer must begin with for its body to be moved.
type Header = sockmap.Header

// Path is a relay path.
type Path interface {
	About() datapath.Info
	// Open makes what all connections of a process share, and counts into
	// counters.
	Open(counters *datapath.Counters) (Relay, error)
}

// Relay makes connections ready. It may be used by many goroutines.
type Relay interface {
	// NewSource takes a connection on which nothing is due to arrive.
	NewSource(conn *net.TCPConn) (Source, error)
	NewTarget(conn *net.TCPConn) (Target, error)
	// Pass moves the next n bytes, from 1 to MaxBody, that from receives to to, and
	// returns when to's TCP has them: all of them, or an error comes with how many.
	// It is quick if they have arrived. Neither connection may be a Source or a
	// Target, or be used otherwise meanwhile; after an error both must be closed.
	// Deadlines that they had are lost.
	Pass(ctx context.Context, from, to *net.TCPConn, n int64) (moved int64, err error)
	// Close is called after all sources and targets were closed.
	Close() error
}

// Source is a connection that bodies come from. It is used by one goroutine.
type Source interface {
	// Begin says that what arrives next is a header and a body of n bytes, from 1
	// to MaxBody, that is to be moved to a target of the same Relay, which has
	// settled. It is called before the request is sent that is answered so.
	Begin(to Target, header Header, n int64) error
	// Move moves the body, once the header was read and was the expected one. It
	// returns how much was moved; less than everything comes with an error. After
	// one that does not wrap ErrUpstream both connections must be closed.
	Move(ctx context.Context) (moved int64, err error)
	// Decline is called in place of Move when the header was not the expected
	// one. The rest of the answer can then be read from the connection.
	Decline(ctx context.Context) error
	// Close closes the connection, too.
	Close() error
}

// Target is a connection that bodies go to. It is used by one goroutine.
type Target interface {
	// Settle returns when what was moved is with the connection's TCP. It is
	// called before the connection is written to but by Write, before it is closed,
	// and before something else is moved there.
	Settle(ctx context.Context) error
	// Write writes to the connection behind what was moved, within ctx.
	Write(ctx context.Context, p []byte) (int, error)
	// Close leaves the connection open.
	Close() error
}

// Paths is the registry.
var Paths = datapath.Registry[Path]{Operation: datapath.Relay}

// plainTarget is a connection that needs no preparation.
type plainTarget struct{ conn *net.TCPConn }

func (plainTarget) Settle(context.Context) error { return nil }
func (plainTarget) Close() error                 { return nil }

func (t plainTarget) Write(ctx context.Context, p []byte) (int, error) {
	deadline, _ := ctx.Deadline()
	t.conn.SetWriteDeadline(deadline)
	return t.conn.Write(p)
}

// plainSource is what the paths through this process have in common.
type plainSource struct {
	conn *net.TCPConn
	to   *net.TCPConn // nil if nothing was begun
	n    int64
}

func (s *plainSource) Begin(to Target, _ Header, n int64) error {
	if n <= 0 || n > MaxBody {
		return fmt.Errorf("relay %d bytes from %s: a body has 1 to %d", n, s.conn.RemoteAddr(), MaxBody)
	}
	if s.to != nil {
		return fmt.Errorf("relay from %s: %w", s.conn.RemoteAddr(), ErrBusy)
	}
	s.to, s.n = to.(plainTarget).conn, n
	return nil
}

func (s *plainSource) Decline(context.Context) error {
	s.to = nil
	return nil
}

func (s *plainSource) Close() error { return s.conn.Close() }

// move carries out f, which moves n bytes, within ctx.
func (s *plainSource) move(ctx context.Context, f func(to *net.TCPConn, n int64) (int64, error)) (int64, error) {
	to, n := s.to, s.n
	if to == nil {
		return 0, fmt.Errorf("relay from %s: nothing was begun", s.conn.RemoteAddr())
	}
	s.to = nil
	return bounded(ctx, s.conn, to, n, func() (int64, error) { return f(to, n) })
}

// bounded carries out f, which moves n bytes, within ctx.
func bounded(ctx context.Context, from, to *net.TCPConn, n int64, f func() (int64, error)) (int64, error) {
	deadline, _ := ctx.Deadline()
	from.SetReadDeadline(deadline)
	to.SetWriteDeadline(deadline)
	stop := context.AfterFunc(ctx, func() {
		from.SetReadDeadline(time.Unix(1, 0))
		to.SetWriteDeadline(time.Unix(1, 0))
	})
	moved, err := f()
	if !stop() && err == nil {
		err = context.Cause(ctx) // the deadlines may still be about to change
	}
	if err != nil {
		err = fmt.Errorf("relay %d bytes from %s to %s: %w", n, from.RemoteAddr(), to.RemoteAddr(), err)
	}
	return moved, err
}

// upstream marks an error of the source's connection. One that ran out of time
// says nothing about whose fault it is.
func upstream(err error) error {
	if isTimeout(err) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrUpstream, err)
}

func isTimeout(err error) bool {
	var n net.Error
	return errors.As(err, &n) && n.Timeout()
}
