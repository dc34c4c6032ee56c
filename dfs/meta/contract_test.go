package meta

import (
	"os"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"waggle/dfs/wire"
	"waggle/dfs/wire/control"
)

// keepAlive keeps a session and some of its leases until the test ends.
func (u *user) keepAlive(places ...place) {
	q := &control.KeepAliveRequest{Session: u.session}
	for _, p := range places {
		q.Leases = append(q.Leases, &control.HeldLease{Inode: p.inode, Index: p.index})
	}
	done := make(chan struct{})
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-done:
				return
			case <-time.After(50 * time.Millisecond):
				u.meta.KeepAlive(u.t.Context(), q)
			}
		}
	}()
	u.t.Cleanup(func() { close(done); <-stopped })
}

// The release of one of two leases is lost.
func TestALeaseThatIsNotNamedLapses(t *testing.T) {
	u, _ := cluster(t, 1, func(c *Config) { c.SessionTime = 2 * time.Second })
	lost, _ := u.store("/lost", "hello")
	kept, _ := u.store("/kept", "hello")
	u.lease(lost, 0).writeAll("HELLO")
	u.lease(kept, 0)
	second := u.rig.open(0)
	u.keepAlive(place{kept, 0})
	second.keepAlive()
	eventually(t, "the lease has lapsed", func() bool {
		_, err := second.tryLease(lost, 0)
		return err == nil
	})
	require.True(t, second.has("/lost", 1, "HELLO"))
	_, err := second.tryLease(kept, 0)
	require.Equal(t, "Unavailable", outcome(err), "this one has not")
	u.mkdir("/alive")
}

// readUnder reads what a reader gets who remembers a location.
func readUnder(t *testing.T, address string, l *control.Location) (wire.Frame, []byte) {
	return exchange(t, address, wire.Frame{Type: wire.FrameRead, Chunk: l.Chunk, Epoch: l.Epoch, Length: 5}, nil)
}

func TestNobodyReadsFromAReplicaThatWasLeftBehind(t *testing.T) {
	u, hosts := cluster(t, 3)
	inode, _ := u.store("/f", "hello")
	l := u.lease(inode, 0)
	remembered := l.Location
	failed := remembered.Replicas[2]
	after, err := u.meta.ReportFailure(t.Context(), &control.FailureRequest{
		Session: u.session, Inode: inode, Epoch: l.Location.Epoch, Servers: []uint32{failed.Server}})
	require.NoError(t, err)
	l.LeaseReply = after
	l.write(0, "HELLO", 2)
	for _, r := range remembered.Replicas[:2] {
		a, got := readUnder(t, r.Address, remembered)
		require.Equal(t, wire.StatusOK, a.Status)
		require.Equal(t, "HELLO", string(got))
	}
	a, got := readUnder(t, failed.Address, remembered)
	require.Contains(t, []wire.Status{wire.StatusNotServing, wire.StatusNotFound}, a.Status, "an old replica was served: %q", got)
	at := slices.IndexFunc(hosts, func(h *host) bool { return h.status().Server == failed.Server })
	hosts[at].stop()
	hosts[at].start()
	a, got = readUnder(t, hosts[at].server.DataAddress(), remembered)
	require.Contains(t, []wire.Status{wire.StatusNotServing, wire.StatusNotFound}, a.Status, "an old replica was served after a restart: %q", got)
	require.NoError(t, l.release(true))
	eventually(t, "it is replaced", func() bool { return u.has("/f", 3, "HELLO") })
	u.checkClean()
}

func TestAFenceStandsWhenItIsConfirmedOrTheLeaseHasLapsed(t *testing.T) {
	const server, chunk = 3, 7
	stands := func(t *testing.T, f *fence) bool {
		done := make(chan error, 1)
		go func() { done <- f.await(t.Context()) }()
		synctest.Wait()
		select {
		case err := <-done:
			require.NoError(t, err)
			return true
		default:
			f.confirm() // so that the goroutine ends
			<-done
			return false
		}
	}
	for name, each := range map[string]func(t *testing.T, f *fences){
		"a metadata server that has started again waits for the leases of the one before": func(t *testing.T, f *fences) {
			require.False(t, stands(t, f.put(server, chunk, 2)))
			time.Sleep(f.term + time.Millisecond)
			require.True(t, stands(t, f.put(server, chunk, 3)))
		},
		"extended leases don't count once the fence is told with them": func(t *testing.T, f *fences) {
			require.Empty(t, f.begins(server))
			time.Sleep(f.term / 2)
			up := f.put(server, chunk, 2)
			require.Len(t, f.beats(server, 0), 1)
			time.Sleep(f.term/2 + time.Millisecond)
			require.True(t, stands(t, up))
		},
		"confirmed": func(t *testing.T, f *fences) {
			f.begins(server)
			up := f.put(server, chunk, 2)
			told := f.beats(server, 0)
			require.Len(t, told, 1)
			require.Empty(t, f.beats(server, told[0].Number))
			require.True(t, stands(t, up))
			require.Len(t, f.begins(server), 1, "a server that reports its replicas is told again: the epoch may not be on record yet")
		},
		"another process": func(t *testing.T, f *fences) {
			f.registers(server, 1)
			f.begins(server)
			up := f.put(server, chunk, 2)
			f.registers(server, 1) // the same: it may have sent this long ago
			f.registers(server, 2)
			require.True(t, stands(t, up))
		},
		"a server that has left": func(t *testing.T, f *fences) {
			f.begins(server)
			f.leaves(server)
			require.True(t, stands(t, f.put(server, chunk, 2)))
		},
		"neither": func(t *testing.T, f *fences) {
			f.begins(server)
			f.beats(server, 0)
			require.False(t, stands(t, f.put(server, chunk, 2)))
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { each(t, newFences(5*time.Second)) })
		})
	}
}

// A file of many chunks is truncated, and another replaced, in several commits, so
// that others don't wait.
func TestManyChunksAreDroppedInBatches(t *testing.T) {
	u, _ := cluster(t, 1)
	const many = 2*dropBatch + 300
	for name, drop := range map[string]any{
		"/truncated": &control.SetSize{Node: node("/truncated"), Size: wire.MinChunkSize},
		"/replaced":  &control.Create{Node: node("/replaced"), Replace: true},
	} {
		inode := u.must(&control.Create{Node: node(name), Mode: 0o644, ChunkSize: wire.MinChunkSize}).Inode
		first, err := u.server.newChunkID(t.Context())
		require.NoError(t, err)
		require.NoError(t, u.server.executor.do(t.Context(), func(c *change) error {
			n := c.inode(inode)
			for i := range uint32(many) {
				p, added := place{inode, i}, &chunk{id: 1<<32*first + uint64(i), epoch: 1, cut: noCut, servers: []uint32{1}}
				c.putChunk(p, added)
				c.put(ownerKey(added.id), owner(p))
				n.chunks++
				c.totals.chunks++
			}
			c.resize(n, many*wire.MinChunkSize)
			c.putInode(n)
			return nil
		}))
		before := u.server.published.sequence.Load()
		a := u.must(drop)
		require.GreaterOrEqual(t, u.server.published.sequence.Load()-before, uint64(3))
		left := a.Size / wire.MinChunkSize
		require.Equal(t, map[string]uint64{"/truncated": 1, "/replaced": 0}[name], left)
		r := u.server.published.snapshot()
		require.EqualValues(t, left, r.inode(inode).chunks)
		r.close()
	}
}

func TestAWriteNeedsAsManyReplicasAsIsSet(t *testing.T) {
	u, hosts := cluster(t, 3, func(c *Config) { c.MinReplicas = 2 })
	inode, _ := u.store("/f", "hello")
	alone := u.must(&control.Create{Node: node("/alone"), Replication: 1, ChunkSize: wire.MinChunkSize})
	u.lease(alone.Inode, 0).writeAll("has all that it asks for")
	l := u.lease(inode, 0)
	last := l.Location.Replicas[0]
	fail := func(r *control.Replica) error {
		return l.report(&control.FailureRequest{Session: u.session, Inode: inode, Epoch: l.Location.Epoch, Servers: []uint32{r.Server}})
	}
	for _, h := range hosts {
		if h.status().Server != last.Server {
			h.stop()
		}
	}
	require.Equal(t, "Unavailable", outcome(fail(l.Location.Replicas[1])), "one is left")
	for _, h := range hosts {
		if h.status().Server == l.Location.Replicas[1].Server {
			h.start()
		}
	}
	require.NoError(t, fail(l.Location.Replicas[2]), "two are left")
}

// What was settled was durable on every replica: a disk that has lost it is not
// believed, and where all have, nobody gets less without an error.
func TestAChunkIsNeverSettledAtLess(t *testing.T) {
	u, hosts := cluster(t, 2)
	inode, id := u.store("/f", "short")
	var before [2][2][]byte
	for i, h := range hosts {
		before[i][0], before[i][1] = h.synced(id)
	}
	l := u.lease(inode, 0)
	l.writeAll("much longer")
	u.must(&control.SetSize{Node: node("/f"), Size: 11, GrowOnly: true})
	require.NoError(t, l.release(true))
	goBack := func(i int) {
		hosts[i].stop()
		data, sums := hosts[i].files(id)
		require.NoError(t, os.WriteFile(data, before[i][0], 0o644))
		require.NoError(t, os.WriteFile(sums, before[i][1], 0o644))
	}
	other := hosts[1]
	other.stop()
	goBack(0)
	hosts[0].start()
	_, err := u.tryLease(inode, 0)
	require.Equal(t, "Unavailable", outcome(err), "the other one has it")
	other.start()
	eventually(t, "both have it", func() bool { return u.has("/f", 2, "much longer") })

	for i := range hosts {
		goBack(i)
	}
	for _, h := range hosts {
		h.start()
	}
	_, err = u.tryLease(inode, 0)
	require.Equal(t, "DataLoss", outcome(err))
	l.Location = u.mustWalk("/f").Location
	for _, r := range l.Location.Replicas {
		a, _ := exchange(t, r.Address, wire.Frame{Type: wire.FrameRead, Chunk: id, Epoch: l.Location.Epoch, Sequence: l.Location.Length, Length: 11}, nil)
		require.NotEqual(t, wire.StatusOK, a.Status)
	}
	u.must(&control.SetSize{Node: node("/f"), Size: 0})
	u.store("/g", "goes on")
}

func (u *user) mustWalk(name string) *control.WalkReply {
	index := uint32(0)
	reply, err := u.meta.Walk(u.t.Context(), &control.WalkRequest{Session: u.session, Node: node(name), ChunkIndex: &index})
	require.NoError(u.t, err)
	return reply
}
