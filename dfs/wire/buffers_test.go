package wire

import (
	"net"
	"syscall"
	"testing"

	"waggle/dfs/tcp"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// bufferOf asks for a socket buffer's size.
func bufferOf(t *testing.T, conn syscall.RawConn, option int) (size int) {
	t.Helper()
	var failed error
	require.NoError(t, conn.Control(func(fd uintptr) { size, failed = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, option) }))
	require.NoError(t, failed)
	return size
}

// Buffers are enlarged, or it is said that they could not be, and then nothing
// has changed.
func TestBuffersAreEnlargedOrLeftAlone(t *testing.T) {
	l, err := tcp.Listen(t.Context(), "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	conn, err := net.Dial("tcp", l.Addr().String())
	require.NoError(t, err)
	defer conn.Close()
	raw, err := conn.(*net.TCPConn).SyscallConn()
	require.NoError(t, err)
	for option, enlarge := range map[int]func(syscall.RawConn) error{unix.SO_SNDBUF: EnlargeSendBuffer, unix.SO_RCVBUF: EnlargeReceiveBuffer} {
		before := bufferOf(t, raw, option)
		if enlarge(raw) == nil {
			require.GreaterOrEqual(t, bufferOf(t, raw, option), DataBuffer)
		} else {
			require.NotZero(t, unix.Geteuid(), "root has the right")
			require.Equal(t, before, bufferOf(t, raw, option))
		}
	}
}
