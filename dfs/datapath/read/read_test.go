package read

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"waggle/bpf/sockmap"
	"waggle/dfs/datapath"
	"waggle/dfs/datapath/pathtest"
	"waggle/dfs/tcp"
	"waggle/dfs/wire"
)

// eachPath runs f for every read path that sends data by connections: the clients
// of ShortCircuit take none, and those of AFXDP get it in datagrams.
func eachPath(t *testing.T, f func(t *testing.T, p Path)) {
	for _, p := range Paths.All() {
		if p.About().Name == ShortCircuit || p.About().BetweenHosts {
			continue
		}
		t.Run(p.About().Name, func(t *testing.T) {
			pathtest.SkipUnlessSupported(t, p.About())
			f(t, p)
		})
	}
}

// replica makes a file of random bytes with its mapping.
func replica(t testing.TB, size int) (*os.File, []byte, func() ([]byte, error)) {
	t.Helper()
	content := make([]byte, size)
	for i := range content {
		content[i] = byte(rand.Uint32())
	}
	name := filepath.Join(t.TempDir(), "replica")
	require.NoError(t, os.WriteFile(name, content, 0o600))
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	require.NoError(t, err)
	mapped, err := unix.Mmap(int(f.Fd()), 0, wire.MaxChunkSize, unix.PROT_READ, unix.MAP_SHARED)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, errors.Join(unix.Munmap(mapped), f.Close())) })
	return f, content, func() ([]byte, error) { return mapped, nil }
}

// site is a server's side of a path and how its clients reach it.
type site struct {
	*Server
	path     Path
	listener *net.TCPListener
}

// open makes a site that ends with the test. For a path that needs one it is in
// a control group, which the whole test process enters.
func open(t testing.TB, p Path) *site {
	t.Helper()
	s := &site{Server: new(Server), path: p}
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	cgroup := ""
	if _, ok := p.(sockmapPath); ok {
		group, err := sockmap.NewCgroup()
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, group.Close()) })
		require.NoError(t, group.Enter(os.Getpid()))
		cgroup = group.Path()
	}
	var err error
	s.listener, err = tcp.Listen(t.Context(), "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { s.listener.Close() })
	if cgroup != "" {
		require.NoError(t, s.ListenSockmap(cgroup, uint16(s.listener.Addr().(*net.TCPAddr).Port)))
	}
	return s
}

func (s *site) connect(t testing.TB) (server, client *net.TCPConn) {
	t.Helper()
	dialer := Dialer(s.path.About().Name)
	c, err := dialer.Dial("tcp", s.listener.Addr().String())
	require.NoError(t, err)
	server, err = s.listener.AcceptTCP()
	require.NoError(t, err)
	t.Cleanup(func() { server.Close(); c.Close() })
	return server, c.(*net.TCPConn)
}

func (s *site) sender(t testing.TB, conn *net.TCPConn) Sender {
	t.Helper()
	sender, err := s.path.NewSender(conn, s.Server)
	require.NoError(t, err)
	return sender
}

// The conformance suite of the senders: the same seeded ranges give the same
// bytes over every path, and every path proves that it was taken.
func TestEveryPathSendsTheSameBytes(t *testing.T) {
	file, content, mapping := replica(t, 6<<20+123)
	eachPath(t, func(t *testing.T, p Path) {
		site := open(t, p)
		server, client := site.connect(t)
		sender := site.sender(t, server)
		random := rand.New(rand.NewPCG(1, 2))
		for range 60 {
			offset := random.IntN(len(content)) &^ (wire.BlockSize - 1)
			length := min(1+random.IntN(1<<random.IntN(23)), len(content)-offset)
			header := bytes.Repeat([]byte{byte(offset)}, 64+random.IntN(1000))
			var sending sync.WaitGroup
			sending.Go(func() {
				err := sender.Prepare(Range{File: file, Offset: int64(offset), Length: length, Mapping: mapping})
				if err == nil {
					err = sender.Send(header)
				}
				if !assert.NoError(t, err) {
					client.CloseRead()
				}
			})
			got := make([]byte, len(header)+length)
			_, err := io.ReadFull(client, got)
			require.NoError(t, err)
			sending.Wait()
			require.True(t, bytes.Equal(header, got[:len(header)]), "header")
			require.True(t, bytes.Equal(content[offset:][:length], got[len(header):]), "%d bytes at %d", length, offset)
		}
		require.NoError(t, sender.Close())
		for _, name := range p.About().Proof {
			require.Positive(t, site.Counters.Snapshot()[name], "the proof %s", name)
		}
		if name := "read_zerocopy_copied_bytes"; p.About().Name == "zerocopy" {
			require.Equal(t, site.Counters.Snapshot()["read_zerocopy_completed_bytes"], site.Counters.Snapshot()[name], "loopback copies after all")
		}
	})
}

// A replica that was cut after its length was looked up ends the connection
// with an error: no signal, no bytes that are not there.
func TestACutReplicaIsAnError(t *testing.T) {
	eachPath(t, func(t *testing.T, p Path) {
		file, _, mapping := replica(t, 2<<20)
		site := open(t, p)
		server, client := site.connect(t)
		sender := site.sender(t, server)
		defer sender.Close()
		go io.Copy(io.Discard, client)
		require.NoError(t, file.Truncate(3*wire.BlockSize))
		err := sender.Prepare(Range{File: file, Length: 1 << 20, Mapping: mapping})
		if err == nil {
			err = sender.Send([]byte("header"))
		}
		require.ErrorIs(t, err, ErrShrank)
	})
}

// A client that reads nothing holds the sender up until its write deadline and
// no longer; one that vanishes is an error at once.
func TestSlowAndVanishedClients(t *testing.T) {
	eachPath(t, func(t *testing.T, p Path) {
		file, _, mapping := replica(t, 4<<20)
		site := open(t, p)
		send := func(server *net.TCPConn) error {
			sender := site.sender(t, server)
			defer sender.Close()
			for range 20 {
				if err := sender.Prepare(Range{File: file, Length: 4 << 20, Mapping: mapping}); err != nil {
					return err
				}
				if err := sender.Send([]byte("header")); err != nil {
					return err
				}
			}
			return nil
		}
		server, _ := site.connect(t)
		require.NoError(t, server.SetWriteDeadline(time.Now().Add(100*time.Millisecond)))
		require.ErrorIs(t, send(server), os.ErrDeadlineExceeded)

		server, client := site.connect(t)
		require.NoError(t, client.Close())
		require.Error(t, send(server))
	})
}

// What a path that does not copy has handed to the kernel are the file's own
// pages: a client that reads after they were overwritten gets bytes that the
// checksums in the header catch. Where the kernel copied, it gets what was there.
func TestPagesOnTheirWayAreOverwritten(t *testing.T) {
	const size = 64 << 10
	live := map[string]bool{"sendfile": true, "splice": true}
	eachPath(t, func(t *testing.T, p Path) {
		file, content, mapping := replica(t, size)
		sums := wire.AppendChecksums(nil, 0, content)
		site := open(t, p)
		server, client := site.connect(t)
		sender := site.sender(t, server)
		require.NoError(t, sender.Prepare(Range{File: file, Length: size, Mapping: mapping}))
		require.NoError(t, sender.Send([]byte("header")))
		_, err := file.WriteAt(bytes.Repeat([]byte("new"), 1000), 20_000)
		require.NoError(t, err)
		got := make([]byte, len("header")+size)
		_, err = io.ReadFull(client, got)
		require.NoError(t, err)
		torn := wire.CheckChecksums(sums, 0, got[len("header"):])
		if live[p.About().Name] {
			require.EqualValues(t, 16384, torn, "the first block that was overwritten")
		} else {
			require.EqualValues(t, -1, torn, "the block at %d", torn)
		}
		require.NoError(t, sender.Close())
	})
}

// The mark that asks for redirection needs a right. Without it there is no
// connection, rather than a plain one.
func TestRedirectionWithoutRights(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can become another user")
	}
	l, err := tcp.Listen(t.Context(), "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	refused := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread ends as another user
		const nobody = 65534
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, nobody, nobody, nobody); errno != 0 {
			refused <- errno
			return
		}
		// Without a context that ends, the dial stays on this thread.
		dialer := Dialer("sockmap+copy")
		conn, err := dialer.Dial("tcp", l.Addr().String())
		if err == nil {
			conn.Close()
		}
		refused <- err
	}()
	err = <-refused
	require.ErrorIs(t, err, datapath.ErrUnsupported)
	require.ErrorContains(t, err, "CAP_NET_ADMIN")
}

// ringsMapped counts the rings of io_uring that are mapped, and says how many
// kilobytes of memory are pinned.
func ringsMapped(t *testing.T) (rings int, pinned string) {
	maps, err := os.ReadFile("/proc/self/maps")
	require.NoError(t, err)
	status, err := os.ReadFile("/proc/self/status")
	require.NoError(t, err)
	_, pinned, found := strings.Cut(string(status), "VmPin:")
	require.True(t, found)
	pinned, _, _ = strings.Cut(pinned, "\n")
	return strings.Count(string(maps), "[io_uring]"), pinned
}

// Connections that come and go leave no descriptor, no mapping and no pinned page.
func TestNothingIsLeftBehind(t *testing.T) {
	count := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		require.NoError(t, err)
		return len(entries)
	}
	rings, pinned := ringsMapped(t)
	eachPath(t, func(t *testing.T, p Path) {
		file, _, mapping := replica(t, 1<<16)
		site := open(t, p)
		before := 0
		for i := range 1000 {
			if i == 10 {
				before = count()
			}
			server, client := site.connect(t)
			sender := site.sender(t, server)
			require.NoError(t, sender.Prepare(Range{File: file, Length: 1 << 16, Mapping: mapping}))
			require.NoError(t, sender.Send([]byte("header")))
			require.NoError(t, errors.Join(sender.Close(), server.Close(), client.Close()))
		}
		require.InDelta(t, before, count(), 5)
		require.Eventually(t, func() bool { // what the kernel frees later
			ringsNow, pinnedNow := ringsMapped(t)
			return ringsNow == rings && pinnedNow == pinned
		}, 5*time.Second, 10*time.Millisecond)
		if site.Sockmap != nil {
			known, err := site.Sockmap.Known()
			require.NoError(t, err)
			require.Zero(t, known, "connections that the kernel still knows")
		}
	})
}

// A client that did not mark its connection, as one in another kernel can't, is
// served by TCP, and that is counted instead of proven.
func TestPlainConnectionsAreServedAndCounted(t *testing.T) {
	file, content, mapping := replica(t, 1<<16)
	eachPath(t, func(t *testing.T, p Path) {
		if _, ok := p.(sockmapPath); !ok {
			t.Skip("not redirected anyway")
		}
		site := open(t, p)
		client, err := net.Dial("tcp", site.listener.Addr().String())
		require.NoError(t, err)
		defer client.Close()
		server, err := site.listener.AcceptTCP()
		require.NoError(t, err)
		defer server.Close()
		sender := site.sender(t, server)
		require.NoError(t, sender.Prepare(Range{File: file, Length: len(content), Mapping: mapping}))
		require.NoError(t, sender.Send([]byte("header")))
		got := make([]byte, len("header")+len(content))
		_, err = io.ReadFull(client, got)
		require.NoError(t, err)
		require.True(t, bytes.Equal(content, got[len("header"):]))
		counts := site.Counters.Snapshot()
		require.EqualValues(t, 1, counts["read_sockmap_plain_connections"])
		require.Zero(t, counts["read_sockmap_redirected_bytes"])
	})
}

// A chunk server without a control group refuses, instead of sending plainly.
func TestSockmapNeedsItsControlGroup(t *testing.T) {
	_, err := sockmapPath{inner: copyPath{}}.NewSender(nil, new(Server))
	require.ErrorContains(t, err, "--sockmap-cgroup")
}

// Data in datagrams needs a client that says where, and another host.
func TestAFXDPRefusesOneHost(t *testing.T) {
	for _, nonsense := range []string{"", "0", "65536", "-1", "x", "1 2"} {
		_, err := afxdpPath{}.With(nonsense)
		require.ErrorIs(t, err, wire.ErrMalformed, nonsense)
	}
	p, err := afxdpPath{}.With("4000")
	require.NoError(t, err)
	site := open(t, p)
	server, _ := site.connect(t)
	_, err = p.NewSender(server, site.Server)
	require.ErrorContains(t, err, "one host")
	_, err = afxdpPath{}.NewSender(server, site.Server)
	require.ErrorContains(t, err, "UDP port")
}
