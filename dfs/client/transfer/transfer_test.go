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
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"waggle/dfs/client"
	"waggle/dfs/client/transfer"
	"waggle/dfs/dfstest"
	"waggle/dfs/wire"
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
	var failed []string
	_, err = transfer.Put(ctx, c, local, "/tree", failures(&failed))
	require.ErrorIs(t, err, transfer.ErrIncomplete)
	require.Len(t, failed, 1)
	require.Contains(t, failed[0], "directory")
	_, err = transfer.Put(ctx, c, filepath.Join(local, "none"), "/x", transfer.Options{})
	require.ErrorIs(t, err, fs.ErrNotExist)
}

// failures gathers what a copy could not copy.
func failures(list *[]string) transfer.Options {
	return transfer.Options{Failed: func(err error) { *list = append(*list, err.Error()) }}
}

func TestAnEntryThatCannotBeCopiedIsNamedAndTheRestIsCopied(t *testing.T) {
	c := dfstest.Start(t, dfstest.Options{ChunkServers: 1}).Dial(client.Options{})
	ctx := t.Context()
	local := filepath.Join(t.TempDir(), "tree")
	require.NoError(t, os.MkdirAll(filepath.Join(local, "below"), 0o755))
	for i := range 30 {
		require.NoError(t, os.WriteFile(filepath.Join(local, fmt.Sprint("f", i)), make([]byte, i*100), 0o600))
		require.NoError(t, os.WriteFile(filepath.Join(local, "below", fmt.Sprint("f", i)), []byte("small"), 0o600))
	}
	for _, inTheWay := range []string{"/tree/f5", "/tree/f25", "/tree/below/f7"} {
		require.NoError(t, c.MkdirAll(ctx, inTheWay, 0o755))
	}
	var failed []string
	summary, err := transfer.Put(ctx, c, local, "/tree", failures(&failed))
	require.ErrorIs(t, err, transfer.ErrIncomplete)
	require.ErrorContains(t, err, "3 of 62 entries")
	require.EqualValues(t, 57, summary.Files)
	require.EqualValues(t, 3, summary.Failed)
	require.Len(t, failed, 3)
	require.Contains(t, strings.Join(failed, "\n"), "/tree/below/f7 exists and is a directory")

	back := filepath.Join(t.TempDir(), "back")
	require.NoError(t, os.MkdirAll(filepath.Join(back, "f29"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(back, "below"), nil, 0o600))
	failed = nil
	summary, err = transfer.Get(ctx, c, "/tree", back, failures(&failed))
	require.ErrorIs(t, err, transfer.ErrIncomplete)
	require.EqualValues(t, 27, summary.Files)
	require.Len(t, failed, 2, "f29, and the directory below, once")
}

func TestAPipeIsLeftOutOfATreeAndRefusedByItself(t *testing.T) {
	c := dfstest.Start(t, dfstest.Options{ChunkServers: 1}).Dial(client.Options{})
	local := filepath.Join(t.TempDir(), "tree")
	require.NoError(t, os.MkdirAll(local, 0o755))
	pipe := filepath.Join(local, "pipe")
	require.NoError(t, unix.Mkfifo(pipe, 0o600))
	var left []string
	summary, err := transfer.Put(t.Context(), c, local, "/tree", transfer.Options{LeftOut: func(path string) { left = append(left, path) }})
	require.NoError(t, err)
	require.Equal(t, []string{pipe}, left)
	require.EqualValues(t, 1, summary.Special)
	_, err = transfer.Put(t.Context(), c, pipe, "/pipe", transfer.Options{})
	require.ErrorIs(t, err, transfer.ErrSpecial)
}

// blocksOf returns how many bytes a file takes of its disk.
func blocksOf(t *testing.T, path string) int64 {
	var s unix.Stat_t
	require.NoError(t, unix.Stat(path, &s))
	return s.Blocks * 512
}

func TestHolesStayHoles(t *testing.T) {
	cluster := dfstest.Start(t, dfstest.Options{ChunkServers: 1})
	c := cluster.Dial(client.Options{})
	local := t.TempDir()
	for name, at := range map[string][]int64{"begins and ends with holes": {10<<20 + 77, 40 << 20}, "all hole": nil, "ends with data": {63 << 20}} {
		path := filepath.Join(local, name)
		f, err := os.Create(path)
		require.NoError(t, err)
		require.NoError(t, f.Truncate(64<<20))
		for _, offset := range at {
			_, err := f.WriteAt(bytes.Repeat([]byte("data"), 256<<10), offset)
			require.NoError(t, err)
		}
		require.NoError(t, f.Close())
		require.NoError(t, os.Chtimes(path, time.Unix(7, 0), time.Unix(7, 0)))
		if blocksOf(t, path) > 8<<20 {
			t.Skip("no holes on this file system")
		}
		summary, err := transfer.Put(t.Context(), c, path, "/"+name, transfer.Options{})
		require.NoError(t, err)
		require.LessOrEqual(t, summary.Bytes, int64(len(at))*(1<<20+8<<10), "bytes that were sent")
		info, err := c.Stat(t.Context(), "/"+name)
		require.NoError(t, err)
		require.Equal(t, time.Unix(7, 0), info.ModTime(), "of a file that ends with a hole, too")
		back := filepath.Join(t.TempDir(), "back")
		_, err = transfer.Get(t.Context(), c, "/"+name, back, transfer.Options{})
		require.NoError(t, err)
		require.LessOrEqual(t, blocksOf(t, back), int64(len(at))*(1<<20+64<<10))
		want, err := os.ReadFile(path)
		require.NoError(t, err)
		got, err := os.ReadFile(back)
		require.NoError(t, err)
		require.True(t, bytes.Equal(want, got), name)
	}
	var stored int64
	require.NoError(t, filepath.WalkDir(cluster.ChunkDirectory(0), func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			stored += blocksOf(t, path)
		}
		return err
	}))
	require.Less(t, stored, int64(16<<20), "of 192 MiB with 3 MiB of data")
}

func TestHardLinksStayHardLinks(t *testing.T) {
	c := dfstest.Start(t, dfstest.Options{ChunkServers: 1}).Dial(client.Options{})
	local := filepath.Join(t.TempDir(), "tree")
	require.NoError(t, os.MkdirAll(filepath.Join(local, "d"), 0o755))
	for name, size := range map[string]int{"big": 5000, "small": 5} {
		require.NoError(t, os.WriteFile(filepath.Join(local, name), bytes.Repeat([]byte{1}, size), 0o600))
		require.NoError(t, os.Link(filepath.Join(local, name), filepath.Join(local, "d", name+"2")))
		require.NoError(t, os.Link(filepath.Join(local, name), filepath.Join(local, name+"3")))
	}
	summary, err := transfer.Put(t.Context(), c, local, "/tree", transfer.Options{})
	require.NoError(t, err)
	require.EqualValues(t, 2, summary.Files)
	require.EqualValues(t, 4, summary.HardLinks)
	back := filepath.Join(t.TempDir(), "back")
	summary, err = transfer.Get(t.Context(), c, "/tree", back, transfer.Options{})
	require.NoError(t, err)
	require.EqualValues(t, 2, summary.Files)
	for _, name := range []string{"big", "small"} {
		var first, second, third unix.Stat_t
		require.NoError(t, unix.Stat(filepath.Join(back, name), &first))
		require.NoError(t, unix.Stat(filepath.Join(back, "d", name+"2"), &second))
		require.NoError(t, unix.Stat(filepath.Join(back, name+"3"), &third))
		require.EqualValues(t, 3, first.Nlink)
		require.Equal(t, first.Ino, second.Ino)
		require.Equal(t, first.Ino, third.Ino)
	}
	summary, err = transfer.Put(t.Context(), c, back, "/tree", transfer.Options{})
	require.NoError(t, err)
	require.Zero(t, summary.Files)

	// Names that were one file and are two now get contents of their own.
	for _, name := range []string{"small", "small3"} {
		path := filepath.Join(local, name)
		require.NoError(t, os.Remove(path))
		require.NoError(t, os.WriteFile(path, []byte("new "+name), 0o600))
	}
	_, err = transfer.Put(t.Context(), c, local, "/tree", transfer.Options{Workers: 1})
	require.NoError(t, err)
	for name, want := range map[string]string{"small": "new small", "small3": "new small3", "d/small2": "\x01\x01\x01\x01\x01"} {
		got, err := c.ReadFile(t.Context(), "/tree/"+name)
		require.NoError(t, err)
		require.Equal(t, want, string(got), name)
	}
}

func TestTimesOfFilesAreKeptFromTheEpochOnAndClampedWhereTheyEnd(t *testing.T) {
	c := dfstest.Start(t, dfstest.Options{ChunkServers: 1}).Dial(client.Options{})
	first, last := time.Unix(-9223372036, 0), time.Unix(9223372036, 0)
	for i, set := range []struct{ local, want time.Time }{
		{time.Unix(0, 0), time.Unix(0, 0)}, {time.Unix(0, -1), time.Unix(0, -1)}, {time.Unix(-1, 0), time.Unix(-1, 0)},
		{time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC), last}, {time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC), first},
	} {
		for _, size := range []int{0, 10, 5000} {
			path := filepath.Join(t.TempDir(), "f")
			require.NoError(t, os.WriteFile(path, make([]byte, size), 0o600))
			at := unix.Timespec{Sec: set.local.Unix(), Nsec: int64(set.local.Nanosecond())}
			require.NoError(t, unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{at, at}, 0))
			info, err := os.Stat(path)
			require.NoError(t, err)
			if !info.ModTime().Equal(set.local) {
				continue // this file system has not that time
			}
			to := fmt.Sprintf("/%d-%d", i, size)
			_, err = transfer.Put(t.Context(), c, path, to, transfer.Options{})
			require.NoError(t, err)
			have, err := c.Stat(t.Context(), to)
			require.NoError(t, err)
			require.True(t, set.want.Equal(have.ModTime()), "%v became %v", set.local, have.ModTime())
			summary, err := transfer.Put(t.Context(), c, path, to, transfer.Options{})
			require.NoError(t, err)
			require.EqualValues(t, 1, summary.SkippedFiles, set.local)
		}
	}
}

func TestCopiesToOneNameAtOnceLeaveOneOfThemWhole(t *testing.T) {
	c := dfstest.Start(t, dfstest.Options{ChunkServers: 1}).Dial(client.Options{})
	ctx, dir := t.Context(), t.TempDir()
	const size = 3 << 20
	var sources []string
	for _, letter := range "ab" {
		path := filepath.Join(dir, string(letter))
		require.NoError(t, os.WriteFile(path, bytes.Repeat([]byte{byte(letter)}, size), 0o600))
		_, err := transfer.Put(ctx, c, path, "/"+string(letter), transfer.Options{})
		require.NoError(t, err)
		sources = append(sources, path)
	}
	whole := func(content []byte) {
		t.Helper()
		require.Len(t, content, size)
		require.Equal(t, size, bytes.Count(content, content[:1]), "a mixture")
	}
	for range 8 {
		var group errgroup.Group
		for i, path := range sources {
			group.Go(func() error {
				_, err := transfer.Get(ctx, c, "/"+string("ab"[i]), filepath.Join(dir, "got"), transfer.Options{})
				return err
			})
			group.Go(func() error {
				_, err := transfer.Put(ctx, c, path, "/put", transfer.Options{})
				return err
			})
		}
		require.NoError(t, group.Wait())
		content, err := os.ReadFile(filepath.Join(dir, "got"))
		require.NoError(t, err)
		whole(content)
		content, err = c.ReadFile(ctx, "/put")
		require.NoError(t, err)
		whole(content)
	}
	require.Empty(t, partials(t, os.DirFS(dir)))
	require.Empty(t, partials(t, c.FS(ctx)))
}

func TestCopiesOfOneTreeAtOnceAllSucceed(t *testing.T) {
	c := dfstest.Start(t, dfstest.Options{ChunkServers: 1}).Dial(client.Options{})
	local := filepath.Join(t.TempDir(), "tree")
	for i := range 40 {
		dir := filepath.Join(local, fmt.Sprint(i%3))
		require.NoError(t, os.MkdirAll(dir, 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), bytes.Repeat([]byte{byte(i)}, 1000*i), 0o600))
		require.NoError(t, os.Symlink("target", filepath.Join(dir, fmt.Sprint("link", i))))
	}
	back := filepath.Join(t.TempDir(), "back")
	for _, copy := range []func() error{
		func() error { _, err := transfer.Put(t.Context(), c, local, "/tree", transfer.Options{}); return err },
		func() error { _, err := transfer.Get(t.Context(), c, "/tree", back, transfer.Options{}); return err },
	} {
		var group errgroup.Group
		for range 3 {
			group.Go(copy)
		}
		require.NoError(t, group.Wait())
	}
	for i := range 40 {
		got, err := os.ReadFile(filepath.Join(back, fmt.Sprint(i%3), fmt.Sprint(i)))
		require.NoError(t, err)
		require.Equal(t, bytes.Repeat([]byte{byte(i)}, 1000*i), got)
	}
	require.Empty(t, partials(t, os.DirFS(back)))
	require.Empty(t, partials(t, c.FS(t.Context())))
}

func TestWhatIsWaggleOwnIsNotCopied(t *testing.T) {
	c := dfstest.Start(t, dfstest.Options{ChunkServers: 1}).Dial(client.Options{})
	ctx := t.Context()
	require.NoError(t, c.MkdirAll(ctx, "/"+wire.UploadsName+"/gateway", 0o755))
	require.NoError(t, c.MkdirAll(ctx, "/d/"+wire.UploadsName, 0o755))
	require.NoError(t, c.WriteFile(ctx, "/d/f", []byte("x"), 0o644))
	back := filepath.Join(t.TempDir(), "back")
	_, err := transfer.Get(ctx, c, "/", back, transfer.Options{})
	require.NoError(t, err)
	require.NoDirExists(t, filepath.Join(back, wire.UploadsName))
	require.DirExists(t, filepath.Join(back, "d", wire.UploadsName), "a user's own")
}
