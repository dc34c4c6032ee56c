package meta

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"waggle/dfs/wire"
	"waggle/dfs/wire/control"
)

func withTrash(time time.Duration) func(*Config) { return func(c *Config) { c.TrashTime = time } }

func (u *user) trash() []*control.TrashEntry {
	u.t.Helper()
	var all []*control.TrashEntry
	q := &control.TrashRequest{Session: u.session, Limit: 2}
	for {
		reply, err := u.meta.Trash(u.t.Context(), q)
		require.NoError(u.t, err)
		all = append(all, reply.Entries...)
		if q.After = reply.Next; len(q.After) == 0 {
			return all
		}
	}
}

func (u *user) undelete(inode uint64, to string) error {
	_, err := u.meta.Undelete(u.t.Context(), &control.UndeleteRequest{Session: u.session, Inode: inode, To: node(to)})
	return err
}

func TestRemovedFilesCanBeUndeleted(t *testing.T) {
	u, _ := cluster(t, 3, withTrash(time.Hour))
	inode, chunk := u.store("/f", "hello")
	replaced := u.create("/small", "small")
	u.create("/new", "new")
	before, err := u.meta.Cluster(t.Context(), &control.Empty{})
	require.NoError(t, err)
	u.must(&control.Remove{Node: node("/f")})
	u.must(&control.Rename{From: node("/new"), To: node("/small")})
	require.False(t, u.exists("/f"))
	require.Equal(t, "new", u.read("/small"))

	// Who has the file open still reads it.
	open := &control.Node{Start: inode}
	index := uint32(0)
	reply, err := u.meta.Walk(t.Context(), &control.WalkRequest{Session: u.session, Node: open, ChunkIndex: &index})
	require.NoError(t, err)
	require.Equal(t, chunk, reply.Location.Chunk)
	require.Zero(t, reply.Attributes.Links)
	f, got := exchange(t, reply.Location.Replicas[0].Address, wire.Frame{Type: wire.FrameRead, Chunk: chunk, Length: 5}, nil)
	require.Equal(t, wire.StatusOK, f.Status)
	require.Equal(t, "hello", string(got))
	require.Equal(t, "NotFound", u.fails(&control.Link{Existing: open, Node: node("/again")}))

	now, err := u.meta.Cluster(t.Context(), &control.Empty{})
	require.NoError(t, err)
	require.Equal(t, before.Files-2, now.Files)
	require.Equal(t, before.LogicalBytes-10, now.LogicalBytes)
	require.EqualValues(t, 2, now.TrashFiles)
	require.EqualValues(t, 10, now.TrashBytes)
	u.checkClean()
	u.restart()
	u.checkClean()

	listed := u.trash()
	require.Len(t, listed, 2)
	require.Equal(t, "/f", listed[0].Path)
	require.Equal(t, inode, listed[0].Inode)
	require.Equal(t, "/small", listed[1].Path)
	require.Equal(t, replaced.Inode, listed[1].Inode)
	require.Equal(t, time.Hour.Nanoseconds(), listed[1].ExpiresNs-listed[1].RemovedNs)

	stranger := u.open(7)
	require.Empty(t, stranger.trash())
	require.Equal(t, "PermissionDenied", outcome(stranger.undelete(inode, "/mine")))
	require.Equal(t, "AlreadyExists", outcome(u.undelete(replaced.Inode, "/small")))
	require.NoError(t, u.undelete(inode, "/f"))
	require.NoError(t, u.undelete(replaced.Inode, "/old"))
	require.Equal(t, "NotFound", outcome(u.undelete(inode, "/twice")))
	require.Equal(t, "small", u.read("/old"))
	require.True(t, u.has("/f", 3, "hello"))
	require.Empty(t, u.trash())
	u.checkClean()
	l := u.lease(inode, 0)
	l.writeAll("again")
	require.NoError(t, l.release(true))
	require.True(t, u.has("/f", 3, "again"))
}

func TestTheTrashExpires(t *testing.T) {
	for what, change := range map[string]func(*Config){
		"in time":              withTrash(30 * time.Millisecond),
		"where there are many": func(c *Config) { c.TrashTime, c.TrashFiles = time.Hour, 1 },
		"after a restart":      withTrash(time.Second),
	} {
		t.Run(what, func(t *testing.T) {
			u, hosts := cluster(t, 1, change)
			inode, chunk := u.store("/f", "hello")
			u.must(&control.Remove{Node: node("/f")})
			u.create("/last", "bytes")
			u.must(&control.Remove{Node: node("/last")})
			if u.config.TrashTime == time.Second {
				u.restart()
			}
			eventually(t, "the replica is deleted", func() bool { return hosts[0].holds(chunk) == nil })
			_, err := u.meta.Walk(t.Context(), &control.WalkRequest{Session: u.session, Node: &control.Node{Start: inode}})
			require.Equal(t, "NotFound", outcome(err))
			require.LessOrEqual(t, len(u.trash()), 1)
			u.checkClean()
		})
	}
}

// hungServer registers a chunk server that is alive and never answers.
func (r *rig) hungServer() uint32 {
	r.t.Helper()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(r.t, err)
	address := silent.Addr().String()
	joined, err := r.meta.Register(r.t.Context(), &control.RegisterRequest{DataAddress: address, ControlAddress: address})
	require.NoError(r.t, err)
	var beating sync.WaitGroup
	ctx, stop := context.WithCancel(context.Background())
	beating.Go(func() {
		every(ctx, r.config.Heartbeat, func() {
			r.meta.Heartbeat(ctx, &control.HeartbeatRequest{Server: joined.Server}) // no room: it gets no replicas
		})
	})
	r.t.Cleanup(func() { stop(); beating.Wait(); silent.Close() })
	return joined.Server
}

func TestDeletionsDoNotKeepRepairsWaiting(t *testing.T) {
	u, hosts := cluster(t, 3)
	_, chunk := u.store("/f", "hello")
	hung := u.hungServer()
	require.NoError(t, u.server.executor.do(t.Context(), func(c *change) error { return c.putStrays(hung, []uint64{1 << 40}) }))
	for _, h := range hosts[:2] {
		_, err := h.service().Delete(t.Context(), &control.ChunkIDs{Chunks: []uint64{chunk}})
		require.NoError(t, err)
		h.failing(chunk)
	}
	began := time.Now()
	eventually(t, "the chunk has three replicas again", func() bool { return u.has("/f", 3, "hello") })
	require.Less(t, time.Since(began), deleteTimeout, "repair has waited for the server that does not delete")
}
