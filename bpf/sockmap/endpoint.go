package sockmap

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// endpoint is a connection of this process that is part of a transfer.
type endpoint struct {
	conn   *net.TCPConn
	raw    syscall.RawConn
	cookie uint64 // the kernel's name of the socket
}

func newEndpoint(conn *net.TCPConn) (*endpoint, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("reach the socket: %w", err)
	}
	e := &endpoint{conn: conn, raw: raw}
	return e, e.control("get the socket's cookie", func(fd int) (err error) {
		e.cookie, err = unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE)
		return err
	})
}

func cookieFrom(sample []byte) uint64 {
	if len(sample) < 8 {
		return 0
	}
	return binary.LittleEndian.Uint64(sample)
}

func (e *endpoint) control(doing string, f func(fd int) error) error {
	var failed error
	if err := e.raw.Control(func(fd uintptr) { failed = f(int(fd)) }); err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	if failed != nil {
		return fmt.Errorf("%s: %w", doing, failed)
	}
	return nil
}

func (e *endpoint) join(sockets *ebpf.Map) error {
	err := e.control("put the socket into its map", func(fd int) error { return sockets.Put(e.cookie, uint64(fd)) })
	if errors.Is(err, unix.EOPNOTSUPP) {
		return ErrNotEstablished
	}
	return err
}

// joinTargets also lets the socket's send buffer take all that may be held for
// it: from a full one the kernel turns away, and looks again a timer tick later.
func (e *endpoint) joinTargets(targets *ebpf.Map) error {
	err := e.control("enlarge the send buffer", func(fd int) error {
		if size, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF); err != nil || size >= 2*HeldLimit {
			return err
		}
		return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, HeldLimit) // the kernel doubles it
	})
	if err != nil {
		return err
	}
	return e.join(targets)
}

// leave is no error for a socket that is not in the map: a closed one leaves by itself.
func (e *endpoint) leave(sockets *ebpf.Map) error {
	if err := sockets.Delete(e.cookie); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("take the socket out of its map: %w", err)
	}
	return nil
}

// watch reports once why the source stopped: errRefused, io.EOF, or the
// connection's error.
func (e *endpoint) watch() chan error {
	stopped := make(chan error, 1)
	go func() {
		var why error
		err := e.raw.Read(func(fd uintptr) bool {
			why = stopReason(int(fd))
			return why != nil
		})
		if why == nil {
			why = err
		}
		stopped <- why
	}()
	return stopped
}

// stopReason is nil for a connection from which more may come. Asking for data
// makes the kernel parse what was already in the queue when the socket joined,
// which it does not do by itself; while something is in the queue, it does not
// tell the socket's error.
func stopReason(fd int) error {
	var b [1]byte
	n, _, err := unix.Recvfrom(fd, b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
	if err == nil && n == 0 {
		return io.EOF
	}
	if err != nil && err != unix.EAGAIN && err != unix.EINTR {
		return err
	}
	pending, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err == nil && pending != 0 {
		err = syscall.Errno(pending)
	}
	return err
}

func (e *endpoint) stopWatching(stopped chan error) {
	e.conn.SetReadDeadline(time.Unix(1, 0))
	<-stopped
	e.conn.SetReadDeadline(time.Time{})
}

// clearRefusal takes the error off the socket that a refusal left there, so that
// reading goes on behind the transfer. Another error ends the connection's reads
// anyway.
func (e *endpoint) clearRefusal() error {
	return e.control("clear the socket's error", func(fd int) error {
		_, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
		return err
	})
}

// settle returns when no program is running on the socket's data: both need the
// socket's lock.
func (e *endpoint) settle() error {
	return e.control("lock the socket", func(fd int) error {
		_, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		return err
	})
}

// consumed is how many of the bytes that the socket received it no longer holds.
func (e *endpoint) consumed() (position uint64, err error) {
	err = e.control("ask for the socket's position", func(fd int) error {
		info, queued, err := whileStill(fd, unix.TIOCINQ, func(i *unix.TCPInfo) uint64 { return i.Bytes_received })
		if err == nil {
			position = info.Bytes_received - uint64(queued)
		}
		return err
	})
	return position, err
}

// written is how many bytes the socket's TCP has ever taken.
func (e *endpoint) written() (uint64, error) {
	_, written, err := e.progress()
	return written, err
}

// progress says how many bytes the peer has acknowledged and how many TCP has taken.
func (e *endpoint) progress() (acknowledged, written uint64, err error) {
	err = e.control("ask for the socket's progress", func(fd int) error {
		polled := []unix.PollFd{{Fd: int32(fd)}}
		if _, err := unix.Poll(polled, 0); err != nil && err != unix.EINTR {
			return err
		}
		if polled[0].Revents&(unix.POLLERR|unix.POLLHUP) != 0 {
			return ErrReceiverGone
		}
		info, queued, err := whileStill(fd, unix.SIOCOUTQ, func(i *unix.TCPInfo) uint64 { return i.Bytes_acked })
		if err == nil {
			acknowledged, written = info.Bytes_acked, info.Bytes_acked+uint64(queued)
		}
		return err
	})
	return acknowledged, written, err
}

// whileStill reads a queue's length and what TCP says beside it, between two
// moments at which a position was the same: the two belong together.
func whileStill(fd int, queue uint, position func(*unix.TCPInfo) uint64) (*unix.TCPInfo, int, error) {
	before, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	for err == nil {
		var queued int
		if queued, err = unix.IoctlGetInt(fd, queue); err != nil {
			break
		}
		var after *unix.TCPInfo
		if after, err = unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO); err != nil {
			break
		}
		if position(before) == position(after) {
			return after, queued, nil
		}
		before = after
	}
	return nil, 0, err
}
