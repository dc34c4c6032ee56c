package lookup

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"sync/atomic"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/stretchr/testify/require"
)

const (
	testPort    = 7400
	testSession = 77
	regular     = 0o100644
	directory   = 0o040755
	symlink     = 0o120777

	xdpPass = 2
	xdpTX   = 3

	requestSize = 296
	answerSize  = 296
)

var (
	le         = binary.LittleEndian
	serverIPv4 = [4]byte{10, 0, 0, 1}
	serverIPv6 = [16]byte{0xfd, 15: 1}
	serverMAC  = [6]byte{5: 2}
	names      = [][HashSize]byte{{1}, {2}, {3}, {4}}
)

func openTable(t *testing.T) *Table { return openTableAt(t, serverMAC) }

func openTableAt(t *testing.T, mac [6]byte) *Table {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("loading BPF programs needs root")
	}
	table, err := Open(Options{Port: testPort, IPv4: serverIPv4, IPv6: serverIPv6, MAC: mac, Entries: 1000, Locations: 1000, Contents: 1000, Sessions: 100})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, table.Close()) })
	return table
}

func attributes(inode uint64, mode uint32, inline int) (a [AttributesSize]byte) {
	le.PutUint64(a[0:], inode)
	le.PutUint64(a[8:], uint64(inline))
	le.PutUint32(a[32:], mode)
	le.PutUint32(a[36:], 1000) // uid
	le.PutUint32(a[40:], 100)  // gid
	le.PutUint16(a[62:], uint16(inline))
	return a
}

// The tree: 1 is the root, /{1} is directory 10, /{1}/{2} is file 11 with a
// chunk, /{1}/{3} is small file 12, /{4} is a symbolic link 13.
func fill(t *testing.T, table *Table, content []byte) {
	t.Helper()
	require.NoError(t, table.Update(func(w *Writer) {
		require.NoError(t, w.PutSession(testSession, Session{UID: 1, GID: 1, Groups: []uint32{5, 6}}))
		w.PutInode(1, attributes(1, directory, 0))
		w.PutInode(10, attributes(10, directory, 0))
		w.PutInode(11, attributes(11, regular, 0))
		w.PutInode(12, attributes(12, regular, len(content)))
		w.PutInode(13, attributes(13, symlink, 0))
		w.PutEntry(1, names[0], 10)
		w.PutEntry(10, names[1], 11)
		w.PutEntry(10, names[2], 12)
		w.PutEntry(1, names[3], 13)
		w.PutEntry(10, names[3], 0)
		w.PutContent(12, content)
		w.PutLocation(11, 2, [LocationSize]byte{0: 0xaa, LocationSize - 1: 0xbb})
	}))
}

func request(flags uint16, chunk uint32, path ...[HashSize]byte) []byte {
	b := make([]byte, requestSize)
	if flags&2 != 0 {
		b = make([]byte, requestSize+MaxContent)
	}
	copy(b, "WGLQ")
	b[4], b[5] = 1, byte(len(path))
	le.PutUint16(b[6:], flags)
	le.PutUint64(b[8:], 0xabcdef)
	le.PutUint64(b[16:], testSession)
	le.PutUint64(b[24:], 1)
	le.PutUint32(b[32:], chunk)
	for i, name := range path {
		copy(b[40+16*i:], name[:])
	}
	return b
}

func be16(n int) []byte { return binary.BigEndian.AppendUint16(nil, uint16(n)) }

// udp makes a datagram whose checksum is right.
func udp(addresses, payload []byte) []byte {
	length := 8 + len(payload)
	segment := bytes.Join([][]byte{be16(5555), be16(testPort), be16(length), be16(0), payload}, nil)
	pseudo := bytes.Join([][]byte{addresses, {0, 17}, be16(length)}, nil)
	binary.BigEndian.PutUint16(segment[6:], ^uint16(sum(append(pseudo, segment...))))
	return segment
}

func ethernet(protocol int, rest []byte) []byte {
	return bytes.Join([][]byte{serverMAC[:], {5: 3}, be16(protocol), rest}, nil)
}

func overIPv4(payload []byte) []byte {
	addresses := append([]byte{10, 0, 0, 2}, serverIPv4[:]...)
	ip := bytes.Join([][]byte{{0x45, 0}, be16(28 + len(payload)), {0, 0, 0, 0, 64, 17, 0, 0}, addresses}, nil)
	return sealIPv4(ethernet(0x0800, append(ip, udp(addresses, payload)...)))
}

// sealIPv4 puts the right checksum in a frame's IPv4 header.
func sealIPv4(frame []byte) []byte {
	ip := frame[14:34]
	copy(ip[10:], be16(0))
	binary.BigEndian.PutUint16(ip[10:], ^uint16(sum(ip)))
	return frame
}

func overIPv6(payload []byte) []byte {
	addresses := append([]byte{0: 0xfd, 15: 2}, serverIPv6[:]...)
	ip := bytes.Join([][]byte{{0x60, 0, 0, 0}, be16(8 + len(payload)), {17, 64}, addresses}, nil)
	return ethernet(0x86dd, append(ip, udp(addresses, payload)...))
}

func run(t *testing.T, table *Table, packet []byte) (int, []byte) {
	t.Helper()
	o := ebpf.RunOptions{Data: bytes.Clone(packet), DataOut: make([]byte, 2048)}
	action, err := table.objects.AnswerLookups.Run(&o)
	require.NoError(t, err)
	return int(action), o.DataOut
}

// one runs a packet and demands this outcome; it returns what came out.
func one(t *testing.T, table *Table, packet []byte, want Outcome) []byte {
	t.Helper()
	before, err := table.Outcomes()
	require.NoError(t, err)
	action, out := run(t, table, packet)
	after, err := table.Outcomes()
	require.NoError(t, err)
	for o := range outcomeEnd {
		grown := after[o] - before[o]
		if o == want {
			require.EqualValues(t, 1, grown, "%s", o)
		} else {
			require.Zero(t, grown, "%s instead of %s", o, want)
		}
	}
	if want == Answered {
		require.Equal(t, xdpTX, action)
	} else {
		require.Equal(t, xdpPass, action)
		require.Equal(t, packet, out, "a passed packet must not be changed")
	}
	return out
}

func TestAnswers(t *testing.T) {
	const ok, notFound, notDirectory, denied = 0, 1, 2, 3
	for _, size := range []int{1, 2, 3, 4, 5, 127, 128, 129, 255, 256, 257, 512, 513, 1021, 1022, 1023, 1024} {
		table := openTable(t)
		content := bytes.Repeat([]byte{0xc5, 0x17, 0xff}, 400)[:size]
		fill(t, table, content)
		for name, wrap := range map[string]func([]byte) []byte{"IPv4": overIPv4, "IPv6": overIPv6} {
			for what, c := range map[string]struct {
				request        []byte
				status, walked int
				inode          uint64
				located        bool
				content        []byte
			}{
				"root":              {request(3, 0), ok, 0, 1, false, nil},
				"directory":         {request(3, 0, names[0]), ok, 1, 10, false, nil},
				"file":              {request(0, 0, names[0], names[1]), ok, 2, 11, false, nil},
				"located":           {request(1, 2, names[0], names[1]), ok, 2, 11, true, nil},
				"small":             {request(3, 0, names[0], names[2]), ok, 2, 12, false, content},
				"small, attributes": {request(1, 0, names[0], names[2]), ok, 2, 12, false, nil},
				"link at the end":   {request(3, 0, names[3]), ok, 1, 13, false, nil},
				"no such name":      {request(3, 0, names[0], names[3]), notFound, 1, 0, false, nil},
				"file in the way":   {request(3, 0, names[0], names[1], names[1]), notDirectory, 2, 0, false, nil},
			} {
				what = name + " " + what
				out := one(t, table, wrap(c.request), Answered)
				payload := checkHeaders(t, out, what)
				require.Equal(t, "WGLA", string(payload[:4]), what)
				require.EqualValues(t, 1, payload[4], what)
				require.EqualValues(t, c.status, payload[5], what)
				require.EqualValues(t, c.walked, le.Uint16(payload[6:]), what)
				require.Equal(t, uint64(0xabcdef), le.Uint64(payload[8:]), what)
				require.Equal(t, c.inode, le.Uint64(payload[16:]), what)
				location := [LocationSize]byte{}
				if c.located {
					location[0], location[LocationSize-1] = 0xaa, 0xbb
				}
				require.Equal(t, location[:], payload[80:answerSize], what)
				require.Equal(t, c.content, append([]byte(nil), payload[answerSize:]...), what)
			}
		}
	}
}

// checkHeaders looks at an answer's headers and checksums; it returns the UDP
// payload.
func checkHeaders(t *testing.T, frame []byte, what string) []byte {
	t.Helper()
	require.Equal(t, []byte{5: 3, 11: 2}, frame[:12], what)
	var segment, pseudo []byte
	switch binary.BigEndian.Uint16(frame[12:]) {
	case 0x0800:
		ip := frame[14:34]
		require.Equal(t, serverIPv4[:], ip[12:16], what)
		require.EqualValues(t, len(frame)-14, binary.BigEndian.Uint16(ip[2:]), what)
		require.EqualValues(t, 0xffff, sum(ip), what)
		segment = frame[34:]
		require.Zero(t, binary.BigEndian.Uint16(segment[6:]), what)
	case 0x86dd:
		ip := frame[14:54]
		require.Equal(t, serverIPv6[:], ip[8:24], what)
		require.EqualValues(t, len(frame)-54, binary.BigEndian.Uint16(ip[4:]), what)
		segment = frame[54:]
		pseudo = bytes.Join([][]byte{ip[8:40], {0, 0}, be16(len(segment)), {0, 0, 0, 17}}, nil)
		require.EqualValues(t, 0xffff, sum(append(pseudo, segment...)), what)
	}
	require.EqualValues(t, testPort, binary.BigEndian.Uint16(segment), what)
	require.EqualValues(t, 5555, binary.BigEndian.Uint16(segment[2:]), what)
	require.EqualValues(t, len(segment), binary.BigEndian.Uint16(segment[4:]), what)
	return segment[8:]
}

// sum is the Internet checksum without the last complement (RFC 1071).
func sum(b []byte) uint32 {
	if len(b)%2 == 1 {
		b = append(bytes.Clone(b), 0)
	}
	var s uint32
	for ; len(b) > 0; b = b[2:] {
		s += uint32(binary.BigEndian.Uint16(b))
		s = s&0xffff + s>>16
	}
	return s
}

func TestPermissions(t *testing.T) {
	table := openTable(t)
	fill(t, table, []byte("x"))
	ask := func(mode, uid, gid uint32, groups ...uint32) bool {
		require.NoError(t, table.Update(func(w *Writer) {
			require.NoError(t, w.PutSession(testSession, Session{UID: uid, GID: gid, Groups: groups}))
			w.PutInode(10, attributes(10, 0o040000|mode, 0))
		}))
		out := one(t, table, overIPv4(request(0, 0, names[0], names[1])), Answered)
		return out[42+5] == 0
	}
	require.True(t, ask(0, 0, 0), "root may")
	require.True(t, ask(0o100, 1000, 5))
	require.False(t, ask(0o011, 1000, 100), "the owner's bits decide for the owner")
	require.True(t, ask(0o010, 5, 100))
	require.True(t, ask(0o010, 5, 5, 99, 100))
	require.False(t, ask(0o001, 5, 5, 99, 100), "the group's bits decide for a member")
	require.True(t, ask(0o001, 5, 5, 99))
	require.False(t, ask(0o110, 5, 5, 99))
}

func TestReadingNeedsPermission(t *testing.T) {
	table := openTable(t)
	fill(t, table, []byte("x"))
	ask := func(mode, uid, gid uint32, flags uint16) byte {
		require.NoError(t, table.Update(func(w *Writer) {
			require.NoError(t, w.PutSession(testSession, Session{UID: uid, GID: gid}))
			w.PutInode(12, attributes(12, 0o100000|mode, 1))
		}))
		return one(t, table, overIPv4(request(flags, 0, names[0], names[2])), Answered)[42+5]
	}
	const ok, denied = 0, 3
	require.EqualValues(t, ok, ask(0, 1000, 5, 3), "the owner may")
	require.EqualValues(t, ok, ask(0, 0, 0, 3), "root may")
	require.EqualValues(t, ok, ask(0o040, 5, 100, 1))
	require.EqualValues(t, denied, ask(0o404, 5, 100, 1))
	require.EqualValues(t, denied, ask(0o440, 5, 5, 2))
	require.EqualValues(t, ok, ask(0o440, 5, 5, 0), "attributes are for everybody")
}

func TestWhatIsPassed(t *testing.T) {
	table := openTable(t)
	fill(t, table, bytes.Repeat([]byte("s"), 600))
	good := request(3, 0, names[0], names[2])
	// change overwrites bytes and leaves the checksums as they were.
	change := func(packet []byte, at int, b ...byte) []byte {
		packet = bytes.Clone(packet)
		copy(packet[at:], b)
		return packet
	}
	// ask changes a byte of the request before it is sent.
	ask := func(at int, b byte) []byte { return overIPv4(change(good, at, b)) }
	unknown := [HashSize]byte{9}
	deep := make([][HashSize]byte, 16)
	for i := range deep {
		deep[i] = unknown
	}
	for name, c := range map[string]struct {
		packet []byte
		want   Outcome
	}{
		"ARP":                 {ethernet(0x0806, make([]byte, 400)), OtherTraffic},
		"VLAN":                {ethernet(0x8100, overIPv4(good)[12:]), OtherTraffic},
		"runt":                {overIPv4(good)[:14], OtherTraffic},
		"short":               {overIPv4(good)[:337], OtherTraffic},
		"other port":          {change(overIPv4(good), 36, 0, 1), OtherTraffic},
		"other host":          {change(overIPv4(good), 33, 9), OtherTraffic},
		"other IPv6 host":     {change(overIPv6(good), 53, 9), OtherTraffic},
		"TCP":                 {change(overIPv4(good), 23, 6), OtherTraffic},
		"IP options":          {change(overIPv4(good), 14, 0x46), PassHeaders},
		"first fragment":      {change(overIPv4(good), 20, 0x20), PassHeaders},
		"later fragment":      {change(overIPv4(good), 20, 0, 1), PassHeaders},
		"spoofed IP length":   {change(overIPv4(good), 16, 0xff), PassHeaders},
		"spoofed UDP length":  {change(overIPv4(good), 38, 0, 9), PassHeaders},
		"from port 0":         {change(overIPv4(good), 34, 0, 0), PassHeaders},
		"from 0.0.0.2":        {sealIPv4(change(overIPv4(good), 26, 0)), PassHeaders},
		"from multicast":      {sealIPv4(change(overIPv4(good), 26, 224)), PassHeaders},
		"IPv6 from port 0":    {change(overIPv6(good), 54, 0, 0), PassHeaders},
		"IPv6 from multicast": {change(overIPv6(good), 22, 0xff), PassHeaders},
		"spoofed IPv6 length": {change(overIPv6(good), 18, 0, 9), PassHeaders},
		"damaged header":      {change(overIPv4(good), 22, 1), PassChecksum},
		"damaged request":     {change(overIPv4(good), 60, 1), PassChecksum},
		"damaged IPv6":        {change(overIPv6(good), 80, 1), PassChecksum},
		"IPv6, no checksum":   {change(overIPv6(good), 60, 0, 0), PassChecksum},
		"no padding":          {overIPv4(good[:requestSize]), PassHeaders},
		"padding":             {overIPv6(append(request(1, 0), make([]byte, MaxContent)...)), PassHeaders},
		"magic":               {ask(0, 'X'), PassMalformed},
		"version":             {ask(4, 2), PassMalformed},
		"components":          {ask(5, 17), PassMalformed},
		"flags":               {ask(6, 0xff), PassMalformed},
		"reserved":            {ask(36, 1), PassMalformed},
		"name behind":         {ask(295, 1), PassMalformed},
		"session":             {ask(16, 1), PassSession},
		"entry":               {overIPv4(request(3, 0, unknown)), PassEntry},
		"deep":                {overIPv4(request(3, 0, deep...)), PassEntry},
		"start":               {ask(24, 99), PassInode},
		"location":            {overIPv4(request(1, 9, names[0], names[1])), PassLocation},
		"symlink":             {overIPv4(request(3, 0, names[3], names[0])), PassSymlink},
	} {
		t.Run(name, func(t *testing.T) { one(t, table, c.packet, c.want) })
	}
	one(t, table, change(overIPv4(good), 40, 0, 0), Answered) // no UDP checksum
	one(t, table, change(overIPv4(good), 40, partial(overIPv4(good))...), Answered)
	require.NoError(t, table.Update(func(w *Writer) { w.RemoveInode(12); w.PutInode(12, attributes(12, regular, 600)) }))
	one(t, table, overIPv4(good), PassInline)
	one(t, table, overIPv4(request(1, 0, names[0], names[2])), Answered)

	atomic.AddUint64(table.generation, 1)
	one(t, table, overIPv4(request(0, 0)), PassChanging)
	atomic.AddUint64(table.generation, 1)
	one(t, table, overIPv4(request(0, 0)), Answered)
}

// partial is the checksum that a kernel leaves for hardware to complete: the
// sum of the pseudo-header alone.
func partial(frame []byte) []byte {
	pseudo := bytes.Join([][]byte{frame[26:34], {0, 17}, frame[38:40]}, nil)
	return be16(int(sum(pseudo)))
}

func TestAStoppedTableAnswersNothing(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("loading BPF programs needs root")
	}
	table, err := Open(Options{Port: testPort, IPv4: serverIPv4, MAC: serverMAC, Entries: 10, Locations: 10, Contents: 10, Sessions: 10})
	require.NoError(t, err)
	fill(t, table, []byte("x"))
	one(t, table, overIPv4(request(0, 0)), Answered)
	table.Stop()
	for range 2 {
		one(t, table, overIPv4(request(0, 0)), PassChanging)
		require.NoError(t, table.Update(func(w *Writer) { t.Error("a stopped table was changed") }))
	}
	require.NoError(t, table.Close())
	require.NoError(t, table.Update(func(w *Writer) { t.Error("a closed table was changed") }))
}

func TestRemoved(t *testing.T) {
	table := openTable(t)
	fill(t, table, []byte("x"))
	file := overIPv4(request(1, 2, names[0], names[1]))
	one(t, table, file, Answered)
	require.NoError(t, table.Update(func(w *Writer) {
		w.RemoveLocation(11, 2)
		require.True(t, w.RemoveInode(12))
		require.False(t, w.RemoveInode(12))
	}))
	one(t, table, file, PassLocation)
	for want, remove := range map[Outcome]func(*Writer){
		PassLocation: func(w *Writer) { w.RemoveLocations() },
		PassEntry:    func(w *Writer) { w.RemoveEntry(10, names[1]) },
		PassInode:    func(w *Writer) { _ = w.RemoveInode(11) },
		PassSession:  func(w *Writer) { w.RemoveSession(testSession) },
	} {
		fill(t, table, []byte("x"))
		require.NoError(t, table.Update(remove))
		one(t, table, file, want)
		require.NoError(t, table.Update(remove), "removing what is not there is no error")
	}
}

// Random packets near a good one must never be answered wrongly, nor changed
// when they are passed.
func TestHostilePackets(t *testing.T) {
	table := openTable(t)
	fill(t, table, []byte("small"))
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	good := [][]byte{overIPv4(request(3, 0, names[0], names[2])), overIPv6(request(3, 2, names[0], names[1]))}
	for range 20000 {
		packet := bytes.Clone(good[random.IntN(2)])
		for range 1 + random.IntN(4) {
			packet[random.IntN(len(packet))] = byte(random.Uint32())
		}
		if packet[12] == 0x08 && random.IntN(2) == 0 {
			copy(packet[40:], be16(0)) // as if damaged by its sender: the checksums are right
			sealIPv4(packet)
		}
		if random.IntN(4) == 0 {
			packet = packet[:14+random.IntN(len(packet)-13)]
		}
		switch action, out := run(t, table, packet); action {
		case xdpPass:
			require.Equal(t, packet, out)
		case xdpTX:
			require.Contains(t, string(out), "WGLA")
		default:
			require.Failf(t, "packet was dropped", "action %d for %x", action, packet)
		}
	}
}

func TestFullTablesKeepWhatIsNew(t *testing.T) {
	table := openTable(t)
	require.NoError(t, table.Update(func(w *Writer) {
		for i := range uint64(5000) {
			w.PutInode(i, attributes(i, directory, 0))
		}
	}))
	require.NoError(t, table.Update(func(w *Writer) { require.NoError(t, w.PutSession(testSession, Session{})) }))
	q := request(0, 0)
	le.PutUint64(q[24:], 4999)
	one(t, table, overIPv4(q), Answered)
	full := table.Update(func(w *Writer) {
		for i := range uint64(200) {
			require.NoError(t, w.PutSession(i, Session{}))
		}
	})
	require.ErrorContains(t, full, "session", "sessions are never evicted: a full table says so")
}

// The walk without the answer: a packet that was answered once is no request any
// more, so what is run again and again is one whose last inode is missing. What it
// costs does not grow with what is in the tables. Memory is what the kernel says
// that entries and inodes take.
func BenchmarkWalk(b *testing.B) {
	if os.Geteuid() != 0 {
		b.Skip("loading BPF programs needs root")
	}
	for _, entries := range []uint32{1_000, 1_000_000} {
		b.Run(fmt.Sprint(entries), func(b *testing.B) {
			table, err := Open(Options{Port: testPort, Entries: entries + entries/4, Locations: 1000, Contents: 1000, Sessions: 100})
			require.NoError(b, err)
			defer table.Close()
			require.NoError(b, table.Update(func(w *Writer) {
				for i := range uint64(entries) {
					hash := [HashSize]byte{1}
					le.PutUint64(hash[8:], i)
					w.PutEntry(1000+i, hash, 1001+i)
					w.PutInode(1000+i, attributes(1000+i, directory, 0))
				}
				require.NoError(b, w.PutSession(testSession, Session{}))
				for i := range uint64(3) {
					w.PutInode(1+i, attributes(1+i, directory, 0))
					w.PutEntry(1+i, names[0], 2+i)
				}
			}))
			packet := overIPv4(request(0, 0, names[0], names[0], names[0]))
			_, duration, err := table.objects.AnswerLookups.Benchmark(packet, b.N, b.ResetTimer)
			require.NoError(b, err)
			b.ReportMetric(float64(duration.Nanoseconds()), "ns/packet")
			outcomes, err := table.Outcomes()
			require.NoError(b, err)
			require.GreaterOrEqual(b, outcomes[PassInode], uint64(b.N), "every packet must have been walked")
			var memory uint64
			for _, m := range []*ebpf.Map{table.objects.Entries, table.objects.Inodes} {
				info, err := m.Info()
				require.NoError(b, err)
				bytes, _ := info.Memlock()
				memory += bytes
			}
			b.ReportMetric(float64(memory)/float64(entries), "B/entry")
		})
	}
}

func TestOnlyFramesForThisHostAreAnswered(t *testing.T) {
	table := openTable(t)
	fill(t, table, []byte("small"))
	for _, good := range [][]byte{overIPv4(request(3, 0, names[0], names[2])), overIPv6(request(3, 0, names[0], names[2]))} {
		one(t, table, good, Answered)
		for what, mac := range map[string][]byte{"another host": {5: 9}, "broadcast": {255, 255, 255, 255, 255, 255}, "multicast": {1, 0, 0x5e, 0, 0, 1},
			"one bit off": {0x80, 5: 2}} {
			frame := bytes.Clone(good)
			copy(frame, mac)
			require.Equal(t, frame, one(t, table, frame, OtherTraffic), what)
		}
		fromAll := bytes.Clone(good)
		copy(fromAll[6:], []byte{1, 0, 0x5e, 0, 0, 1})
		one(t, table, fromAll, OtherTraffic)
	}
}

func TestNothingIsAnsweredFromAnAddressOfMany(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("loading BPF programs needs root")
	}
	table, err := Open(Options{Port: testPort, MAC: serverMAC, Entries: 100, Locations: 100, Contents: 100, Sessions: 100}) // at any address
	require.NoError(t, err)
	defer table.Close()
	fill(t, table, []byte("small"))
	one(t, table, overIPv4(request(3, 0, names[0], names[2])), Answered)
	for _, to := range [][]byte{{255, 255, 255, 255}, {224, 0, 0, 1}} {
		frame := overIPv4(request(3, 0, names[0], names[2]))
		copy(frame[30:], to)
		one(t, table, sealIPv4(frame), OtherTraffic)
	}
	frame := overIPv6(request(3, 0, names[0], names[2]))
	copy(frame[38:], []byte{0xff, 2})
	one(t, table, frame, OtherTraffic)
}

func TestLocationsThatCannotBeRemovedAreAnError(t *testing.T) {
	table := openTable(t)
	fill(t, table, nil)
	require.NoError(t, table.Update(func(w *Writer) { w.RemoveLocations() }))
	require.False(t, table.HasLocation(11, 2))
	require.NoError(t, table.objects.Locations.Close()) // so that going through it fails
	require.Error(t, table.Update(func(w *Writer) { w.RemoveLocations() }))
}
