package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"waggle/dfs/client"
	"waggle/dfs/dfstest"
	"waggle/dfs/meta"
)

// files is a cluster in this process, and how commands are tried on it.
type files struct {
	t       *testing.T
	cluster *dfstest.Cluster
}

func startFiles(t *testing.T) *files {
	return &files{t, dfstest.Start(t, dfstest.Options{ChunkServers: 1})}
}

// do carries out a command line that has to end with the exit code want.
func (f *files) do(want int, args ...string) (stdout, stderr string) {
	f.t.Helper()
	code, stdout, stderr := waggle(f.t, append(args, "--meta", f.cluster.Meta)...)
	require.Equal(f.t, want, code, "%q: %s%s", args, stdout, stderr)
	return stdout, stderr
}

func TestAnArgumentThatFailsIsNamedAndTheOthersAreDone(t *testing.T) {
	f := startFiles(t)
	f.do(0, "mkdir", "/d", "/e")
	_, stderr := f.do(1, "mkdir", "/d", "/new", "/no/where", "/new2")
	require.Equal(t, 3, strings.Count(stderr, "\n"), stderr)
	require.Contains(t, stderr, "/d: file exists")
	require.Contains(t, stderr, "2 of 4 arguments of mkdir failed")
	local := filepath.Join(t.TempDir(), "f")
	require.NoError(t, os.WriteFile(local, []byte("content\n"), 0o600))
	f.do(0, "put", local, "/d/")
	for _, command := range []string{"cat", "stat", "ls"} {
		stdout, stderr := f.do(1, command, "/missing", "/d/f")
		require.NotEmpty(t, stdout, command)
		require.Contains(t, stderr, "/missing", command)
		require.Contains(t, stderr, "1 of 2 arguments of "+command, command)
	}
	stdout, stderr := f.do(1, "rm", "/missing", "/d", "/", "/d/f", "/new")
	require.Empty(t, stdout)
	require.Contains(t, stderr, "3 of 5 arguments of rm failed")
	stdout, _ = f.do(0, "ls", "/", "/d")
	require.Equal(t, "d\ne\nnew2\n", stdout)
}

// failingWriter is full.
type failingWriter struct{}

func (failingWriter) Write([]byte) (int, error) { return 0, unix.ENOSPC }

func TestOutputThatCannotBeWrittenEndsTheCommand(t *testing.T) {
	f := startFiles(t)
	local := filepath.Join(t.TempDir(), "f")
	require.NoError(t, os.WriteFile(local, []byte("content"), 0o600))
	f.do(0, "put", local, "/f")
	var stderr bytes.Buffer
	code := run(t.Context(), []string{"waggle", "cat", "--meta", f.cluster.Meta, "/f", "/f", "/f"}, failingWriter{}, &stderr)
	require.Equal(t, 1, code)
	require.Equal(t, "waggle: write the output: no space left on device\n", stderr.String())
}

func TestATreeIsRemovedButForWhatCannotBe(t *testing.T) {
	f := startFiles(t)
	root := f.cluster.Dial(client.Options{Identity: &client.Identity{}})
	user := f.cluster.Dial(client.Options{Identity: &client.Identity{UID: 1234, GID: 1234}})
	ctx := t.Context()
	require.NoError(t, root.Mkdir(ctx, "/t", 0o777))
	require.NoError(t, root.Chmod(ctx, "/t", 0o777))
	for _, dir := range []string{"/t/a", "/t/kept", "/t/z"} {
		require.NoError(t, root.Mkdir(ctx, dir, 0o755))
		require.NoError(t, root.Chmod(ctx, dir, 0o777))
		require.NoError(t, root.WriteFile(ctx, dir+"/f", nil, 0o644))
	}
	require.NoError(t, root.Chmod(ctx, "/t/kept", 0o755))
	var failed []error
	user.RemoveTree(ctx, "/t", func(err error) { failed = append(failed, err) })
	require.Len(t, failed, 1)
	require.ErrorIs(t, failed[0], os.ErrPermission)
	require.ErrorContains(t, failed[0], "/t/kept/f")
	stdout, _ := f.do(0, "ls", "/t")
	require.Equal(t, "kept\n", stdout)
	require.ErrorIs(t, user.RemoveAll(ctx, "/t"), os.ErrPermission)
}

func TestAnEmptyPathNamesNothing(t *testing.T) {
	f := startFiles(t)
	dir := t.TempDir()
	for _, args := range [][]string{{"put", dir, ""}, {"ls", ""}, {"rm", ""}, {"rm", "-r", ""}, {"stat", ""}, {"cat", ""}, {"mkdir", ""}, {"mkdir", "-p", ""},
		{"get", "", dir}, {"get", "/", ""}, {"mv", "", "/x"}, {"mv", "/x", ""}, {"put", "", "/x"}} {
		_, stderr := f.do(1, args...)
		require.Contains(t, stderr, "no such file", args)
	}
}

func TestALoopingLinkIsSaidToBeOne(t *testing.T) {
	f := startFiles(t)
	c := f.cluster.Dial(client.Options{})
	require.NoError(t, c.Symlink(t.Context(), "loop", "/loop"))
	for _, args := range [][]string{{"cat", "/loop"}, {"cat", "/loop/below"}, {"ls", "/loop"}, {"mkdir", "/loop/d"}} {
		_, stderr := f.do(1, args...)
		require.Contains(t, stderr, "too many levels of symbolic links", args)
	}
}

func TestPutReadsStandardInputAndPipes(t *testing.T) {
	f := startFiles(t)
	for _, size := range []int{0, 5, 3 << 20} {
		want := bytes.Repeat([]byte{'x'}, size)
		app := newApp(io.Discard, io.Discard)
		app.Reader = bytes.NewReader(want)
		require.NoError(t, app.RunContext(t.Context(), []string{"waggle", "put", "--meta", f.cluster.Meta, "-", "/f"}))
		stdout, _ := f.do(0, "cat", "/f")
		require.True(t, stdout == string(want), size)
	}
	f.do(2, "put", "-", "/")
	pipe := exec.Command("bash", "-c", os.Args[0]+" put --meta "+f.cluster.Meta+" <(echo from a command) /g")
	pipe.Env = append(os.Environ(), asProgram+"=1")
	out, err := pipe.CombinedOutput()
	require.NoError(t, err, "%s", out)
	stdout, _ := f.do(0, "cat", "/g")
	require.Equal(t, "from a command\n", stdout)
}

// TestAPutAfterOneThatWasKilledStartsAtOnce kills a put in the middle of its file.
func TestAPutAfterOneThatWasKilledStartsAtOnceAndLeavesNothing(t *testing.T) {
	f := startFiles(t)
	c := f.cluster.Dial(client.Options{})
	killed := exec.Command(os.Args[0], "put", "--meta", f.cluster.Meta, "-", "/f")
	killed.Env = append(os.Environ(), asProgram+"=1")
	in, err := killed.StdinPipe()
	require.NoError(t, err)
	require.NoError(t, killed.Start())
	t.Cleanup(func() { killed.Process.Kill(); killed.Wait() })
	_, err = in.Write(make([]byte, 5<<20))
	require.NoError(t, err)
	entries := func() []string {
		list, err := c.ReadDir(t.Context(), "/")
		require.NoError(t, err)
		var names []string
		for _, e := range list {
			names = append(names, e.Name())
		}
		return names
	}
	require.Eventually(t, func() bool { return len(entries()) == 1 }, 20*time.Second, 5*time.Millisecond)
	require.NoError(t, killed.Process.Kill())
	var exit *exec.ExitError
	require.True(t, errors.As(killed.Wait(), &exit))

	local := filepath.Join(t.TempDir(), "f")
	require.NoError(t, os.WriteFile(local, bytes.Repeat([]byte("new"), 1<<20), 0o600))
	f.do(0, "put", "--patience", "1s", local, "/f") // less than any lease lasts
	require.Equal(t, []string{"f"}, entries())
	stdout, _ := f.do(0, "cat", "/f")
	require.Len(t, stdout, 3<<20)
}

func TestWhatFailsIsSaidOnce(t *testing.T) {
	f := startFiles(t)
	f.cluster.StopChunkServer(0)
	local := filepath.Join(t.TempDir(), "f")
	require.NoError(t, os.WriteFile(local, make([]byte, 5<<20), 0o600))
	_, stderr := f.do(1, "put", "--patience", "300ms", "-q", local, "/f")
	require.Equal(t, 1, strings.Count(stderr, "\n"), stderr)
	require.NotContains(t, stderr, "close ")
}

func TestFsckSaysWhatDfCounts(t *testing.T) {
	f := &files{t, dfstest.Start(t, dfstest.Options{ChunkServers: 2, Meta: meta.Config{Heartbeat: 20 * time.Millisecond, RepairDelay: time.Hour}})}
	local := filepath.Join(t.TempDir(), "f")
	require.NoError(t, os.WriteFile(local, make([]byte, 3<<20), 0o600))
	f.do(0, "put", "--replication", "2", "--chunk-size", "1MiB", local, "/f")
	stdout, _ := f.do(0, "fsck")
	require.Contains(t, stdout, "clean")
	f.cluster.StopChunkServer(1)
	require.Eventually(t, func() bool {
		stdout, _ := f.do(0, "df", "--json")
		return strings.Contains(stdout, `"chunks_underreplicated": 3`)
	}, 20*time.Second, 10*time.Millisecond)
	stdout, stderr := f.do(1, "fsck")
	require.Equal(t, 3, strings.Count(stdout, "has 1 replicas on servers that are up, its file"), stdout)
	require.NotContains(t, stdout, "clean")
	require.Contains(t, stderr, "3 problems that were not repaired")
}

// TestADiskThatDoesNotSayHowLargeItIsIsNotFull uses ramfs, whose count of blocks is 0.
func TestADiskThatDoesNotSayHowLargeItIsIsNotFull(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("ramfs", dir, "ramfs", 0, ""); err != nil {
		t.Skipf("mounting takes root: %v", err)
	}
	t.Cleanup(func() { require.NoError(t, unix.Unmount(dir, 0)) })
	f := &files{t, dfstest.Start(t, dfstest.Options{ChunkServers: 2, MetaDirectory: dir, ChunkDirectory: dir})}
	f.do(0, "mkdir", "/d")
	local := filepath.Join(t.TempDir(), "f")
	require.NoError(t, os.WriteFile(local, make([]byte, 5000), 0o600))
	f.do(0, "put", local, "/d/f")
	stdout, _ := f.do(0, "df", "--json")
	require.NotContains(t, stdout, "free_bytes")
	stdout, _ = f.do(0, "df")
	require.Contains(t, stdout, "unknown")
}
