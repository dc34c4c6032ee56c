package lookup

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"waggle/dfs/datapath"
	"waggle/dfs/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// echo answers each lookup with what was asked.
type echo struct{}

func (echo) Resolve(q *wire.LookupRequest, a *wire.LookupAnswer) {
	a.Walked = q.Components
	a.Attributes.Inode = q.Start
	a.Inline = fmt.Appendf(nil, "inode %d", q.Start)
	a.Attributes.InlineSize = uint16(len(a.Inline))
	a.Location.Index = q.ChunkIndex
	a.Location.Replicas = append(a.Location.Replicas,
		wire.Replica{Address: netip.MustParseAddrPort("10.0.0.1:1"), Server: q.ChunkIndex})
}

// userSpacePaths answer everything there.
var userSpacePaths = []string{"udp", "udp-batch", "udp-blocking", "udp-poll"}

func serve(t testing.TB, name, address string, counters *datapath.Counters) (at string, stop func()) {
	path, err := Paths.Use(name)
	require.NoError(t, err)
	server, err := path.Listen(t.Context(), netip.MustParseAddrPort(address), Options{Workers: 2, Counters: counters})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx, echo{}) }()
	return server.Address().String(), sync.OnceFunc(func() {
		cancel()
		require.NoError(t, <-done)
	})
}

func TestEveryConcurrentLookupGetsItsOwnAnswer(t *testing.T) {
	for i := range 2 * len(userSpacePaths) {
		path, address := userSpacePaths[i/2], []string{"127.0.0.1:0", "[::1]:0"}[i%2]
		var counters datapath.Counters
		at, stop := serve(t, path, address, &counters)
		transport, err := Dial(at)
		require.NoError(t, err)
		var all sync.WaitGroup
		for g := range uint64(2 * maxSockets) {
			all.Go(func() {
				for i := range uint64(20) {
					q := wire.LookupRequest{Start: g*100 + i, ChunkIndex: uint32(i), Components: 3,
						Flags: uint16(i) & wire.WantInline}
					a, err := transport.Lookup(t.Context(), &q)
					require.NoError(t, err)
					require.Equal(t, q.Start, a.Attributes.Inode)
					require.Equal(t, fmt.Sprintf("inode %d", q.Start), string(a.Inline))
					require.EqualValues(t, 3, a.Walked)
					require.Len(t, a.Location.Replicas, 1)
					require.EqualValues(t, i, a.Location.Replicas[0].Server)
				}
			})
		}
		all.Wait()
		require.NoError(t, transport.Close())
		stop()
		// Retransmissions on a busy machine can only add to it.
		require.GreaterOrEqual(t, counters.Counter(proof(t, path)).Load(), int64(2*maxSockets*20))
		require.Zero(t, counters.Counter(udpPath{name: path}.counter("malformed_datagrams")).Load())
		require.Positive(t, counters.Counter(datapath.CopiedInUser).Load())
	}
}

// proof is the counter that shows that a path was taken.
func proof(t *testing.T, path string) string {
	p, err := Paths.Use(path)
	require.NoError(t, err)
	return p.About().Proof[0]
}

func TestMalformedDatagramsAreDroppedAndCounted(t *testing.T) {
	for _, path := range userSpacePaths {
		t.Run(path, func(t *testing.T) { testMalformed(t, path) })
	}
}

func testMalformed(t *testing.T, path string) {
	var counters datapath.Counters
	at, stop := serve(t, path, "127.0.0.1:0", &counters)
	defer stop()
	conn, err := net.Dial("udp", at)
	require.NoError(t, err)
	defer conn.Close()
	good := (&wire.LookupRequest{ID: 5}).Append(nil)
	for _, datagram := range [][]byte{{}, []byte("noise"), good[:len(good)-1], append(good, 0), make([]byte, 1400), good} {
		_, err := conn.Write(datagram)
		require.NoError(t, err)
	}
	answer := make([]byte, 2048)
	conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	n, err := conn.Read(answer)
	require.NoError(t, err)
	var a wire.LookupAnswer
	require.NoError(t, a.Parse(answer[:n]))
	require.EqualValues(t, 5, a.ID, "only the good one is answered")
	stop() // an answer is counted behind its sending
	require.EqualValues(t, 5, counters.Counter(udpPath{name: path}.counter("malformed_datagrams")).Load())
	require.EqualValues(t, 1, counters.Counter(proof(t, path)).Load())
}

func TestLookupOutlivesARestartOfTheServer(t *testing.T) {
	var counters datapath.Counters
	at, stop := serve(t, "udp", "127.0.0.1:0", &counters)
	transport, err := Dial(at)
	require.NoError(t, err)
	defer transport.Close()
	_, err = transport.Lookup(t.Context(), &wire.LookupRequest{})
	require.NoError(t, err)
	stop()
	answered := make(chan error, 1)
	go func() {
		_, err := transport.Lookup(context.Background(), &wire.LookupRequest{})
		answered <- err
	}()
	time.Sleep(80 * time.Millisecond) // so that the first attempts are refused
	_, stop = serve(t, "udp", at, &counters)
	defer stop()
	require.NoError(t, <-answered)
}

func TestLookupEndsWithItsContext(t *testing.T) {
	silent, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	defer silent.Close()
	transport, err := Dial(silent.LocalAddr().String())
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(20*time.Millisecond, cancel)
	_, err = transport.Lookup(ctx, &wire.LookupRequest{})
	require.ErrorIs(t, err, context.Canceled)
	require.NoError(t, transport.Close())
	_, err = transport.Lookup(t.Context(), &wire.LookupRequest{})
	require.ErrorIs(t, err, net.ErrClosed)
}

func BenchmarkUserSpace(b *testing.B) {
	for _, path := range userSpacePaths {
		b.Run(path, func(b *testing.B) {
			var counters datapath.Counters
			at, stop := serve(b, path, "127.0.0.1:0", &counters)
			defer stop()
			transport, err := Dial(at)
			require.NoError(b, err)
			defer transport.Close()
			b.SetParallelism(8)
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if _, err := transport.Lookup(context.Background(), &wire.LookupRequest{Start: 9}); err != nil {
						b.Fatal(err)
					}
				}
			})
		})
	}
}

func TestAnswersComeFromWhereTheRequestWent(t *testing.T) {
	for _, path := range userSpacePaths {
		for all, addresses := range map[string][]string{"0.0.0.0:0": {"127.0.0.1", "127.0.0.2", "127.1.2.3"}, "[::]:0": {"127.0.0.2", "::1"}} {
			at, stop := serve(t, path, all, new(datapath.Counters))
			port := netip.MustParseAddrPort(at).Port()
			for _, address := range addresses {
				to := netip.AddrPortFrom(netip.MustParseAddr(address), port)
				conn, err := net.Dial("udp", to.String()) // takes datagrams from there only
				require.NoError(t, err)
				_, err = conn.Write((&wire.LookupRequest{ID: 5}).Append(nil))
				require.NoError(t, err)
				conn.SetReadDeadline(time.Now().Add(5 * time.Second))
				_, err = conn.Read(make([]byte, 2048))
				require.NoError(t, err, "%s at %s", path, to)
				require.NoError(t, conn.Close())
			}
			stop()
		}
	}
}
