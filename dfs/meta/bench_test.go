package meta

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"waggle/dfs/datapath/lookup"
	"waggle/dfs/wire"
	"waggle/dfs/wire/control"
)

const benchClients = 16

// benchContent is what files in benchmarks hold.
var benchContent = make([]byte, wire.MaxInline)

// countCPU reports the processor time that the rest of a benchmark takes, with
// its clients, in the whole process: a better measure than the clock where
// others use the machine too.
func countCPU(b *testing.B) (report func()) {
	used := func() time.Duration {
		var u unix.Rusage
		require.NoError(b, unix.Getrusage(unix.RUSAGE_SELF, &u))
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	before := used()
	return func() { b.ReportMetric(float64(used()-before)/float64(b.N), "cpu-ns/op") }
}

// BenchmarkCreate makes files of 1 KiB from 16 clients, each with one call for a
// file, acknowledged when it is durable.
func BenchmarkCreate(b *testing.B) {
	r := newRig(b, func(c *Config) { c.CacheBytes = 0 })
	r.open(0).mkdir("/d")
	var next atomic.Uint64
	b.SetParallelism(benchClients / 2)
	b.ReportAllocs()
	defer countCPU(b)()
	b.RunParallel(func(pb *testing.PB) {
		conn, meta := dial(b, r.server.Address())
		defer conn.Close()
		s, err := meta.OpenSession(b.Context(), &control.OpenSessionRequest{})
		require.NoError(b, err)
		for number := uint64(1); pb.Next(); number++ {
			reply, err := meta.Mutate(b.Context(), &control.MutateRequest{
				Session: s.Session, AnsweredBelow: number, Mutations: []*control.Mutation{{
					Number: number,
					Change: &control.Mutation_Create{Create: &control.Create{
						Node: node(fmt.Sprintf("/d/%d", next.Add(1))), Mode: 0o644, Inline: benchContent, Exclusive: true,
					}},
				}},
			})
			require.NoError(b, err)
			require.Zero(b, reply.Results[0].Code)
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "creates/s")
}

// BenchmarkExecute measures what the executor does for a create, without calls.
func BenchmarkExecute(b *testing.B) {
	r := newRig(b, func(c *Config) { c.CacheBytes = 0 })
	u := r.open(0)
	u.mkdir("/d")
	session, err := r.server.sessions.get(u.session)
	require.NoError(b, err)
	names := make([]*control.Mutation, b.N)
	for i := range names {
		names[i] = &control.Mutation{Number: uint64(i) + 2, Change: &control.Mutation_Create{Create: &control.Create{
			Node: node(fmt.Sprintf("/d/%d", i)), Inline: benchContent, Exclusive: true}}}
	}
	b.ReportAllocs()
	b.ResetTimer()
	defer countCPU(b)()
	for i := 0; i < b.N; i += maxMutations {
		require.NoError(b, r.server.executor.do(b.Context(), func(c *change) error {
			for _, asked := range names[i:min(i+maxMutations, b.N)] {
				session.forgetBelow(asked.Number)
				_, err := session.answer(c, asked.Number, func() (*control.MutationResult, error) {
					return r.server.carryOut(c, &mutating{session: session}, asked)
				})
				require.NoError(b, err)
			}
			return nil
		}))
	}
}

// BenchmarkLookup looks up files of 1 KiB with their content, at random, from 16
// clients.
func BenchmarkLookup(b *testing.B) {
	const files = 10_000
	r := newRig(b, func(c *Config) { c.CacheBytes = 0 })
	u := r.open(0)
	u.mkdir("/d")
	for i := 0; i < files; i += 100 {
		var batch []*control.Mutation
		for j := range 100 {
			batch = append(batch, &control.Mutation{Number: u.number.Add(1), Change: &control.Mutation_Create{Create: &control.Create{
				Node: node(fmt.Sprintf("/d/%d", i+j)), Mode: 0o644, Inline: benchContent}}})
		}
		_, err := u.meta.Mutate(b.Context(), &control.MutateRequest{Session: u.session, AnsweredBelow: batch[0].Number, Mutations: batch})
		require.NoError(b, err)
	}
	transport, err := lookup.Dial(r.server.LookupAddress().String())
	require.NoError(b, err)
	defer transport.Close()
	directory := u.hash.Hash([]byte("d"))
	b.SetParallelism(benchClients / 2)
	b.ReportAllocs()
	b.ResetTimer()
	defer countCPU(b)()
	b.RunParallel(func(pb *testing.PB) {
		var name []byte
		for pb.Next() {
			name = fmt.Appendf(name[:0], "%d", rand.IntN(files))
			q := wire.LookupRequest{Session: u.session, Start: wire.RootInode, Flags: wire.WantInline, Components: 2}
			q.Names[0], q.Names[1] = directory, u.hash.Hash(name)
			a, err := transport.Lookup(b.Context(), &q)
			require.NoError(b, err)
			require.Len(b, a.Inline, wire.MaxInline)
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "lookups/s")
}

// BenchmarkMillionFiles makes a million files of 100 bytes (with -short 50,000)
// in a server of its own process, kills it, and starts it again: how much memory
// does it take, and how long until it answers? Run it with -benchtime 1x.
func BenchmarkMillionFiles(b *testing.B) {
	files, perDirectory := 1_000_000, 10_000
	if testing.Short() {
		files = 50_000
	}
	for range b.N {
		v := &victim{t: b, directory: b.TempDir(), address: "127.0.0.1:0"}
		v.start()
		r := &rig{t: b}
		r.conn, r.meta = dial(b, v.address)
		u := &user{rig: r, session: openSession(b, r.meta)}
		began := time.Now()
		var all errgroup.Group
		for d := range files / perDirectory {
			u.mkdir(fmt.Sprintf("/%d", d))
		}
		for worker := range 4 {
			all.Go(func() error { return fillDirectories(b, r.meta, worker, files/perDirectory, perDirectory) })
		}
		require.NoError(b, all.Wait())
		b.ReportMetric(float64(files)/time.Since(began).Seconds(), "batched-creates/s")
		b.ReportMetric(v.residentMiB(), "MiB-after-creates")

		v.kill()
		began = time.Now()
		v.start()
		require.NoError(b, r.conn.Close())
		r.conn, r.meta = dial(b, v.address) // the old one waits before it tries again
		u.session = openSession(b, r.meta)  // nobody has kept the old one alive
		require.Equal(b, string(benchContent[:100]), u.read(fmt.Sprintf("/0/%d", perDirectory-1)))
		b.ReportMetric(time.Since(began).Seconds(), "restart-s")
		b.ReportMetric(v.residentMiB(), "MiB-after-restart")
		for d := range files / perDirectory {
			reply, err := u.meta.ReadDirectory(b.Context(), &control.ReadDirectoryRequest{Session: u.session, Node: node(fmt.Sprintf("/%d", d)), Limit: maxPage})
			require.NoError(b, err)
			require.Len(b, reply.Entries, min(maxPage, perDirectory))
		}
		b.ReportMetric(v.residentMiB(), "MiB-after-reads")
		began = time.Now()
		problems, _ := u.check(&control.CheckRequest{})
		require.Empty(b, problems)
		b.ReportMetric(time.Since(began).Seconds(), "check-s")
		b.ReportMetric(v.residentMiB(), "MiB-after-check")
		v.kill()
		r.conn.Close()
	}
}

func openSession(b *testing.B, meta control.MetaClient) uint64 {
	s, err := meta.OpenSession(b.Context(), &control.OpenSessionRequest{})
	require.NoError(b, err)
	return s.Session
}

// fillDirectories makes the files of every fourth directory.
func fillDirectories(b *testing.B, meta control.MetaClient, worker, directories, files int) error {
	session, number := openSession(b, meta), uint64(0)
	for d := worker; d < directories; d += 4 {
		if _, err := meta.KeepAlive(b.Context(), &control.KeepAliveRequest{Session: session}); err != nil {
			return err
		}
		for f := 0; f < files; {
			q := &control.MutateRequest{Session: session, AnsweredBelow: number + 1}
			for ; f < files && len(q.Mutations) < maxMutations; f++ {
				number++
				q.Mutations = append(q.Mutations, &control.Mutation{Number: number, Change: &control.Mutation_Create{Create: &control.Create{
					Node: node(fmt.Sprintf("/%d/%d", d, f)), Mode: 0o644, Inline: benchContent[:100]}}})
			}
			if _, err := meta.Mutate(b.Context(), q); err != nil {
				return err
			}
		}
	}
	return nil
}

// residentMiB is the memory that the server's process has now, in MiB.
func (v *victim) residentMiB() float64 {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", v.process.Process.Pid))
	require.NoError(v.t, err)
	_, after, found := strings.Cut(string(status), "VmRSS:")
	require.True(v.t, found)
	var kib float64
	_, err = fmt.Sscan(after, &kib)
	require.NoError(v.t, err)
	return kib / 1024
}
