package topology

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

// The kernel tells of the connections that a role has, in its own namespace, and of
// nobody else's; a program on its control group has given them a congestion control.
func TestConnectionsOfAProcess(t *testing.T) {
	owner := claimed(t)
	defer func() { require.NoError(t, owner.Close()) }()
	if os.Geteuid() != 0 || owner.Cgroup() == "" {
		t.Skip("needs root and control groups of version 2")
	}
	for _, kind := range kinds(t) {
		n, err := Open(owner, options(kind))
		require.NoError(t, err)
		for _, wanted := range []string{"reno", "cubic"} {
			c := role(n.Host("a"), kind+"-"+wanted, t.TempDir())
			c.Congestion = wanted
			p, err := n.Host("a").Start(c)
			require.NoError(t, err)
			conn, err := n.Dial(t.Context(), "tcp", listening(t, p))
			require.NoError(t, err)
			_, err = fmt.Fprintln(conn, "hello") // answered, it is known to be accepted
			require.NoError(t, err)
			_, err = bufio.NewReader(conn).ReadString('\n')
			require.NoError(t, err)
			connections, err := p.Connections()
			require.NoError(t, err)
			require.Len(t, connections, 1)
			require.Equal(t, wanted, connections[0].Congestion)
			require.Positive(t, connections[0].SendBuffer)
			require.Positive(t, connections[0].ReceiveBuffer)
			require.NoError(t, conn.Close())
			p.Stop(t.Context())
		}
		n.Close()
	}
}

func TestKernelAnswersThatAreCutAreErrors(t *testing.T) {
	_, err := parseConnection(make([]byte, diagAnswerSize-1))
	require.ErrorContains(t, err, "71 bytes")
	short := binary.NativeEndian.AppendUint16(make([]byte, diagAnswerSize), 8)
	short = append(binary.NativeEndian.AppendUint16(short, 7), 0, 0, 0, 0)
	_, err = parseConnection(short)
	require.ErrorContains(t, err, "4 bytes about a socket's buffers")
}

func FuzzParseConnection(f *testing.F) {
	f.Add(make([]byte, diagAnswerSize+16))
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, err := parseConnection(b); err == nil {
			require.LessOrEqual(t, len(c.Congestion), len(b))
		}
	})
}
