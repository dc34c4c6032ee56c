package read

import (
	"errors"
	"fmt"
	"net"
	"syscall"

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
	_, err := buffers.WriteTo(s.conn)
	// A message for sk_msg that can't be copied whole fails with ENOSPC instead.
	if errors.Is(err, unix.EFAULT) || errors.Is(err, unix.ENOSPC) {
		return ErrShrank
	}
	return err
}
