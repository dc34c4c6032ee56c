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
// The buffers of connections that carry data are in package wire.
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
// policy. It asks for plain TCP: Go's own listeners speak Multipath TCP where the
// kernel has it, and the sockets that such a listener accepts refuse zero-copy sends.
func Listen(ctx context.Context, address string) (*net.TCPListener, error) {
	config := net.ListenConfig{Control: Control}
	config.SetMultipathTCP(false)
	l, err := config.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	return l.(*net.TCPListener), nil
}

// Dial connects to an address, "host:port". A timeout of 0 leaves the limit to ctx.
func Dial(ctx context.Context, address string, timeout time.Duration) (*net.TCPConn, error) {
	dialer := net.Dialer{Timeout: timeout, Control: Control}
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	return conn.(*net.TCPConn), nil
}

// DialControl is Dial for grpc.WithContextDialer.
func DialControl(ctx context.Context, address string) (net.Conn, error) {
	dialer := net.Dialer{Control: Control}
	return dialer.DialContext(ctx, "tcp", address)
}
