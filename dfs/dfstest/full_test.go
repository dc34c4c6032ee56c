package dfstest

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"waggle/dfs/client"
)

// smallDisk is a file system of so many MiB.
func smallDisk(t *testing.T, mib int) string {
	if os.Getuid() != 0 {
		t.Skip("needs root to mount a small file system")
	}
	directory := t.TempDir()
	require.NoError(t, unix.Mount("tmpfs", directory, "tmpfs", 0, fmt.Sprintf("size=%dm", mib)))
	t.Cleanup(func() { require.NoError(t, unix.Unmount(directory, 0)) })
	return directory
}

// TestChunkServersWithFullDisks fills them, and demands a clear refusal, that
// nothing stored before is harmed, and that it goes on once there is room.
func TestChunkServersWithFullDisks(t *testing.T) {
	cluster := Start(t, Options{ChunkServers: 2, ChunkDirectory: smallDisk(t, 12)})
	c := cluster.Dial(client.Options{Patience: 2 * time.Second})
	kept := bytes.Repeat([]byte("kept"), 1<<18)
	require.NoError(t, c.WriteFile(t.Context(), "/kept", kept, 0o644))
	err := c.WriteFile(t.Context(), "/large", make([]byte, 16<<20), 0o644)
	require.ErrorIs(t, err, syscall.ENOSPC)
	got, err := c.ReadFile(t.Context(), "/kept")
	require.NoError(t, err)
	require.True(t, bytes.Equal(kept, got))

	require.NoError(t, c.Remove(t.Context(), "/large"))
	require.Eventually(t, func() bool { // replicas are deleted in the background
		return c.WriteFile(t.Context(), "/again", kept, 0o644) == nil
	}, 30*time.Second, 100*time.Millisecond)
	got, err = c.ReadFile(t.Context(), "/again")
	require.NoError(t, err)
	require.True(t, bytes.Equal(kept, got))
	awaitClean(t, c)
}

// TestAMetadataServerWithAFullDisk demands the same of the metadata server,
// which has to stay up.
func TestAMetadataServerWithAFullDisk(t *testing.T) {
	disk := smallDisk(t, 256)
	cluster := Start(t, Options{ChunkServers: 1, MetaDirectory: disk})
	c := cluster.Dial(client.Options{})
	require.NoError(t, c.WriteFile(t.Context(), "/small", []byte("kept"), 0o644))
	large := bytes.Repeat([]byte("kept"), 1<<10)
	require.NoError(t, c.WriteFile(t.Context(), "/large", large, 0o644))

	ballast := filepath.Join(disk, "ballast")
	err := os.WriteFile(ballast, make([]byte, 140<<20), 0o600)
	require.NoError(t, err)
	for i := 0; err == nil; i++ { // the server looks ten times a second
		err = c.Mkdir(t.Context(), fmt.Sprint("/d", i), 0o755)
	}
	for _, err := range []error{
		err,
		c.Mkdir(t.Context(), "/other", 0o755),
		c.WriteFile(t.Context(), "/new", []byte("new"), 0o644),
		c.Symlink(t.Context(), "/small", "/link"),
	} {
		require.ErrorIs(t, err, syscall.ENOSPC)
		require.ErrorContains(t, err, "metadata server's disk")
	}
	got, err := c.ReadFile(t.Context(), "/large")
	require.NoError(t, err)
	require.Equal(t, large, got)
	require.NoError(t, c.Remove(t.Context(), "/large"), "what makes room must be possible")

	require.NoError(t, os.Remove(ballast))
	require.Eventually(t, func() bool {
		return c.WriteFile(t.Context(), "/again", large, 0o644) == nil
	}, 10*time.Second, 50*time.Millisecond)
	cluster.StopMeta()
	cluster.StartMeta()
	for name, want := range map[string][]byte{"/small": []byte("kept"), "/again": large} {
		got, err := c.ReadFile(t.Context(), name)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	awaitClean(t, c)
}
