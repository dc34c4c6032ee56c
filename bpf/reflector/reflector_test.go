package reflector

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/stretchr/testify/require"

	"waggle/bpf/refusal/refusaltest"
)

const (
	xdpPass = 2
	xdpTX   = 3
)

var (
	here   = netip.MustParseAddrPort("10.0.0.1:7400")
	sender = netip.MustParseAddrPort("10.0.0.2:5555")
)

func be16(n int) []byte { return binary.BigEndian.AppendUint16(nil, uint16(n)) }

// checksum is that of an IPv4 header.
func checksum(header []byte) (sum uint32) {
	for i := 0; i < len(header); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(header[i:]))
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	return 0xffff - sum
}

// frame is a datagram as it comes from the wire.
func frame(to netip.AddrPort, payload []byte) []byte {
	from, at := sender.Addr().As4(), to.Addr().As4()
	ip := bytes.Join([][]byte{{0x45, 0}, be16(28 + len(payload)), {0, 0, 0x40, 0, 64, 17, 0, 0}, from[:], at[:]}, nil)
	copy(ip[10:], be16(int(checksum(ip))))
	udp := bytes.Join([][]byte{be16(int(sender.Port())), be16(int(to.Port())), be16(8 + len(payload)), {1, 2}}, nil)
	return bytes.Join([][]byte{{5: 1}, {5: 2}, {8, 0}, ip, udp, payload}, nil)
}

// request is a payload of so many bytes that asks for some of them.
func request(size, asksFor int) []byte {
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(i)
	}
	binary.LittleEndian.PutUint32(b[8:], uint32(asksFor))
	return b
}

func loaded(t *testing.T) *Reflector {
	refusaltest.SkipOrFail(t, Supported())
	r := new(Reflector)
	require.NoError(t, r.load(here))
	t.Cleanup(func() { require.NoError(t, r.objects.Close()) })
	return r
}

func run(t *testing.T, r *Reflector, packet []byte) (action int, out []byte) {
	o := ebpf.RunOptions{Data: bytes.Clone(packet), DataOut: make([]byte, 2048)}
	verdict, err := r.objects.Reflect.Run(&o)
	require.NoError(t, err)
	return int(verdict), o.DataOut
}

func TestDatagramsComeBackCutToSize(t *testing.T) {
	r := loaded(t)
	for i, sizes := range [][2]int{{12, 12}, {300, 300}, {300, 200}, {1320, 296}, {1400, 12}} {
		payload := request(sizes[0], sizes[1])
		action, out := run(t, r, frame(here, payload))
		require.Equal(t, xdpTX, action)
		require.Len(t, out, 42+sizes[1])
		require.Equal(t, []byte{0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 1}, out[:12], "hardware addresses")
		ip, udp := out[14:34], out[34:42]
		require.Equal(t, be16(28+sizes[1]), ip[2:4])
		require.Zero(t, checksum(ip))
		require.Equal(t, here.Addr().AsSlice(), ip[12:16])
		require.Equal(t, sender.Addr().AsSlice(), ip[16:20])
		require.Equal(t, bytes.Join([][]byte{be16(7400), be16(5555), be16(8 + sizes[1]), {0, 0}}, nil), udp)
		require.Equal(t, payload[:sizes[1]], out[42:])
		n, err := r.Reflected()
		require.NoError(t, err)
		require.EqualValues(t, i+1, n)
	}
}

func TestEverythingElseGoesUpTheStackAsItCame(t *testing.T) {
	r := loaded(t)
	good := func() []byte { return frame(here, request(300, 200)) }
	changed := func(offset int, value byte) []byte {
		b := good()
		b[offset] = value
		return b
	}
	for name, packet := range map[string][]byte{
		"another port":           frame(netip.AddrPortFrom(here.Addr(), 7401), request(300, 200)),
		"another address":        frame(netip.AddrPortFrom(sender.Addr(), here.Port()), request(300, 200)),
		"more than was sent":     frame(here, request(300, 301)),
		"less than the header":   frame(here, request(300, 11)),
		"four gigabytes":         frame(here, request(300, -1)),
		"no header":              frame(here, request(12, 12)[:11]),
		"IPv6":                   changed(12, 0x86),
		"TCP":                    changed(23, 6),
		"options":                changed(14, 0x46),
		"a fragment":             changed(20, 0x20),
		"a UDP length too large": changed(38, 0x7f),
		"a UDP length too small": changed(39, 20),
		"a UDP length below 8":   append(append(good()[:38], 0, 4), good()[40:]...),
		"cut on its way":         frame(here, request(300, 300))[:200],
	} {
		action, out := run(t, r, packet)
		require.Equal(t, xdpPass, action, name)
		require.Equal(t, packet, out, name)
	}
	n, err := r.Reflected()
	require.NoError(t, err)
	require.Zero(t, n)
}

func TestOnlyIPv4(t *testing.T) {
	refusaltest.SkipOrFail(t, Supported())
	require.ErrorContains(t, new(Reflector).load(netip.MustParseAddrPort("[::1]:7")), "it is for IPv4")
}
