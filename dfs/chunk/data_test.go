package chunk

import (
	"io"
	"math/rand/v2"
	"net"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"waggle/dfs/datapath"
	"waggle/dfs/datapath/read"
	"waggle/dfs/datapath/read/shortcircuit"
	"waggle/dfs/wire"
)

func TestAChainHoldsTheSameBytesEverywhere(t *testing.T) {
	servers, replicas := chain(t, 3, Config{})
	p := dial(t, servers[0])
	want := make([]byte, 2<<20)
	random := rand.New(rand.NewPCG(3, 4))
	written := 0
	for sequence := uint64(1); sequence <= 60; sequence++ {
		data := pattern(byte(sequence), 1+random.IntN(100_000))
		offset := random.IntN(len(want) - len(data))
		if sequence == 1 {
			offset = len(want) - len(data)
		}
		copy(want[offset:], data)
		written += len(data)
		answer := p.write(sequence, uint64(offset), data, replicas[1:])
		requireOK(t, answer)
		require.Equal(t, sequence, answer.Sequence)
	}
	for i, s := range servers {
		s.requireContent(t, want)
		require.EqualValues(t, written, s.count("write_chain_bytes"))
		// The client has the last byte before the server counts it.
		require.Eventually(t, func() bool { return s.count("read_copy_bytes") == int64(len(want)) }, 10*time.Second, time.Millisecond)
		require.EqualValues(t, map[bool]int{true: written, false: 0}[i < 2], s.count("write_chain_forwarded_bytes"))
	}
}

func TestFramesSentAheadAreAnsweredInOrder(t *testing.T) {
	servers, replicas := chain(t, 2, Config{})
	p := dial(t, servers[0])
	localSync := wire.Frame{Type: wire.FrameSync, ID: 77, Chunk: chunk, Epoch: epoch, Extra: wire.AppendWriteExtra(nil, nil, nil)}
	const writes = 3 * window
	for sequence := uint64(1); sequence <= writes; sequence++ {
		data := pattern(byte(sequence), 10_000)
		p.send(writeFrame(sequence, 0, data, replicas[1:]), data)
		if sequence%5 == 0 { // waits for nobody, but its answer must not overtake
			p.send(localSync, nil)
		}
	}
	p.send(wire.Frame{Type: wire.FrameRead, ID: 1, Chunk: chunk, Epoch: epoch, Length: 10_000}, nil)
	for sequence := uint64(1); sequence <= writes; sequence++ {
		answer, _ := p.receive()
		requireOK(t, answer)
		require.Equal(t, 1000+sequence, answer.ID)
		if sequence%5 == 0 {
			answer, _ = p.receive()
			requireOK(t, answer)
			require.Equal(t, localSync.ID, answer.ID)
		}
	}
	_, got := p.receive()
	require.Equal(t, pattern(writes, 10_000), got)
	servers[1].requireContent(t, got)
}

func TestReadsCoverTheirBlocks(t *testing.T) {
	servers, _ := chain(t, 1, Config{})
	p := dial(t, servers[0])
	data := pattern(1, 10_000)
	requireOK(t, p.write(1, 0, data, nil))
	for _, c := range []struct {
		offset         uint64
		length         int
		start, covered int
	}{{0, 1, 0, 4096}, {4095, 2, 0, 8192}, {5000, 100_000, 4096, 5904}, {9999, 1, 8192, 1808}, {20_000, 5, 20_000, 0}, {0, 0, 0, 0}} {
		for _, flags := range []uint16{0, wire.FlagLocked} {
			f, got := p.ask(wire.Frame{Type: wire.FrameRead, Flags: flags, Chunk: chunk, Epoch: epoch, Offset: c.offset, Length: uint32(c.length)}, nil)
			requireOK(t, f)
			require.Len(t, got, c.covered)
			if c.covered > 0 {
				require.EqualValues(t, c.start, f.Offset)
				require.Equal(t, data[c.start:c.start+c.covered], got)
				require.EqualValues(t, -1, wire.CheckChecksums(f.Extra, f.Offset, got))
			}
		}
	}
	f, _ := p.read(1, wire.MaxData)
	requireOK(t, f) // clipped to the replica's end
}

func TestEpochsAndSequencesOnTheWire(t *testing.T) {
	servers, replicas := chain(t, 2, Config{})
	p := dial(t, servers[0])
	requireOK(t, p.write(1, 0, []byte("one"), replicas[1:]))
	requireOK(t, p.write(1, 0, []byte("one"), replicas[1:]))
	answer := p.write(3, 0, []byte("three"), replicas[1:])
	require.Equal(t, wire.StatusOutOfOrder, answer.Status)
	require.EqualValues(t, 1, answer.Sequence)

	sync := wire.Frame{Type: wire.FrameSync, Chunk: chunk, Epoch: epoch, Sequence: 1, Extra: wire.AppendWriteExtra(nil, replicas[1:], nil)}
	answer, _ = p.ask(sync, nil)
	requireOK(t, answer)
	sync.Sequence = 2
	answer, _ = p.ask(sync, nil)
	require.Equal(t, wire.StatusOutOfOrder, answer.Status)

	// Only the second replica was sealed: it refuses what the first one takes.
	r, err := servers[1].store.Get(chunk)
	require.NoError(t, err)
	_, err = r.Seal(epoch + 1)
	require.NoError(t, err)
	answer = p.write(2, 0, []byte("two"), replicas[1:])
	require.Equal(t, wire.StatusStaleEpoch, answer.Status, "nobody has failed: the writer asks for the lease again")

	q := dial(t, servers[1])
	answer = q.write(2, 0, []byte("two"), nil)
	require.Equal(t, wire.StatusStaleEpoch, answer.Status)
	require.EqualValues(t, epoch+1, answer.Epoch)
	answer, _ = q.read(0, 3) // under an older epoch
	requireOK(t, answer)
	answer, _ = q.ask(wire.Frame{Type: wire.FrameRead, Chunk: chunk, Epoch: epoch + 2, Length: 3}, nil)
	require.Equal(t, wire.StatusStaleEpoch, answer.Status)
	answer, _ = q.ask(wire.Frame{Type: wire.FrameRead, Chunk: chunk + 1, Length: 3}, nil)
	require.Equal(t, wire.StatusNotFound, answer.Status)
}

// Of data that its sender has not seen the first server computes the checksums,
// for the other replicas and for its answer.
func TestUnsummedWrites(t *testing.T) {
	servers, replicas := chain(t, 3, Config{})
	p := dial(t, servers[0])
	var want []byte
	for sequence, length := range []int{5000, 4096, 1, 100_000} {
		data := pattern(byte(sequence), length)
		f := writeFrame(uint64(sequence+1), uint64(len(want)), data, replicas[1:])
		f.Flags, f.Extra = wire.FlagUnsummed, wire.AppendWriteExtra(nil, replicas[1:], nil)
		answer, _ := p.ask(f, data)
		requireOK(t, answer)
		require.Equal(t, wire.AppendChecksums(nil, f.Offset, data), answer.Extra)
		want = append(want, data...)
	}
	for _, s := range servers {
		s.requireContent(t, want)
	}
	f := writeFrame(5, 0, []byte("summed"), nil)
	f.Flags = wire.FlagUnsummed
	answer, _ := p.ask(f, []byte("summed"))
	require.Equal(t, wire.StatusInvalid, answer.Status)
}

func TestABrokenChainNamesTheServer(t *testing.T) {
	servers, replicas := chain(t, 3, Config{PeerTimeout: 2 * time.Second})
	p := dial(t, servers[0])
	requireOK(t, p.write(1, 0, []byte("all"), replicas[1:]))
	require.NoError(t, servers[2].stop())
	answer := p.write(2, 0, []byte("two"), replicas[1:])
	require.Equal(t, wire.StatusChainBroken, answer.Status)
	require.EqualValues(t, 2, answer.Sequence, "%s", answer.Extra)
	require.NoError(t, servers[1].stop())
	answer = p.write(3, 0, []byte("three"), replicas[1:])
	if answer.Status == wire.StatusOutOfOrder {
		// Write 2 was not applied anywhere, for the chain was known to be broken.
		answer = p.write(2, 0, []byte("two"), replicas[1:])
	}
	require.Equal(t, wire.StatusChainBroken, answer.Status)
	require.EqualValues(t, 1, answer.Sequence, "%s", answer.Extra)
	// The survivor goes on alone, and after a restart the links are made anew.
	requireOK(t, p.write(answerNext(servers[0]), 0, []byte("alone"), nil))
	servers[0].requireContent(t, []byte("alone"))
}

func answerNext(s *running) uint64 {
	r, _ := s.store.Get(chunk)
	return r.State().Sequence + 1
}

func TestALinkToARestartedServerIsMadeAnew(t *testing.T) {
	servers, replicas := chain(t, 2, Config{})
	p := dial(t, servers[0])
	requireOK(t, p.write(1, 0, []byte("before"), replicas[1:]))
	require.NoError(t, servers[1].stop())
	again := servers[1].restart(t)
	requireOK(t, p.write(2, 0, []byte("after!"), replicas[1:]))
	again.requireContent(t, []byte("after!"))
}

func TestASilentServerBreaksTheChainInTime(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer silent.Close()
	servers, replicas := chain(t, 2, Config{PeerTimeout: 300 * time.Millisecond})
	p := dial(t, servers[0])
	dead := replicas[1]
	dead.Address = silent.Addr().(*net.TCPAddr).AddrPort()
	answer := p.write(1, 0, []byte("x"), []wire.Replica{replicas[1], dead})
	require.Equal(t, wire.StatusChainBroken, answer.Status)
	require.EqualValues(t, 2, answer.Sequence, "%s", answer.Extra)
}

func TestDamageIsReportedOnAWrite(t *testing.T) {
	servers, _ := chain(t, 1, Config{})
	p := dial(t, servers[0])
	requireOK(t, p.write(1, 0, pattern(1, 10_000), nil))
	servers[0].damage(t, 5000)
	answer := p.write(2, 4100, []byte("a part of the block"), nil)
	require.Equal(t, wire.StatusCorrupt, answer.Status)
	require.EqualValues(t, 4096, answer.Offset)
	require.Equal(t, corruptBlock{chunk: chunk, offset: 4096}, <-servers[0].corrupt)

	bad := writeFrame(2, 0, []byte("good"), nil)
	answer, _ = p.ask(bad, []byte("baad"))
	require.Equal(t, wire.StatusInvalid, answer.Status)
	requireOK(t, p.write(2, 4096, pattern(2, 4096), nil)) // a whole block replaces the damage
}

func TestPathsAreChosenByName(t *testing.T) {
	servers, _ := chain(t, 1, Config{})
	p := dial(t, servers[0])
	requireOK(t, p.choose("read=copy"))
	requireOK(t, p.choose("write=chain"))
	for _, path := range []string{"read=teleport", "write=", "lookup=udp", "nonsense", ""} {
		answer := p.choose(path)
		require.Equal(t, wire.StatusUnsupported, answer.Status, path)
		require.Contains(t, string(answer.Extra), datapath.ErrUnknown.Error())
	}
	for _, path := range read.Paths.All() {
		want := wire.StatusOK
		if path.About().Supported() != nil || path.About().EBPF { // this server has no control group
			want = wire.StatusUnsupported
		}
		require.Equal(t, want, p.choose(path.About().String()).Status)
	}
}

// One connection takes one path after another, and every answer is whole.
func TestAConnectionChangesItsPath(t *testing.T) {
	servers, _ := chain(t, 1, Config{})
	p := dial(t, servers[0])
	data := pattern(1, 700_000)
	requireOK(t, p.write(1, 0, data, nil))
	for range 3 {
		for _, path := range read.Paths.All() {
			info := path.About()
			if info.Supported() != nil || info.EBPF || info.Name == read.ShortCircuit {
				continue // those need a control group, or another connection for data
			}
			requireOK(t, p.choose(info.String()))
			before := servers[0].count(info.Proof[0])
			for _, at := range []int{0, 4096, 300_000} {
				answer, got := p.read(uint64(at), 300_000)
				requireOK(t, answer)
				require.Equal(t, data[answer.Offset:][:len(got)], got, info.Name)
			}
			if info.Name != "zerocopy" { // completions are counted as they come
				require.Greater(t, servers[0].count(info.Proof[0]), before, info.Name)
			}
		}
	}
}

// Files that were lent are taken back when the replica's epoch changes.
func TestANewEpochTakesLoansBack(t *testing.T) {
	servers, _ := chain(t, 1, Config{})
	s := servers[0]
	data := pattern(1, 10_000)
	requireOK(t, dial(t, s).write(1, 0, data, nil))
	borrower, err := shortcircuit.Dial(t.Context(), s.lender.Name())
	require.NoError(t, err)
	defer borrower.Close()
	got, sums := make([]byte, len(data)), make([]byte, 4*wire.Pieces(0, uint32(len(data))))
	loan, err := borrower.Borrow(t.Context(), chunk, epoch)
	require.NoError(t, err)
	_, err = loan.Read([][]byte{got}, 0, sums)
	require.NoError(t, err)
	require.Equal(t, data, got)
	require.EqualValues(t, -1, wire.CheckChecksums(sums, 0, got))

	r, err := s.store.Get(chunk)
	require.NoError(t, err)
	_, err = r.Seal(epoch + 1)
	require.NoError(t, err)
	_, err = loan.Read([][]byte{got}, 0, sums)
	require.ErrorIs(t, err, shortcircuit.ErrTakenBack)
	loan, err = borrower.Borrow(t.Context(), chunk, epoch+1)
	require.NoError(t, err)
	_, err = loan.Read([][]byte{got}, 0, sums)
	require.NoError(t, err)
	require.Equal(t, data, got)
}

func TestBadFramesEndTheConnectionOnly(t *testing.T) {
	servers, _ := chain(t, 1, Config{PeerTimeout: 200 * time.Millisecond, IdleTimeout: 200 * time.Millisecond})
	data := pattern(1, 5000)
	good := writeFrame(1, 0, data, nil)
	whole := append(good.Append(nil), data...)
	oversized := good
	oversized.Length = wire.MaxData + 1
	answer := good
	answer.Flags = wire.FlagAnswer
	for name, bytes := range map[string][]byte{
		"random":           pattern(9, 3000),
		"nothing":          nil, // idle
		"truncated header": whole[:40],
		"truncated data":   whole[:len(whole)-1],
		"oversized":        oversized.Append(nil),
		"an answer":        answer.Append(nil),
		"damaged":          append([]byte("WGLD\x01\x03"), whole[7:]...),
	} {
		t.Run(name, func(t *testing.T) {
			p := dial(t, servers[0])
			_, err := p.conn.Write(bytes)
			require.NoError(t, err)
			_, err = p.conn.Read(make([]byte, 1))
			require.True(t, err == io.EOF || isReset(err), "%v", err)
		})
	}
	p := dial(t, servers[0])
	noChain := good
	noChain.Extra = []byte{200}
	f, _ := p.ask(noChain, data) // the stream is still in step: answered
	require.Equal(t, wire.StatusInvalid, f.Status)
	requireOK(t, p.write(1, 0, data, nil))
}

func isReset(err error) bool {
	op, ok := err.(*net.OpError)
	return ok && os.IsTimeout(op) == false
}

func TestConnectionsAreLimited(t *testing.T) {
	s := start(t, Config{MaxConnections: 2})
	for range 2 {
		requireOK(t, dial(t, s).choose("read=copy"))
	}
	p := dial(t, s)
	_, err := p.conn.Read(make([]byte, 1))
	require.Error(t, err)
	require.EqualValues(t, 1, s.count("chunk_refused_connections"))
}

func TestAFullDiskIsSaidSo(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root to mount a small file system")
	}
	directory := t.TempDir()
	require.NoError(t, unix.Mount("tmpfs", directory, "tmpfs", 0, "size=1m"))
	t.Cleanup(func() { require.NoError(t, unix.Unmount(directory, 0)) })
	full := start(t, Config{Directory: directory})
	t.Cleanup(func() { full.stop() })
	_, err := full.store.Create(chunk, epoch)
	require.NoError(t, err)
	p := dial(t, full)
	requireOK(t, p.write(1, 0, pattern(1, 300_000), nil))
	answer := p.write(2, 300_000, pattern(2, 900_000), nil)
	require.Equal(t, wire.StatusNoSpace, answer.Status)
	require.EqualValues(t, 1, answer.Sequence)
	full.requireContent(t, pattern(1, 300_000))
}

func TestLinksAreUsedAgainAndNothingLeaks(t *testing.T) {
	before := descriptors(t)
	servers, replicas := chain(t, 3, Config{})
	idle := func() bool { return servers[0].links.idle.Len() == 1 }
	for round := range 20 {
		p := dial(t, servers[0])
		requireOK(t, p.write(uint64(round+1), 0, pattern(1, 9000), replicas[1:]))
		p.conn.Close()
		require.Eventually(t, idle, 10*time.Second, time.Millisecond)
	}
	connections := 0
	servers[1].eachConnection(func(*net.TCPConn) { connections++ })
	require.Equal(t, 1, connections)
	for _, s := range servers {
		require.NoError(t, s.stop())
	}
	require.Equal(t, before, descriptors(t))
}

// BenchmarkRead compares read=copy with the bare loop. On a busy machine compare
// the CPU time of both, not the throughput.
func BenchmarkRead(b *testing.B) {
	const size = 1 << 20
	data := pattern(1, 16<<20)
	b.Run("floor", func(b *testing.B) { benchmarkFloor(b, data, size) })
	b.Run("copy", func(b *testing.B) { benchmarkCopy(b, data, size) })
}

// reportCPU reports the process's CPU time for each of b's loops.
func reportCPU(b *testing.B, since time.Duration) {
	b.ReportMetric(float64(cpuTime(b)-since)/float64(b.N), "cpu-ns/op")
}

func cpuTime(b *testing.B) time.Duration {
	var u unix.Rusage
	require.NoError(b, unix.Getrusage(unix.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// benchmarkFloor is the bare loop: a request of 8 bytes, pread, write.
func benchmarkFloor(b *testing.B, data []byte, size int) {
	file, err := os.CreateTemp(b.TempDir(), "")
	require.NoError(b, err)
	defer file.Close()
	_, err = file.Write(data)
	require.NoError(b, err)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(b, err)
	defer listener.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		request, buf := make([]byte, 8), make([]byte, size)
		for offset := 0; ; offset = (offset + size) % len(data) {
			if _, err := io.ReadFull(conn, request); err != nil {
				return
			}
			if _, err := file.ReadAt(buf, int64(offset)); err != nil {
				return
			}
			if _, err := conn.Write(buf); err != nil {
				return
			}
		}
	}()
	conn, err := net.Dial("tcp", listener.Addr().String())
	require.NoError(b, err)
	request, buf := make([]byte, 8), make([]byte, size)
	b.SetBytes(int64(size))
	defer reportCPU(b, cpuTime(b))
	for b.Loop() {
		if _, err := conn.Write(request); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(conn, buf); err != nil {
			b.Fatal(err)
		}
	}
	conn.Close()
	<-done
}

func benchmarkCopy(b *testing.B, data []byte, size int) {
	servers, _ := chain(b, 1, Config{})
	p := dial(b, servers[0])
	require.NoError(b, p.conn.SetDeadline(time.Time{}))
	for i := 0; i < len(data); i += wire.MaxData {
		requireOK(b, p.write(uint64(i/wire.MaxData+1), uint64(i), data[i:i+wire.MaxData], nil))
	}
	ask := wire.Frame{Type: wire.FrameRead, Chunk: chunk, Epoch: epoch, Length: uint32(size)}
	var answer wire.Frame
	head, extra, buf := make([]byte, 0, wire.HeaderSize), make([]byte, wire.MaxExtra), make([]byte, size)
	b.SetBytes(int64(size))
	defer reportCPU(b, cpuTime(b))
	for b.Loop() {
		ask.Offset = (ask.Offset + uint64(size)) % uint64(len(data))
		if _, err := p.conn.Write(ask.Append(head)); err != nil {
			b.Fatal(err)
		}
		if err := answer.Receive(p.in, extra); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(p.in, buf); err != nil {
			b.Fatal(err)
		}
	}
}

// FuzzDataConnection sends bytes to a server: whatever they are, it goes on, and
// what was written before is as it was.
func FuzzDataConnection(f *testing.F) {
	servers, replicas := chain(f, 2, Config{PeerTimeout: time.Second})
	data := pattern(1, 5000)
	requireOK(f, dial(f, servers[0]).write(1, 0, data, replicas[1:]))
	late := writeFrame(9, 0, data, replicas[1:])
	ask := wire.Frame{Type: wire.FrameRead, Chunk: chunk, Length: 100}
	choose := wire.Frame{Type: wire.FrameSelect, Extra: []byte("read=copy")}
	f.Add(append(late.Append(nil), data...))
	f.Add(append(ask.Append(nil), ask.Append(nil)...))
	f.Add(choose.Append(nil))
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		p := dial(t, servers[0])
		_, err := p.conn.Write(b)
		require.NoError(t, err)
		require.NoError(t, p.conn.(*net.TCPConn).CloseWrite())
		_, _ = io.Copy(io.Discard, p.conn)
		p.conn.Close()
		servers[0].requireContent(t, data)
	})
}
