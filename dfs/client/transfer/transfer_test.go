package transfer_test

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"waggle/dfs/client"
	"waggle/dfs/client/transfer"
	"waggle/dfs/dfstest"
)

func TestACopyGoesOnAfterAnInterruption(t *testing.T) {
	c := dfstest.Start(t, dfstest.Options{ChunkServers: 1}).Dial(client.Options{})
	local := filepath.Join(t.TempDir(), "tree")
	for i := range 60 {
		dir := filepath.Join(local, fmt.Sprint(i%7))
		require.NoError(t, os.MkdirAll(dir, 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), bytes.Repeat([]byte{byte(i)}, i*700), 0o600))
	}
	ctx, cancel := context.WithCancel(t.Context())
	progress := new(transfer.Progress)
	go func() {
		for progress.DoneFiles.Load() < 10 {
			time.Sleep(time.Millisecond)
		}
		cancel()
	}()
	_, err := transfer.Put(ctx, c, local, "/tree", transfer.Options{Workers: 4, Progress: progress})
	require.ErrorIs(t, err, context.Canceled)

	first, err := transfer.Put(t.Context(), c, local, "/tree", transfer.Options{})
	require.NoError(t, err)
	require.EqualValues(t, 60, first.Files+first.SkippedFiles)
	require.GreaterOrEqual(t, first.SkippedFiles, int64(10))
	again, err := transfer.Put(t.Context(), c, local, "/tree", transfer.Options{})
	require.NoError(t, err)
	require.Zero(t, again.Files)
	require.EqualValues(t, 8, again.Directories)
	require.Empty(t, partials(t, c.FS(t.Context())))

	back := filepath.Join(t.TempDir(), "back")
	_, err = transfer.Get(t.Context(), c, "/tree", back, transfer.Options{})
	require.NoError(t, err)
	for i := range 60 {
		got, err := os.ReadFile(filepath.Join(back, fmt.Sprint(i%7), fmt.Sprint(i)))
		require.NoError(t, err)
		require.Equal(t, bytes.Repeat([]byte{byte(i)}, i*700), got)
	}
	require.Empty(t, partials(t, os.DirFS(back)))
}

func partials(t *testing.T, root fs.FS) (found []string) {
	require.NoError(t, fs.WalkDir(root, ".", func(name string, _ fs.DirEntry, err error) error {
		if strings.Contains(name, ".waggle-partial-") {
			found = append(found, name)
		}
		return err
	}))
	return found
}

func TestWhatIsThereIsReplacedButNeverFollowed(t *testing.T) {
	c := dfstest.Start(t, dfstest.Options{ChunkServers: 1}).Dial(client.Options{})
	ctx := t.Context()
	local := filepath.Join(t.TempDir(), "tree")
	require.NoError(t, os.MkdirAll(local, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(local, "f"), []byte("new"), 0o600))
	require.NoError(t, os.Symlink("new", filepath.Join(local, "l")))
	require.NoError(t, c.Mkdir(ctx, "/tree", 0o755))
	require.NoError(t, c.WriteFile(ctx, "/outside", []byte("untouched"), 0o644))
	require.NoError(t, c.Symlink(ctx, "/outside", "/tree/f"))
	require.NoError(t, c.WriteFile(ctx, "/tree/l", []byte("a file"), 0o644))

	_, err := transfer.Put(ctx, c, local, "/tree", transfer.Options{})
	require.NoError(t, err)
	got, err := c.ReadFile(ctx, "/outside")
	require.NoError(t, err)
	require.Equal(t, "untouched", string(got))
	got, err = c.ReadFile(ctx, "/tree/f")
	require.NoError(t, err)
	require.Equal(t, "new", string(got))
	target, err := c.Readlink(ctx, "/tree/l")
	require.NoError(t, err)
	require.Equal(t, "new", target)

	require.NoError(t, c.Remove(ctx, "/tree/f"))
	require.NoError(t, c.Mkdir(ctx, "/tree/f", 0o755))
	_, err = transfer.Put(ctx, c, local, "/tree", transfer.Options{})
	require.ErrorContains(t, err, "directory")
	_, err = transfer.Put(ctx, c, filepath.Join(local, "none"), "/x", transfer.Options{})
	require.ErrorIs(t, err, fs.ErrNotExist)
}
