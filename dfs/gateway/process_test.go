package gateway

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"waggle/dfs/client"
	"waggle/dfs/datapath/relay"
	"waggle/dfs/dfstest"
)

// TestProcess is about the gateway as a process of its own: one that is killed,
// that makes way for another, whose memory is counted. It is built as it is
// used, without the race detector, which multiplies memory.
func TestProcess(t *testing.T) {
	program := filepath.Join(t.TempDir(), "waggle")
	build := exec.Command("go", "build", "-o", program, "waggle/cmd/waggle")
	build.Stdout, build.Stderr = os.Stderr, os.Stderr
	require.NoError(t, build.Run())
	cluster := dfstest.Start(t, dfstest.Options{})
	s := &processes{program: program, cluster: cluster, client: cluster.Dial(client.Options{ChunkSize: 1 << 20})}
	t.Run("killed and restarted", s.killed)
	t.Run("other relay paths take over under load", s.upgraded)
	t.Run("slow downloads take little memory", s.slow)
}

type processes struct {
	program string
	cluster *dfstest.Cluster
	client  *client.Client
}

// process is a gateway that runs.
type process struct {
	*exec.Cmd
	address string
	ended   chan error
}

var readyLine = regexp.MustCompile(`^gateway: http://([^,]+),`)

// start starts a gateway on an address and waits until it is ready.
func (s *processes) start(t *testing.T, address string, flags ...string) *process {
	t.Helper()
	p := &process{Cmd: exec.Command(s.program, append([]string{"gateway", "--meta", s.cluster.Meta, "--address", address}, flags...)...), ended: make(chan error, 1)}
	p.Stderr = t.Output()
	out, err := p.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, p.Start())
	t.Cleanup(func() { p.Process.Kill() })
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	match := readyLine.FindStringSubmatch(line)
	require.NotNil(t, match, line)
	p.address = match[1]
	go func() { p.ended <- p.Wait() }()
	return p
}

func (p *process) stop(t *testing.T, signal syscall.Signal) {
	t.Helper()
	require.NoError(t, p.Process.Signal(signal))
	select {
	case <-p.ended:
	case <-time.After(20 * time.Second):
		t.Fatal("the gateway does not end")
	}
}

// mapIDs are the BPF maps that a process holds, by id.
func mapIDs(t *testing.T, pid int) (ids []ebpf.MapID) {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/fdinfo/*", pid))
	require.NoError(t, err)
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			continue // closed meanwhile
		}
		for line := range strings.Lines(string(text)) {
			if id, ok := strings.CutPrefix(line, "map_id:"); ok {
				n, err := strconv.Atoi(strings.TrimSpace(id))
				require.NoError(t, err)
				ids = append(ids, ebpf.MapID(n))
			}
		}
	}
	return ids
}

// download fetches a file once, and checks every byte that comes. It returns
// whether all came, and by which relay path.
func download(t *testing.T, transport *http.Transport, url string, content []byte) (whole bool, relay string) {
	r, err := (&http.Client{Transport: transport}).Get(url)
	if err != nil {
		return false, ""
	}
	defer r.Body.Close()
	if r.StatusCode != http.StatusOK {
		return false, ""
	}
	got, err := io.ReadAll(r.Body)
	assert.True(t, bytes.Equal(content[:len(got)], got), "wrong bytes")
	if err == nil {
		assert.Len(t, got, len(content), "a body ended early in silence")
	}
	return err == nil, r.Header.Get(relayHeader)
}

// load downloads from a gateway again and again until it is stopped, as clients
// that ask again when something fails.
type load struct {
	stopped atomic.Bool
	workers sync.WaitGroup
	mu      sync.Mutex
	whole   map[string]int // by relay path
}

func (l *load) start(t *testing.T, url string, content []byte) {
	l.whole = make(map[string]int)
	for range 4 {
		l.workers.Go(func() {
			transport := &http.Transport{}
			defer transport.CloseIdleConnections()
			for !l.stopped.Load() {
				whole, relay := download(t, transport, url, content)
				if !whole {
					time.Sleep(5 * time.Millisecond)
					continue
				}
				l.mu.Lock()
				l.whole[relay]++
				l.mu.Unlock()
			}
		})
	}
}

// await waits for whole downloads by a relay path.
func (l *load) await(t *testing.T, relay string) {
	t.Helper()
	require.Eventually(t, func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.whole[relay] >= 5
	}, 30*time.Second, 5*time.Millisecond, "no downloads by relay=%s", relay)
}

func (l *load) stop() {
	l.stopped.Store(true)
	l.workers.Wait()
}

func supported() (names []string) {
	for _, p := range relay.Paths.All() {
		if p.About().Supported() == nil {
			names = append(names, p.About().Name)
		}
	}
	return names
}

// A gateway that is killed leaves nothing in the kernel and nothing of an upload,
// and the next one at its address goes on.
func (s *processes) killed(t *testing.T) {
	content := randomBytes(3<<20 + 5)
	require.NoError(t, s.client.WriteFile(t.Context(), "/killed", content, 0o644))
	require.NoError(t, s.client.WriteFile(t.Context(), "/upload", []byte("old"), 0o644))
	for _, name := range supported() {
		g := s.start(t, "127.0.0.1:0", "--relay", name)
		var l load
		l.start(t, "http://"+g.address+"/killed", content)
		l.await(t, name)
		upload, err := net.Dial("tcp", g.address)
		require.NoError(t, err)
		defer upload.Close()
		fmt.Fprintf(upload, "PUT /upload HTTP/1.1\r\nHost: g\r\nContent-Length: 3000000\r\n\r\n%s", content[:2_000_000])
		ids := mapIDs(t, g.Process.Pid)
		g.stop(t, syscall.SIGKILL)
		for _, id := range ids {
			require.Eventually(t, func() bool {
				m, err := ebpf.NewMapFromID(id)
				if err == nil {
					m.Close()
				}
				return err != nil
			}, 10*time.Second, 10*time.Millisecond, "BPF map %d is left of relay=%s", id, name)
		}
		l.mu.Lock()
		l.whole[name] = 0
		l.mu.Unlock()
		again := s.start(t, g.address, "--relay", name)
		l.await(t, name)
		l.stop()
		got, err := s.client.ReadFile(t.Context(), "/upload")
		require.NoError(t, err)
		require.Equal(t, "old", string(got))
		left, err := s.client.ReadDir(t.Context(), uploadsRoot)
		if !errors.Is(err, fs.ErrNotExist) {
			require.NoError(t, err)
		}
		for _, dir := range left {
			require.NotContains(t, dir.Name(), again.address, "parts of an upload are left")
		}
		again.stop(t, syscall.SIGTERM)
	}
}

// The relay path of a gateway is changed by starting another one in its place:
// clients lose their connections, never bytes without seeing it.
func (s *processes) upgraded(t *testing.T) {
	content := randomBytes(2<<20 + 9)
	require.NoError(t, s.client.WriteFile(t.Context(), "/upgraded", content, 0o644))
	names := supported()
	g := s.start(t, "127.0.0.1:0", "--relay", names[0])
	var l load
	l.start(t, "http://"+g.address+"/upgraded", content)
	l.await(t, names[0])
	for _, name := range names[1:] {
		g.stop(t, syscall.SIGTERM)
		g = s.start(t, g.address, "--relay", name)
		l.await(t, name)
	}
	l.stop()
	g.stop(t, syscall.SIGTERM)
}

// slowDownloads is how many clients take nothing at a time.
const slowDownloads = 1000

// mostMemory is what a gateway may then have of its own, in bytes: without the
// pages of its program, 36 MiB, which all roles of a machine share and the
// kernel can drop. With relay=copy each download also holds a buffer.
const mostMemory, mostOfBuffers = 64 << 20, slowDownloads * 32 << 10

func (s *processes) slow(t *testing.T) {
	require.NoError(t, s.client.WriteFile(t.Context(), "/slow", make([]byte, 4<<20), 0o644))
	for _, name := range supported() {
		g := s.start(t, "127.0.0.1:0", "--relay", name, "--read", "sendfile", "--max-connections", strconv.Itoa(slowDownloads+10))
		var conns []net.Conn
		for range slowDownloads {
			conn, err := net.Dial("tcp", g.address)
			require.NoError(t, err)
			defer conn.Close()
			require.NoError(t, conn.(*net.TCPConn).SetReadBuffer(4<<10))
			fmt.Fprint(conn, "GET /slow HTTP/1.1\r\nHost: g\r\n\r\n")
			conns = append(conns, conn)
		}
		for _, conn := range conns { // each is on its way
			conn.SetReadDeadline(time.Now().Add(30 * time.Second))
			_, err := io.ReadFull(conn, make([]byte, 1000))
			require.NoError(t, err)
		}
		own, all := memory(t, g.Process.Pid, "RssAnon:"), memory(t, g.Process.Pid, "VmRSS:")
		t.Logf("relay=%s: %d slow downloads take %.1f MiB, with the program %.1f", name, slowDownloads, float64(own)/(1<<20), float64(all)/(1<<20))
		most := mostMemory
		if name == relay.Copy {
			most += mostOfBuffers
		}
		assert.LessOrEqual(t, own, most, "relay=%s", name)
		for _, conn := range conns {
			conn.Close()
		}
		g.stop(t, syscall.SIGTERM)
	}
}

// memory is a line of what the kernel says about a process's memory, in bytes.
func memory(t *testing.T, pid int, line string) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	require.NoError(t, err)
	_, rest, found := strings.Cut(string(text), line)
	require.True(t, found, "the kernel does not tell %s", line)
	n, err := strconv.Atoi(strings.Fields(rest)[0])
	require.NoError(t, err)
	return n << 10
}
