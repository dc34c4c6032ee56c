package tcp

import (
	"context"
	"errors"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// DataBuffer is what the send and the receive buffer of a connection that carries data
// are given at both its ends, in bytes as the kernel counts them: as much as a client
// asks for ahead. The kernel starts with small ones and enlarges them slowly, by what it
// has seen of the connection: a reader of 1 MiB by sendfile over loopback then waits
// for the window most of the time. All data paths, all relays and the floor control have
// the same, or their comparison would not be fair; what is no program of ours begins
// with them by the settings of its network namespace.
const DataBuffer = 4 << 20

// KernelBuffers is the Policy.BufferBytes that leaves buffers to the kernel.
const KernelBuffers = -1

// buffer is how many bytes the buffers of data connections are to have, or
// KernelBuffers.
func (p Policy) buffer() int {
	if p.BufferBytes == 0 {
		return DataBuffer
	}
	return p.BufferBytes
}

// enlarge gives a socket the policy's buffers. A process that has no right to exceed the
// machine's limits (net.core.wmem_max and rmem_max) leaves them to the kernel: buffers of
// those limits are smaller than what the kernel enlarges them to by itself.
func (p Policy) enlarge(fd int) error {
	if p.buffer() == KernelBuffers {
		return nil
	}
	for _, option := range []int{unix.SO_SNDBUFFORCE, unix.SO_RCVBUFFORCE} {
		err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, option, p.buffer()/2) // the kernel doubles it
		if err != nil && !errors.Is(err, unix.EPERM) {
			return err
		}
	}
	return nil
}

// ControlData is Control for connections that carry data: they have the policy's
// buffers, too.
func ControlData(network, address string, conn syscall.RawConn) error {
	var failed error
	err := conn.Control(func(fd uintptr) { failed = current().enlarge(int(fd)) })
	return errors.Join(err, failed, Control(network, address, conn))
}

// ListenData is Listen for connections that carry data.
func ListenData(ctx context.Context, address string) (*net.TCPListener, error) {
	return listen(ctx, address, ControlData)
}

// DialData is Dial for connections that carry data. Its limit is ctx.
func DialData(ctx context.Context, address string) (*net.TCPConn, error) {
	return dial(ctx, net.Dialer{Control: ControlData}, address)
}
