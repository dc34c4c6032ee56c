package transfer

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"waggle/dfs/client"
	"waggle/dfs/dfstest"
	"waggle/dfs/wire"
)

func TestAPartialFileTellsWhetherItsCopyRuns(t *testing.T) {
	name := filepath.Base(partialName("/d/f"))
	require.NotEqual(t, name, filepath.Base(partialName("/d/f")), "two copies of one process")
	require.NoError(t, wire.CheckName([]byte(name)))
	o, ok := parsePartial(name)
	require.True(t, ok)
	require.Equal(t, thisProcess(), o)
	require.NotZero(t, o.start)
	require.False(t, isAbandoned(entry{name: name}))

	child := exec.Command("sleep", "1000")
	require.NoError(t, child.Start())
	start, alive := startOf(child.Process.Pid)
	require.True(t, alive)
	ofChild := func(host string, start uint64) entry {
		return entry{name: fmt.Sprintf("%s%s-%d-%d-1", partialPrefix, host, child.Process.Pid, start), changed: time.Now()}
	}
	require.False(t, isAbandoned(ofChild(o.host, start)))
	require.True(t, isAbandoned(ofChild(o.host, start-1)), "the process id was given again")
	require.NoError(t, child.Process.Kill())
	child.Wait()
	require.True(t, isAbandoned(ofChild(o.host, start)))
	elsewhere := ofChild("0123456789abcdef", start)
	require.False(t, isAbandoned(elsewhere), "of another host")
	elsewhere.changed = time.Now().Add(-2 * abandonedAfter)
	require.True(t, isAbandoned(elsewhere))

	for _, name := range []string{"", "f", partialPrefix, partialPrefix + "0123456789abcdef", partialPrefix + "0123456789abcdef-1-2-3-4",
		partialPrefix + "0123456789abcdef-1-x-3", partialPrefix + "0-1-2-3"} {
		_, ok := parsePartial(name)
		require.False(t, ok, name)
	}
}

func TestWhatADeadCopyHasLeftIsRemovedByTheNext(t *testing.T) {
	c := dfstest.Start(t, dfstest.Options{ChunkServers: 1}).Dial(client.Options{})
	ctx, local := t.Context(), filepath.Join(t.TempDir(), "tree")
	require.NoError(t, os.MkdirAll(local, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(local, "f"), make([]byte, 5000), 0o600))
	dead := fmt.Sprintf("%s%s-%d-1-1", partialPrefix, thisProcess().host, os.Getpid())
	for _, dir := range []string{"/", "/tree/"} {
		require.NoError(t, c.MkdirAll(ctx, dir, 0o755))
		require.NoError(t, c.WriteFile(ctx, dir+dead, make([]byte, 5000), 0o644))
	}
	_, err := Put(ctx, c, local, "/tree", Options{})
	require.NoError(t, err)
	_, err = Put(ctx, c, filepath.Join(local, "f"), "/f", Options{})
	require.NoError(t, err)
	for _, dir := range []string{"/", "/tree/"} {
		_, err := c.Stat(ctx, dir+dead)
		require.ErrorIs(t, err, os.ErrNotExist, dir)
	}
}
