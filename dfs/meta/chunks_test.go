package meta

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	chunkserver "waggle/dfs/chunk"
	"waggle/dfs/wire"
	"waggle/dfs/wire/control"
)

// host is a chunk server that can be killed and started again.
type host struct {
	rig       *rig
	directory string
	server    *chunkserver.Server
	stop      func()
}

func (r *rig) addHost() *host {
	h := &host{rig: r, directory: r.t.TempDir()}
	h.start()
	r.t.Cleanup(func() { h.stop() })
	return h
}

func (h *host) start() {
	h.rig.t.Helper()
	server, err := chunkserver.New(chunkserver.Config{Directory: h.directory, Meta: h.rig.server.Address(), Log: quiet})
	require.NoError(h.rig.t, err)
	h.server = server
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx) }()
	h.stop = sync.OnceFunc(func() {
		cancel()
		require.NoError(h.rig.t, <-done)
	})
	eventually(h.rig.t, "the chunk server is alive", func() bool { return h.alive() })
}

func (h *host) status() *control.ServerStatus {
	cluster, err := h.rig.meta.Cluster(context.Background(), &control.Empty{})
	require.NoError(h.rig.t, err)
	for _, s := range cluster.Servers {
		if s.DataAddress == h.server.DataAddress() {
			return s
		}
	}
	return nil
}

func (h *host) alive() bool {
	s := h.status()
	return s != nil && s.Alive && s.CapacityBytes > 0
}

// service returns the control service of a host.
func (h *host) service() control.ChunkClient {
	service, err := h.rig.server.servers.chunk(h.status().Server)
	require.NoError(h.rig.t, err)
	return service
}

// holds returns the state of a replica, nil if there is none.
func (h *host) holds(id uint64) *control.ReplicaState {
	state, err := h.service().State(context.Background(), &control.ReplicaEpoch{Chunk: id})
	if status.Code(err) == codes.NotFound {
		return nil
	}
	require.NoError(h.rig.t, err)
	return state
}

// exchange sends a frame with data to a data port and receives the answer.
func exchange(t testing.TB, address string, f wire.Frame, data []byte) (wire.Frame, []byte) {
	conn, err := net.Dial("tcp", address)
	require.NoError(t, err)
	defer conn.Close()
	_, err = conn.Write(append(f.Append(nil), data...))
	require.NoError(t, err)
	var a wire.Frame
	require.NoError(t, a.Receive(conn, nil))
	if f.Type != wire.FrameRead || a.Status != wire.StatusOK {
		return a, nil
	}
	got := make([]byte, a.Length)
	_, err = io.ReadFull(conn, got)
	require.NoError(t, err)
	return a, got
}

// lease is what a writer holds.
type lease struct {
	*control.LeaseReply
	u     *user
	inode uint64
}

func (u *user) tryLease(inode uint64, index uint32) (*lease, error) {
	reply, err := u.meta.Lease(u.t.Context(), &control.LeaseRequest{Session: u.session, Inode: inode, Index: index})
	return &lease{reply, u, inode}, err
}

// lease tries again as a client does: the mender may be closing the chunk.
func (u *user) lease(inode uint64, index uint32) (l *lease) {
	u.t.Helper()
	var err error
	eventually(u.t, "a lease", func() bool {
		l, err = u.tryLease(inode, index)
		return status.Code(err) != codes.Unavailable
	})
	require.NoError(u.t, err)
	return l
}

// write writes to all replicas, or only to the first few of them.
func (l *lease) write(offset uint64, data string, replicas int) {
	l.u.t.Helper()
	var chain []wire.Replica
	for _, r := range l.Location.Replicas[:replicas] {
		chain = append(chain, wire.Replica{Server: r.Server, Address: netip.MustParseAddrPort(r.Address)})
	}
	f := wire.Frame{Type: wire.FrameWrite, Chunk: l.Location.Chunk, Epoch: l.Location.Epoch, Offset: offset, Length: uint32(len(data)), Sequence: l.NextSequence}
	f.Extra = wire.AppendWriteExtra(nil, chain[1:], wire.AppendChecksums(nil, offset, []byte(data)))
	a, _ := exchange(l.u.t, l.Location.Replicas[0].Address, f, []byte(data))
	require.Equal(l.u.t, wire.StatusOK, a.Status, "%s", a.Extra)
	l.NextSequence++
	l.Length = max(l.Length, offset+uint64(len(data)))
}

func (l *lease) writeAll(data string) {
	l.u.t.Helper()
	l.write(0, data, len(l.Location.Replicas))
}

func (l *lease) release(settled bool) error {
	q := &control.ReleaseRequest{Session: l.u.session, Inode: l.inode, Index: l.Location.Index, Epoch: l.Location.Epoch,
		Sequence: l.NextSequence - 1, Length: l.Length, Synced: l.NextSequence - 1}
	if !settled {
		q.Synced = l.Synced
	}
	_, err := l.u.meta.Release(l.u.t.Context(), q)
	return err
}

// store makes a file of one chunk.
func (u *user) store(name, content string) (inode, chunk uint64) {
	u.t.Helper()
	n := u.must(&control.Create{Node: node(name), Mode: 0o644, ChunkSize: wire.MinChunkSize})
	l := u.lease(n.Inode, 0)
	l.writeAll(content)
	u.must(&control.SetSize{Node: node(name), Size: uint64(len(content)), GrowOnly: true})
	require.NoError(u.t, l.release(true))
	return n.Inode, l.Location.Chunk
}

// copies reads a file's chunk from each of its replicas.
func (u *user) copies(name string) (copies []string) {
	u.t.Helper()
	a := u.lookup(name, wire.WantLocation)
	require.Equal(u.t, wire.LookupOK, a.Status)
	for _, r := range a.Location.Replicas {
		if probe, err := net.Dial("tcp", r.Address.String()); err != nil {
			copies = append(copies, err.Error())
			continue
		} else {
			probe.Close()
		}
		f, got := exchange(u.t, r.Address.String(), wire.Frame{Type: wire.FrameRead, Chunk: a.Location.Chunk, Length: wire.MinChunkSize}, nil)
		if f.Status != wire.StatusOK {
			got = []byte(fmt.Sprintf("status %d: %s", f.Status, f.Extra))
		}
		copies = append(copies, string(got))
	}
	return copies
}

// has says whether a file's chunk has so many replicas, all with that content.
func (u *user) has(name string, replicas int, content string) bool {
	got := u.copies(name)
	return len(got) == replicas && !slices.ContainsFunc(got, func(s string) bool { return s != content })
}

func (u *user) epoch(name string) uint64 { return u.lookup(name, wire.WantLocation).Location.Epoch }

func cluster(t *testing.T, hosts int, change ...func(*Config)) (*user, []*host) {
	r := newRig(t, change...)
	var all []*host
	for range hosts {
		all = append(all, r.addHost())
	}
	return r.open(0), all
}

func TestChunksAreWrittenAndFound(t *testing.T) {
	u, _ := cluster(t, 3)
	inode, _ := u.store("/f", "hello")
	require.True(t, u.has("/f", 3, "hello"))
	other := u.open(7)
	_, err := other.tryLease(inode, 0)
	require.Equal(t, "PermissionDenied", outcome(err))
	_, err = u.tryLease(99, 0)
	require.Equal(t, "NotFound", outcome(err))
	_, err = u.tryLease(wire.RootInode, 0)
	require.Equal(t, "EISDIR", outcome(err))

	hole := u.lookup("/f", wire.WantLocation)
	require.NotZero(t, hole.Location.Chunk)
	u.restart()
	again := u.lease(inode, 0)
	require.EqualValues(t, 2, again.NextSequence)
	require.EqualValues(t, 5, again.Length)
	require.EqualValues(t, 2, again.Location.Epoch)
	again.writeAll("HE")
	require.NoError(t, again.release(true))
	require.NoError(t, again.release(true), "a release that is sent twice")
	require.True(t, u.has("/f", 3, "HEllo"))
	again.Location.Epoch = 1
	require.Equal(t, "ESTALE", outcome(again.release(true)))
	u.checkClean()
}

func TestOneWriterAtATime(t *testing.T) {
	u, _ := cluster(t, 3)
	inode, _ := u.store("/f", "hello")
	first, second := u.lease(inode, 0), u.rig.open(0)
	_, err := second.tryLease(inode, 0)
	require.Equal(t, "Unavailable", outcome(err))
	require.Equal(t, "Unavailable", second.fails(&control.SetSize{Node: node("/f"), Size: 1}))
	first.write(0, "J", 3)
	first.write(1, "unacknowledged", 2) // the third replica never sees it
	_, err = u.meta.CloseSession(t.Context(), &control.SessionID{Session: u.session})
	require.NoError(t, err)

	got := second.lease(inode, 0)
	require.Greater(t, got.Location.Epoch, first.Location.Epoch)
	require.Equal(t, first.NextSequence, got.NextSequence)
	require.EqualValues(t, len("Junacknowledged"), got.Length)
	require.Equal(t, u.session, got.LastWriter)
	require.True(t, second.has("/f", 3, "Junacknowledged"), "equal, and kept, as it may have been acknowledged: %q", second.copies("/f"))
	require.EqualValues(t, got.Length, second.lookup("/f", 0).Attributes.Size)
	got.writeAll("mine")
	require.NoError(t, got.release(true))
	require.True(t, second.has("/f", 3, "minecknowledged"), "%q", second.copies("/f"))
	second.checkClean()
}

func TestAnUnsettledChunkIsSettledAfterARestart(t *testing.T) {
	u, _ := cluster(t, 3)
	inode, _ := u.store("/f", "hello")
	l := u.lease(inode, 0)
	l.write(0, "HALF", 1)
	u.restart()
	again := u.lease(inode, 0) // the session outlives the server
	require.Equal(t, l.NextSequence, again.NextSequence)
	require.True(t, u.has("/f", 3, "HALFo"))
	l = again
	l.write(0, "again", 2)
	require.NoError(t, l.release(false))
	eventually(t, "the mender settles it", func() bool { return u.has("/f", 3, "again") })
	eventually(t, "the chunk is closed", func() bool { return u.epoch("/f") > l.Location.Epoch })
	u.checkClean()
}

func TestASessionThatIsNotKeptAliveEnds(t *testing.T) {
	// Long enough for a slow machine, which then does not have to wait for it.
	u, _ := cluster(t, 1, func(c *Config) { c.SessionTime = 4 * time.Second })
	inode, _ := u.store("/f", "hello")
	u.lease(inode, 0)
	forgotten, err := u.server.sessions.get(u.session)
	require.NoError(t, err)
	forgotten.expires.Store(time.Now().UnixNano())
	eventually(t, "the session has ended", func() bool { return u.lookup("/f", 0).Status == wire.LookupBadSession })
	require.Equal(t, "Unauthenticated", u.fails(&control.Mkdir{Node: node("/d")}))
	_, err = u.meta.KeepAlive(t.Context(), &control.KeepAliveRequest{Session: u.session})
	require.Equal(t, "Unauthenticated", outcome(err))
	second := u.open(0)
	second.lease(inode, 0)
}

func TestASurvivorTakesOverAndANewReplicaIsMade(t *testing.T) {
	u, hosts := cluster(t, 4)
	inode, id := u.store("/f", "hello")
	l := u.lease(inode, 0)
	l.write(0, "HALF", 1)
	failed := l.Location.Replicas[2].Server
	at := slices.IndexFunc(hosts, func(h *host) bool { return h.status().Server == failed })
	hosts[at].stop()
	report := &control.FailureRequest{Session: u.session, Inode: inode, Epoch: l.Location.Epoch, Servers: []uint32{failed}}
	after, err := u.meta.ReportFailure(t.Context(), report)
	require.NoError(t, err)
	require.Len(t, after.Location.Replicas, 2)
	require.Equal(t, l.NextSequence, after.NextSequence)
	repeated, err := u.meta.ReportFailure(t.Context(), report)
	require.NoError(t, err)
	require.Len(t, repeated.Location.Replicas, 2, "the answer to the first report may have been lost")
	l.LeaseReply = repeated
	l.writeAll("WHOLE")
	require.NoError(t, l.release(true))
	require.Equal(t, "ESTALE", outcome(l.report(report)))

	eventually(t, "a third replica is made", func() bool { return u.has("/f", 3, "WHOLE") })
	hosts[at].start()
	eventually(t, "what the failed server had is deleted", func() bool { return hosts[at].holds(id) == nil })
	require.True(t, u.has("/f", 3, "WHOLE"))
	u.checkClean()
}

func (l *lease) report(q *control.FailureRequest) error {
	_, err := l.u.meta.ReportFailure(l.u.t.Context(), q)
	return err
}

func TestADeadServersReplicasAreMadeAgain(t *testing.T) {
	u, hosts := cluster(t, 4)
	_, id := u.store("/f", "hello")
	at := slices.IndexFunc(hosts, func(h *host) bool { return h.holds(id) != nil })
	hosts[at].stop()
	eventually(t, "three live replicas", func() bool {
		c, err := u.meta.Cluster(t.Context(), &control.Empty{})
		require.NoError(t, err)
		return c.ChunksUnderreplicated == 0 && u.has("/f", 3, "hello")
	})
	hosts[at].start()
	eventually(t, "the old replica is deleted", func() bool { return hosts[at].holds(id) == nil })
	u.checkClean()
}

func TestALostReplicaIsNoticedAndMadeAgain(t *testing.T) {
	u, hosts := cluster(t, 3)
	_, id := u.store("/f", "hello")
	_, err := hosts[0].service().Delete(t.Context(), &control.ChunkIDs{Chunks: []uint64{id}})
	require.NoError(t, err)
	hosts[0].stop()
	hosts[0].start()
	eventually(t, "it is back", func() bool { return hosts[0].holds(id) != nil && u.has("/f", 3, "hello") })
	u.checkClean()
}

func TestWhatNobodyReferencesIsDeleted(t *testing.T) {
	u, hosts := cluster(t, 3)
	_, id := u.store("/f", "hello")
	_, replaced := u.store("/g", "hello")
	n := u.must(&control.Create{Node: node("/open")})
	open := u.lease(n.Inode, 0)
	u.must(&control.Remove{Node: node("/f")})
	u.must(&control.Create{Node: node("/g"), Replace: true, Inline: []byte("small")})
	u.must(&control.Remove{Node: node("/open")})
	for _, h := range hosts {
		eventually(t, "replicas are deleted", func() bool {
			return h.holds(id) == nil && h.holds(replaced) == nil && h.holds(open.Location.Chunk) == nil
		})
	}
	require.NoError(t, open.release(true))

	const orphan = 1 << 40
	_, err := hosts[0].service().Create(t.Context(), &control.ReplicaEpoch{Chunk: orphan, Epoch: 1})
	require.NoError(t, err)
	hosts[0].stop()
	hosts[0].start()
	eventually(t, "an orphan is deleted", func() bool { return hosts[0].holds(orphan) == nil })
	eventually(t, "no chunk is left", func() bool {
		c, err := u.meta.Cluster(t.Context(), &control.Empty{})
		require.NoError(t, err)
		return c.Chunks == 0
	})
	u.checkClean()
}

func TestTruncate(t *testing.T) {
	u, _ := cluster(t, 3)
	content := strings.Repeat("waggle", 1000)
	inode, _ := u.store("/f", content)
	second := u.lease(inode, 1)
	second.writeAll("more")
	u.must(&control.SetSize{Node: node("/f"), Size: wire.MinChunkSize + 4, GrowOnly: true})
	require.NoError(t, second.release(true))

	u.must(&control.SetSize{Node: node("/f"), Size: 3000})
	a := u.must(&control.SetSize{Node: node("/f"), Size: 5000})
	require.EqualValues(t, 5000, a.Size)
	require.True(t, u.has("/f", 3, content[:3000]), "what was cut off is gone")
	q := wire.LookupRequest{Session: u.session, Start: inode, Flags: wire.WantLocation, ChunkIndex: 1}
	hole, err := u.transport.Lookup(t.Context(), &q)
	require.NoError(t, err)
	require.Zero(t, hole.Location.Chunk)

	l := u.lease(inode, 0)
	require.EqualValues(t, 3000, l.Length)
	u.must(&control.SetSize{Node: node("/f"), Size: 100}) // takes the lease
	require.Equal(t, "ESTALE", outcome(l.release(true)))
	l = u.lease(inode, 0)
	require.EqualValues(t, 100, l.Length)
	require.NoError(t, l.release(true))
	u.must(&control.SetSize{Node: node("/f"), Size: 50})
	u.must(&control.SetSize{Node: node("/f"), Size: 200, GrowOnly: true})
	require.True(t, u.has("/f", 3, content[:50]))
	u.must(&control.SetSize{Node: node("/f"), Size: 0})
	u.must(&control.SetSize{Node: node("/f"), Size: 100})
	require.Equal(t, strings.Repeat("\x00", 100), u.read("/f"), "an empty file is a small one again")
	u.checkClean()
}

func TestAMutationThatCanNotBeCarriedOutFailsByItself(t *testing.T) {
	u, hosts := cluster(t, 1)
	u.store("/f", strings.Repeat("waggle", 1000))
	hosts[0].stop() // so that the chunk can't be cut
	cut := &control.Mutation{Number: u.number.Add(1), Change: &control.Mutation_SetSize{SetSize: &control.SetSize{Node: node("/f"), Size: 3000}}}
	grow := &control.Mutation{Number: u.number.Add(1), Change: &control.Mutation_SetSize{SetSize: &control.SetSize{Node: node("/f"), Size: 5000}}}
	batch := []*control.Mutation{creation(u.number.Add(1), "/before"), cut, grow, creation(u.number.Add(1), "/behind")}
	results, err := u.mutate(1, batch...)
	require.NoError(t, err)
	var got []codes.Code
	for _, r := range results {
		got = append(got, codes.Code(r.Code))
	}
	require.Equal(t, []codes.Code{codes.OK, codes.OK, codes.Unavailable, codes.OK}, got)
}

func TestASmallFileIsSpilled(t *testing.T) {
	u, _ := cluster(t, 3)
	n := u.must(&control.Create{Node: node("/f"), ChunkSize: wire.MinChunkSize, Inline: []byte("small")})
	require.Equal(t, "EFBIG", u.fails(&control.SetSize{Node: node("/f"), Size: 5000, GrowOnly: true}))
	l := u.lease(n.Inode, 0)
	l.writeAll("small and more")
	require.Equal(t, "small", u.read("/f"), "until it is spilled the record counts")
	require.Equal(t, "EFBIG", u.fails(&control.SetSize{Node: node("/f"), Size: 14, GrowOnly: true}))
	u.must(&control.SetSize{Node: node("/f"), Size: 14, Spill: true})
	require.NoError(t, l.release(true))
	require.True(t, u.has("/f", 3, "small and more"))
	require.EqualValues(t, 14, u.lookup("/f", 0).Attributes.Size)
	require.Equal(t, "EFBIG", u.fails(&control.WriteInline{Node: node("/f"), Data: []byte("x")}))
	u.checkClean()
}

// damage flips a bit of a replica behind its server's back.
func (h *host) damage(id uint64, at int64) {
	matches, err := filepath.Glob(filepath.Join(h.directory, "replicas", "*", fmt.Sprintf("*%x.data", id)))
	require.NoError(h.rig.t, err)
	require.Len(h.rig.t, matches, 1)
	f, err := os.OpenFile(matches[0], os.O_RDWR, 0)
	require.NoError(h.rig.t, err)
	defer f.Close()
	b := make([]byte, 1)
	_, err = f.ReadAt(b, at)
	require.NoError(h.rig.t, err)
	b[0] ^= 1
	_, err = f.WriteAt(b, at)
	require.NoError(h.rig.t, err)
}

func TestACorruptBlockIsRewritten(t *testing.T) {
	u, hosts := cluster(t, 3)
	content := strings.Repeat("waggle", 2000)
	inode, id := u.store("/f", content)
	report := func(h *host) error {
		_, err := u.meta.ReportCorrupt(t.Context(), &control.CorruptRequest{Session: u.session, Chunk: id, Server: h.status().Server, Offset: 5000})
		return err
	}
	hosts[0].damage(id, 5000)
	l := u.lease(inode, 0)
	require.Equal(t, "Unavailable", outcome(report(hosts[0])), "it is being written")
	require.NoError(t, l.release(true))
	require.NoError(t, report(hosts[0]))
	require.True(t, u.has("/f", 3, content))
	for _, h := range hosts {
		h.damage(id, 5000)
	}
	require.Equal(t, "DataLoss", outcome(report(hosts[0])))
	_, err := u.meta.ReportCorrupt(t.Context(), &control.CorruptRequest{Chunk: 999, Server: 1})
	require.Equal(t, "NotFound", outcome(err))
	_, err = u.meta.ReportCorrupt(t.Context(), &control.CorruptRequest{Chunk: id, Server: 1, Offset: 1 << 60})
	require.Equal(t, "InvalidArgument", outcome(err))
}

func TestServersOfOtherClustersAreRefused(t *testing.T) {
	u, hosts := cluster(t, 1)
	c, err := u.meta.Cluster(t.Context(), &control.Empty{})
	require.NoError(t, err)
	for _, q := range []*control.RegisterRequest{
		{Cluster: bytes.Repeat([]byte{1}, 16), Server: 1},
		{Cluster: []byte("short"), Server: 1},
		{Cluster: c.Cluster, Server: 77},
		{Server: 1},
	} {
		q.DataAddress, q.ControlAddress = "127.0.0.1:1", "127.0.0.1:2"
		_, err := u.meta.Register(t.Context(), q)
		require.Equal(t, codes.FailedPrecondition, status.Code(err), "%v: %v", q, err)
	}
	_, err = u.meta.Register(t.Context(), &control.RegisterRequest{DataAddress: "nowhere", ControlAddress: "127.0.0.1:2"})
	require.Equal(t, "InvalidArgument", outcome(err))
	beat, err := u.meta.Heartbeat(t.Context(), &control.HeartbeatRequest{Server: 77})
	require.NoError(t, err)
	require.True(t, beat.RegisterAgain)
	_, err = u.meta.ReportReplicas(t.Context(), &control.ReplicaReport{Server: 77})
	require.Equal(t, "Unavailable", outcome(err))
	require.Len(t, c.Servers, 1)
	require.True(t, hosts[0].alive())
}

func TestNoChunkServer(t *testing.T) {
	u := newRig(t).open(0)
	n := u.must(&control.Create{Node: node("/f")})
	require.EqualValues(t, defaultReplication, n.Replication)
	_, err := u.tryLease(n.Inode, 0)
	require.Equal(t, "Unavailable", outcome(err))
}
