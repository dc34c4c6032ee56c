package meta

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/ipv4"

	"waggle/dfs/datapath"
	"waggle/dfs/datapath/lookup"
	"waggle/dfs/wire"
	"waggle/dfs/wire/control"
)

// Every lookup path is asked for the state of one metadata server, and must
// answer the same bytes or nothing, whatever it is sent.

// witnessSession is the session of requests that follow a datagram to show that
// it was dropped: nobody has it, so they are answered in user space, behind
// everything that came before.
const witnessSession = 2

// otherPaths serves the state of an xdp server over every other path. It returns
// the addresses of all of them.
func otherPaths(t *testing.T, r *rig) map[string]netip.AddrPort {
	at := map[string]netip.AddrPort{"xdp-generic": r.server.LookupAddress()}
	for _, path := range lookup.Paths.All() {
		name := path.About().Name
		if strings.HasPrefix(name, "xdp") {
			continue
		}
		server, err := path.Listen(t.Context(), netip.MustParseAddrPort("127.0.0.1:0"), lookup.Options{Workers: 2, Counters: new(datapath.Counters)})
		require.NoError(t, err)
		at[name] = server.Address()
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- server.Serve(ctx, r.server) }()
		t.Cleanup(func() {
			cancel()
			require.NoError(t, <-done)
		})
	}
	return at
}

// prober sends datagrams from one port and sees what comes back.
type prober struct {
	t    *testing.T
	conn *net.UDPConn
	raw  *ipv4.RawConn
	next uint64 // id of the next witness
}

func newProber(t *testing.T) *prober {
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	ip, err := net.ListenPacket("ip4:udp", "127.0.0.1")
	require.NoError(t, err)
	t.Cleanup(func() { ip.Close() })
	raw, err := ipv4.NewRawConn(ip)
	require.NoError(t, err)
	return &prober{t: t, conn: conn, raw: raw, next: 1 << 32}
}

// probe calls send, which sends one datagram to a server, and returns the answer,
// nil if there is none.
func (p *prober) probe(server netip.AddrPort, send func()) (answer []byte) {
	send()
	p.next++
	witness := wire.LookupRequest{ID: p.next, Session: witnessSession}
	_, err := p.conn.WriteToUDPAddrPort(witness.Append(nil), server)
	require.NoError(p.t, err)
	require.NoError(p.t, p.conn.SetReadDeadline(time.Now().Add(10*time.Second)))
	for {
		b := make([]byte, 2048)
		n, err := p.conn.Read(b)
		require.NoError(p.t, err)
		var a wire.LookupAnswer
		require.NoError(p.t, a.Parse(b[:n]))
		if a.ID == p.next {
			return answer
		}
		require.Nil(p.t, answer, "one datagram, two answers")
		answer = b[:n]
	}
}

// datagram sends a UDP payload.
func (p *prober) datagram(server netip.AddrPort, payload []byte) []byte {
	return p.probe(server, func() {
		_, err := p.conn.WriteToUDPAddrPort(payload, server)
		require.NoError(p.t, err)
	})
}

// packet sends a UDP header and payload in an IP packet; the header's checksum
// is right after forge has changed what it wants, unless forge returns false.
func (p *prober) packet(server netip.AddrPort, payload []byte, forge func(ip *ipv4.Header, udp []byte) bool) []byte {
	from := p.conn.LocalAddr().(*net.UDPAddr).AddrPort()
	segment := make([]byte, 8, 8+len(payload))
	binary.BigEndian.PutUint16(segment[0:], from.Port())
	binary.BigEndian.PutUint16(segment[2:], server.Port())
	binary.BigEndian.PutUint16(segment[4:], uint16(8+len(payload)))
	segment = append(segment, payload...)
	header := &ipv4.Header{Version: ipv4.Version, Len: ipv4.HeaderLen, TotalLen: ipv4.HeaderLen + len(segment), TTL: 64, Protocol: 17,
		Src: net.IP(from.Addr().Unmap().AsSlice()), Dst: net.IP(server.Addr().AsSlice())}
	if forge(header, segment) {
		binary.BigEndian.PutUint16(segment[6:], udpChecksum(header.Src, header.Dst, segment))
	}
	return p.probe(server, func() { require.NoError(p.t, p.raw.WriteTo(header, segment, nil)) })
}

func udpChecksum(from, to net.IP, segment []byte) uint16 {
	pseudo := append(append(append([]byte{}, from.To4()...), to.To4()...), 0, 17, segment[4], segment[5])
	sum := uint32(0)
	for _, part := range [][]byte{pseudo, segment} {
		for i := 0; i < len(part); i += 2 {
			sum += uint32(part[i]) << 8
			if i+1 < len(part) {
				sum += uint32(part[i+1])
			}
		}
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

func TestAllPathsAnswerTheSameBytes(t *testing.T) {
	if !inOwnNetwork(t) {
		return
	}
	r := newRig(t, withXDP)
	u, stranger := r.open(0), r.open(2000)
	u.mkdir("a")
	u.must(&control.Mkdir{Node: node("a/closed"), Mode: 0o700})
	for _, size := range []int{0, 1, 128, 513, 1024} {
		u.must(&control.Create{Node: node(fmt.Sprintf("a/%d", size)), Mode: 0o644, Inline: make([]byte, size)})
	}
	var good []*wire.LookupRequest
	for _, path := range []string{"", "a", "a/0", "a/1", "a/128", "a/513", "a/1024", "a/none", "none/x", "a/1/x", "a/closed/x"} {
		for flags := range uint16(4) {
			good = append(good, u.request(path, flags), stranger.request(path, flags))
			if path != "a/1/x" && path != "a/closed/x" {
				u.askInKernel(path, flags)
			}
		}
	}
	at := otherPaths(t, r)
	probers := map[string]*prober{}
	for path := range at {
		probers[path] = newProber(t)
	}
	alike := func(what string, send func(p *prober, server netip.AddrPort) []byte) (answered bool) {
		want := send(probers["udp"], at["udp"])
		for path, server := range at {
			require.Equal(t, want, send(probers[path], server), "lookup=%s differs from lookup=udp: %s", path, what)
		}
		return want != nil
	}
	seed := historySeed(t)
	random := rand.New(rand.NewPCG(seed, 0))
	answers, drops := 0, 0
	for i := range 1500 {
		q := *good[random.IntN(len(good))]
		q.ID = uint64(random.IntN(100)) // replayed now and then
		b := q.Append(nil)
		if i >= len(good) {
			mutateBytes(random, &b)
		}
		forge := func(*ipv4.Header, []byte) bool { return true }
		what := "plain"
		switch random.IntN(12) {
		case 0:
			what = "without checksum"
			forge = func(*ipv4.Header, []byte) bool { return false }
		case 1:
			what = "with a wrong checksum"
			forge = func(_ *ipv4.Header, udp []byte) bool { udp[6], udp[7] = 0x12, 0x34; return false }
		case 2:
			what = "with a spoofed length"
			length := uint16(random.IntN(len(b) + 20))
			forge = func(_ *ipv4.Header, udp []byte) bool { binary.BigEndian.PutUint16(udp[4:], length); return false }
		case 3:
			what = "from port 0"
			forge = func(_ *ipv4.Header, udp []byte) bool { udp[0], udp[1] = 0, 0; return true }
		case 4:
			what = "with IP options"
			forge = func(ip *ipv4.Header, _ []byte) bool {
				ip.Options, ip.Len, ip.TotalLen = []byte{1, 1, 1, 0}, ip.Len+4, ip.TotalLen+4
				return true
			}
		}
		if alike(fmt.Sprintf("%s: %x", what, b), func(p *prober, server netip.AddrPort) []byte {
			if what == "plain" {
				return p.datagram(server, b)
			}
			return p.packet(server, b, forge)
		}) {
			answers++
		} else {
			drops++
		}
	}
	t.Logf("%d datagrams answered, %d dropped, the same on %d paths: %v", answers, drops, len(at), r.server.config.Counters.Snapshot())
	require.Positive(t, answers)
	require.Positive(t, drops)
	require.Greater(t, r.answeredInKernel(), int64(150))
}

// mutateBytes changes a datagram a little, mostly where it counts.
func mutateBytes(random *rand.Rand, b *[]byte) {
	switch random.IntN(6) {
	case 0:
		*b = (*b)[:random.IntN(len(*b)+1)]
	case 1:
		*b = append(*b, make([]byte, random.IntN(1100))...)
	case 2: // nothing
	default:
		for range 1 + random.IntN(3) {
			(*b)[random.IntN(min(len(*b), 80))] = byte(random.Uint32())
		}
	}
}

// A flood of lookups that the kernel can't answer does not keep changes from
// being carried out, nor changes what is answered.
func TestAFloodOfMissesDoesNotStarveMutations(t *testing.T) {
	if !inOwnNetwork(t) {
		return
	}
	u := newRig(t, withXDP, func(c *Config) { c.lookupSizes, c.SessionTime = smallTables, time.Hour }).open(0)
	u.mkdir("d")
	server := u.server.LookupAddress().String()
	ctx, stop := context.WithCancel(t.Context())
	var flood sync.WaitGroup
	for i := range 4 {
		conn, err := net.Dial("udp", server)
		require.NoError(t, err)
		defer conn.Close()
		flood.Go(func() {
			random := rand.New(rand.NewPCG(uint64(i), 0))
			q := u.request("d/x", 0)
			for ctx.Err() == nil {
				for range 32 {
					// Twice each, so that it is taken into the tables as well.
					binary.LittleEndian.PutUint64(q.Names[1][:], random.Uint64())
					conn.Write(q.Append(nil))
					conn.Write(q.Append(nil))
				}
				time.Sleep(time.Millisecond) // the server shares this process's threads
			}
		})
	}
	for i := range 20 {
		name := fmt.Sprintf("d/%d", i)
		u.create(name, name)
		u.must(&control.Rename{From: node(name), To: node(name + ".new")})
		require.Equal(t, name, string(u.expected(name+".new", wire.WantInline).Inline))
	}
	stop()
	flood.Wait()
	for i := range 20 {
		require.Equal(t, wire.LookupNotFound, u.ask(fmt.Sprintf("d/%d", i), 0).Status)
	}
	counts := u.server.config.Counters.Snapshot()
	require.Greater(t, counts["lookup_xdp_pass_entry"], int64(1000), "%v", counts)
}
