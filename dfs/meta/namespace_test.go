package meta

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"waggle/dfs/wire"
	"waggle/dfs/wire/control"
)

func TestTreeSurvivesARestart(t *testing.T) {
	r := newRig(t)
	u := r.open(0)
	u.mkdir("/a")
	u.mkdir("/a/b")
	made := u.create("/a/b/file", "hello")
	u.must(&control.Symlink{Node: node("/link"), Target: []byte("a/b")})
	u.must(&control.SetXattr{Node: node("/a/b/file"), Name: "user.color", Value: []byte("blue")})
	require.EqualValues(t, 5, made.Size)
	require.EqualValues(t, unix.S_IFREG|0o644, made.Mode)

	check := func() {
		require.Equal(t, "hello", u.read("/a/b/file"))
		require.Equal(t, "hello", u.read("/link/file"))
		a := u.lookup("/a/b/file", wire.WantInline)
		require.Equal(t, wire.LookupOK, a.Status)
		require.Equal(t, "hello", string(a.Inline))
		require.Equal(t, made.Inode, a.Attributes.Inode)
		x, err := u.meta.GetXattrs(t.Context(), &control.NodeRequest{Session: u.session, Node: node("/a/b/file")})
		require.NoError(t, err)
		require.Equal(t, map[string][]byte{"user.color": []byte("blue")}, x.Values)
		cluster, err := u.meta.Cluster(t.Context(), &control.Empty{})
		require.NoError(t, err)
		require.EqualValues(t, 2, cluster.Files)
		require.EqualValues(t, 3, cluster.Directories)
		require.EqualValues(t, 5, cluster.LogicalBytes)
	}
	check()
	r.restart()
	check()
}

func TestNames(t *testing.T) {
	u := newRig(t).open(0)
	for _, name := range []string{"n", "\xff\xfe", strings.Repeat("n", wire.MaxName), "with space"} {
		u.create(name, name)
		require.Equal(t, name, u.read(name))
		require.Equal(t, "AlreadyExists", u.fails(&control.Create{Node: node(name), Exclusive: true}))
	}
	for _, name := range []string{strings.Repeat("n", wire.MaxName+1), "..", ".", "a\x00b"} {
		require.Equal(t, "InvalidArgument", u.fails(&control.Create{Node: node(name)}), "%q", name)
	}
	require.Equal(t, "InvalidArgument", u.fails(&control.Create{Node: node("/")}))
	require.Equal(t, "InvalidArgument", u.fails(&control.Create{Node: &control.Node{Names: [][]byte{{}}}}))
	require.Equal(t, "NotFound", u.fails(&control.Create{Node: node("/no/file")}))
	require.Equal(t, "ENOTDIR", u.fails(&control.Create{Node: node("/n/file")}))
	require.Equal(t, "NotFound", u.fails(&control.Create{Node: &control.Node{Start: 999, Names: [][]byte{[]byte("a")}}}))
	require.Equal(t, "InvalidArgument", u.fails(&control.Create{Node: node("/big"), Inline: make([]byte, wire.MaxInline+1)}))
	require.Equal(t, "InvalidArgument", u.fails(&control.Create{Node: node("/odd"), ChunkSize: 65537}))
	require.Equal(t, "InvalidArgument", u.fails(&control.Create{Node: node("/odd"), Replication: wire.MaxReplicas + 1}))
	require.Equal(t, "InvalidArgument", u.fails(&control.Symlink{Node: node("/l")}))
	require.Equal(t, "InvalidArgument", u.fails(struct{}{}))
}

// TestRename goes through what POSIX says of rename.
func TestRename(t *testing.T) {
	cases := []struct {
		name, from, to, want string
		gone, there          string
	}{
		{"file to a new name", "/f", "/new", "OK", "/f", "/new"},
		{"file into a directory", "/f", "/d/new", "OK", "/f", "/d/new"},
		{"file onto a file", "/f", "/g", "OK", "/f", "/g"},
		{"file onto itself", "/f", "/f", "OK", "/none", "/f"},
		{"file onto its other name", "/f", "/hard", "OK", "/none", "/hard"},
		{"file onto a directory", "/f", "/empty", "EISDIR", "/none", "/f"},
		{"file onto a symbolic link", "/f", "/link", "OK", "/f", "/link"},
		{"symbolic link, not what it leads to", "/link", "/new", "OK", "/link", "/new"},
		{"directory to a new name", "/d", "/new", "OK", "/d/sub", "/new/sub/deep"},
		{"directory onto an empty one", "/d", "/empty", "OK", "/d", "/empty/sub"},
		{"directory onto one that is not empty", "/empty", "/d", "ENOTEMPTY", "/none", "/empty"},
		{"directory onto a file", "/empty", "/f", "ENOTDIR", "/none", "/empty"},
		{"directory onto itself", "/d", "/d", "OK", "/none", "/d/sub"},
		{"directory into itself", "/d", "/d/new", "EINVAL", "/none", "/d/sub"},
		{"directory far into itself", "/d", "/d/sub/deep/new", "EINVAL", "/none", "/d/sub/deep"},
		{"directory onto its own child", "/d", "/d/sub", "EINVAL", "/none", "/d/sub"},
		{"child onto its parent", "/d/sub", "/d", "ENOTEMPTY", "/none", "/d/sub/deep"},
		{"directory up", "/d/sub/deep", "/new", "OK", "/d/sub/deep", "/new"},
		{"nothing", "/none", "/new", "NotFound", "/new", "/f"},
		{"into nothing", "/f", "/none/new", "NotFound", "/none", "/f"},
		{"into a file", "/f", "/g/new", "ENOTDIR", "/none", "/f"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			u := newRig(t).open(0)
			u.create("/f", "f")
			u.create("/g", "g")
			u.must(&control.Link{Existing: node("/f"), Node: node("/hard")})
			u.must(&control.Symlink{Node: node("/link"), Target: []byte("g")})
			for _, name := range []string{"/empty", "/d", "/d/sub", "/d/sub/deep"} {
				u.mkdir(name)
			}
			_, err := u.try(&control.Rename{From: node(c.from), To: node(c.to)})
			require.Equal(t, c.want, outcome(err))
			require.False(t, u.exists(c.gone))
			require.True(t, u.exists(c.there))
			for _, name := range []string{"/", "/d", "/d/sub", "/new", "/empty"} {
				if got, err := u.walk(name); err == nil && got.Attributes.Mode&unix.S_IFMT == unix.S_IFDIR {
					u.checkDirectory(name, got.Attributes)
				}
			}
			u.checkClean()
		})
	}
	u := newRig(t).open(0)
	u.create("/f", "f")
	u.create("/g", "g")
	require.Equal(t, "AlreadyExists", u.fails(&control.Rename{From: node("/f"), To: node("/g"), NoReplace: true}))
	u.must(&control.Rename{From: node("/f"), To: node("/new"), NoReplace: true})
}

// checkDirectory compares a directory's counts with its entries.
func (u *user) checkDirectory(name string, a *control.Attributes) {
	u.t.Helper()
	links, entries := 2, u.list(name, 2)
	for _, e := range entries {
		got, err := u.walk(name + "/" + e)
		require.NoError(u.t, err)
		if got.Attributes.Mode&unix.S_IFMT == unix.S_IFDIR {
			links++
		}
	}
	require.EqualValues(u.t, links, a.Links, name)
	require.EqualValues(u.t, len(entries), a.Size, name)
}

func TestRemove(t *testing.T) {
	u := newRig(t).open(0)
	u.mkdir("/d")
	u.create("/d/f", "x")
	u.must(&control.Link{Existing: node("/d/f"), Node: node("/hard")})
	require.Equal(t, "ENOTEMPTY", u.fails(&control.Remove{Node: node("/d"), Directory: true}))
	require.Equal(t, "EISDIR", u.fails(&control.Remove{Node: node("/d")}))
	require.Equal(t, "ENOTDIR", u.fails(&control.Remove{Node: node("/d/f"), Directory: true}))
	require.Equal(t, "NotFound", u.fails(&control.Remove{Node: node("/none")}))
	require.Equal(t, "EPERM", u.fails(&control.Link{Existing: node("/d"), Node: node("/again")}))
	require.EqualValues(t, 1, u.must(&control.Remove{Node: node("/d/f")}).Links)
	require.Equal(t, "x", u.read("/hard"))
	u.must(&control.Remove{Node: node("/d"), Directory: true})
	require.EqualValues(t, 0, u.must(&control.Remove{Node: node("/hard")}).Links)
	require.Empty(t, u.list("/", 0))
	u.checkClean()
}

func TestSymlinks(t *testing.T) {
	u := newRig(t).open(0)
	u.mkdir("/d")
	u.mkdir("/d/e")
	u.create("/d/f", "f")
	for name, target := range map[string]string{
		"/up": "d/e/../f", "/absolute": "/d//./f", "/chain": "up", "/loop": "loop", "/dangling": "none", "/top": "/", "/d/e/out": "../../d",
	} {
		u.must(&control.Symlink{Node: node(name), Target: []byte(target)})
	}
	follow := func(name string) (*control.WalkReply, error) {
		n := node(name)
		n.Follow = true
		return u.meta.Walk(t.Context(), &control.WalkRequest{Session: u.session, Node: n, WantInline: true})
	}
	for _, name := range []string{"/up", "/absolute", "/chain", "/top/d/f", "/d/e/out/f", "/top/top/up"} {
		got, err := follow(name)
		require.NoError(t, err, name)
		require.Equal(t, "f", string(got.Inline), name)
	}
	_, err := follow("/loop")
	require.Equal(t, "ELOOP", outcome(err))
	_, err = follow("/dangling")
	require.Equal(t, "NotFound", outcome(err))
	got, err := u.walk("/dangling")
	require.NoError(t, err)
	require.Equal(t, "none", string(got.Target))
	require.Equal(t, "ELOOP", u.fails(&control.Create{Node: node("/up")}))

	require.Equal(t, wire.LookupOK, u.lookup("/up", 0).Status)
	through := u.lookup("/top/d/f", 0)
	require.Equal(t, wire.LookupSymlink, through.Status)
	require.EqualValues(t, 1, through.Walked)
	require.Zero(t, through.Attributes)
}

func TestPermissions(t *testing.T) {
	r := newRig(t)
	root := r.open(0)
	root.must(&control.Mkdir{Node: node("/tmp"), Mode: 0o1777})
	root.must(&control.Mkdir{Node: node("/team"), Mode: 0o2770})
	root.must(&control.SetAttributes{Node: node("/team"), Gid: proto.Uint32(50)})
	alice, bob, eve := r.open(1, 50), r.open(2, 50), r.open(3)

	alice.create("/team/plan", "secret")
	got, err := bob.walk("/team/plan")
	require.NoError(t, err)
	require.EqualValues(t, 50, got.Attributes.Gid, "inherited from the directory")
	_, err = eve.walk("/team/plan")
	require.Equal(t, "PermissionDenied", outcome(err))
	require.Equal(t, wire.LookupOK, bob.lookup("/team/plan", 0).Status)
	denied := eve.lookup("/team/plan", wire.WantInline)
	require.Equal(t, wire.LookupDenied, denied.Status)
	require.EqualValues(t, 1, denied.Walked)
	require.Empty(t, denied.Inline)

	require.Equal(t, "PermissionDenied", alice.fails(&control.Mkdir{Node: node("/mine"), Mode: 0o755}))
	alice.must(&control.Create{Node: node("/tmp/own"), Mode: 0o400, Inline: []byte("a")})
	alice.must(&control.WriteInline{Node: node("/tmp/own"), Data: []byte("b")}) // the owner may
	require.Equal(t, "PermissionDenied", bob.fails(&control.WriteInline{Node: node("/tmp/own"), Data: []byte("c")}))
	require.Equal(t, "PermissionDenied", bob.fails(&control.Remove{Node: node("/tmp/own")}), "sticky")
	require.Equal(t, "PermissionDenied", bob.fails(&control.Rename{From: node("/tmp/own"), To: node("/tmp/stolen")}))
	require.Equal(t, "PermissionDenied", bob.fails(&control.SetAttributes{Node: node("/tmp/own"), Mode: proto.Uint32(0o777)}))
	require.Equal(t, "PermissionDenied", alice.fails(&control.SetAttributes{Node: node("/tmp/own"), Uid: proto.Uint32(2)}))
	require.Equal(t, "PermissionDenied", alice.fails(&control.SetAttributes{Node: node("/tmp/own"), Gid: proto.Uint32(7)}))
	alice.must(&control.SetAttributes{Node: node("/tmp/own"), Gid: proto.Uint32(50)})
	require.Equal(t, wire.LookupOK, bob.lookup("/tmp/own", 0).Status)
	require.Equal(t, wire.LookupDenied, bob.lookup("/tmp/own", wire.WantInline).Status)
	require.Equal(t, "b", string(alice.lookup("/tmp/own", wire.WantInline).Inline))
	require.Equal(t, "PermissionDenied", bob.fails(&control.SetXattr{Node: node("/tmp/own"), Name: "user.a"}))
	require.Equal(t, "PermissionDenied", alice.fails(&control.SetXattr{Node: node("/tmp/own"), Name: "trusted.a"}))
}

func TestXattrs(t *testing.T) {
	u := newRig(t).open(0)
	u.create("/f", "")
	set := func(x *control.SetXattr) string { x.Node = node("/f"); return u.fails(x) }
	require.Equal(t, "NotFound", set(&control.SetXattr{Name: "user.a", Replace: true}))
	require.Equal(t, "OK", set(&control.SetXattr{Name: "user.a", Value: []byte("1"), Create: true}))
	require.Equal(t, "AlreadyExists", set(&control.SetXattr{Name: "user.a", Create: true}))
	require.Equal(t, "OK", set(&control.SetXattr{Name: "user.a", Value: []byte("2"), Replace: true}))
	require.Equal(t, "OK", set(&control.SetXattr{Name: "user.b", Value: bytes.Repeat([]byte("x"), maxXattrValue)}))
	require.Equal(t, "InvalidArgument", set(&control.SetXattr{Name: "user.b", Value: make([]byte, maxXattrValue+1)}))
	require.Equal(t, "InvalidArgument", set(&control.SetXattr{}))
	require.Equal(t, "OK", set(&control.SetXattr{Name: "user.b", Remove: true}))
	require.Equal(t, "NotFound", set(&control.SetXattr{Name: "user.b", Remove: true}))
	for i := range maxXattrs - 1 {
		require.Equal(t, "OK", set(&control.SetXattr{Name: fmt.Sprintf("user.%d", i)}))
	}
	require.Equal(t, "ResourceExhausted", set(&control.SetXattr{Name: "user.last"}))
	x, err := u.meta.GetXattrs(t.Context(), &control.NodeRequest{Session: u.session, Node: node("/f")})
	require.NoError(t, err)
	require.Len(t, x.Values, maxXattrs)
	require.Equal(t, "2", string(x.Values["user.a"]))
	u.must(&control.Remove{Node: node("/f")})
	u.checkClean()
}

func TestSmallFiles(t *testing.T) {
	u := newRig(t).open(0)
	u.create("/f", "hello")
	u.must(&control.WriteInline{Node: node("/f"), Offset: 7, Data: []byte("you")})
	require.Equal(t, "hello\x00\x00you", u.read("/f"))
	require.Equal(t, "EFBIG", u.fails(&control.WriteInline{Node: node("/f"), Offset: wire.MaxInline, Data: []byte("x")}))
	require.Equal(t, "EFBIG", u.fails(&control.WriteInline{Node: node("/f"), Offset: 1<<64 - 1, Data: []byte("x")}))
	u.must(&control.SetSize{Node: node("/f"), Size: 4})
	u.must(&control.SetSize{Node: node("/f"), Size: 6})
	require.Equal(t, "hell\x00\x00", u.read("/f"))
	u.must(&control.SetSize{Node: node("/f"), Size: 3, GrowOnly: true})
	require.Equal(t, "hell\x00\x00", u.read("/f"))
	require.Equal(t, "EFBIG", u.fails(&control.SetSize{Node: node("/f"), Size: wire.MaxInline + 1}))
	require.Equal(t, "EINVAL", u.fails(&control.SetSize{Node: node("/f"), Size: 2000, Spill: true}), "no chunk")

	a := u.must(&control.Create{Node: node("/f"), Inline: []byte("new"), Replace: true, ModifiedNs: new(int64(77))})
	require.EqualValues(t, 77, a.ModifiedNs)
	require.Equal(t, "new", u.read("/f"))
	u.must(&control.Create{Node: node("/f"), Inline: []byte("ignored")})
	require.Equal(t, "new", u.read("/f"))

	u.must(&control.SetSize{Node: node("/f"), Size: 0})
	hole := u.must(&control.SetSize{Node: node("/f"), Size: 1 << 30}) // a hole has no chunks
	require.Zero(t, hole.InlineSize)
	require.Equal(t, "EFBIG", u.fails(&control.WriteInline{Node: node("/f"), Data: []byte("x")}))
	require.Equal(t, "EFBIG", u.fails(&control.SetSize{Node: node("/f"), Size: 1 << 62}))
	require.EqualValues(t, 10, u.must(&control.SetSize{Node: node("/f"), Size: 10}).InlineSize)
	require.Equal(t, strings.Repeat("\x00", 10), u.read("/f"))
	u.checkClean()
}

func TestDirectoriesAreListedPageByPage(t *testing.T) {
	u := newRig(t).open(0)
	u.mkdir("/d")
	var want []string
	for i := range 57 {
		want = append(want, fmt.Sprintf("file-%02d", i))
		u.create("/d/"+want[i], "x")
	}
	for _, page := range []uint32{1, 10, 57, 0} {
		got := u.list("/d", page)
		slices.Sort(got)
		require.Equal(t, want, got)
	}
	first, err := u.meta.ReadDirectory(t.Context(), &control.ReadDirectoryRequest{Session: u.session, Node: node("/d"), Limit: 20})
	require.NoError(t, err)
	last := first.Entries[19].Name
	u.must(&control.Remove{Node: node("/d/" + string(last))})
	rest, err := u.meta.ReadDirectory(t.Context(), &control.ReadDirectoryRequest{Session: u.session, Node: node("/d"), After: last})
	require.NoError(t, err)
	require.Len(t, rest.Entries, 37, "the page goes on where the last name was")
	_, err = u.meta.ReadDirectory(t.Context(), &control.ReadDirectoryRequest{Session: u.session, Node: node("/d"), Limit: maxPage + 1})
	require.Equal(t, "InvalidArgument", outcome(err))
	_, err = u.meta.ReadDirectory(t.Context(), &control.ReadDirectoryRequest{Session: u.session, Node: node("/d/" + string(rest.Entries[0].Name))})
	require.Equal(t, "ENOTDIR", outcome(err))
}

func TestNamesWithOneHash(t *testing.T) {
	real := wire.HashKey{1}
	u := newRig(t, func(c *Config) {
		c.hash = func(name []byte) wire.NameHash { // only the length counts
			return real.Hash([]byte{byte(len(name))})
		}
	}).open(0)
	u.create("/aa", "a")
	require.Equal(t, wire.LookupOK, u.lookup("/aa", 0).Status)
	u.create("/bb", "b")
	u.mkdir("/cc")
	u.create("/d", "d")
	require.Equal(t, wire.LookupAmbiguous, u.lookup("/aa", 0).Status)
	require.Equal(t, wire.LookupAmbiguous, u.lookup("/zz", 0).Status)
	require.Equal(t, wire.LookupOK, u.lookup("/d", 0).Status)
	require.Equal(t, "a", u.read("/aa"))
	require.Equal(t, "b", u.read("/bb"))
	require.False(t, u.exists("/zz"))
	for _, page := range []uint32{1, 2, 3, 4} {
		got := u.list("/", page)
		slices.Sort(got)
		require.Equal(t, []string{"aa", "bb", "cc", "d"}, got)
	}
	u.must(&control.Rename{From: node("/bb"), To: node("/aa")})
	require.Equal(t, "b", u.read("/aa"))
	u.must(&control.Remove{Node: node("/cc"), Directory: true})
	require.Equal(t, wire.LookupOK, u.lookup("/aa", 0).Status)
	u.must(&control.Remove{Node: node("/aa")})
	require.Equal(t, wire.LookupNotFound, u.lookup("/aa", 0).Status)
	u.checkClean()
}

func TestLookup(t *testing.T) {
	u := newRig(t).open(0)
	u.mkdir("/d")
	u.create("/d/f", "content")
	for name, want := range map[string]struct {
		status wire.LookupStatus
		walked int
	}{
		"/":          {wire.LookupOK, 0},
		"/d":         {wire.LookupOK, 1},
		"/d/f":       {wire.LookupOK, 2},
		"/d/none":    {wire.LookupNotFound, 1},
		"/none/none": {wire.LookupNotFound, 0},
		"/d/f/x":     {wire.LookupNotDirectory, 2},
	} {
		for range 2 { // from the store and from the cache
			a := u.lookup(name, wire.WantInline|wire.WantLocation)
			require.Equal(t, want.status, a.Status, name)
			require.EqualValues(t, want.walked, a.Walked, name)
		}
	}
	f := u.lookup("/d/f", wire.WantInline|wire.WantLocation)
	require.Equal(t, "content", string(f.Inline))
	require.Zero(t, f.Location.Chunk)
	require.Empty(t, u.lookup("/d/f", 0).Inline)

	q := wire.LookupRequest{Session: 12345, Start: wire.RootInode}
	a, err := u.transport.Lookup(t.Context(), &q)
	require.NoError(t, err)
	require.Equal(t, wire.LookupBadSession, a.Status)
	q = wire.LookupRequest{Session: u.session, Start: 99}
	a, err = u.transport.Lookup(t.Context(), &q)
	require.NoError(t, err)
	require.Equal(t, wire.LookupNotFound, a.Status)
}

// TestNobodyReadsAnOldNameAfterANewOne renames a file to and fro and looks from
// another goroutine whether what was acknowledged is seen at once.
func TestNobodyReadsAnOldNameAfterANewOne(t *testing.T) {
	u := newRig(t).open(0)
	u.create("/a", "x")
	for i := range 200 {
		from, to := "/a", "/b"
		if i%2 == 1 {
			from, to = to, from
		}
		require.Equal(t, wire.LookupOK, u.lookup(from, 0).Status)
		require.Equal(t, wire.LookupNotFound, u.lookup(to, 0).Status)
		u.must(&control.Rename{From: node(from), To: node(to)})
		require.Equal(t, wire.LookupNotFound, u.lookup(from, 0).Status)
		require.Equal(t, wire.LookupOK, u.lookup(to, 0).Status)
	}
}
