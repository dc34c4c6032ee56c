package relay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"waggle/dfs/datapath"
)

const (
	// pipeSize is how much a pipe should hold, in bytes.
	pipeSize = 256 << 10
	// idlePipes is how many unused pipes are kept.
	idlePipes = 64
)

func init() { Paths.Register(splicePath{}) }

// splicePath passes the body's pages through a pipe. Go's own
// TCPConn.ReadFrom does so too, but does not tell when it could not.
type splicePath struct{}

func (splicePath) About() datapath.Info {
	return datapath.Info{
		Operation: datapath.Relay,
		Name:      "splice",
		Summary:   "splice from one connection into a pipe and on to the other",
		Supported: spliceSupported,
		Proof:     []string{"relay_splice_bytes"},
		Stages:    through(datapath.Work{TCP: 1, Calls: 24.0 / (1 << 20), Switches: 6.0 / (1 << 20)}),
	}
}

func spliceSupported() error {
	p, err := newPipe()
	if err != nil {
		return err
	}
	return p.close()
}

func (splicePath) Open(counters *datapath.Counters) (Relay, error) {
	return &spliceRelay{bytes: counters.Counter("relay_splice_bytes"), idle: make(chan *pipe, idlePipes)}, nil
}

type spliceRelay struct {
	bytes *atomic.Int64
	idle  chan *pipe
}

func (r *spliceRelay) NewSource(conn *net.TCPConn) (Source, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("relay from %s: reach the socket: %w", conn.RemoteAddr(), err)
	}
	return &spliceSource{plainSource{conn: conn}, r, raw}, nil
}

func (r *spliceRelay) NewTarget(conn *net.TCPConn) (Target, error) { return plainTarget{conn}, nil }

func (r *spliceRelay) Close() error {
	var failed error
	for {
		select {
		case p := <-r.idle:
			failed = errors.Join(failed, p.close())
		default:
			return failed
		}
	}
}

// take returns an empty pipe.
func (r *spliceRelay) take() (*pipe, error) {
	select {
	case p := <-r.idle:
		return p, nil
	default:
		return newPipe()
	}
}

// give takes a pipe back. One that is not empty is of no more use.
func (r *spliceRelay) give(p *pipe, empty bool) {
	if empty {
		select {
		case r.idle <- p:
			return
		default:
		}
	}
	p.close()
}

type pipe struct{ read, write int }

func newPipe() (*pipe, error) {
	var ends [2]int
	if err := unix.Pipe2(ends[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return nil, fmt.Errorf("make a pipe to splice through: %w", err)
	}
	// A user may only have so many large pipes. A small one takes more calls.
	unix.FcntlInt(uintptr(ends[0]), unix.F_SETPIPE_SZ, pipeSize)
	return &pipe{ends[0], ends[1]}, nil
}

func (p *pipe) close() error { return errors.Join(unix.Close(p.read), unix.Close(p.write)) }

type spliceSource struct {
	plainSource
	relay *spliceRelay
	raw   syscall.RawConn
}

func (s *spliceSource) Move(ctx context.Context) (int64, error) {
	return s.move(ctx, func(to *net.TCPConn, n int64) (int64, error) { return s.relay.splice(s.raw, to, n) })
}

func (r *spliceRelay) Pass(ctx context.Context, from, to *net.TCPConn, n int64) (int64, error) {
	in, err := from.SyscallConn()
	if err != nil {
		return 0, fmt.Errorf("relay from %s: reach the socket: %w", from.RemoteAddr(), err)
	}
	return bounded(ctx, from, to, n, func() (int64, error) { return r.splice(in, to, n) })
}

func (r *spliceRelay) splice(in syscall.RawConn, to *net.TCPConn, n int64) (moved int64, err error) {
	out, err := to.SyscallConn()
	if err != nil {
		return 0, fmt.Errorf("reach the socket: %w", err)
	}
	p, err := r.take()
	if err != nil {
		return 0, err
	}
	var filled int64
	defer func() { r.give(p, filled == moved) }()
	for moved < n {
		got, err := spliceOnce(in.Read, func(fd int) (int64, error) {
			return unix.Splice(fd, nil, p.write, nil, int(n-filled), unix.SPLICE_F_MOVE|unix.SPLICE_F_NONBLOCK)
		})
		if err == nil && got == 0 {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return moved, upstream(err)
		}
		filled += got
		for moved < filled {
			sent, err := spliceOnce(out.Write, func(fd int) (int64, error) {
				return unix.Splice(p.read, nil, fd, nil, int(filled-moved), unix.SPLICE_F_MOVE|unix.SPLICE_F_NONBLOCK|more(n-filled))
			})
			if err != nil {
				return moved, err
			}
			moved += sent
			r.bytes.Add(sent)
		}
	}
	return moved, nil
}

// more tells the kernel that bytes follow at once, so that it need not send what does
// not fill a packet: as nginx and sendfile do.
func more(left int64) int {
	if left > 0 {
		return unix.SPLICE_F_MORE
	}
	return 0
}

// spliceOnce calls splice once the socket is ready, through the runtime's
// poller: wait is its RawConn's Read or Write. The pipe always has room, or
// bytes, so EAGAIN is about the socket.
func spliceOnce(wait func(func(uintptr) bool) error, splice func(fd int) (int64, error)) (n int64, err error) {
	failed := wait(func(fd uintptr) bool {
		for {
			n, err = splice(int(fd))
			if err != unix.EINTR {
				return err != unix.EAGAIN
			}
		}
	})
	if failed != nil {
		return 0, failed
	}
	if err != nil {
		return 0, fmt.Errorf("splice: %w", err)
	}
	return n, nil
}
