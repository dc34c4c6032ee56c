package read

import (
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// socket gives a path the system calls that net.TCPConn doesn't, and waits for
// room in the send buffer with the runtime's poller.
type socket struct {
	conn *net.TCPConn
	raw  syscall.RawConn
}

func newSocket(conn *net.TCPConn) (socket, error) {
	raw, err := conn.SyscallConn()
	return socket{conn, raw}, err
}

// sendAll calls send with the socket's descriptor until it has moved n bytes.
// send returns how many it moved; unix.EAGAIN from it waits for room.
func (s socket) sendAll(n int, send func(fd int) (int, error)) error {
	return untilMemory(func() error { return s.sendSome(&n, send) })
}

// sendSome is sendAll until send fails, with what is left in n.
func (s socket) sendSome(left *int, send func(fd int) (int, error)) error {
	n := *left
	defer func() { *left = n }()
	var failed error
	err := s.raw.Write(func(fd uintptr) bool {
		for n > 0 {
			moved, err := send(int(fd))
			switch {
			case err == unix.EINTR:
			case err == unix.EAGAIN:
				return false
			case err == unix.EFAULT:
				failed = ErrShrank
				return true
			case err != nil:
				failed = err
				return true
			case moved == 0:
				failed = ErrShrank
				return true
			default:
				n -= moved
			}
		}
		return true
	})
	if err != nil {
		return err
	}
	return failed
}

// sendHeader sends what stands before the data, to share a segment with it.
func (s socket) sendHeader(header []byte) error {
	err := s.sendAll(len(header), func(fd int) (int, error) {
		n, err := unix.SendmsgN(fd, header, nil, nil, unix.MSG_MORE|unix.MSG_NOSIGNAL)
		if err == nil {
			header = header[n:]
		}
		return n, err
	})
	if err != nil {
		return fmt.Errorf("send a header: %w", err)
	}
	return nil
}

// writeAll writes buffers, which may be mapped, with as few calls as the
// socket's send buffer allows.
func (s socket) writeAll(buffers net.Buffers) error {
	err := writeBuffers(s.conn, buffers)
	// A message for sk_msg that can't be copied whole fails with ENOSPC instead.
	if errors.Is(err, unix.EFAULT) || errors.Is(err, unix.ENOSPC) {
		return ErrShrank
	}
	return err
}

// writeBuffers writes buffers, which are used up.
func writeBuffers(conn *net.TCPConn, buffers net.Buffers) error {
	return untilMemory(func() error {
		_, err := buffers.WriteTo(conn) // takes what it has written out of buffers
		return err
	})
}

// longestMemoryWait is how long a sender sleeps at most before it looks again
// whether there is memory.
const longestMemoryWait = 20 * time.Millisecond

// untilMemory repeats a write that goes on where it stopped for as long as it
// fails with ENOMEM. TCP waits for memory by itself; but the kernel (6.18) turns
// away what sk_msg redirects to a receiver while all sockets together hold more
// than tcp_mem allows (bpf_tcp_ingress), and wakes nobody when that is over. The
// connection's write deadline ends it, as it ends the wait for a slow receiver.
func untilMemory(write func() error) error {
	for wait := time.Millisecond; ; wait = min(2*wait, longestMemoryWait) {
		if err := write(); !errors.Is(err, unix.ENOMEM) {
			return err
		}
		time.Sleep(wait)
	}
}
