package sockmap

import (
	"io"
	"math/rand/v2"
	"net"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// requireRoot skips without the rights to load programs. With them, the machine
// this is developed for supports everything, and a failure is a failure.
func requireRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to load BPF programs")
	}
}

// enterCgroup puts the test's process into a control group until the test ends.
func enterCgroup(t testing.TB) *Cgroup {
	t.Helper()
	requireRoot(t)
	group, err := NewCgroup()
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, group.Close()) })
	require.NoError(t, group.Enter(os.Getpid()))
	return group
}

func listen(t testing.TB, address string) *net.TCPListener {
	t.Helper()
	l, err := net.Listen("tcp", address)
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() })
	return l.(*net.TCPListener)
}

func port(l *net.TCPListener) uint16 { return uint16(l.Addr().(*net.TCPAddr).Port) }

// connect returns the dialling and the accepting end of a new connection.
func connect(t testing.TB, l *net.TCPListener, dialer net.Dialer) (asker, answerer *net.TCPConn) {
	t.Helper()
	conn, err := dialer.Dial("tcp", l.Addr().String())
	require.NoError(t, err)
	accepted, err := l.AcceptTCP()
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close(); accepted.Close() })
	deadline := time.Now().Add(20 * time.Second) // a lost wake-up fails instead of hanging
	require.NoError(t, conn.SetDeadline(deadline))
	require.NoError(t, accepted.SetDeadline(deadline))
	return conn.(*net.TCPConn), accepted
}

// newIngress takes the connections to l, and counts until the test ends.
func newIngress(t testing.TB, l *net.TCPListener, config Config) *Ingress {
	t.Helper()
	config.Cgroup = enterCgroup(t).Path()
	config.Ports = []uint16{port(l)}
	in, err := NewIngress(config)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, in.Close()) })
	return in
}

func counts(t testing.TB, in *Ingress) Counters {
	t.Helper()
	c, err := in.Counters()
	require.NoError(t, err)
	return c
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(n)}).Read(b)
	return b
}

func TestAnswersAreRedirected(t *testing.T) {
	for _, address := range []string{"127.0.0.1:0", "[::1]:0", "[::]:0"} {
		t.Run(address, func(t *testing.T) {
			// The socket that listens must be made inside the group too: accepted
			// ones inherit its group.
			group := enterCgroup(t)
			l := listen(t, address)
			in, err := NewIngress(Config{Cgroup: group.Path(), Ports: []uint16{port(l)}})
			require.NoError(t, err)
			defer in.Close()
			asker, answerer := connect(t, l, net.Dialer{})
			joined, err := in.Joined(answerer)
			require.NoError(t, err)
			assert.True(t, joined)

			answer := randomBytes(1 << 20)
			go answerer.Write(answer)
			got := make([]byte, len(answer))
			_, err = io.ReadFull(asker, got)
			require.NoError(t, err)
			assert.Equal(t, answer, got)

			request := []byte("request")
			_, err = asker.Write(request)
			require.NoError(t, err)
			_, err = io.ReadFull(answerer, got[:len(request)])
			require.NoError(t, err)
			assert.Equal(t, request, got[:len(request)])

			c := counts(t, in)
			assert.EqualValues(t, len(answer), c.Answers.RedirectedBytes)
			assert.Zero(t, c.Answers.PassedBytes())
			assert.Zero(t, c.Requests)
		})
	}
}
