package client_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"waggle/dfs/client"
	"waggle/dfs/dfstest"
	"waggle/dfs/wire/control"
)

const mib = 1 << 20

// endSession ends a client's session behind its back, as happens when it is paused
// or cut off for too long.
func endSession(t *testing.T, cluster *dfstest.Cluster, c *client.Client) {
	t.Helper()
	conn, err := grpc.NewClient(cluster.Meta, grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	defer conn.Close()
	_, err = control.NewMetaClient(conn).CloseSession(t.Context(), &control.SessionID{Session: c.Session()})
	require.NoError(t, err)
}

func openNew(t *testing.T, c *client.Client, path string) *client.File {
	t.Helper()
	f, err := c.OpenFile(t.Context(), path, os.O_RDWR|os.O_CREATE, client.FileOptions{Mode: 0o644, ChunkSize: 4 * mib})
	require.NoError(t, err)
	return f
}

func writeAt(t *testing.T, f *client.File, data []byte, offset int64) {
	t.Helper()
	_, err := f.WriteAt(data, offset)
	require.NoError(t, err)
}

func TestWhatWasAcknowledgedOutlivesTheSession(t *testing.T) {
	cluster := dfstest.Start(t, dfstest.Options{})
	c, other := cluster.Dial(client.Options{}), cluster.Dial(client.Options{})
	f := openNew(t, c, "/f")
	writeAt(t, f, content(mib), 0)
	endSession(t, cluster, c)
	require.Eventually(t, func() bool { // nobody has said the size, but it was acknowledged
		info, err := other.Stat(t.Context(), "/f")
		return err == nil && info.Size() == mib
	}, 20*time.Second, 5*time.Millisecond)
	require.NoError(t, f.Close())
	requireContent(t, other, "/f", content(mib))

	f = openNew(t, c, "/f")
	writeAt(t, f, content(mib), mib)
	endSession(t, cluster, c)
	writeAt(t, f, content(mib), 2*mib) // goes on under another session
	require.NoError(t, f.Close())
	requireContent(t, other, "/f", bytes.Repeat(content(mib), 3))
}

func TestAWriterIsToldThatAnotherHasWrittenSince(t *testing.T) {
	cluster := dfstest.Start(t, dfstest.Options{})
	c, other := cluster.Dial(client.Options{}), cluster.Dial(client.Options{})
	f := openNew(t, c, "/f")
	writeAt(t, f, content(mib), 0)
	require.NoError(t, f.Sync())
	writeAt(t, f, content(1000), mib)
	endSession(t, cluster, c)
	g := openNew(t, other, "/f")
	writeAt(t, g, content(1000), 2*mib)
	require.NoError(t, g.Close())

	err := f.Sync()
	require.ErrorIs(t, err, client.ErrLost)
	var lost *client.LostError
	require.ErrorAs(t, err, &lost)
	require.Equal(t, [2]uint64{mib, 1000}, [2]uint64{lost.Offset, lost.Length})
	_, err = f.WriteAt([]byte("more"), 0)
	require.ErrorIs(t, err, client.ErrLost)
	require.ErrorIs(t, f.Close(), client.ErrLost)
}

// powerLoss gives a chunk server the replicas back that it had when saved was
// called: what was not on its disk then is gone.
func savedDisk(t *testing.T, cluster *dfstest.Cluster, i int) (powerLoss func()) {
	t.Helper()
	saved := filepath.Join(t.TempDir(), "saved")
	out, err := exec.Command("cp", "-a", cluster.ChunkDirectory(i), saved).CombinedOutput()
	require.NoError(t, err, "%s", out)
	return func() {
		cluster.StopChunkServer(i)
		require.NoError(t, os.RemoveAll(cluster.ChunkDirectory(i)))
		out, err := exec.Command("cp", "-a", saved, cluster.ChunkDirectory(i)).CombinedOutput()
		require.NoError(t, err, "%s", out)
		cluster.StartChunkServer(i)
	}
}

func TestAWriterIsToldWhatTheOnlyReplicaHasLost(t *testing.T) {
	for name, use := range map[string]func(f *client.File) error{
		"sync":  (*client.File).Sync,
		"close": (*client.File).Close,
		"write": func(f *client.File) error { _, err := f.WriteAt([]byte("more"), 3*mib); return err },
	} {
		t.Run(name, func(t *testing.T) {
			cluster := dfstest.Start(t, dfstest.Options{ChunkServers: 1})
			c := cluster.Dial(client.Options{})
			f := openNew(t, c, "/f")
			writeAt(t, f, content(mib), 0)
			require.NoError(t, f.Sync())
			powerLoss := savedDisk(t, cluster, 0)
			writeAt(t, f, content(mib), mib)
			powerLoss()

			err := use(f)
			require.ErrorIs(t, err, client.ErrLost)
			var lost *client.LostError
			require.ErrorAs(t, err, &lost)
			require.Equal(t, [2]uint64{mib, mib}, [2]uint64{lost.Offset, lost.Length})
			if name != "close" {
				require.ErrorIs(t, f.Close(), client.ErrLost)
			}
			got := make([]byte, mib)
			g, err := c.Open(t.Context(), "/f")
			require.NoError(t, err)
			_, err = g.ReadAt(got, 0)
			require.NoError(t, err)
			requireSame(t, content(mib), got)
			require.NoError(t, g.Close())
		})
	}
}

// The lease is given back while the file is open, and then one of three machines
// loses power.
func TestNoReaderGetsZerosForWhatAReplicaHasLost(t *testing.T) {
	cluster := dfstest.Start(t, dfstest.Options{})
	c := cluster.Dial(client.Options{LeaseIdle: 10 * time.Millisecond})
	f := openNew(t, c, "/f")
	writeAt(t, f, []byte("begun"), 0)
	require.NoError(t, f.Sync())
	powerLoss := savedDisk(t, cluster, 0)
	writeAt(t, f, content(mib), 0)
	info, err := f.Stat()
	require.NoError(t, err)
	require.EqualValues(t, mib, info.Size())
	other := cluster.Dial(client.Options{})
	g := openNew(t, other, "/f") // has the lease only when the other has given it back
	writeAt(t, g, content(mib)[:100], 0)
	require.NoError(t, g.Close())
	powerLoss()

	for range 40 { // the replica is chosen at random
		fresh, err := other.ReadFile(t.Context(), "/f")
		require.NoError(t, err)
		requireSame(t, content(mib), fresh)
	}
	require.NoError(t, f.Close())
}

func TestRecordsOfTwoClientsAreAllThere(t *testing.T) {
	cluster := dfstest.Start(t, dfstest.Options{})
	options := client.FileOptions{Mode: 0o644, ChunkSize: 64 << 10}
	const flags = os.O_WRONLY | os.O_CREATE | os.O_APPEND
	clients := []*client.Client{cluster.Dial(client.Options{}), cluster.Dial(client.Options{})}

	t.Run("in turn", func(t *testing.T) {
		var files []*client.File
		for _, c := range clients {
			f, err := c.OpenFile(t.Context(), "/turns", flags, options)
			require.NoError(t, err)
			files = append(files, f)
		}
		var want []byte
		for i := range 16 {
			record := content(1 + i*3000)
			_, err := files[i%2].Write(record)
			require.NoError(t, err)
			require.NoError(t, files[i%2].Sync())
			want = append(want, record...)
		}
		for _, f := range files {
			require.NoError(t, f.Close())
		}
		requireContent(t, clients[0], "/turns", want)
	})

	t.Run("at once", func(t *testing.T) {
		const each, size = 15, 9000
		var all sync.WaitGroup
		for who, c := range clients {
			all.Go(func() {
				for i := range each {
					record := bytes.Repeat(fmt.Appendf(nil, "%d:%02d|", who, i), size/5)
					at, err := c.Append(t.Context(), "/log", record)
					if err != nil || at%size != 0 {
						t.Error(at, err)
					}
				}
			})
		}
		all.Wait()
		got, err := clients[0].ReadFile(t.Context(), "/log")
		require.NoError(t, err)
		require.Len(t, got, 2*each*size)
		next := [2]int{}
		for ; len(got) > 0; got = got[size:] {
			who := int(got[0] - '0')
			want := bytes.Repeat(fmt.Appendf(nil, "%d:%02d|", who, next[who]), size/5)
			require.True(t, bytes.Equal(want, got[:size]), "each record whole, those of one client in their order: %.20q", got)
			next[who]++
		}
	})
}

// All servers lose power just after a chunk was made.
func TestANewChunkThatNoServerHasIsMadeAgain(t *testing.T) {
	cluster := dfstest.Start(t, dfstest.Options{ChunkServers: 1})
	c := cluster.Dial(client.Options{})
	powerLoss := savedDisk(t, cluster, 0)
	f := openNew(t, c, "/f")
	writeAt(t, f, content(1000), 0)
	writeAt(t, f, content(2000), 1000)
	powerLoss()
	var lost *client.LostError
	require.ErrorAs(t, f.Sync(), &lost)
	require.Equal(t, [2]uint64{0, 3000}, [2]uint64{lost.Offset, lost.Length})
	require.ErrorIs(t, f.Close(), client.ErrLost)
	f = openNew(t, c, "/f")
	writeAt(t, f, content(mib), 0)
	require.NoError(t, f.Close())
	requireContent(t, c, "/f", content(mib))
}
