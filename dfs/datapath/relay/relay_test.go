package relay

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"waggle/dfs/datapath"
	"waggle/dfs/datapath/pathtest"
	"waggle/dfs/tcp"
)

// eachPath runs f for every relay path of this machine.
func eachPath(t *testing.T, f func(t *testing.T, p Path)) {
	for _, p := range Paths.All() {
		t.Run(p.About().Name, func(t *testing.T) {
			pathtest.SkipUnlessSupported(t, p.About())
			f(t, p)
		})
	}
}

func connect(t testing.TB) (accepted, dialled *net.TCPConn) {
	t.Helper()
	l, err := tcp.Listen(t.Context(), "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	require.NoError(t, err)
	s, err := l.AcceptTCP()
	require.NoError(t, err)
	t.Cleanup(func() { s.Close(); c.Close() })
	return s, c.(*net.TCPConn)
}

// hop is an upstream, a relay with one connection on either side, and a client.
type hop struct {
	up, from, to, down *net.TCPConn
	counters           datapath.Counters
	relay              Relay
	source             Source
	target             Target
}

func newHop(t testing.TB, p Path) *hop {
	t.Helper()
	h := new(hop)
	h.up, h.from = connect(t)
	h.to, h.down = connect(t)
	var err error
	h.relay, err = p.Open(&h.counters)
	require.NoError(t, err)
	h.source, err = h.relay.NewSource(h.from)
	require.NoError(t, err)
	h.target, err = h.relay.NewTarget(h.to)
	require.NoError(t, err)
	t.Cleanup(func() {
		h.source.Close()
		require.NoError(t, errors.Join(h.target.Close(), h.relay.Close()))
	})
	return h
}

const headerSize = 64

func header(mark string, size int) []byte {
	return binary.LittleEndian.AppendUint64(append([]byte(mark), make([]byte, headerSize-16)...), uint64(size))
}

func expect(size int) Header {
	return Header{Length: headerSize, Value: header("ANSWERED", size), Mask: bytes.Repeat([]byte{0xff}, headerSize)}
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rand.Uint32())
	}
	return b
}

func within(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// ask begins a body and receives its header.
func (h *hop) ask(t testing.TB, answer []byte, size int) {
	t.Helper()
	ctx := within(t, 10*time.Second)
	require.NoError(t, h.target.Settle(ctx))
	require.NoError(t, h.source.Begin(h.target, expect(size), int64(size)))
	go h.up.Write(answer)
	got := make([]byte, headerSize)
	require.NoError(t, h.from.SetReadDeadline(time.Now().Add(10*time.Second)))
	_, err := io.ReadFull(h.from, got)
	require.NoError(t, err)
	require.Equal(t, answer[:headerSize], got)
}

// The conformance suite: the same seeded bodies arrive over every path, every
// byte before and behind them keeps its place, and every path proves that it was
// taken.
func TestEveryPathMovesTheSameBytes(t *testing.T) {
	eachPath(t, func(t *testing.T, p Path) {
		h := newHop(t, p)
		random := rand.New(rand.NewPCG(1, 2))
		total := 0
		for range 100 {
			size := 1 + random.IntN(1<<random.IntN(21))
			total += size
			body := randomBytes(size)
			require.NoError(t, h.target.Settle(within(t, time.Second)))
			_, err := h.to.Write([]byte("before"))
			require.NoError(t, err)
			got := make(chan []byte, 1)
			go func() {
				b := make([]byte, 6+size)
				io.ReadFull(h.down, b)
				got <- b
			}()
			h.ask(t, append(append(header("ANSWERED", size), body...), "behind"...), size)
			moved, err := h.source.Move(within(t, 10*time.Second))
			require.NoError(t, err)
			require.EqualValues(t, size, moved)
			require.True(t, bytes.Equal(append([]byte("before"), body...), <-got), "%d bytes", size)
			behind := make([]byte, 6)
			require.NoError(t, h.from.SetReadDeadline(time.Now().Add(10*time.Second)))
			_, err = io.ReadFull(h.from, behind)
			require.NoError(t, err)
			require.Equal(t, "behind", string(behind))
		}
		for _, name := range p.About().Proof {
			require.EqualValues(t, total, h.counters.Snapshot()[name], "the proof %s", name)
		}
	})
}

// What a target writes keeps its place between bodies, with no Settle between.
func TestWritesBetweenBodies(t *testing.T) {
	eachPath(t, func(t *testing.T, p Path) {
		h := newHop(t, p)
		random := rand.New(rand.NewPCG(3, 4))
		for range 100 {
			body := randomBytes(1 + random.IntN(1<<random.IntN(19)))
			got := make(chan []byte, 1)
			go func() {
				b := make([]byte, 6+len(body)+5)
				io.ReadFull(h.down, b)
				got <- b
			}()
			ctx := within(t, 10*time.Second)
			_, err := h.target.Write(ctx, []byte("before"))
			require.NoError(t, err)
			require.NoError(t, h.source.Begin(h.target, expect(len(body)), int64(len(body))))
			go h.up.Write(append(header("ANSWERED", len(body)), body...))
			_, err = io.ReadFull(h.from, make([]byte, headerSize))
			require.NoError(t, err)
			_, err = h.source.Move(ctx)
			require.NoError(t, err)
			_, err = h.target.Write(ctx, []byte("after"))
			require.NoError(t, err)
			require.True(t, bytes.Equal(append(append([]byte("before"), body...), "after"...), <-got), "%d bytes", len(body))
		}
	})
}

// Nothing behind a body, however small, is needed to have it moved.
func TestSmallBodiesOneAfterTheOther(t *testing.T) {
	eachPath(t, func(t *testing.T, p Path) {
		h := newHop(t, p)
		for i := range 200 {
			size := 1 + i%9
			if i%5 == 0 {
				size = MaxBody
			}
			h.ask(t, append(header("ANSWERED", size), randomBytes(size)...), size)
			arrived := make(chan error, 1)
			go func() {
				_, err := io.ReadFull(h.down, make([]byte, size))
				arrived <- err
			}()
			moved, err := h.source.Move(within(t, 10*time.Second))
			require.NoError(t, err)
			require.EqualValues(t, size, moved)
			require.NoError(t, <-arrived)
		}
	})
}

// An answer with another header is declined, and read as usual; the next one is
// moved.
func TestADeclinedAnswerIsReadAsUsual(t *testing.T) {
	eachPath(t, func(t *testing.T, p Path) {
		h := newHop(t, p)
		for range 3 {
			h.ask(t, append(header("REFUSED!", 7), "because"...), 100)
			require.NoError(t, h.source.Decline(within(t, 10*time.Second)))
			rest := make([]byte, 7)
			_, err := io.ReadFull(h.from, rest)
			require.NoError(t, err)
			require.Equal(t, "because", string(rest))

			h.ask(t, append(header("ANSWERED", 4), "body"...), 4)
			_, err = h.source.Move(within(t, 10*time.Second))
			require.NoError(t, err)
			_, err = io.ReadFull(h.down, rest[:4])
			require.NoError(t, err)
			require.Equal(t, "body", string(rest[:4]))
		}
	})
}

// An upstream that ends in the middle of a body is told apart from all else,
// with how much was moved: the rest comes from another source.
func TestABodyThatEndsEarlyIsContinuedFromAnotherSource(t *testing.T) {
	eachPath(t, func(t *testing.T, p Path) {
		h := newHop(t, p)
		body := randomBytes(300_000)
		got := make(chan []byte, 1)
		go func() {
			b := make([]byte, len(body))
			io.ReadFull(h.down, b)
			got <- b
		}()
		require.NoError(t, h.source.Begin(h.target, expect(len(body)), int64(len(body))))
		_, err := h.up.Write(append(header("ANSWERED", len(body)), body[:200_000]...))
		require.NoError(t, err)
		require.NoError(t, h.up.Close())
		_, err = io.ReadFull(h.from, make([]byte, headerSize))
		require.NoError(t, err)
		moved, err := h.source.Move(within(t, 10*time.Second))
		require.ErrorIs(t, err, ErrUpstream)
		require.EqualValues(t, 200_000, moved)
		require.NoError(t, h.source.Close())

		h.up, h.from = connect(t)
		h.source, err = h.relay.NewSource(h.from)
		require.NoError(t, err)
		rest := len(body) - int(moved)
		h.ask(t, append(header("ANSWERED", rest), body[moved:]...), rest)
		_, err = h.source.Move(within(t, 10*time.Second))
		require.NoError(t, err)
		require.True(t, bytes.Equal(body, <-got))
	})
}

// A client that does not read holds a body up until its context ends, and one
// that has vanished is an error that does not blame the upstream.
func TestSlowAndVanishedClients(t *testing.T) {
	eachPath(t, func(t *testing.T, p Path) {
		pass := func(h *hop, ctx context.Context) error {
			answer := append(header("ANSWERED", MaxBody), make([]byte, MaxBody)...)
			for range 32 {
				if err := h.target.Settle(ctx); err != nil {
					return err
				}
				if err := h.source.Begin(h.target, expect(MaxBody), MaxBody); err != nil {
					return err
				}
				go h.up.Write(answer)
				if _, err := io.ReadFull(h.from, make([]byte, headerSize)); err != nil {
					return err
				}
				if _, err := h.source.Move(ctx); err != nil {
					return err
				}
			}
			return nil
		}
		slow := newHop(t, p)
		require.NoError(t, slow.down.SetReadBuffer(16<<10))
		err := pass(slow, within(t, 300*time.Millisecond))
		require.Error(t, err)
		assert.True(t, errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded), "%v", err)
		assert.NotErrorIs(t, err, ErrUpstream)

		gone := newHop(t, p)
		require.NoError(t, gone.down.SetLinger(0))
		require.NoError(t, gone.down.Close())
		err = pass(gone, within(t, 10*time.Second))
		require.Error(t, err)
		assert.NotErrorIs(t, err, ErrUpstream)
	})
}

// Connections that come and go leave no descriptor.
func TestNothingIsLeftBehind(t *testing.T) {
	count := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		require.NoError(t, err)
		return len(entries)
	}
	eachPath(t, func(t *testing.T, p Path) {
		start := count()
		relay, err := p.Open(new(datapath.Counters))
		require.NoError(t, err)
		before := 0
		for i := range 300 {
			if i == 10 {
				before = count()
			}
			h := &hop{relay: relay}
			h.up, h.from = connect(t)
			h.to, h.down = connect(t)
			h.source, err = relay.NewSource(h.from)
			require.NoError(t, err)
			h.target, err = relay.NewTarget(h.to)
			require.NoError(t, err)
			h.ask(t, append(header("ANSWERED", 4), "body"...), 4)
			_, err = h.source.Move(within(t, 10*time.Second))
			require.NoError(t, err)
			require.NoError(t, errors.Join(h.target.Close(), h.source.Close(), h.up.Close(), h.to.Close(), h.down.Close()))
		}
		require.InDelta(t, before, count(), 5)
		require.NoError(t, relay.Close())
		require.InDelta(t, start, count(), 5)
	})
}
