package tcp

import (
	"net"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// optionOf asks for a number that a socket has.
func optionOf(t *testing.T, conn *net.TCPConn, level, option int) (value int) {
	t.Helper()
	raw, err := conn.SyscallConn()
	require.NoError(t, err)
	var failed error
	require.NoError(t, raw.Control(func(fd uintptr) { value, failed = unix.GetsockoptInt(int(fd), level, option) }))
	require.NoError(t, failed)
	return value
}

// Both buffers of both ends are what the policy says; without the right to it, or with
// a policy that leaves them to the kernel, they are what those of control connections are.
func TestBothEndsOfDataConnectionsHaveThePolicysBuffers(t *testing.T) {
	t.Cleanup(func() { require.NoError(t, Use(Policy{})) })
	for _, policy := range []Policy{{}, {BufferBytes: 1 << 20}, {BufferBytes: KernelBuffers}} {
		require.NoError(t, Use(policy))
		data, err := ListenData(t.Context(), "127.0.0.1:0")
		require.NoError(t, err)
		defer data.Close()
		dialled, err := DialData(t.Context(), data.Addr().String())
		require.NoError(t, err)
		defer dialled.Close()
		accepted, err := data.AcceptTCP()
		require.NoError(t, err)
		defer accepted.Close()
		plain, err := Dial(t.Context(), data.Addr().String(), 0)
		require.NoError(t, err)
		defer plain.Close()
		for _, option := range []int{unix.SO_SNDBUF, unix.SO_RCVBUF} {
			for _, end := range []*net.TCPConn{dialled, accepted} {
				if size := optionOf(t, end, unix.SOL_SOCKET, option); policy.buffer() != KernelBuffers && unix.Geteuid() == 0 {
					require.Equal(t, policy.buffer(), size)
				} else {
					require.NotEqual(t, DataBuffer, size)
				}
			}
			require.NotEqual(t, DataBuffer, optionOf(t, plain, unix.SOL_SOCKET, option))
		}
	}
}

// Go sets TCP_NODELAY by itself, on accepted and dialled sockets; the policy can leave it
// off, on both ends and in every way to come by a connection.
func TestMessagesAreHeldBackWhereThePolicySaysSo(t *testing.T) {
	t.Cleanup(func() { require.NoError(t, Use(Policy{})) })
	for wanted, policy := range map[int]Policy{1: {}, 0: {Delay: true}} {
		require.NoError(t, Use(policy))
		l, err := ListenData(t.Context(), "127.0.0.1:0")
		require.NoError(t, err)
		defer l.Close()
		dialled, err := DialData(t.Context(), l.Addr().String())
		require.NoError(t, err)
		defer dialled.Close()
		accepted, err := Accept(l)
		require.NoError(t, err)
		defer accepted.Close()
		require.Equal(t, wanted, optionOf(t, dialled, unix.IPPROTO_TCP, unix.TCP_NODELAY))
		require.Equal(t, wanted, optionOf(t, accepted, unix.IPPROTO_TCP, unix.TCP_NODELAY))
	}
}
