package faults

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/safchain/ethtool"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"waggle/bpf/afxdp/afxdptest"
)

// attachVariable makes this program attach to that interface and wait to be
// killed.
const attachVariable = "WAGGLE_TEST_FAULTS_INTERFACE"

func TestMain(m *testing.M) {
	if name := os.Getenv(attachVariable); name != "" {
		if _, err := Attach(name, Options{}); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println("attached")
		select {}
	}
	goleak.VerifyTestMain(m)
}

// inject attaches to a host's link.
func inject(t *testing.T, hosts afxdptest.Hosts, host int, o Options) *Injector {
	t.Helper()
	var in *Injector
	hosts.In(t, host, func() {
		var err error
		in, err = Attach(afxdptest.Link, o)
		require.NoError(t, err)
	})
	t.Cleanup(func() { in.Close() })
	return in
}

var there = Rule{From: afxdptest.Address(0), To: afxdptest.Address(1)}

// datagram makes a frame from host 0 to host 1 with a right checksum.
func datagram(payload []byte) []byte {
	from, to := there.From.As4(), there.To.As4()
	be16 := func(n int) []byte { return binary.BigEndian.AppendUint16(nil, uint16(n)) }
	udp := bytes.Join([][]byte{be16(1000), be16(2000), be16(8 + len(payload)), be16(0), payload}, nil)
	binary.BigEndian.PutUint16(udp[6:], ^checksum(udp))
	return bytes.Join([][]byte{{5: 2}, {5: 3}, be16(0x0800),
		{0x45, 0}, be16(28 + len(payload)), {0, 0, 0, 0, 64, 17, 0, 0}, from[:], to[:], udp}, nil)
}

// checksum is the sum of a datagram and its pseudo-header: 0xffff if its checksum
// is right.
func checksum(udp []byte) uint16 {
	from, to := there.From.As4(), there.To.As4()
	data := slices.Concat(from[:], to[:], []byte{0, 17}, binary.BigEndian.AppendUint16(nil, uint16(len(udp))), udp)
	if len(data)%2 == 1 {
		data = append(data, 0)
	}
	var sum uint32
	for i := 0; i < len(data); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(data[i:]))
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	return uint16(sum)
}

const (
	actionNext     = 1<<32 - 1 // TCX_NEXT, -1
	actionDrop     = 2
	actionRedirect = 7
)

func TestTheProgramDecidesAsTheModel(t *testing.T) {
	hosts := newHosts(t)
	in := inject(t, hosts, 0, Options{})
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	for range 20 {
		r := there
		r.Seed = random.Uint64()
		r.Drop, r.Duplicate, r.Hold, r.Corrupt = random.Float64()/2, often(random), often(random), often(random)
		r.FixChecksum = random.IntN(2) == 0
		require.NoError(t, in.Set(r))
		var want Counters
		for n := range uint64(200) {
			payload := make([]byte, 1+random.IntN(100))
			for i := range payload {
				payload[i] = byte(random.Uint32())
			}
			hosts.In(t, 0, func() { want.Add(requireDecided(t, in, r, n, payload)) }) // where the interface is
		}
		got, err := in.Counters(r.From, r.To)
		require.NoError(t, err)
		require.Equal(t, want, got)
		require.Positive(t, got.Duplicated*got.Held*got.Corrupted)
	}
}

// often is a probability by which something is seen in 200 packets.
func often(random *rand.Rand) float64 { return 0.2 + random.Float64()*0.8 }

// requireDecided runs the program on packet n of a rule.
func requireDecided(t *testing.T, in *Injector, r Rule, n uint64, payload []byte) (counted Counters) {
	t.Helper()
	o := ebpf.RunOptions{Data: datagram(payload), DataOut: make([]byte, 256)}
	action, err := in.objects.Inject.Run(&o)
	require.NoError(t, err)
	d, udp := r.Decide(n), o.DataOut[34:]
	counted.Packets = 1
	want := bytes.Clone(payload)
	if d.Corrupt {
		counted.Corrupted = 1
		want[int(d.Place)%len(want)] ^= d.Flip
	}
	if d.Duplicate {
		counted.Duplicated = 1
	}
	switch {
	case d.Drop:
		counted.Dropped = 1
		require.EqualValues(t, actionDrop, action)
		return counted
	case d.Hold:
		counted.Held = 1
		require.EqualValues(t, actionRedirect, action)
	default:
		require.EqualValues(t, actionNext, action)
	}
	require.Equal(t, want, udp[8:8+len(payload)])
	require.Equal(t, !d.Corrupt || r.FixChecksum, checksum(udp[:8+len(payload)]) == 0xffff)
	return counted
}

// newHosts skips where root is missing, and fails where the hook is.
func newHosts(t *testing.T) afxdptest.Hosts {
	t.Helper()
	hosts := afxdptest.New(t)
	hosts.In(t, 0, func() { require.NoError(t, Supported()) })
	return hosts
}

// sockets are one on each host, of which 0 sends and 1 receives.
func sockets(t *testing.T, hosts afxdptest.Hosts) (s [2]*net.UDPConn) {
	t.Helper()
	for i := range s {
		hosts.In(t, i, func() {
			var err error
			s[i], err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(afxdptest.Address(i), 0)))
			require.NoError(t, err)
		})
		t.Cleanup(func() { s[i].Close() })
	}
	return s
}

// exchange sends numbered datagrams and returns the numbers in the order in which
// so many of them arrive.
func exchange(t *testing.T, s [2]*net.UDPConn, count, arrive int) (got []int) {
	t.Helper()
	to := s[1].LocalAddr().(*net.UDPAddr)
	for i := range count {
		_, err := s[0].WriteToUDP([]byte(fmt.Sprint(i)), to)
		require.NoError(t, err)
	}
	buffer := make([]byte, 100)
	for range arrive {
		require.NoError(t, s[1].SetReadDeadline(time.Now().Add(20*time.Second)))
		n, _, err := s[1].ReadFromUDP(buffer)
		require.NoError(t, err, "%d of %d have arrived", len(got), arrive)
		var number int
		_, err = fmt.Sscan(string(buffer[:n]), &number)
		require.NoError(t, err)
		got = append(got, number)
	}
	return got
}

func TestALinkLosesAndDoublesWhatTheModelSays(t *testing.T) {
	for _, hook := range []Hook{Egress, Ingress} {
		t.Run(string(hook), func(t *testing.T) {
			hosts := newHosts(t)
			s := sockets(t, hosts)
			exchange(t, s, 1, 1) // finds the neighbour
			host := map[Hook]int{Egress: 0, Ingress: 1}[hook]
			in := inject(t, hosts, host, Options{Hook: hook})
			r := there
			r.Seed, r.Drop, r.Duplicate = 1, 0.2, 0.2
			require.NoError(t, in.Set(r))
			const count = 200
			var want []int
			for i := range count {
				d := r.Decide(uint64(i))
				if !d.Drop {
					want = append(want, i)
				}
				if d.Duplicate {
					want = append(want, i)
				}
			}
			got := exchange(t, s, count, len(want))
			slices.Sort(got) // a duplicate that is sent up by ingress may be overtaken
			require.Equal(t, want, got)
		})
	}
}

func TestHeldPacketsAreOvertaken(t *testing.T) {
	for _, hook := range []Hook{Egress, Ingress} {
		t.Run(string(hook), func(t *testing.T) {
			hosts := newHosts(t)
			s := sockets(t, hosts)
			exchange(t, s, 1, 1)
			host := map[Hook]int{Egress: 0, Ingress: 1}[hook]
			in := inject(t, hosts, host, Options{Hook: hook, Hold: 500 * time.Millisecond}) // longer than it takes to send all
			r := there
			r.Seed, r.Hold = 2, 0.1
			require.NoError(t, in.Set(r))
			const count = 200
			var direct, held []int
			for i := range count {
				if r.Decide(uint64(i)).Hold {
					held = append(held, i)
				} else {
					direct = append(direct, i)
				}
			}
			require.Equal(t, append(direct, held...), exchange(t, s, count, count))
		})
	}
}

func TestACutIsInOneDirectionUntilItIsCleared(t *testing.T) {
	hosts := newHosts(t)
	s := sockets(t, hosts)
	exchange(t, s, 1, 1)
	in := inject(t, hosts, 0, Options{})
	r := there
	r.Cut = true
	require.NoError(t, in.Set(r))
	_, err := s[0].WriteToUDP([]byte("lost"), s[1].LocalAddr().(*net.UDPAddr))
	require.NoError(t, err)
	back := [2]*net.UDPConn{s[1], s[0]}
	require.Equal(t, []int{0, 1}, exchange(t, back, 2, 2))
	counted, err := in.Counters(r.From, r.To)
	require.NoError(t, err)
	require.Equal(t, Counters{Packets: 1, Cut: 1}, counted)
	require.NoError(t, in.Clear(r.From, r.To))
	require.Equal(t, []int{0, 1}, exchange(t, s, 2, 2), "what was cut does not come later")
	require.NoError(t, in.Set(r))
	require.NoError(t, in.Set(Rule{Cut: true}))
	require.NoError(t, in.ClearAll())
	require.Equal(t, []int{0, 1}, exchange(t, s, 2, 2))
}

func TestTheMostExactRuleHolds(t *testing.T) {
	hosts := newHosts(t)
	in := inject(t, hosts, 0, Options{})
	var none netip.Addr
	for _, r := range []Rule{{From: none, To: none}, {From: none, To: there.To}, {From: there.From, To: none}, there} {
		require.NoError(t, in.Set(r))
		_, err := in.objects.Inject.Run(&ebpf.RunOptions{Data: datagram([]byte{1})})
		require.NoError(t, err)
		counted, err := in.Counters(r.From, r.To)
		require.NoError(t, err)
		require.EqualValues(t, 1, counted.Packets, "%s to %s", r.From, r.To)
	}
}

// connection is a TCP connection from host 0 to host 1.
func connection(t *testing.T, hosts afxdptest.Hosts) (from, to net.Conn) {
	t.Helper()
	var listener net.Listener
	hosts.In(t, 1, func() {
		var err error
		listener, err = net.Listen("tcp4", netip.AddrPortFrom(afxdptest.Address(1), 0).String())
		require.NoError(t, err)
	})
	defer listener.Close()
	hosts.In(t, 0, func() {
		var err error
		from, err = net.Dial("tcp4", listener.Addr().String())
		require.NoError(t, err)
	})
	to, err := listener.Accept()
	require.NoError(t, err)
	t.Cleanup(func() { from.Close(); to.Close() })
	return from, to
}

// send sends bytes over a connection and returns what arrives.
func send(t *testing.T, from, to net.Conn, data []byte) []byte {
	t.Helper()
	sent := make(chan error, 1)
	go func() {
		_, err := from.Write(data)
		sent <- err
	}()
	got := make([]byte, len(data))
	require.NoError(t, to.SetReadDeadline(time.Now().Add(time.Minute)))
	n, err := io.ReadFull(to, got)
	require.NoError(t, err, "%d bytes have arrived", n)
	require.NoError(t, <-sent)
	return got
}

func TestTCPMendsAllButARightChecksum(t *testing.T) {
	data := make([]byte, 4<<20)
	for i := range data {
		data[i] = byte(rand.Uint32())
	}
	t.Run("losses, duplicates, packets out of order and damage", func(t *testing.T) {
		hosts := newHosts(t)
		hosts.In(t, 0, func() { computeChecksums(t) })
		from, to := connection(t, hosts)
		in := inject(t, hosts, 1, Options{Hook: Ingress, Hold: 200 * time.Microsecond})
		r := there
		r.Seed, r.Drop, r.Duplicate, r.Hold, r.Corrupt = 3, 0.01, 0.02, 0.02, 0.01
		require.NoError(t, in.Set(r))
		require.True(t, bytes.Equal(data, send(t, from, to, data)))
		counted, err := in.Counters(r.From, r.To)
		require.NoError(t, err)
		require.Positive(t, counted.Dropped*counted.Duplicated*counted.Held*counted.Corrupted, "%+v", counted)
	})
	t.Run("damage with a right checksum", func(t *testing.T) {
		for _, hook := range []Hook{Egress, Ingress} {
			hosts := newHosts(t)
			if hook == Ingress { // where a checksum is there to be made right
				hosts.In(t, 0, func() { computeChecksums(t) })
			}
			from, to := connection(t, hosts)
			in := inject(t, hosts, map[Hook]int{Egress: 0, Ingress: 1}[hook], Options{Hook: hook})
			r := there
			r.Seed, r.Corrupt, r.FixChecksum = 4, 0.05, true
			require.NoError(t, in.Set(r))
			got := send(t, from, to, data)
			different := uint64(0)
			for i := range got {
				if got[i] != data[i] {
					different++
				}
			}
			counted, err := in.Counters(r.From, r.To)
			require.NoError(t, err)
			require.Positive(t, different)
			require.LessOrEqual(t, different, counted.Corrupted, "a segment that was sent twice may have been damaged twice")
		}
	})
}

// computeChecksums has the link of this host compute them, as the driver of a
// network card without that offload.
func computeChecksums(t *testing.T) {
	e, err := ethtool.NewEthtool()
	require.NoError(t, err)
	defer e.Close()
	require.NoError(t, e.Change(afxdptest.Link, map[string]bool{"tx-checksum-ip-generic": false}))
}

// TestAKilledProcessLeavesNothing demands that program and detour go with the
// process.
func TestAKilledProcessLeavesNothing(t *testing.T) {
	hosts := newHosts(t)
	hosts.In(t, 0, func() {
		before := interfaces(t)
		child := exec.Command(os.Args[0])
		child.Env = append(os.Environ(), attachVariable+"="+afxdptest.Link)
		out, err := child.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, child.Start())
		line, err := bufio.NewReader(out).ReadString('\n')
		require.NoError(t, err)
		require.Equal(t, "attached", strings.TrimSpace(line))
		require.Equal(t, 1, programs(t))
		require.NoError(t, child.Process.Kill())
		child.Wait()
		require.Zero(t, programs(t))
		require.Equal(t, before, interfaces(t))
	})
}

func interfaces(t *testing.T) (names []string) {
	all, err := net.Interfaces()
	require.NoError(t, err)
	for _, i := range all {
		names = append(names, i.Name)
	}
	return names
}

func programs(t *testing.T) int {
	i, err := net.InterfaceByName(afxdptest.Link)
	require.NoError(t, err)
	found, err := link.QueryPrograms(link.QueryOptions{Target: i.Index, Attach: ebpf.AttachTCXEgress})
	require.NoError(t, err)
	return len(found.Programs)
}

func TestRulesThatMakeNoSenseAreRefused(t *testing.T) {
	hosts := newHosts(t)
	in := inject(t, hosts, 0, Options{})
	require.ErrorContains(t, in.Set(Rule{Drop: 1.5}), "drop")
	require.ErrorContains(t, in.Set(Rule{Hold: -1}), "hold")
	require.ErrorContains(t, in.Set(Rule{From: there.From, To: netip.IPv6Loopback()}), "family")
	hosts.In(t, 0, func() {
		before := interfaces(t)
		_, err := Attach("nowhere", Options{})
		require.ErrorContains(t, err, "nowhere")
		_, err = Attach(afxdptest.Link, Options{Hook: "sideways"})
		require.ErrorContains(t, err, "sideways")
		require.Equal(t, before, interfaces(t), "the detour is gone")
	})
}
