package client

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"waggle/bpf/afxdp/afxdptest"
	"waggle/dfs/wire"
)

// datagramServer is a chunk server on host 1 whose one chunk is content, which it
// sends with plain UDP through a network that does to the datagrams what spoil
// does.
type datagramServer struct {
	address netip.AddrPort
	content []byte
	spoil   func(datagrams [][]byte) [][]byte
	torn    bool // the checksums of the next answer are another content's
}

const testPiece = 1000

func (s *datagramServer) start(t *testing.T, h afxdptest.Hosts) {
	h.In(t, 1, func() {
		listener, err := net.Listen("tcp4", netip.AddrPortFrom(afxdptest.Address(1), 0).String())
		require.NoError(t, err)
		t.Cleanup(func() { listener.Close() })
		out, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(afxdptest.Address(1), 0)))
		require.NoError(t, err)
		t.Cleanup(func() { out.Close() })
		s.address = netip.MustParseAddrPort(listener.Addr().String())
		go func() {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			defer conn.Close()
			s.serve(conn, out)
		}()
	})
}

func (s *datagramServer) serve(conn net.Conn, out *net.UDPConn) {
	var to netip.AddrPort
	for {
		var f wire.Frame
		if f.Receive(conn, nil) != nil {
			return
		}
		f.Flags |= wire.FlagAnswer
		if f.Type == wire.FrameSelect {
			var port uint16
			fmt.Sscanf(string(f.Extra), datagramPath+" %d", &port)
			to = netip.AddrPortFrom(afxdptest.Address(0), port)
			f.Extra = fmt.Append(nil, testPiece)
			conn.Write(f.Append(nil))
			continue
		}
		first, last := blocksAround(f.Offset, uint64(f.Length))
		last = max(first, min(last, uint64(len(s.content))))
		data := s.content[first:last]
		f.Offset, f.Length, f.Extra = first, uint32(len(data)), wire.AppendChecksums(nil, first, data)
		if s.torn {
			f.Extra, s.torn = wire.AppendChecksums(nil, first, make([]byte, len(data))), false
		}
		var datagrams [][]byte
		for at := 0; at < len(data); at += testPiece {
			datagrams = append(datagrams, testDatagram(f.ID, first+uint64(at), data[at:min(at+testPiece, len(data))]))
		}
		for _, d := range s.spoil(datagrams) {
			out.WriteToUDPAddrPort(d, to)
		}
		conn.Write(f.Append(nil))
	}
}

// testDatagram is written out here a second time, so that the layout can't change
// without a test that says so.
func testDatagram(id, offset uint64, data []byte) []byte {
	le := binary.LittleEndian
	b := le.AppendUint16([]byte{'W', 'G', 'L', 'B', wire.Version, 0}, uint16(len(data)))
	b = le.AppendUint64(le.AppendUint64(b, id), offset)
	sum := wire.UpdateChecksum(wire.Checksum(b), data)
	return append(le.AppendUint32(b, sum), data...)
}

// fetch reads the server's chunk as a client on host 0.
func (s *datagramServer) fetch(t *testing.T, h afxdptest.Hosts, reads func(c *Client, fetch func(p []byte, offset uint64) (int, error))) {
	c := &Client{options: Options{ReadPath: "afxdp"}.withDefaults(), readPath: datagramPath}
	c.servers.init(c)
	defer func() { assert.NoError(t, c.servers.close()) }()
	h.In(t, 0, func() {
		reads(c, func(p []byte, offset uint64) (int, error) {
			return c.fetch(context.Background(), wire.Replica{Address: s.address}, &wire.Location{Chunk: 1}, 0, span{offset: offset, p: p})
		})
	})
}

// What the network loses, turns around, doubles, delays and damages is read whole.
func TestDatagramsThroughABadNetwork(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	var late [][]byte
	for name, spoil := range map[string]func([][]byte) [][]byte{
		"good": func(d [][]byte) [][]byte { return d },
		"order": func(d [][]byte) [][]byte {
			random.Shuffle(len(d), func(i, j int) { d[i], d[j] = d[j], d[i] })
			return d
		},
		"loss": func(d [][]byte) (kept [][]byte) {
			for i := range d {
				if random.IntN(10) > 0 {
					kept = append(kept, d[i])
				}
			}
			return kept
		},
		"doubled": func(d [][]byte) [][]byte { return append(d, d...) },
		"late": func(d [][]byte) [][]byte {
			d, late = append(late, d[random.IntN(2):]...), d[:1]
			return d
		},
		"damaged": func(d [][]byte) [][]byte {
			d[random.IntN(len(d))][40] ^= byte(random.IntN(2))
			return append(d, []byte("nonsense"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := afxdptest.New(t)
			s := &datagramServer{content: make([]byte, 700_001), spoil: spoil}
			for i := range s.content {
				s.content[i] = byte(random.Uint32())
			}
			s.start(t, h)
			s.fetch(t, h, func(c *Client, fetch func([]byte, uint64) (int, error)) {
				for _, at := range []struct{ offset, length int }{{0, 1}, {0, 700_001}, {4095, 2}, {262_143, 300_000}, {4096, 4096}, {699_999, 2}, {650_000, 100_000}} {
					p := bytes.Repeat([]byte{7}, at.length)
					n, err := fetch(p, uint64(at.offset))
					require.NoError(t, err, "%+v", at)
					require.Equal(t, at.length, n)
					want := make([]byte, at.length) // behind the end is a hole
					copy(want, s.content[at.offset:])
					require.True(t, bytes.Equal(want, p), "%+v", at)
				}
				counts := c.Counters().Snapshot()
				require.Positive(t, counts["read_afxdp_received_bytes"])
				repaired := counts["read_afxdp_repaired_bytes"]
				if name == "loss" || name == "damaged" || name == "late" {
					require.Positive(t, repaired)
				}
			})
		})
	}
}

// A network that lets nothing through is an error after a limited number of
// attempts, and so is content that is not what its checksums say.
func TestDatagramsThatNeverCome(t *testing.T) {
	h := afxdptest.New(t)
	s := &datagramServer{content: make([]byte, 10_000), spoil: func([][]byte) [][]byte { return nil }}
	s.start(t, h)
	s.fetch(t, h, func(c *Client, fetch func([]byte, uint64) (int, error)) {
		_, err := fetch(make([]byte, 10_000), 0)
		require.ErrorContains(t, err, "lost")
		require.EqualValues(t, datagramRounds*10_000, c.Counters().Snapshot()["read_afxdp_repaired_bytes"])
	})

	s = &datagramServer{content: bytes.Repeat([]byte("x"), 10_000), spoil: func(d [][]byte) [][]byte { return d }, torn: true}
	s.start(t, h)
	s.fetch(t, h, func(c *Client, fetch func([]byte, uint64) (int, error)) {
		_, err := fetch(make([]byte, 10_000), 0)
		require.ErrorAs(t, err, new(errTorn))
	})
}
