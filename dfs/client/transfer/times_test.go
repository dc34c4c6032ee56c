package transfer

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"waggle/dfs/client"
	"waggle/dfs/dfstest"
)

func TestTimesAreComparedAsExactlyAsTheCoarserSideKeepsThem(t *testing.T) {
	at := time.Unix(1000, 123456789)
	coarse := entry{modified: time.Unix(1000, 0), grain: time.Second}
	require.True(t, sameTime(entry{modified: at, grain: 1}, coarse))
	require.True(t, sameTime(coarse, entry{modified: at, grain: 1}))
	require.False(t, sameTime(entry{modified: at.Add(time.Second), grain: 1}, coarse))
	require.False(t, sameTime(entry{modified: at, grain: 1}, entry{modified: at.Add(1), grain: 1}))
	require.True(t, sameTime(entry{modified: time.Unix(-3, 5)}, entry{modified: time.Unix(-4, 0), grain: fatGrain}))

	changed := time.Unix(2000, 7)
	require.Equal(t, time.Nanosecond, grainOf("/", time.Unix(1000, 0), changed), "set to a whole second")
	require.Equal(t, time.Second, grainOf("/", time.Unix(1001, 0), time.Unix(2000, 0)))
	require.Equal(t, 100*time.Nanosecond, grainOf("/", time.Unix(0, 300), time.Unix(0, 700)))
}

// TestACopyOnADiskOfWholeSecondsIsSkipped mounts one: ext4 with inodes that
// have no room for more.
func TestACopyOnADiskOfWholeSecondsIsSkipped(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting takes root")
	}
	mkfs, err := exec.LookPath("mkfs.ext4")
	if err != nil {
		t.Skip("mkfs.ext4 is not installed")
	}
	disk, image := t.TempDir(), filepath.Join(t.TempDir(), "image")
	require.NoError(t, os.WriteFile(image, nil, 0o600))
	require.NoError(t, os.Truncate(image, 8<<20))
	out, err := exec.Command(mkfs, "-q", "-I", "128", image).CombinedOutput()
	require.NoError(t, err, "%s", out)
	if out, err := exec.Command("mount", "-o", "loop", image, disk).CombinedOutput(); err != nil {
		t.Skipf("no loop device can be mounted: %s", out)
	}
	defer func() { require.NoError(t, unix.Unmount(disk, 0)) }()

	c := dfstest.Start(t, dfstest.Options{ChunkServers: 1}).Dial(client.Options{})
	require.NoError(t, c.WriteFileWith(t.Context(), "/f", make([]byte, 5000), client.FileOptions{Mode: 0o644, Modified: time.Unix(1001, 5)}))
	copied := filepath.Join(disk, "f")
	first, err := Get(t.Context(), c, "/f", copied, Options{})
	require.NoError(t, err)
	require.EqualValues(t, 1, first.Files)
	for range 2 {
		again, err := Get(t.Context(), c, "/f", copied, Options{})
		require.NoError(t, err)
		require.EqualValues(t, 1, again.SkippedFiles)
		again, err = Put(t.Context(), c, copied, "/f", Options{})
		require.NoError(t, err)
		require.EqualValues(t, 1, again.SkippedFiles)
	}
	for _, beyond := range []time.Time{time.Date(1700, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC)} {
		require.NoError(t, c.Chtimes(t.Context(), "/f", beyond))
		for copies := range 2 { // the disk counts seconds in 32 bits
			summary, err := Get(t.Context(), c, "/f", copied, Options{})
			require.NoError(t, err)
			require.EqualValues(t, copies, summary.SkippedFiles, beyond)
		}
	}
	require.NoError(t, c.Chtimes(t.Context(), "/f", time.Unix(1002, 5)))
	changed, err := Get(t.Context(), c, "/f", copied, Options{})
	require.NoError(t, err)
	require.EqualValues(t, 1, changed.Files)
}
