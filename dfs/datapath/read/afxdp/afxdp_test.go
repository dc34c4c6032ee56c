package afxdp

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"waggle/bpf/afxdp/afxdptest"
	"waggle/dfs/datapath"
	"waggle/dfs/wire"
)

const (
	waitTime = 5 * time.Second
	tick     = time.Millisecond
)

// datagram is what a server sends.
func datagram(id, offset uint64, data []byte) []byte {
	b := append(make([]byte, headerSize), data...)
	putHeader(b, id, offset)
	return b
}

// Whatever comes is understood or malformed, and what is understood is just what
// would have been sent.
func FuzzParse(f *testing.F) {
	good := datagram(1, 4096, []byte("some data"))
	f.Add(good)
	f.Add(good[:len(good)-1])
	f.Add(good[:headerSize])
	f.Add(datagram(1, wire.MaxChunkSize, []byte("x")))
	f.Add(datagram(1, 0, make([]byte, MaxPiece+1)))
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := Parse(b)
		if err != nil {
			require.ErrorIs(t, err, wire.ErrMalformed)
			return
		}
		require.Equal(t, b, datagram(d.ID, d.Offset, d.Data))
	})
}

// A packet of any lengths is no reason to look behind it.
func FuzzPayload(f *testing.F) {
	f.Add(make([]byte, packetSize))
	f.Add(append(make([]byte, ethernetSize+ipSize), 0, 0, 0, 0, 0, 9, 0, 0, 1))
	f.Fuzz(func(t *testing.T, packet []byte) { require.LessOrEqual(t, len(payload(packet)), len(packet)) })
}

// idle is a receiver without a socket.
func idle() *Receiver {
	return &Receiver{closed: true, transfers: map[uint64]*Transfer{}, ended: make(chan struct{})}
}

// Pieces may come in any order, twice, or not; none writes where it does not
// belong, and what is missing is said in whole blocks.
func TestPiecesInAnyOrder(t *testing.T) {
	const piece, block, first, length = 1440, 4096, 8192, 5*4096 + 100
	content := make([]byte, length)
	for i := range content {
		content[i] = byte(rand.Uint32())
	}
	for seed := range uint64(200) {
		random := rand.New(rand.NewPCG(seed, 1))
		memory := make([]byte, 6*block+2)
		cut1, cut2 := 1+random.IntN(block), 1+block+random.IntN(4*block)
		parts := [][]byte{memory[1:cut1], memory[cut1:cut2], memory[cut2 : 1+6*block]}
		r := idle()
		tr, err := r.Expect(7, first, piece, parts)
		require.NoError(t, err)
		came := make([]bool, length/piece+1)
		for _, i := range random.Perm(len(came) * 2) {
			if i %= len(came); random.IntN(4) == 0 {
				continue
			}
			data := content[i*piece : min((i+1)*piece, length)]
			require.Equal(t, !came[i], tr.take(Datagram{7, first + uint64(i*piece), data}))
			came[i] = true
		}
		for _, hostile := range []Datagram{{7, first - piece, make([]byte, piece)}, {7, first + 1, []byte("x")}, {7, 1 << 62, []byte("x")},
			{7, first + 6*block/piece*piece, make([]byte, piece)}, {7, first, make([]byte, piece+1)}} {
			require.False(t, tr.take(hostile), "%d", hostile.Offset)
		}
		tr.expect(length)
		missing := make([]bool, length/block+1)
		for _, run := range tr.Missing(length, block) {
			require.Zero(t, run.Offset%block)
			for at := run.Offset - first; at < run.Offset-first+run.Length; at += block {
				require.False(t, missing[at/block], "twice")
				missing[at/block] = true
			}
			require.LessOrEqual(t, run.Offset+run.Length, uint64(first+length))
		}
		for b := range missing {
			lacks := false
			for i := b * block / piece; i < len(came) && i*piece < (b+1)*block; i++ {
				lacks = lacks || !came[i]
			}
			require.Equal(t, lacks, missing[b], "block %d", b)
			if !lacks {
				to := min((b+1)*block, length)
				require.Equal(t, content[b*block:to], memory[1+b*block:1+to])
			}
		}
		require.Zero(t, memory[0])
		require.Zero(t, memory[len(memory)-1])
		tr.End()
		require.Empty(t, r.transfers)
	}
}

// between opens a receiver on host 0 and a sender to it on host 1.
func between(t *testing.T, h afxdptest.Hosts) (*Receiver, *Sender, *datapath.Counters) {
	counters := new(datapath.Counters)
	ports := new(Ports)
	var r *Receiver
	var s *Sender
	h.In(t, 0, func() {
		route, err := Find(afxdptest.Address(0), afxdptest.Address(1))
		require.NoError(t, err)
		r, err = OpenReceiver(route, counters)
		require.NoError(t, err)
		t.Cleanup(func() { assert.NoError(t, r.Close()) })
	})
	h.In(t, 1, func() {
		greet(t, r)
		route, err := Find(afxdptest.Address(1), afxdptest.Address(0))
		require.NoError(t, err)
		s, err = ports.NewSender(route, 4000, r.Port(), counters)
		require.NoError(t, err)
		t.Cleanup(func() { assert.NoError(t, ports.Close()) })
	})
	return r, s, counters
}

// greet sends a receiver a datagram over plain UDP, by which the sender's kernel
// learns the hardware address, as a connection would have taught it.
func greet(t *testing.T, r *Receiver) *net.UDPConn {
	conn, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(afxdptest.Address(0), r.Port())))
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	_, err = conn.Write([]byte("nonsense"))
	require.NoError(t, err)
	require.Eventually(t, func() bool { return r.malformed.Load() == 1 }, waitTime, tick)
	return conn
}

// The same seeded ranges as over the connections' paths come as they were sent,
// are proven and their copies counted; a cut replica is an error.
func TestRangesBetweenHosts(t *testing.T) {
	r, s, counters := between(t, afxdptest.New(t))
	name := filepath.Join(t.TempDir(), "replica")
	content := make([]byte, 6<<20+123)
	for i := range content {
		content[i] = byte(rand.Uint32())
	}
	require.NoError(t, os.WriteFile(name, content, 0o600))
	file, err := os.OpenFile(name, os.O_RDWR, 0)
	require.NoError(t, err)
	defer file.Close()
	random := rand.New(rand.NewPCG(1, 2))
	var payload, lost int64
	for id := range uint64(60) {
		offset := random.IntN(len(content)) &^ (wire.BlockSize - 1)
		length := min(1+random.IntN(1<<random.IntN(23)), len(content)-offset)
		got := make([]byte, length)
		tr, err := r.Expect(id, uint64(offset), s.Piece, [][]byte{got})
		require.NoError(t, err)
		require.NoError(t, s.Send(id, file, int64(offset), length))
		whole, err := tr.Wait(t.Context(), uint64(length))
		require.NoError(t, err)
		if !whole { // more than there is room for, while this test did not get to run
			lost++
		} else {
			require.True(t, bytes.Equal(content[offset:][:length], got), "%d bytes at %d", length, offset)
		}
		tr.End()
		payload += int64(length)
	}
	require.Less(t, lost, int64(20))
	counts := counters.Snapshot()
	require.Equal(t, payload, counts["read_afxdp_sent_bytes"])
	require.Positive(t, counts["read_afxdp_redirected_datagrams"])
	for _, mode := range []string{"send_bound_copy", "receive_bound_copy", "attached_native"} {
		require.EqualValues(t, 1, counts["read_afxdp_"+mode], mode)
	}
	headers := counts["read_afxdp_sent_datagrams"] * (packetSize + headerSize)
	require.Equal(t, payload+headers, counts[datapath.CopiedToKernel])
	require.Equal(t, counts["read_afxdp_received_bytes"], counts[datapath.CopiedInUser])
	if lost == 0 {
		require.Equal(t, payload, counts["read_afxdp_received_bytes"])
		require.GreaterOrEqual(t, counts[datapath.CopiedFromKernel], payload+headers)
	}

	require.NoError(t, file.Truncate(3*wire.BlockSize))
	require.ErrorIs(t, s.Send(100, file, 0, 1<<20), io.EOF)
	require.NoError(t, s.Send(101, file, 0, wire.BlockSize), "the frames were given back")
}

// Nobody is waited for who will not come, and a wait ends with its context and
// with the receiver.
func TestLostDatagramsAreNotWaitedFor(t *testing.T) {
	r, _, _ := between(t, afxdptest.New(t))
	tr, err := r.Expect(1, 0, MinPiece, [][]byte{make([]byte, 2*MinPiece)})
	require.NoError(t, err)
	whole, err := tr.Wait(t.Context(), 2*MinPiece)
	require.NoError(t, err)
	require.False(t, whole)
	require.Equal(t, []Run{{0, 2 * MinPiece}}, tr.Missing(2*MinPiece, wire.BlockSize))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = tr.Wait(ctx, 2*MinPiece)
	require.ErrorIs(t, err, context.Canceled)
	require.NoError(t, r.Close())
	_, err = tr.Wait(t.Context(), 2*MinPiece)
	require.ErrorIs(t, err, net.ErrClosed)
}

// Hostile datagrams are counted and change nothing.
func TestHostileDatagrams(t *testing.T) {
	h := afxdptest.New(t)
	r, _, _ := between(t, h)
	got := make([]byte, 2*MinPiece)
	tr, err := r.Expect(1, 0, MinPiece, [][]byte{got})
	require.NoError(t, err)
	h.In(t, 1, func() {
		conn, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(afxdptest.Address(0), r.Port())))
		require.NoError(t, err)
		defer conn.Close()
		damaged := datagram(1, 0, bytes.Repeat([]byte{1}, MinPiece))
		damaged[headerSize] ^= 1
		for _, b := range [][]byte{{}, {0}, damaged, datagram(2, 0, make([]byte, MinPiece)), datagram(1, 2*MinPiece, []byte("x")),
			datagram(1, MinPiece, bytes.Repeat([]byte{2}, MinPiece))} {
			_, err := conn.Write(b)
			require.NoError(t, err)
		}
	})
	require.Eventually(t, func() bool { return r.bytes.Load() == MinPiece }, waitTime, tick)
	require.EqualValues(t, 1+3, r.malformed.Load())
	require.EqualValues(t, 2, r.stray.Load())
	whole, err := tr.Wait(t.Context(), 2*MinPiece)
	require.NoError(t, err)
	require.False(t, whole)
	require.Equal(t, append(make([]byte, MinPiece), bytes.Repeat([]byte{2}, MinPiece)...), got)
}

// Within one host there is nothing to be gained, and that is said.
func TestOneHostIsRefused(t *testing.T) {
	h := afxdptest.New(t)
	_, err := Find(netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.1"))
	require.ErrorContains(t, err, "one host")
	h.In(t, 0, func() {
		_, err := Find(afxdptest.Address(0), afxdptest.Address(0))
		require.Error(t, err)
	})
	_, err = Find(netip.IPv6Loopback(), netip.IPv6Loopback())
	require.ErrorContains(t, err, "IPv4")
}

// Receivers and senders that come and go leave no descriptor.
func TestNothingIsLeftBehind(t *testing.T) {
	count := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		require.NoError(t, err)
		return len(entries)
	}
	h := afxdptest.New(t)
	before := 0
	for i := range 6 {
		t.Run("", func(t *testing.T) { between(t, h) })
		if i == 1 {
			before = count()
		}
	}
	require.LessOrEqual(t, count(), before+2)
}
