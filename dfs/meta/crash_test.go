package meta

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"

	"waggle/dfs/wire/control"
)

// crashDirectory is the variable that makes this test's binary a metadata
// server.
const crashDirectory = "WAGGLE_TEST_META_DIRECTORY"

// serveUntilKilled prints the address that it serves at, and serves.
func serveUntilKilled(directory string) int {
	server, err := Open(context.Background(), Config{Directory: directory, Control: os.Getenv(crashDirectory + "_ADDRESS"), Log: quiet})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println(server.Address())
	if err := server.Serve(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// victim is a metadata server in a process of its own.
type victim struct {
	t         testing.TB
	directory string
	address   string
	process   *exec.Cmd
}

func (v *victim) start() {
	v.process = exec.Command(os.Args[0])
	v.process.Env = append(os.Environ(), crashDirectory+"="+v.directory, crashDirectory+"_ADDRESS="+v.address)
	v.process.Stderr = os.Stderr
	v.process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := v.process.StdoutPipe()
	require.NoError(v.t, err)
	require.NoError(v.t, v.process.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(v.t, err, "the server has started")
	v.address = strings.TrimSpace(line)
}

func (v *victim) kill() {
	require.NoError(v.t, v.process.Process.Kill())
	v.process.Wait()
}

// TestEveryAcknowledgedMutationSurvivesKills has clients change the namespace
// while their server is killed again and again. Each client repeats what was not
// answered under the same number: it must be answered as if nothing had
// happened, and everything that was answered must be there in the end.
func TestEveryAcknowledgedMutationSurvivesKills(t *testing.T) {
	const kills, clients = 8, 6
	var answered atomic.Int64
	v := &victim{t: t, directory: t.TempDir(), address: "127.0.0.1:0"}
	v.start()
	defer v.kill()
	r := &rig{t: t}
	r.conn, r.meta = dial(t, v.address)
	defer r.conn.Close()

	var all sync.WaitGroup
	stop := make(chan struct{})
	writers := make([]*crashWriter, clients)
	for i := range writers {
		writers[i] = newCrashWriter(r, i, &answered)
		all.Go(func() { writers[i].run(stop) })
	}
	for range kills {
		before := answered.Load()
		eventually(t, "the clients do something", func() bool { return answered.Load() > before+20 })
		time.Sleep(time.Duration(rand.IntN(200)) * time.Millisecond)
		v.kill()
		v.start()
	}
	close(stop)
	all.Wait()
	u := r.open(0)
	for _, w := range writers {
		got := make(map[string]string)
		for _, name := range u.list(w.directory, 0) {
			got[name] = u.read(w.directory + "/" + name)
		}
		require.Equal(t, w.files, got)
	}
	u.checkClean()
}

// crashWriter changes files of its own directory and remembers what must be
// there.
type crashWriter struct {
	rig       *rig
	answered  *atomic.Int64 // mutations, of all writers
	session   uint64
	number    uint64
	directory string
	files     map[string]string
	random    *rand.Rand
}

func newCrashWriter(r *rig, i int, answered *atomic.Int64) *crashWriter {
	s, err := r.meta.OpenSession(r.t.Context(), &control.OpenSessionRequest{})
	require.NoError(r.t, err)
	w := &crashWriter{rig: r, answered: answered, session: s.Session, directory: fmt.Sprintf("/w%d", i), files: make(map[string]string), random: rand.New(rand.NewPCG(1, uint64(i)))}
	w.do(&control.Mutation{Change: &control.Mutation_Mkdir{Mkdir: &control.Mkdir{Node: node(w.directory), Mode: 0o755}}})
	return w
}

// do has a mutation carried out once, however often it has to be sent.
func (w *crashWriter) do(m *control.Mutation) {
	w.number++
	m.Number = w.number
	q := &control.MutateRequest{Session: w.session, AnsweredBelow: m.Number, Mutations: []*control.Mutation{m}}
	for end := time.Now().Add(30 * time.Second); ; {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		reply, err := w.rig.meta.Mutate(ctx, q)
		cancel()
		if err == nil {
			if r := reply.Results[0]; codes.Code(r.Code) != codes.OK {
				w.rig.t.Errorf("%s: mutation %d: %s: %s", w.directory, m.Number, codes.Code(r.Code), r.Message)
			}
			w.answered.Add(1)
			return
		}
		if time.Now().After(end) {
			w.rig.t.Errorf("%s: mutation %d: %v", w.directory, m.Number, err)
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (w *crashWriter) run(stop <-chan struct{}) {
	for i := 0; ; i++ {
		select {
		case <-stop:
			return
		default:
		}
		old, exists := w.any()
		name := fmt.Sprintf("f%d", i)
		switch kind := w.random.IntN(4); {
		case !exists || kind < 2:
			w.files[name] = strings.Repeat(name, w.random.IntN(100))
			w.do(&control.Mutation{Change: &control.Mutation_Create{Create: &control.Create{
				Node: w.node(name), Mode: 0o644, Exclusive: true, Inline: []byte(w.files[name])}}})
		case kind == 2:
			w.files[name] = w.files[old]
			delete(w.files, old)
			w.do(&control.Mutation{Change: &control.Mutation_Rename{Rename: &control.Rename{From: w.node(old), To: w.node(name), NoReplace: true}}})
		default:
			delete(w.files, old)
			w.do(&control.Mutation{Change: &control.Mutation_Remove{Remove: &control.Remove{Node: w.node(old)}}})
		}
	}
}

func (w *crashWriter) node(name string) *control.Node { return node(w.directory + "/" + name) }

func (w *crashWriter) any() (string, bool) {
	for name := range w.files {
		return name, true
	}
	return "", false
}
