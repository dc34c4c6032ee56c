package meta

import (
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"waggle/dfs/meta/store"
	"waggle/dfs/wire"
	"waggle/dfs/wire/control"
)

// check returns what a check finds, and how many of it were mended.
func (u *user) check(q *control.CheckRequest) (problems []string, mended int) {
	u.t.Helper()
	stream, err := u.meta.Check(u.t.Context(), q)
	require.NoError(u.t, err)
	for {
		p, err := stream.Recv()
		if err == io.EOF {
			return problems, mended
		}
		require.NoError(u.t, err)
		require.LessOrEqual(u.t, p.Checked, p.Total)
		if p.Problem != "" {
			problems = append(problems, p.Problem)
		}
		if p.Repaired {
			mended++
		}
	}
}

// checkClean waits for chunk servers that have not reported yet.
func (u *user) checkClean() {
	u.t.Helper()
	var problems []string
	eventually(u.t, "all chunk servers are up", func() bool {
		problems, _ = u.check(&control.CheckRequest{Replicas: true, Data: true})
		return !slices.ContainsFunc(problems, func(p string) bool { return strings.Contains(p, "servers that are up") })
	})
	require.Empty(u.t, problems)
}

// damage changes records behind the server's back, while it is stopped.
func (r *rig) damage(damage func(*change)) {
	r.stop()
	s, err := store.OpenEmbedded(filepath.Join(r.config.Directory, "metadata"), 1<<20, quiet)
	require.NoError(r.t, err)
	c := &change{store: s}
	c.begin(time.Now().UnixNano())
	damage(c)
	batch := s.NewBatch()
	require.NoError(r.t, c.encode(batch))
	require.NoError(r.t, c.err)
	pending, err := s.Commit(batch)
	require.NoError(r.t, err)
	require.NoError(r.t, pending.Wait())
	require.NoError(r.t, s.Close())
	r.start()
}

// noise is a record that no decoder accepts.
type noise struct{}

func (noise) append(b []byte) []byte { return append(b, "noise"...) }

func TestCheckFindsAndMends(t *testing.T) {
	type names struct{ root, dir, file, small, chunk uint64 }
	for what, c := range map[string]struct {
		damage func(*change, names)
		want   string // in one of the problems
		after  func(*testing.T, *user)
	}{
		"entry that leads nowhere": {
			func(c *change, n names) { c.delete(inodeKey(n.small)) }, "does not exist",
			func(t *testing.T, u *user) { require.False(t, u.exists("/d/small")) },
		},
		"inode without a name": {
			func(c *change, n names) { c.delete(c.entryOf(n.dir, "small")) }, "has no name",
			func(t *testing.T, u *user) { require.Len(t, u.list("/lost+found", 0), 1) },
		},
		"directory without a name": {
			func(c *change, n names) { c.delete(c.entryOf(n.root, "d")) }, "has no name",
			func(t *testing.T, u *user) {
				require.Equal(t, "small", u.read("/lost+found/"+u.list("/lost+found", 0)[0]+"/small"))
			},
		},
		"links":           {func(c *change, n names) { c.inode(n.small).Links = 7; c.putInode(c.inode(n.small)) }, "links", nil},
		"directory links": {func(c *change, n names) { c.inode(n.root).Links = 9; c.putInode(c.inode(n.root)) }, "links", nil},
		"entries":         {func(c *change, n names) { c.inode(n.dir).Size = 0; c.putInode(c.inode(n.dir)) }, "entries", nil},
		"parent":          {func(c *change, n names) { c.inode(n.dir).parent = 99; c.putInode(c.inode(n.dir)) }, "says that it is not in", nil},
		"chunk count":     {func(c *change, n names) { c.inode(n.file).chunks = 5; c.putInode(c.inode(n.file)) }, "chunks, its record says", nil},
		"size of a small file": {
			func(c *change, n names) { c.inode(n.small).Size = 99; c.putInode(c.inode(n.small)) }, "its size is 99", nil,
		},
		"unreadable inode": {
			func(c *change, n names) { c.put(inodeKey(n.file), noise{}) }, "can't be read",
			func(t *testing.T, u *user) {
				require.False(t, u.exists("/file"))
				require.True(t, u.has("/lost+found/"+u.list("/lost+found", 0)[0], 1, "content"))
			},
		},
		"inode that is gone": {
			func(c *change, n names) { c.delete(inodeKey(n.file)) }, "does not exist and has chunks",
			func(t *testing.T, u *user) {
				require.True(t, u.has("/lost+found/"+u.list("/lost+found", 0)[0], 1, "content"))
			},
		},
		"unreadable inode without chunks": {
			func(c *change, n names) { c.put(inodeKey(n.small), noise{}) }, "can't be read",
			func(t *testing.T, u *user) {
				require.Equal(t, "noise", u.read("/lost+found/"+u.list("/lost+found", 0)[0]), "what is left of the record")
			},
		},
		"file in the trash that has a name": {
			func(c *change, n names) { c.put(trashKey(1<<62, n.small), &trashRecord{path: "/x"}) }, "in the trash and has a name", nil,
		},
		"unreadable entry": {
			func(c *change, n names) { c.put(c.entryOf(n.dir, "small"), noise{}) }, "can't be read",
			func(t *testing.T, u *user) { require.Len(t, u.list("/lost+found", 0), 1) },
		},
		"unreadable chunk": {func(c *change, n names) { c.put(chunkKey(place{n.file, 0}), noise{}) }, "can't be read",
			func(t *testing.T, u *user) { require.True(t, u.has("/file", 1, "content")) }},
		"unreadable owner":  {func(c *change, n names) { c.put(ownerKey(n.chunk), noise{}) }, "can't be read", nil},
		"unreadable xattrs": {func(c *change, n names) { c.put(xattrKey(n.file), noise{}) }, "extended attributes", nil},
		"inode of no type":  {func(c *change, n names) { c.inode(n.small).Mode = 0o644; c.putInode(c.inode(n.small)) }, "no known type", nil},
		"name at the wrong place": {
			func(c *change, n names) { c.put(entryKey(n.dir, wire.NameHash{1}), entries{{"elsewhere", n.small}}) }, "wrong place", nil,
		},
		"name in a file": {
			func(c *change, n names) { c.put(c.entryOf(n.small, "x"), entries{{"x", n.file}}) }, "no directory", nil,
		},
		"second name of a directory": {
			func(c *change, n names) { c.put(c.entryOf(n.root, "again"), entries{{"again", n.dir}}) }, "second name", nil,
		},
		"chunk of no file": {
			func(c *change, n names) {
				stolen := c.chunk(place{n.file, 0}).clone()
				stolen.id = 12345
				c.put(chunkKey(place{n.dir, 3}), stolen)
			}, "is no file", nil,
		},
		"chunk without an owner": {func(c *change, n names) { c.delete(ownerKey(n.chunk)) }, "not on record", nil},
		"owner without a chunk":  {func(c *change, n names) { c.put(ownerKey(777), owner{n.file, 9}) }, "does not", nil},
		"lease without a chunk":  {func(c *change, n names) { c.put(leaseKey(place{n.file, 9}), holder(0)) }, "open for writing", nil},
		"lease that disagrees":   {func(c *change, n names) { c.put(leaseKey(place{n.file, 0}), holder(5)) }, "disagree", nil},
		"stray that counts":      {func(c *change, n names) { c.putStray(n.chunk, c.chunk(place{n.file, 0}).servers[0]) }, "counted on", nil},
		"xattrs of nothing":      {func(c *change, n names) { c.put(xattrKey(777), xattrs{{"user.a", nil}}) }, "extended attributes", nil},
		"next numbers":           {func(c *change, n names) { c.totals.nextInode = 2; c.putTotals() }, "in use", nil},
		"totals":                 {func(c *change, n names) { c.totals.files = 0; c.totals.bytes = 1; c.putTotals() }, "totals say", nil},
		"garbage that exists":    {func(c *change, n names) { c.put(garbageKey(n.small), mark{}) }, "to be removed", nil},
	} {
		t.Run(what, func(t *testing.T) {
			// The mender must not get to it before the check does.
			u, hosts := cluster(t, 1, func(c *Config) { c.DeadAfter, c.hash = time.Hour, testHash })
			u.mkdir("/d")
			small := u.create("/d/small", "small")
			file, chunk := u.store("/file", "content")
			d, err := u.walk("/d")
			require.NoError(t, err)
			n := names{root: wire.RootInode, dir: d.Attributes.Inode, small: small.Inode, file: file, chunk: chunk}
			u.checkClean()
			u.damage(func(ch *change) { c.damage(ch, n) })
			eventually(t, "the chunk server is alive", hosts[0].alive)
			problems, mended := u.check(&control.CheckRequest{})
			require.True(t, slices.ContainsFunc(problems, func(p string) bool { return strings.Contains(p, c.want) }), "%q", problems)
			require.Zero(t, mended)
			problems, mended = u.check(&control.CheckRequest{Repair: true})
			require.Len(t, problems, mended, "%q", problems)
			problems, _ = u.check(&control.CheckRequest{})
			require.Empty(t, problems)
			if c.after != nil {
				c.after(t, u)
			}
			u.create("/new", "the server goes on")
		})
	}
}

// testHash is a hash that tests can compute without a server.
func testHash(name []byte) wire.NameHash { return wire.HashKey{}.Hash(name) }

func (c *change) entryOf(directory uint64, name string) key {
	return entryKey(directory, testHash([]byte(name)))
}

func TestCheckFindsAndMendsReplicas(t *testing.T) {
	u, hosts := cluster(t, 3, func(c *Config) { c.DeadAfter = time.Hour })
	content := strings.Repeat("waggle", 3000)
	_, id := u.store("/f", content)
	u.checkClean()
	find := func(q *control.CheckRequest, want string) {
		t.Helper()
		problems, _ := u.check(q)
		require.True(t, slices.ContainsFunc(problems, func(p string) bool { return strings.Contains(p, want) }), "%q: %q", want, problems)
		q.Repair = true
		problems, mended := u.check(q)
		require.Len(t, problems, mended, "%q", problems)
		require.NotZero(t, mended)
	}
	hosts[1].damage(id, 5000)
	find(&control.CheckRequest{Replicas: true, Data: true}, "corrupt")
	u.checkClean()
	require.True(t, u.has("/f", 3, content))

	_, err := hosts[0].service().Delete(t.Context(), &control.ChunkIDs{Chunks: []uint64{id}})
	require.NoError(t, err)
	find(&control.CheckRequest{Replicas: true}, "has no replica on server")
	u.checkClean()
	require.True(t, u.has("/f", 3, content))

	_, err = hosts[2].service().Create(t.Context(), &control.ReplicaEpoch{Chunk: 1 << 40, Epoch: 1})
	require.NoError(t, err)
	find(&control.CheckRequest{Replicas: true}, "nobody references")
	problems, _ := u.check(&control.CheckRequest{Replicas: true})
	require.Empty(t, problems, "it is on its way out")

	hosts[1].stop()
	problems, mended := u.check(&control.CheckRequest{Replicas: true, Repair: true})
	require.Zero(t, mended)
	require.Len(t, problems, 1)
	require.Contains(t, problems[0], "can't be asked")
}

// rewrite gives a replica other bytes, with good checksums, behind its server's back.
func (h *host) rewrite(chunk uint64, content string) {
	h.rig.t.Helper()
	address := h.server.DataAddress()
	state := h.holds(chunk)
	f := wire.Frame{Type: wire.FrameWrite, Chunk: chunk, Epoch: state.Epoch, Length: uint32(len(content)), Sequence: state.Sequence + 1}
	f.Extra = wire.AppendWriteExtra(nil, nil, wire.AppendChecksums(nil, 0, []byte(content)))
	a, _ := exchange(h.rig.t, address, f, []byte(content))
	require.Equal(h.rig.t, wire.StatusOK, a.Status, "%s", a.Extra)
}

func TestWhereReplicasDifferTheMajorityHolds(t *testing.T) {
	u, hosts := cluster(t, 3, func(c *Config) { c.DeadAfter = time.Hour })
	_, id := u.store("/f", "hello")
	first := u.lookup("/f", wire.WantLocation).Location.Replicas[0].Address.String()
	for _, h := range hosts {
		if h.server.DataAddress() == first { // which used to be believed
			h.rewrite(id, "HELLO")
		} else {
			h.rewrite(id, "hello")
		}
	}
	problems, mended := u.check(&control.CheckRequest{Data: true, Repair: true})
	require.Len(t, problems, mended, "%q", problems)
	require.Contains(t, strings.Join(problems, ";"), "most are as the first")
	require.True(t, u.has("/f", 3, "hello"))
	require.False(t, u.exists("/lost+found"))
	u.checkClean()
}

func TestWhereNoneHasAMajorityAllAreKept(t *testing.T) {
	u, hosts := cluster(t, 2, func(c *Config) { c.DeadAfter = time.Hour })
	inode, id := u.store("/f", "hello")
	first := u.lookup("/f", wire.WantLocation).Location.Replicas[0]
	for i, h := range hosts {
		h.rewrite(id, []string{"HELLO", "Hello"}[i])
	}
	want := u.copies("/f")
	problems, mended := u.check(&control.CheckRequest{Data: true, Repair: true})
	require.Len(t, problems, mended, "%q", problems)
	require.True(t, u.has("/f", 2, want[0]))
	kept := u.list("/lost+found", 0)
	require.Len(t, kept, 1)
	require.Contains(t, kept[0], fmt.Sprintf("#%d.0.server%d", inode, 3-first.Server))
	require.Equal(t, []string{want[1]}, u.copies("/lost+found/"+kept[0]))
	problems, mended = u.check(&control.CheckRequest{Replicas: true, Data: true, Repair: true})
	require.Len(t, problems, mended, "only the second replica of what was kept is made: %q", problems)
	u.checkClean()
}
