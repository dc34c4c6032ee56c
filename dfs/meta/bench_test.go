package meta

import (
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
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
					return r.server.carryOut(c, session, nil, asked)
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
