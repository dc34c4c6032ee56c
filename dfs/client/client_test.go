package client_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/fstest"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"waggle/dfs/chunk"
	"waggle/dfs/client"
	"waggle/dfs/dfstest"
	"waggle/dfs/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// content is random, but the same each time.
func content(n int) []byte {
	b := make([]byte, n)
	random := rand.NewChaCha8([32]byte{byte(n)})
	random.Read(b)
	return b
}

// chunkConfig notices a server that is gone soon.
var chunkConfig = chunk.Config{PeerTimeout: 2 * time.Second}

// small has many chunks in little data.
var small = client.FileOptions{Mode: 0o644, ChunkSize: wire.MinChunkSize}

func write(t *testing.T, c *client.Client, path string, data []byte, o client.FileOptions) {
	t.Helper()
	require.NoError(t, c.WriteFileWith(t.Context(), path, data, o))
}

// requireSame says where contents differ first, and not the contents.
func requireSame(t *testing.T, want, got []byte) {
	t.Helper()
	require.Equal(t, len(want), len(got))
	for i := range want {
		if want[i] != got[i] {
			j := i
			for j < len(want) && want[j] != got[j] {
				j++
			}
			t.Fatalf("bytes differ from %d for at least %d: have %x..., want %x...", i, j-i, got[i:min(i+8, len(got))], want[i:min(i+8, len(want))])
		}
	}
}

func requireContent(t *testing.T, c *client.Client, path string, want []byte) {
	t.Helper()
	got, err := c.ReadFile(t.Context(), path)
	require.NoError(t, err)
	requireSame(t, want, got)
}

func TestWhatIsWrittenIsRead(t *testing.T) {
	c := dfstest.Start(t, dfstest.Options{}).Dial(client.Options{})
	for _, n := range []int{0, 1, 1024, 1025, 4095, 4096, 65535, 65536, 65537, 300_000, 3 << 20} {
		data, path := content(n), fmt.Sprintf("/file-%d", n)
		write(t, c, path, data, small)
		requireContent(t, c, path, data)

		info, err := c.Stat(t.Context(), path)
		require.NoError(t, err)
		require.EqualValues(t, n, info.Size())
		require.Equal(t, fs.FileMode(0o644), info.Mode())

		f, err := c.Open(t.Context(), path)
		require.NoError(t, err)
		streamed, err := io.ReadAll(f)
		require.NoError(t, err)
		require.True(t, bytes.Equal(data, streamed), "%d bytes streamed, want %d", len(streamed), n)
		require.NoError(t, f.Close())
		require.ErrorIs(t, f.Close(), fs.ErrClosed)

		write(t, c, path, data[:n/2], small) // replaces
		requireContent(t, c, path, data[:n/2])
	}
}

func TestFS(t *testing.T) {
	c := dfstest.Start(t, dfstest.Options{}).Dial(client.Options{})
	ctx := t.Context()
	require.NoError(t, c.MkdirAll(ctx, "/a/b/empty", 0o755))
	write(t, c, "/top", []byte("top"), small)
	write(t, c, "/a/big", content(17_000), small) // TestFS reads at every offset
	write(t, c, "/a/b/middle", content(5000), small)
	write(t, c, "/a/b/nothing", nil, small)
	require.NoError(t, c.Symlink(ctx, "b/middle", "/a/link"))
	require.NoError(t, fstest.TestFS(c.FS(ctx), "top", "a/big", "a/b/middle", "a/b/nothing", "a/b/empty", "a/link"))
}

func TestNamespace(t *testing.T) {
	c := dfstest.Start(t, dfstest.Options{ChunkServers: 1}).Dial(client.Options{})
	ctx := t.Context()
	require.NoError(t, c.Mkdir(ctx, "/d", 0o750))
	require.ErrorIs(t, c.Mkdir(ctx, "/d", 0o750), fs.ErrExist)
	require.ErrorIs(t, c.Mkdir(ctx, "/none/d", 0o750), fs.ErrNotExist)
	write(t, c, "/d/f", []byte("1"), small)
	require.ErrorIs(t, c.Remove(ctx, "/d"), syscall.ENOTEMPTY)
	_, err := c.Stat(ctx, "/d/f/below")
	require.ErrorIs(t, err, syscall.ENOTDIR)
	_, err = c.Open(ctx, "/d/none")
	require.ErrorIs(t, err, fs.ErrNotExist)
	var at *fs.PathError
	require.ErrorAs(t, err, &at)
	require.Equal(t, "/d/none", at.Path)
	_, err = c.OpenFile(ctx, "/d/f", os.O_CREATE|os.O_EXCL|os.O_RDWR, small)
	require.ErrorIs(t, err, fs.ErrExist)
	_, err = c.OpenFile(ctx, "/d", os.O_RDWR, small)
	require.ErrorIs(t, err, syscall.EISDIR)

	require.NoError(t, c.Rename(ctx, "/d/f", "/d/g"))
	write(t, c, "/d/other", []byte("2"), small)
	require.NoError(t, c.Rename(ctx, "/d/g", "/d/other"))
	requireContent(t, c, "/d/other", []byte("1"))
	require.ErrorIs(t, c.Rename(ctx, "/d/g", "/d/x"), fs.ErrNotExist)

	require.NoError(t, c.Link(ctx, "/d/other", "/hard"))
	require.NoError(t, c.Symlink(ctx, "d", "/soft"))
	requireContent(t, c, "/soft/other", []byte("1"))
	target, err := c.Readlink(ctx, "/soft")
	require.NoError(t, err)
	require.Equal(t, "d", target)
	_, err = c.Readlink(ctx, "/hard")
	require.ErrorIs(t, err, syscall.EINVAL)
	info, err := c.Lstat(ctx, "/soft")
	require.NoError(t, err)
	require.Equal(t, fs.ModeSymlink, info.Mode().Type())
	info, err = c.Stat(ctx, "/soft")
	require.NoError(t, err)
	require.True(t, info.IsDir())
	info, err = c.Stat(ctx, "/hard")
	require.NoError(t, err)
	require.EqualValues(t, 2, info.Attributes().Links)

	when := time.Unix(1234567890, 123456789)
	require.NoError(t, c.Chmod(ctx, "/hard", 0o4711|fs.ModeSetuid))
	require.NoError(t, c.Chtimes(ctx, "/hard", when))
	require.NoError(t, c.Chown(ctx, "/hard", 7, -1))
	info, err = c.Stat(ctx, "/d/other")
	require.NoError(t, err)
	require.Equal(t, fs.FileMode(0o711)|fs.ModeSetuid, info.Mode())
	require.True(t, when.Equal(info.ModTime()))
	require.EqualValues(t, 7, info.Attributes().UID)

	require.NoError(t, c.SetXattr(ctx, "/hard", "user.a", []byte("v"), client.XattrCreate))
	require.ErrorIs(t, c.SetXattr(ctx, "/hard", "user.a", nil, client.XattrCreate), fs.ErrExist)
	value, err := c.Xattr(ctx, "/hard", "user.a")
	require.NoError(t, err)
	require.Equal(t, "v", string(value))
	require.NoError(t, c.RemoveXattr(ctx, "/hard", "user.a"))
	_, err = c.Xattr(ctx, "/hard", "user.a")
	require.ErrorIs(t, err, syscall.ENODATA)

	for i := range 40 {
		require.NoError(t, c.MkdirAll(ctx, fmt.Sprintf("/tree/%d/x", i%4), 0o755))
		write(t, c, fmt.Sprintf("/tree/%d/f%d", i%4, i), nil, small)
	}
	require.NoError(t, c.RemoveAll(ctx, "/tree"))
	require.NoError(t, c.RemoveAll(ctx, "/tree"))
	entries, err := c.ReadDir(ctx, "/")
	require.NoError(t, err)
	var listed []string
	for _, e := range entries {
		listed = append(listed, fs.FormatDirEntry(e))
	}
	require.Equal(t, []string{"d d/", "- hard", "L soft"}, listed)
}

func TestDeepPathsAndOddNames(t *testing.T) {
	c := dfstest.Start(t, dfstest.Options{ChunkServers: 1}).Dial(client.Options{})
	ctx := t.Context()
	for _, depth := range []int{15, 16, 17, 31, 32, 33, 70} {
		deep := strings.Repeat("/deep", depth-1)
		require.NoError(t, c.MkdirAll(ctx, deep, 0o755))
		write(t, c, deep+"/f", []byte(fmt.Sprint(depth)), small)
		requireContent(t, c, deep+"/f", []byte(fmt.Sprint(depth)))
	}
	// A link in the 16th place ends the first datagram of the lookup.
	long := strings.Repeat("/deep", 15)
	require.NoError(t, c.Symlink(ctx, "deep", long+"/link"))
	requireContent(t, c, long+"/link"+strings.Repeat("/deep", 16)+"/f", []byte("33"))

	for _, name := range []string{strings.Repeat("n", 255), "\xff\xfe\x01", "new\nline", " ", "...", strings.Repeat("é", 127)} {
		write(t, c, "/"+name, []byte(name), small)
		requireContent(t, c, name, []byte(name))
		entries, err := c.ReadDir(ctx, "/")
		require.NoError(t, err)
		found := false
		for _, e := range entries {
			found = found || e.Name() == name
		}
		require.True(t, found, "%q", name)
		require.NoError(t, c.Remove(ctx, name))
	}
	for _, bad := range []string{strings.Repeat("n", 256), "..", "a/../b", "nul\x00", strings.Repeat("x/", 40_000)} {
		require.ErrorIs(t, c.WriteFile(ctx, bad, nil, 0o644), fs.ErrInvalid, "%.20q", bad)
		_, err := c.Stat(ctx, bad)
		require.ErrorIs(t, err, fs.ErrInvalid, "%.20q", bad)
		_, err = c.ReadDir(ctx, bad)
		require.ErrorIs(t, err, fs.ErrInvalid, "%.20q", bad)
	}
	require.NoError(t, c.WriteFile(ctx, "//./x/.//", nil, 0o644))
	requireContent(t, c, "x", nil)
}

// TestRandomOperationsAgainstAModel does the same to a file and to a slice.
func TestRandomOperationsAgainstAModel(t *testing.T) {
	cluster := dfstest.Start(t, dfstest.Options{})
	c, other := cluster.Dial(client.Options{}), cluster.Dial(client.Options{})
	for seed := range uint64(6) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			m := &model{t: t, c: c, random: rand.New(rand.NewPCG(seed, 0)), path: fmt.Sprint("/model-", seed)}
			m.reopen()
			for range 150 {
				m.step()
			}
			require.NoError(t, m.f.Close())
			requireContent(t, other, m.path, m.want)
		})
	}
}

type model struct {
	t      *testing.T
	c      *client.Client
	random *rand.Rand
	path   string
	f      *client.File
	want   []byte
	at     int64
}

func (m *model) reopen() {
	f, err := m.c.OpenFile(m.t.Context(), m.path, os.O_RDWR|os.O_CREATE, small)
	require.NoError(m.t, err)
	m.f, m.at = f, 0
}

// length is short as often as long.
func (m *model) length() int { return m.random.IntN(1 << m.random.IntN(18)) }

func (m *model) offset() int64 { return int64(m.random.IntN(1 << m.random.IntN(18))) }

func (m *model) put(p []byte, offset int64) {
	if len(p) == 0 {
		return
	}
	if end := int(offset) + len(p); end > len(m.want) {
		m.want = append(m.want, make([]byte, end-len(m.want))...)
	}
	copy(m.want[offset:], p)
}

func (m *model) step() {
	p := make([]byte, m.length())
	for i := range p {
		p[i] = byte(m.random.Uint32())
	}
	switch m.random.IntN(12) {
	case 0, 1:
		offset := m.offset()
		n, err := m.f.WriteAt(p, offset)
		require.NoError(m.t, err)
		require.Equal(m.t, len(p), n)
		m.put(p, offset)
	case 2, 3, 4:
		n, err := m.f.Write(p)
		require.NoError(m.t, err)
		m.put(p, m.at)
		m.at += int64(n)
	case 5, 6:
		m.readAt(p, m.offset())
	case 7, 8:
		m.read(p)
	case 9:
		at, err := m.f.Seek(m.offset(), io.SeekStart)
		require.NoError(m.t, err)
		m.at = at
	case 10:
		size := m.offset()
		require.NoError(m.t, m.f.Truncate(size))
		m.want = append(m.want[:min(int(size), len(m.want))], make([]byte, max(0, int(size)-len(m.want)))...)
	default:
		require.NoError(m.t, m.f.Close())
		requireContent(m.t, m.c, m.path, m.want)
		m.reopen()
	}
	info, err := m.f.Stat()
	require.NoError(m.t, err)
	require.EqualValues(m.t, len(m.want), info.Size())
}

func (m *model) readAt(p []byte, offset int64) {
	n, err := m.f.ReadAt(p, offset)
	want := m.want[min(int(offset), len(m.want)):]
	want = want[:min(len(want), len(p))]
	if len(p) > 0 && len(want) < len(p) {
		require.ErrorIs(m.t, err, io.EOF)
	} else {
		require.NoError(m.t, err)
	}
	require.True(m.t, bytes.Equal(want, p[:n]), "read %d at %d of %d", len(p), offset, len(m.want))
}

func (m *model) read(p []byte) {
	n, err := m.f.Read(p)
	want := m.want[min(int(m.at), len(m.want)):]
	if len(want) == 0 && len(p) > 0 {
		require.ErrorIs(m.t, err, io.EOF)
		return
	}
	require.NoError(m.t, err)
	require.True(m.t, n > 0 || len(p) == 0)
	require.True(m.t, bytes.Equal(want[:n], p[:n]), "read %d at %d of %d", len(p), m.at, len(m.want))
	m.at += int64(n)
}

func TestManyGoroutinesShareAClient(t *testing.T) {
	c := dfstest.Start(t, dfstest.Options{}).Dial(client.Options{})
	var all sync.WaitGroup
	for g := range 16 {
		all.Go(func() {
			for i := range 20 {
				name := fmt.Sprintf("/%d-%d", g, i)
				data := content(g*1000 + i)
				if err := c.WriteFile(t.Context(), name, data, 0o644); err != nil {
					t.Errorf("%v", err)
					return
				}
				got, err := c.ReadFile(t.Context(), name)
				if err != nil || !bytes.Equal(got, data) {
					t.Errorf("%s: %v, %d bytes", name, err, len(got))
				}
			}
		})
	}
	all.Wait()
	entries, err := c.ReadDir(t.Context(), "/")
	require.NoError(t, err)
	require.Len(t, entries, 320)
}

func TestTwoWriters(t *testing.T) {
	cluster := dfstest.Start(t, dfstest.Options{})
	first := cluster.Dial(client.Options{})
	second := cluster.Dial(client.Options{LeaseWait: 50 * time.Millisecond})
	write(t, first, "/f", content(10_000), small)
	f, err := first.OpenFile(t.Context(), "/f", os.O_RDWR, small)
	require.NoError(t, err)
	_, err = f.WriteAt([]byte("first"), 0)
	require.NoError(t, err)

	g, err := second.OpenFile(t.Context(), "/f", os.O_RDWR, small)
	require.NoError(t, err)
	_, err = g.WriteAt([]byte("second"), 100)
	require.ErrorIs(t, err, client.ErrBusy)
	require.NoError(t, g.Close(), "nothing is lost that was not told")
	g, err = second.OpenFile(t.Context(), "/f", os.O_RDWR, small)
	require.NoError(t, err)
	_, err = g.Write([]byte("gathered"))
	require.NoError(t, err)
	require.ErrorIs(t, g.Close(), client.ErrBusy)

	require.NoError(t, f.Close())
	g, err = second.OpenFile(t.Context(), "/f", os.O_RDWR, small)
	require.NoError(t, err)
	_, err = g.WriteAt([]byte("second"), 100)
	require.NoError(t, err)
	require.NoError(t, g.Close())
	got, err := first.ReadFile(t.Context(), "/f")
	require.NoError(t, err)
	require.Equal(t, "first", string(got[:5]))
	require.Equal(t, "second", string(got[100:106]))
}

func TestAppend(t *testing.T) {
	c := dfstest.Start(t, dfstest.Options{}).Dial(client.Options{})
	var want []byte
	for i := range 30 {
		f, err := c.OpenFile(t.Context(), "/log", os.O_WRONLY|os.O_CREATE|os.O_APPEND, small)
		require.NoError(t, err)
		line := content(i * 37)
		_, err = f.Write(line)
		require.NoError(t, err)
		require.NoError(t, f.Close())
		want = append(want, line...)
	}
	requireContent(t, c, "/log", want)
}

func TestAChunkServerStopsDuringAWrite(t *testing.T) {
	cluster := dfstest.Start(t, dfstest.Options{Chunk: chunkConfig})
	c := cluster.Dial(client.Options{})
	for victim := range 3 {
		data := content(4 << 20)
		name := fmt.Sprint("/f", victim)
		f, err := c.OpenFile(t.Context(), name, os.O_RDWR|os.O_CREATE, client.FileOptions{Mode: 0o644})
		require.NoError(t, err)
		for at := 0; at < len(data); at += 100_000 {
			if at == 2_000_000 {
				cluster.StopChunkServer(victim)
			}
			_, err := f.Write(data[at:min(at+100_000, len(data))])
			require.NoError(t, err)
		}
		require.NoError(t, f.Close())
		requireContent(t, c, name, data)
		cluster.StartChunkServer(victim)
	}
}

func TestAChunkServerStopsDuringARead(t *testing.T) {
	cluster := dfstest.Start(t, dfstest.Options{Chunk: chunkConfig})
	c := cluster.Dial(client.Options{})
	data := content(8 << 20)
	write(t, c, "/f", data, client.FileOptions{Mode: 0o644, ChunkSize: 1 << 20})
	f, err := c.Open(t.Context(), "/f")
	require.NoError(t, err)
	defer f.Close()
	var got []byte
	for piece := make([]byte, 70_000); ; {
		n, err := f.Read(piece)
		got = append(got, piece[:n]...)
		if err == io.EOF {
			break
		}
		require.NoError(t, err)
		if len(got) >= 2_000_000 && len(got) < 2_070_000 {
			cluster.StopChunkServer(0)
		}
		if len(got) >= 5_000_000 && len(got) < 5_070_000 {
			cluster.StopChunkServer(1)
		}
	}
	requireSame(t, data, got)
	requireContent(t, c, "/f", data)
}

func TestTheMetadataServerStartsAgain(t *testing.T) {
	cluster := dfstest.Start(t, dfstest.Options{})
	c := cluster.Dial(client.Options{})
	f, err := c.OpenFile(t.Context(), "/f", os.O_RDWR|os.O_CREATE, small)
	require.NoError(t, err)
	data := content(200_000)
	_, err = f.Write(data[:100_000])
	require.NoError(t, err)
	cluster.StopMeta()
	done := make(chan error, 1)
	go func() { done <- c.Mkdir(context.Background(), "/while-away", 0o755) }()
	_, err = f.Write(data[100_000:])
	require.NoError(t, err)
	cluster.StartMeta()
	require.NoError(t, <-done)
	require.NoError(t, f.Close())
	requireContent(t, c, "/f", data)
}

func TestASessionThatEnded(t *testing.T) {
	options := dfstest.Options{}
	options.Meta.SessionTime = 300 * time.Millisecond
	cluster := dfstest.Start(t, options)
	c := cluster.Dial(client.Options{})
	f, err := c.OpenFile(t.Context(), "/f", os.O_RDWR|os.O_CREATE, small)
	require.NoError(t, err)
	_, err = f.WriteAt(content(5000), 0)
	require.NoError(t, err)
	cluster.StopMeta()
	time.Sleep(400 * time.Millisecond) // sessions get their full time again when the server starts
	cluster.StartMeta()
	_, err = f.WriteAt(content(5000), 0)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	requireContent(t, c, "/f", content(5000))
}

func TestACorruptBlockIsReadElsewhereAndMended(t *testing.T) {
	cluster := dfstest.Start(t, dfstest.Options{})
	c := cluster.Dial(client.Options{})
	data := content(100_000)
	write(t, c, "/f", data, client.FileOptions{Mode: 0o644})
	files := damage(t, cluster, 0, data[20_000:20_100])
	for range 20 { // until the bad replica has been chosen
		requireContent(t, c, "/f", data)
	}
	require.Eventually(t, func() bool {
		for range 10 {
			requireContent(t, c, "/f", data)
		}
		b, err := os.ReadFile(files)
		return err == nil && bytes.Contains(b, data[20_000:20_100])
	}, 20*time.Second, 100*time.Millisecond, "the block was not mended")
}

// damage changes a replica on the disk of chunk server i that holds the bytes,
// and returns the file's name.
func damage(t *testing.T, cluster *dfstest.Cluster, i int, holds []byte) string {
	t.Helper()
	var damaged string
	root := os.DirFS(cluster.ChunkDirectory(i))
	require.NoError(t, fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		name = path.Join(cluster.ChunkDirectory(i), name)
		b, err := os.ReadFile(name)
		if at := bytes.Index(b, holds); err == nil && at >= 0 {
			f, err := os.OpenFile(name, os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			damaged = name
			_, err = f.WriteAt([]byte("damaged"), int64(at))
			return errors.Join(err, f.Close())
		}
		return err
	}))
	require.NotEmpty(t, damaged, "no replica holds the bytes")
	return damaged
}

func TestOneCorruptReplicaIsAnError(t *testing.T) {
	cluster := dfstest.Start(t, dfstest.Options{ChunkServers: 1})
	c := cluster.Dial(client.Options{})
	data := content(100_000)
	write(t, c, "/f", data, client.FileOptions{Mode: 0o644})
	damage(t, cluster, 0, data[20_000:20_100])
	_, err := c.ReadFile(t.Context(), "/f")
	require.ErrorIs(t, err, client.ErrCorrupt)
}

func TestUnsupportedPathsAreRefusedByName(t *testing.T) {
	cluster := dfstest.Start(t, dfstest.Options{ChunkServers: 1})
	_, err := client.Dial(t.Context(), cluster.Meta, client.Options{ReadPath: "nosuch"})
	require.ErrorContains(t, err, "nosuch")
	_, err = client.Dial(t.Context(), cluster.Meta, client.Options{WritePath: "nosuch"})
	require.ErrorContains(t, err, "nosuch")
}

func TestNobodyListens(t *testing.T) {
	_, err := client.Dial(t.Context(), "127.0.0.1:1", client.Options{DialPatience: 50 * time.Millisecond})
	require.ErrorContains(t, err, "127.0.0.1:1")
}

// A change whose context ends on its way may be made later. Once it was waited
// for, what it did can be undone for good.
func TestAChangeThatWasLeftCanBeUndone(t *testing.T) {
	c := dfstest.Start(t, dfstest.Options{ChunkServers: 1}).Dial(client.Options{})
	require.NoError(t, c.Mkdir(t.Context(), "/d", 0o755))
	left := 0
	for i := range 200 {
		path := fmt.Sprint("/d/", i)
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Duration(i%20)*50*time.Microsecond, cancel)
		if err := c.Mkdir(ctx, path, 0o755); errors.Is(err, client.ErrUncertain) {
			require.ErrorIs(t, err, context.Canceled)
			client.AwaitLeft(t.Context(), err)
			left++
		}
		if err := c.Remove(t.Context(), path); !errors.Is(err, fs.ErrNotExist) {
			require.NoError(t, err)
		}
	}
	entries, err := c.ReadDir(t.Context(), "/d")
	require.NoError(t, err)
	require.Empty(t, entries)
	require.NotZero(t, left, "changes that were left")
}

func TestContextsEndOperations(t *testing.T) {
	cluster := dfstest.Start(t, dfstest.Options{ChunkServers: 1})
	c := cluster.Dial(client.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	f, err := c.OpenFile(ctx, "/f", os.O_RDWR|os.O_CREATE, small)
	require.NoError(t, err)
	_, err = f.Write(content(10_000))
	require.NoError(t, err)
	cancel()
	require.ErrorIs(t, f.Close(), context.Canceled, "what was not written is told")
	require.ErrorIs(t, c.Mkdir(ctx, "/d", 0o755), context.Canceled)
	cluster.StopMeta()
	ctx, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, c.Mkdir(ctx, "/d", 0o755), context.DeadlineExceeded)
	_, err = c.Stat(ctx, "/")
	require.ErrorIs(t, err, context.DeadlineExceeded)
	cluster.StartMeta()
}

// A source that says that it was cut short is an error, not a shorter file.
func TestASourceThatIsCutShort(t *testing.T) {
	c := dfstest.Start(t, dfstest.Options{ChunkServers: 1}).Dial(client.Options{})
	for _, size := range []int{0, 10, 300_000} {
		f, err := c.Create(t.Context(), "/file")
		require.NoError(t, err)
		n, err := f.ReadFrom(io.MultiReader(bytes.NewReader(content(size)), iotest.ErrReader(io.ErrUnexpectedEOF)))
		require.ErrorIs(t, err, io.ErrUnexpectedEOF)
		require.EqualValues(t, size, n)
		require.NoError(t, f.Close())
	}
}

// A listing can bring an extended attribute of each entry along.
func TestEntriesWithAnAttribute(t *testing.T) {
	c := dfstest.Start(t, dfstest.Options{ChunkServers: 1}).Dial(client.Options{})
	for _, name := range []string{"/with", "/without"} {
		write(t, c, name, nil, small)
	}
	require.NoError(t, c.SetXattr(t.Context(), "/with", "user.color", []byte("red"), client.XattrAny))
	for _, asked := range []string{"user.color", ""} {
		got := make(map[string]string)
		for entry, err := range c.EntriesWith(t.Context(), "/", asked) {
			require.NoError(t, err)
			got[entry.Name()] = string(entry.Xattr())
		}
		want := map[string]string{"with": "", "without": ""}
		if asked != "" {
			want["with"] = "red"
		}
		require.Equal(t, want, got)
	}
}
