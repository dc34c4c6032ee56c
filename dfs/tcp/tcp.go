// Package tcp opens every TCP connection of the file system, of its load
// generator and of the floor control: what is set on their sockets is said here,
// and nowhere else.
//
// A comparison of data paths is fair only if all of them get the same sockets. The
// machine's own choice of a congestion control, for one, made some paths twice as
// slow as others: a connection that the kernel redirects never asks it. So the
// [Policy] belongs to the process, and holds for each connection that it dials or
// accepts: those that carry data and those that carry control calls. Go itself sets
// TCP_NODELAY on all of them: messages are written whole, so that nothing is gained
// by waiting for more.
//
// Connections that carry data have larger buffers than the others (buffers.go).
package tcp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Policy is what each TCP socket of this process is given.
type Policy struct {
	// Congestion is the kernel's name of a congestion control; "" leaves the
	// machine's default.
	Congestion string
	// BufferBytes is for the buffers of connections that carry data; 0 is DataBuffer.
	BufferBytes int
	// Delay has the kernel hold small messages back until the last one was
	// acknowledged (TCP_NODELAY off).
	Delay bool
}

var policy atomic.Pointer[Policy]

// Use sets the policy of this process, for all sockets that it makes from now on. It
// fails as Supported does.
func Use(p Policy) error {
	if err := p.Supported(); err != nil {
		return err
	}
	policy.Store(&p)
	return nil
}

// current is the policy of this process.
func current() Policy {
	if p := policy.Load(); p != nil {
		return *p
	}
	return Policy{}
}

// Supported returns nil if a socket can be given the policy: otherwise the machine
// does not have, or does not allow this user, what the policy asks for.
func (p Policy) Supported() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("try TCP's settings: %w", err)
	}
	defer unix.Close(fd)
	return p.apply(fd)
}

// apply sets what can be set before a connection is there.
func (p Policy) apply(fd int) error {
	if p.Congestion == "" {
		return nil
	}
	err := unix.SetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION, p.Congestion)
	switch {
	case errors.Is(err, unix.ENOENT):
		return fmt.Errorf("this kernel has no congestion control %q: choose one of /proc/sys/net/ipv4/tcp_available_congestion_control", p.Congestion)
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("congestion control %q is for root: choose one of /proc/sys/net/ipv4/tcp_allowed_congestion_control", p.Congestion)
	case err != nil:
		return fmt.Errorf("set congestion control %q: %w", p.Congestion, err)
	}
	return nil
}

// Control applies the process's policy to a new socket: for the Control of a
// net.Dialer or net.ListenConfig that does more besides.
func Control(_, _ string, conn syscall.RawConn) error {
	var failed error
	err := conn.Control(func(fd uintptr) { failed = current().apply(int(fd)) })
	return errors.Join(err, failed)
}

// Listen listens on an address, "host:port". The sockets that it accepts inherit the
// policy, but for what Accept has to do. It asks for plain TCP: Go's own listeners speak
// Multipath TCP where the kernel has it, and the sockets that such a listener accepts
// refuse zero-copy sends.
func Listen(ctx context.Context, address string) (*net.TCPListener, error) {
	return listen(ctx, address, Control)
}

type control = func(network, address string, conn syscall.RawConn) error

func listen(ctx context.Context, address string, set control) (*net.TCPListener, error) {
	config := net.ListenConfig{Control: set}
	config.SetMultipathTCP(false)
	l, err := config.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	return l.(*net.TCPListener), nil
}

// Accept waits for a connection.
func Accept(l *net.TCPListener) (*net.TCPConn, error) {
	conn, err := l.AcceptTCP()
	if err != nil {
		return nil, err
	}
	Established(conn)
	return conn, nil
}

// Dial connects to an address, "host:port". A timeout of 0 leaves the limit to ctx.
func Dial(ctx context.Context, address string, timeout time.Duration) (*net.TCPConn, error) {
	return dial(ctx, net.Dialer{Timeout: timeout, Control: Control}, address)
}

func dial(ctx context.Context, dialer net.Dialer, address string) (*net.TCPConn, error) {
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	Established(conn.(*net.TCPConn))
	return conn.(*net.TCPConn), nil
}

// DialControl is Dial for grpc.WithContextDialer.
func DialControl(ctx context.Context, address string) (net.Conn, error) { return Dial(ctx, address, 0) }

// Established applies what of the policy can only be set on a connection that is there,
// because Go sets it before. Dial and Accept do so; whoever uses a net.Dialer of its own
// with Control has to.
func Established(conn *net.TCPConn) {
	if current().Delay {
		_ = conn.SetNoDelay(false) // fails on one that is gone, as its first use says
	}
}
