package tcp

import (
	"context"
	"net"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// congestionOf asks the kernel for a socket's congestion control.
func congestionOf(t *testing.T, conn net.Conn) (name string) {
	t.Helper()
	raw, err := conn.(*net.TCPConn).SyscallConn()
	require.NoError(t, err)
	var failed error
	require.NoError(t, raw.Control(func(fd uintptr) { name, failed = unix.GetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION) }))
	require.NoError(t, failed)
	return name
}

// reno is the one that every kernel has and every user may choose. The other is the
// default of this machine, whatever that is.
func TestBothEndsOfEachConnectionFollowThePolicy(t *testing.T) {
	t.Cleanup(func() { require.NoError(t, Use(Policy{})) })
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer plain.Close()
	unset, err := net.Dial("tcp", plain.Addr().String())
	require.NoError(t, err)
	defer unset.Close()

	for wanted, policy := range map[string]Policy{"reno": {Congestion: "reno"}, congestionOf(t, unset): {}} {
		require.NoError(t, Use(policy))
		l, err := Listen(t.Context(), "127.0.0.1:0")
		require.NoError(t, err)
		defer l.Close()
		for _, dial := range []func(context.Context, string) (net.Conn, error){
			DialControl,
			func(ctx context.Context, address string) (net.Conn, error) { return Dial(ctx, address, 0) },
		} {
			dialled, err := dial(t.Context(), l.Addr().String())
			require.NoError(t, err)
			defer dialled.Close()
			accepted, err := l.Accept()
			require.NoError(t, err)
			defer accepted.Close()
			require.Equal(t, wanted, congestionOf(t, dialled))
			require.Equal(t, wanted, congestionOf(t, accepted))
		}
	}
}

func TestAPolicyThatTheKernelLacksIsRefusedAndChangesNothing(t *testing.T) {
	t.Cleanup(func() { require.NoError(t, Use(Policy{})) })
	require.NoError(t, Use(Policy{Congestion: "reno"}))
	require.ErrorContains(t, Use(Policy{Congestion: "no-such-thing"}), "tcp_available_congestion_control")
	require.Equal(t, Policy{Congestion: "reno"}, current())
}
