package chunk

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"waggle/dfs/wire"
	"waggle/dfs/wire/control"
)

const chunk, epoch = 0x1ab, 3

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// running is a server that is being served.
type running struct {
	*Server
	config Config
	stop   func() error // as SIGTERM would; returns what Serve did
}

func start(t testing.TB, config Config) *running {
	t.Helper()
	if config.Directory == "" {
		config.Directory = t.TempDir()
	}
	config.Log = slog.New(slog.DiscardHandler)
	s, err := New(config)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		err = s.Serve(ctx)
		close(done)
	}()
	r := &running{Server: s, config: config, stop: func() error {
		cancel()
		<-done
		return err
	}}
	t.Cleanup(func() { r.stop() })
	return r
}

// restart starts a stopped server again, at the same addresses.
func (r *running) restart(t testing.TB) *running {
	t.Helper()
	config := r.config
	config.DataAddress, config.ControlAddress = r.DataAddress(), r.ControlAddress()
	return start(t, config)
}

func (r *running) replica(server uint32) wire.Replica {
	return wire.Replica{Address: netip.MustParseAddrPort(r.DataAddress()), Server: server}
}

func (r *running) rpc(t testing.TB) control.ChunkClient {
	t.Helper()
	conn, err := grpc.NewClient(r.ControlAddress(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	return control.NewChunkClient(conn)
}

func (r *running) count(name string) int64 { return r.Counters().Counter(name).Load() }

// chain starts servers that each hold an empty replica.
func chain(t testing.TB, n int, config Config) (servers []*running, replicas []wire.Replica) {
	t.Helper()
	for i := range n {
		s := start(t, config)
		_, err := s.store.Create(chunk, epoch)
		require.NoError(t, err)
		servers = append(servers, s)
		replicas = append(replicas, s.replica(uint32(i+1)))
	}
	return servers, replicas
}

// peer is the other side of a data connection.
type peer struct {
	t    testing.TB
	conn net.Conn
	in   *bufio.Reader
}

func dial(t testing.TB, s *running) *peer {
	t.Helper()
	conn, err := net.Dial("tcp", s.DataAddress())
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	require.NoError(t, conn.SetDeadline(time.Now().Add(30*time.Second)))
	return &peer{t: t, conn: conn, in: bufio.NewReader(conn)}
}

func (p *peer) send(f wire.Frame, data []byte) {
	p.t.Helper()
	_, err := p.conn.Write(append(f.Append(nil), data...))
	require.NoError(p.t, err)
}

func (p *peer) receive() (wire.Frame, []byte) {
	p.t.Helper()
	var f wire.Frame
	require.NoError(p.t, f.Receive(p.in, nil))
	require.NotZero(p.t, f.Flags&wire.FlagAnswer)
	data := make([]byte, f.Length)
	_, err := io.ReadFull(p.in, data)
	require.NoError(p.t, err)
	return f, data
}

func (p *peer) ask(f wire.Frame, data []byte) (wire.Frame, []byte) {
	p.t.Helper()
	p.send(f, data)
	answer, got := p.receive()
	require.Equal(p.t, f.Type, answer.Type)
	require.Equal(p.t, f.ID, answer.ID)
	return answer, got
}

func writeFrame(sequence, offset uint64, data []byte, next []wire.Replica) wire.Frame {
	return wire.Frame{Type: wire.FrameWrite, ID: 1000 + sequence, Chunk: chunk, Epoch: epoch, Offset: offset,
		Length: uint32(len(data)), Sequence: sequence,
		Extra: wire.AppendWriteExtra(nil, next, wire.AppendChecksums(nil, offset, data))}
}

func (p *peer) write(sequence, offset uint64, data []byte, next []wire.Replica) wire.Frame {
	p.t.Helper()
	answer, _ := p.ask(writeFrame(sequence, offset, data, next), data)
	return answer
}

func (p *peer) read(offset uint64, length int) (wire.Frame, []byte) {
	p.t.Helper()
	return p.ask(wire.Frame{Type: wire.FrameRead, ID: 7, Chunk: chunk, Epoch: epoch, Offset: offset, Length: uint32(length)}, nil)
}

func (p *peer) choose(path string) wire.Frame {
	p.t.Helper()
	answer, _ := p.ask(wire.Frame{Type: wire.FrameSelect, ID: 9, Extra: []byte(path)}, nil)
	return answer
}

// requireOK fails with the reason that the server gave.
func requireOK(t testing.TB, f wire.Frame) {
	t.Helper()
	require.Equal(t, wire.StatusOK, f.Status, "%s", f.Extra)
}

// requireContent reads the chunk whole and verifies it.
func (s *running) requireContent(t testing.TB, want []byte) {
	t.Helper()
	p := dial(t, s)
	defer p.conn.Close()
	f, got := p.read(0, wire.MaxData)
	requireOK(t, f)
	require.EqualValues(t, -1, wire.CheckChecksums(f.Extra, 0, got))
	require.True(t, string(want) == string(got), "server holds %d bytes that differ from the %d written", len(got), len(want))
}

func pattern(seed byte, n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{seed, 1}).Read(b)
	return b
}

// damage flips a bit of the server's replica on disk.
func (s *running) damage(t testing.TB, offset int64) {
	t.Helper()
	path := filepath.Join(s.config.Directory, "replicas", fmt.Sprintf("%02x", chunk%256), fmt.Sprintf("%016x.data", chunk))
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	require.NoError(t, err)
	defer f.Close()
	b := make([]byte, 1)
	_, err = f.ReadAt(b, offset)
	require.NoError(t, err)
	b[0] ^= 4
	_, err = f.WriteAt(b, offset)
	require.NoError(t, err)
}

func descriptors(t testing.TB) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	return len(entries)
}
