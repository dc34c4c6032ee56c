package client_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"waggle/bpf/sockmap"
	"waggle/dfs/chunk"
	"waggle/dfs/client"
	"waggle/dfs/datapath"
	"waggle/dfs/datapath/pathtest"
	"waggle/dfs/datapath/read"
	"waggle/dfs/dfstest"
	"waggle/dfs/wire"
)

// eachReadPath runs f with a cluster and a client for every read path that this
// machine supports.
func eachReadPath(t *testing.T, chunkServers int, f func(t *testing.T, cluster *dfstest.Cluster, c *client.Client)) {
	for _, p := range read.Paths.All() {
		info := p.About()
		t.Run(info.Name, func(t *testing.T) {
			pathtest.SkipUnlessSupported(t, info)
			config := chunk.Config{PeerTimeout: 2 * time.Second}
			if info.EBPF {
				group, err := sockmap.NewCgroup()
				require.NoError(t, err)
				t.Cleanup(func() { assert.NoError(t, group.Close()) })
				require.NoError(t, group.Enter(os.Getpid()))
				config.SockmapCgroup = group.Path()
			}
			cluster := dfstest.Start(t, dfstest.Options{ChunkServers: chunkServers, Chunk: config})
			c := cluster.Dial(client.Options{ReadPath: info.Name, Patience: 5 * time.Second})
			if info.BetweenHosts {
				requireRefused(t, c)
				return
			}
			f(t, cluster, c)
		})
	}
}

// requireRefused checks that a path between hosts is not taken within one, and that
// nothing else is taken instead.
func requireRefused(t *testing.T, c *client.Client) {
	t.Helper()
	write(t, c, "/refused", content(10_000), small)
	_, err := c.ReadFile(t.Context(), "/refused")
	require.ErrorIs(t, err, client.ErrUnsupported)
	require.ErrorContains(t, err, "one host")
}

// requireProof checks that the path was taken, as the servers or the client counted.
func requireProof(t *testing.T, path string, counts ...*datapath.Counters) {
	t.Helper()
	p, err := read.Paths.Get(path)
	require.NoError(t, err)
	for _, name := range p.About().Proof {
		require.Eventually(t, func() bool { // the client has the last byte before the server counts it
			var n int64
			for _, c := range counts {
				n += c.Snapshot()[name]
			}
			return n > 0
		}, 10*time.Second, time.Millisecond, name)
	}
}

// All paths pass one suite: what is written is read, at every alignment.
func TestEveryReadPathReadsWhatWasWritten(t *testing.T) {
	eachReadPath(t, 2, func(t *testing.T, cluster *dfstest.Cluster, c *client.Client) {
		data := content(3<<20 + 77)
		write(t, c, "/file", data, client.FileOptions{Mode: 0o644, ChunkSize: 1 << 20, Replication: 1})
		requireContent(t, c, "/file", data)
		f, err := c.OpenFile(t.Context(), "/file", os.O_RDWR, client.FileOptions{})
		require.NoError(t, err)
		defer f.Close()
		for _, at := range []struct{ offset, length int }{{0, 1}, {4095, 2}, {4096, 4096}, {1<<20 - 5, 10}, {300_000, 900_001}, {3 << 20, 77}} {
			got := make([]byte, at.length)
			_, err := f.ReadAt(got, int64(at.offset))
			require.NoError(t, err)
			require.True(t, bytes.Equal(data[at.offset:][:at.length], got), "%d bytes at %d", at.length, at.offset)
		}
		// What was acknowledged is read, also behind the old end.
		for i, at := range []int{0, 5000, len(data)} {
			more := bytes.Repeat([]byte{byte(i + 1)}, 9000)
			_, err := f.WriteAt(more, int64(at))
			require.NoError(t, err)
			got := make([]byte, len(more))
			_, err = f.ReadAt(got, int64(at))
			require.NoError(t, err)
			require.True(t, bytes.Equal(more, got), "written at %d", at)
		}
		require.NoError(t, f.Truncate(4097))
		write(t, c, "/other", data[:5000], small)
		requireContent(t, c, "/other", data[:5000])
		got, err := c.ReadFile(t.Context(), "/file")
		require.NoError(t, err)
		require.Len(t, got, 4097)
		requireProof(t, path.Base(t.Name()), cluster.Counters(0), cluster.Counters(1), c.Counters())
	})
}

// Reading from front to back takes the path, too, and no other beside it.
func TestStreamsTakeThePath(t *testing.T) {
	cluster := dfstest.Start(t, dfstest.Options{ChunkServers: 1})
	c := cluster.Dial(client.Options{ReadPath: read.ShortCircuit})
	data := content(3<<20 + 77)
	write(t, c, "/file", data, client.FileOptions{Mode: 0o644, ChunkSize: 1 << 20})
	f, err := c.Open(t.Context(), "/file")
	require.NoError(t, err)
	defer f.Close()
	got, err := io.ReadAll(f)
	require.NoError(t, err)
	require.True(t, bytes.Equal(data, got))
	require.GreaterOrEqual(t, c.Counters().Snapshot()["read_shortcircuit_bytes"], int64(len(data)))
	require.Zero(t, cluster.Counters(0).Snapshot()["read_copy_bytes"])
}

// A block that is overwritten while it is on its way is either the old or the
// new one, on every path.
func TestOverwrittenWhileItIsRead(t *testing.T) {
	eachReadPath(t, 1, func(t *testing.T, cluster *dfstest.Cluster, c *client.Client) {
		const size = 512 << 10
		write(t, c, "/file", make([]byte, size), client.FileOptions{Mode: 0o644, ChunkSize: 1 << 20})
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		writer := cluster.Dial(client.Options{})
		written := make(chan error, 1)
		go func() { written <- overwrite(ctx, writer, size) }()
		f, err := c.Open(t.Context(), "/file")
		require.NoError(t, err)
		defer f.Close()
		got, reads := make([]byte, size), 0
		for ; ctx.Err() == nil; reads++ {
			_, err := f.ReadAt(got, 0)
			require.NoError(t, err)
			for at := 0; at < size; at += wire.BlockSize {
				block := got[at:][:wire.BlockSize]
				require.Equal(t, wire.BlockSize, bytes.Count(block, block[:1]), "the block at %d is torn", at)
			}
		}
		require.NoError(t, <-written)
		require.Positive(t, reads)
	})
}

// overwrite fills the file with one byte after another until ctx ends.
func overwrite(ctx context.Context, c *client.Client, size int) error {
	f, err := c.OpenFile(context.Background(), "/file", os.O_RDWR, client.FileOptions{})
	if err != nil {
		return err
	}
	for fill := byte(1); ctx.Err() == nil && err == nil; fill++ {
		_, err = f.WriteAt(bytes.Repeat([]byte{fill}, size), 0)
	}
	return errors.Join(err, f.Close())
}

// dataFiles are the replicas that chunk server i holds.
func dataFiles(t *testing.T, cluster *dfstest.Cluster, i int) []string {
	files, err := filepath.Glob(filepath.Join(cluster.ChunkDirectory(i), "replicas", "*", "*.data"))
	require.NoError(t, err)
	require.NotEmpty(t, files)
	return files
}

// A replica that is damaged behind its server's back is never believed: the
// bytes come from the other one.
func TestDamagedReplicas(t *testing.T) {
	for name, damage := range map[string]func(path string) error{
		"overwritten": func(path string) error {
			f, err := os.OpenFile(path, os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			_, err = f.WriteAt([]byte("damage"), 70_000)
			return errors.Join(err, f.Close())
		},
		"truncated": func(path string) error { return os.Truncate(path, 70_000) },
		"deleted":   os.Remove,
	} {
		t.Run(name, func(t *testing.T) {
			eachReadPath(t, 2, func(t *testing.T, cluster *dfstest.Cluster, c *client.Client) {
				data := content(300_000)
				write(t, c, "/file", data, client.FileOptions{Mode: 0o644, ChunkSize: 1 << 20, Replication: 2})
				requireContent(t, c, "/file", data)
				for _, path := range dataFiles(t, cluster, 0) {
					require.NoError(t, damage(path))
				}
				for range 6 { // the replica is chosen at random
					requireContent(t, c, "/file", data)
				}
			})
		})
	}
}

// A block that is torn whenever it is asked for is asked for again, at last as a
// locked copy, whatever the path; only then is the replica taken for corrupt.
func TestATornBlockIsCopiedAtLast(t *testing.T) {
	eachReadPath(t, 2, func(t *testing.T, cluster *dfstest.Cluster, c *client.Client) {
		data := content(300_000)
		write(t, c, "/file", data, client.FileOptions{Mode: 0o644, ChunkSize: 1 << 20, Replication: 2})
		for _, path := range dataFiles(t, cluster, 0) {
			f, err := os.OpenFile(path, os.O_WRONLY, 0)
			require.NoError(t, err)
			_, err = f.WriteAt([]byte("damage"), 70_000)
			require.NoError(t, errors.Join(err, f.Close()))
		}
		copied := func() int64 { return cluster.Counters(0).Snapshot()["read_copy_bytes"] }
		before := copied()
		require.Eventually(t, func() bool { // the replica is chosen at random
			requireContent(t, c, "/file", data)
			return c.Counters().Snapshot()["client_corrupt_blocks"] > 0
		}, 5*time.Second, time.Millisecond)
		// The client has the last byte before the server counts it.
		require.Eventually(t, func() bool { return copied() > before }, 10*time.Second, time.Millisecond, "no locked copy was made")
	})
}

// A file that is removed while it is open gives what it held, or an error, and
// one of the same name what is in it now.
func TestRemovedWhileItIsOpen(t *testing.T) {
	eachReadPath(t, 1, func(t *testing.T, cluster *dfstest.Cluster, c *client.Client) {
		data := content(300_000)
		write(t, c, "/file", data, small)
		f, err := c.Open(t.Context(), "/file")
		require.NoError(t, err)
		defer f.Close()
		got := make([]byte, len(data))
		_, err = f.ReadAt(got, 0)
		require.NoError(t, err)
		require.NoError(t, c.Remove(t.Context(), "/file"))
		write(t, c, "/file", data[1000:], small)
		requireContent(t, c, "/file", data[1000:])
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		removed, err := c.Open(ctx, "/file")
		require.NoError(t, err)
		require.NoError(t, removed.Close())
		clear(got)
		if n, err := f.ReadAt(got, 0); err == nil {
			require.True(t, bytes.Equal(data, got[:n]))
		}
		_, err = c.Stat(t.Context(), "/none")
		require.ErrorIs(t, err, fs.ErrNotExist)
	})
}

// Readers go on when a chunk server comes back.
func TestServerComesBack(t *testing.T) {
	eachReadPath(t, 1, func(t *testing.T, cluster *dfstest.Cluster, c *client.Client) {
		data := content(200_000)
		write(t, c, "/file", data, small)
		requireContent(t, c, "/file", data)
		cluster.StopChunkServer(0)
		cluster.StartChunkServer(0)
		requireContent(t, c, "/file", data)
	})
}
