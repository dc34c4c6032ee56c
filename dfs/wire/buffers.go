package wire

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
)

// DataBuffer is what the socket buffers of a connection that carries data are
// given, in bytes as the kernel counts them: the send buffer of the end that
// answers, the receive buffer of the end that asks. It is as much as a client asks
// for ahead. The kernel starts with small ones and enlarges them slowly, by what it
// has seen of the connection: a reader of 1 MiB by sendfile over loopback then waits
// for the window most of the time, and takes two to three times as long. All data
// paths have the same buffers, and so has the floor control, or their comparison
// would not be fair.
const DataBuffer = 4 << 20

// EnlargeSendBuffer gives a socket DataBuffer to send from. It fails where the
// process has no right to exceed the machine's limit (net.core.wmem_max): then the
// buffer is left to the kernel, since one of that limit is smaller than what the
// kernel enlarges it to by itself.
func EnlargeSendBuffer(conn syscall.RawConn) error { return enlarge(conn, unix.SO_SNDBUFFORCE) }

// EnlargeReceiveBuffer is EnlargeSendBuffer for receiving (net.core.rmem_max).
func EnlargeReceiveBuffer(conn syscall.RawConn) error { return enlarge(conn, unix.SO_RCVBUFFORCE) }

func enlarge(conn syscall.RawConn, option int) error {
	var failed error
	err := conn.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, option, DataBuffer/2) // the kernel doubles it
	})
	return errors.Join(err, failed)
}
