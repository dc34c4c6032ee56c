package dfstest

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"waggle/dfs/chunk"
	"waggle/dfs/client"
	"waggle/dfs/meta"
	"waggle/dfs/wire"
	"waggle/dfs/wire/control"
)

// The roles run as processes of their own: this program with these variables.
const (
	roleVariable      = "WAGGLE_TEST_ROLE"
	directoryVariable = "WAGGLE_TEST_DIRECTORY"
	addressVariable   = "WAGGLE_TEST_ADDRESS" // to listen on
	metaVariable      = "WAGGLE_TEST_META"
)

func TestMain(m *testing.M) {
	if role := os.Getenv(roleVariable); role != "" {
		if err := serveRole(role); err != nil {
			fmt.Fprintln(os.Stderr, role+":", err)
			os.Exit(1)
		}
		return
	}
	flag.Parse()
	os.Exit(m.Run())
}

func serveRole(role string) error {
	directory, address := os.Getenv(directoryVariable), os.Getenv(addressVariable)
	log := slog.New(slog.DiscardHandler)
	if role == "meta" {
		server, err := meta.Open(context.Background(), meta.Config{
			Directory: directory, Control: address, Log: log, CacheBytes: 32 << 20,
			Heartbeat: 100 * time.Millisecond, DeadAfter: time.Second, RepairDelay: 2 * time.Second, RepairsPerSecond: 1000,
		})
		if err != nil {
			return err
		}
		return server.Serve(context.Background())
	}
	server, err := chunk.New(chunk.Config{Directory: directory, DataAddress: address, Meta: os.Getenv(metaVariable), Log: log})
	if err != nil {
		return err
	}
	return server.Serve(context.Background())
}

// process is a role that can be killed and started again.
type process struct {
	t       *testing.T
	role    string
	environ []string
	command *exec.Cmd
}

func newProcess(t *testing.T, role, metaAddress string) (*process, string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	address := l.Addr().String() // stays the role's own, over all restarts
	require.NoError(t, l.Close())
	p := &process{t: t, role: role, environ: append(os.Environ(), roleVariable+"="+role, addressVariable+"="+address,
		metaVariable+"="+metaAddress, directoryVariable+"="+filepath.Join(t.TempDir(), role))}
	p.start()
	t.Cleanup(p.kill)
	return p, address
}

func (p *process) start() {
	p.command = exec.Command(os.Args[0])
	p.command.Env, p.command.Stderr = p.environ, os.Stderr
	p.command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	require.NoError(p.t, p.command.Start())
}

func (p *process) kill() {
	p.command.Process.Kill()
	p.command.Wait()
}

// worker changes files in a directory of its own and remembers what it was
// told is done.
type worker struct {
	t         *testing.T
	client    *client.Client
	random    *rand.Rand
	directory string
	made      int
	files     map[string]*content
	// gone are names that were removed or renamed.
	gone        []string
	done, doubt int // operations that were acknowledged, and those that failed
}

// content is what a file must hold.
type content struct {
	bytes []byte
	// doubtful marks bytes that a failed write may or may not have changed. Such a
	// file is left alone.
	doubtful []bool
}

func (w *worker) run(stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		default:
		}
		if err := w.step(); err != nil {
			w.doubt++
		} else {
			w.done++
		}
	}
}

func (w *worker) step() error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	name := w.any()
	switch kind := w.random.IntN(10); {
	case kind < 3 || name == "":
		return w.create(ctx, w.random.IntN(wire.MaxInline))
	case kind < 5:
		return w.create(ctx, 10<<10+w.random.IntN(300<<10))
	case kind < 7:
		return w.overwrite(ctx, name)
	case kind < 8:
		return w.rename(ctx, name)
	case kind < 9 && len(w.files) > 20:
		return w.remove(ctx, name)
	default:
		return w.verify(ctx, w.client, name)
	}
}

// any returns the name of a file without doubtful bytes, or "".
func (w *worker) any() string {
	for name, c := range w.files {
		if c.doubtful == nil {
			return name
		}
	}
	return ""
}

func (w *worker) newName() string {
	w.made++
	return fmt.Sprintf("%s/%d", w.directory, w.made)
}

func (w *worker) data(size int) []byte {
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(w.random.Uint32())
	}
	return b
}

// create makes a file. If that fails nothing is known of its name, which is
// never used again.
func (w *worker) create(ctx context.Context, size int) error {
	name, data := w.newName(), w.data(size)
	if err := w.client.WriteFile(ctx, name, data, 0o644); err != nil {
		return err
	}
	w.files[name] = &content{bytes: data}
	return nil
}

func (w *worker) overwrite(ctx context.Context, name string) error {
	c := w.files[name]
	offset := w.random.IntN(len(c.bytes) + 1)
	data := w.data(1 + w.random.IntN(100<<10))
	if len(c.bytes) <= wire.MaxInline {
		data = data[:min(len(data), wire.MaxInline-offset)]
	}
	if end := offset + len(data); end > len(c.bytes) {
		data = data[:len(c.bytes)-offset] // the size stays
	}
	err := w.writeAt(ctx, name, data, offset)
	if err == nil {
		copy(c.bytes[offset:], data)
		return nil
	}
	c.doubtful = make([]bool, len(c.bytes))
	for i := range data {
		c.doubtful[offset+i] = true
	}
	return err
}

func (w *worker) writeAt(ctx context.Context, name string, data []byte, offset int) error {
	f, err := w.client.OpenFile(ctx, name, os.O_RDWR, client.FileOptions{})
	if err != nil {
		return err
	}
	_, err = f.WriteAt(data, int64(offset))
	return errors.Join(err, f.Close())
}

func (w *worker) rename(ctx context.Context, name string) error {
	to, c := w.newName(), w.files[name]
	delete(w.files, name)
	if err := w.client.Rename(ctx, name, to); err != nil {
		return err // it has one of the two names
	}
	w.files[to] = c
	w.gone = append(w.gone, name)
	return nil
}

func (w *worker) remove(ctx context.Context, name string) error {
	delete(w.files, name)
	if err := w.client.Remove(ctx, name); err != nil {
		return err
	}
	w.gone = append(w.gone, name)
	return nil
}

// verify reads a file. Wrong bytes fail the test; an error is returned.
func (w *worker) verify(ctx context.Context, c *client.Client, name string) error {
	got, err := c.ReadFile(ctx, name)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, io.ErrUnexpectedEOF) {
		w.t.Errorf("%s was acknowledged and is lost: %v", name, err)
	}
	if err != nil {
		return err
	}
	want := w.files[name]
	if len(got) != len(want.bytes) {
		w.t.Errorf("%s has %d bytes, %d were acknowledged", name, len(got), len(want.bytes))
		return nil
	}
	if want.doubtful == nil {
		if !bytes.Equal(got, want.bytes) {
			w.t.Errorf("%s does not hold what was acknowledged", name)
		}
		return nil
	}
	for i := range got {
		if !want.doubtful[i] && got[i] != want.bytes[i] {
			w.t.Errorf("%s: byte %d was changed by a write that did not reach it", name, i)
			return nil
		}
	}
	return nil
}

// kills is how many roles are killed; each a moment after the last was started
// again.
const kills = 50

func TestNothingAcknowledgedIsLostWhenRolesAreKilled(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))

	metaServer, metaAddress := newProcess(t, "meta", "")
	roles := []*process{metaServer}
	for i := range 3 {
		p, _ := newProcess(t, fmt.Sprintf("chunk-%d", i), metaAddress)
		roles = append(roles, p)
	}
	options := client.Options{ChunkSize: wire.MinChunkSize, DialPatience: 20 * time.Second}
	awaitServers(t, metaAddress, 3)

	stop := make(chan struct{})
	var running sync.WaitGroup
	var workers []*worker
	for i := range 4 {
		c, err := client.Dial(t.Context(), metaAddress, options)
		require.NoError(t, err)
		defer c.Close()
		w := &worker{t: t, client: c, random: rand.New(rand.NewPCG(seed, uint64(i+1))), directory: fmt.Sprint("worker", i), files: make(map[string]*content)}
		require.NoError(t, c.Mkdir(t.Context(), w.directory, 0o755))
		workers = append(workers, w)
		running.Go(func() { w.run(stop) })
	}
	for range kills {
		time.Sleep(time.Duration(random.IntN(500)) * time.Millisecond)
		victim := roles[random.IntN(len(roles))]
		victim.kill()
		time.Sleep(time.Duration(random.IntN(200)) * time.Millisecond)
		victim.start()
	}
	close(stop)
	running.Wait()

	fresh, err := client.Dial(t.Context(), metaAddress, options)
	require.NoError(t, err)
	defer fresh.Close()
	for _, w := range workers {
		t.Logf("%s: %d operations acknowledged, %d failed, %d files", w.directory, w.done, w.doubt, len(w.files))
		require.Greater(t, w.done, w.doubt, "most operations outlive the death of a role")
		for name := range w.files {
			require.NoError(t, w.verify(t.Context(), fresh, name))
		}
		for _, name := range w.gone {
			_, err := fresh.Lstat(t.Context(), name)
			require.ErrorIs(t, err, fs.ErrNotExist, "%s is gone", name)
		}
	}
	awaitClean(t, fresh)
}

func awaitServers(t *testing.T, metaAddress string, count int) {
	t.Helper()
	c, err := client.Dial(t.Context(), metaAddress, client.Options{DialPatience: 20 * time.Second})
	require.NoError(t, err)
	defer c.Close()
	require.Eventually(t, func() bool {
		state, err := c.Cluster(t.Context())
		alive := 0
		for _, s := range state.GetServers() {
			if s.Alive {
				alive++
			}
		}
		return err == nil && alive == count
	}, 20*time.Second, 50*time.Millisecond)
}

// awaitClean waits until repair is done and the check, which reads every block
// of every replica, finds nothing.
func awaitClean(t *testing.T, c *client.Client) {
	t.Helper()
	var problems []string
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(500 * time.Millisecond) {
		problems = nil
		require.NoError(t, c.Check(t.Context(), &control.CheckRequest{Replicas: true, Data: true}, func(p *control.CheckProgress) {
			if p.Problem != "" {
				problems = append(problems, p.Problem)
			}
		}))
		if len(problems) == 0 {
			return
		}
	}
	require.Empty(t, problems, "the check does not come clean")
}
