package lookup

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

func init() {
	Paths.Register(udpPath{
		name:    "udp-blocking",
		summary: "answered in user space, by threads that wait in the kernel for a datagram at a time, without Go's poller, on one SO_REUSEPORT socket a processor",
		workers: runtime.GOMAXPROCS,
		serve:   (*udpWorker).serveBlocking,
		calls:   2,
	})
}

// serveBlocking answers one datagram after another, on a thread of its own that
// the kernel wakes for each, until ctx ends.
func (w *udpWorker) serveBlocking(ctx context.Context, resolver Resolver) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	socket, err := leavePoller(w.conn)
	if err != nil {
		return fmt.Errorf("receive lookups: %w", err)
	}
	defer unix.Close(socket)
	defer wakeAtEnd(ctx, socket)()
	b := newBatch(len(w.source))
	for {
		n, failed := b.receive(uintptr(socket), 1, 0)
		switch {
		case ctx.Err() != nil:
			return nil
		case failed == 0:
			b.answer(uintptr(socket), n, w, resolver)
		case failed != unix.EINTR:
			return os.NewSyscallError("receive lookups: recvmmsg", failed)
		}
	}
}

// leavePoller closes conn and returns its socket, which blocks from now on. The
// poller's thread would otherwise be woken for each datagram, too.
func leavePoller(conn *net.UDPConn) (socket int, err error) {
	if socket, err = duplicate(conn); err != nil {
		return 0, err
	}
	err = errors.Join(conn.Close(), os.NewSyscallError("fcntl", unix.SetNonblock(socket, false)))
	if err != nil {
		return 0, errors.Join(err, unix.Close(socket))
	}
	return socket, nil
}

// wakeAtEnd has calls that wait for a datagram return when ctx ends. What it
// returns takes that back, and must be called before the socket is closed.
func wakeAtEnd(ctx context.Context, socket int) (stop func()) {
	woken := make(chan struct{})
	cancel := context.AfterFunc(ctx, func() {
		defer close(woken)
		// The kernel wakes who waits, although it says that a socket without a peer
		// can't be shut down.
		_ = unix.Shutdown(socket, unix.SHUT_RD)
	})
	return func() {
		if !cancel() {
			<-woken
		}
	}
}
