package mount

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"waggle/dfs/client"
	"waggle/dfs/datapath"
	"waggle/dfs/datapath/mount"
	"waggle/dfs/datapath/pathtest"
	"waggle/dfs/dfstest"
	"waggle/dfs/mount/mounttest"
)

// servedDirectories names, to a process of this test, where to mount a new cluster.
const servedDirectories = "WAGGLE_TEST_SERVE"

// elsewhere mounts a new cluster on directories, for the length of the test. Another
// process serves all of it: a page fault on a mount of its own can stop a Go process
// for ever, since the fault holds what the collector waits for, and the server with it.
func elsewhere(t *testing.T, directories ...string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting directly needs root")
	}
	path, err := mount.Paths.Get(mount.FUSE)
	require.NoError(t, err)
	pathtest.SkipUnlessSupported(t, path.About())
	command := exec.Command(os.Args[0], "-test.run", "^TestServed$", "-test.timeout", "0")
	command.Env = append(os.Environ(), servedDirectories+"="+strings.Join(directories, "\n"))
	input, err := command.StdinPipe()
	require.NoError(t, err)
	output, err := command.StdoutPipe()
	require.NoError(t, err)
	command.Stderr = t.Output()
	require.NoError(t, command.Start())
	t.Cleanup(func() {
		assert.NoError(t, input.Close())
		assert.NoError(t, command.Wait())
	})
	line := make([]byte, len(served))
	_, err = io.ReadFull(output, line)
	require.NoError(t, err)
	require.Equal(t, served, string(line))
	go io.Copy(io.Discard, output)
}

// served is what the other process says when all is mounted.
const served = "mounted\n"

// TestServed is that process. It ends when its input does.
func TestServed(t *testing.T) {
	directories := os.Getenv(servedDirectories)
	if directories == "" {
		t.Skip("run by other tests, in a process of its own")
	}
	var cluster *dfstest.Cluster
	for i, directory := range strings.Split(directories, "\n") {
		if i == 0 {
			_, cluster = on(t, directory)
			continue
		}
		c, err := client.Dial(t.Context(), cluster.Meta, client.Options{})
		require.NoError(t, err)
		serve(t, c, directory)
	}
	os.Stdout.WriteString(served)
	io.Copy(io.Discard, os.Stdin)
}

// on mounts a new cluster on a directory, for the length of the test.
func on(t *testing.T, directory string) (*client.Client, *dfstest.Cluster) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting directly needs root")
	}
	path, err := mount.Paths.Get(mount.FUSE)
	require.NoError(t, err)
	pathtest.SkipUnlessSupported(t, path.About())
	cluster := dfstest.Start(t, dfstest.Options{})
	c, err := client.Dial(t.Context(), cluster.Meta, client.Options{})
	require.NoError(t, err)
	require.Eventually(t, func() bool { // the servers have said how much room they have
		known, err := c.Cluster(t.Context())
		return err == nil && len(known.Servers) > 0 && known.Servers[0].CapacityBytes > 0
	}, 20*time.Second, 10*time.Millisecond)
	serve(t, c, directory)
	return c, cluster
}

func serve(t *testing.T, c *client.Client, directory string) {
	t.Helper()
	m, err := New(Config{Client: c, Directory: directory, Cluster: "test"})
	require.NoError(t, err)
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- m.Serve(ctx) }()
	t.Cleanup(func() {
		stop()
		assert.NoError(t, <-ended)
		assert.NoError(t, c.Close())
	})
}

func TestConformance(t *testing.T) {
	mounted := t.TempDir()
	elsewhere(t, mounted)
	for name, test := range mounttest.All {
		t.Run(name, func(t *testing.T) {
			directory, err := os.MkdirTemp(mounted, "test-")
			require.NoError(t, err)
			test(t, directory)
		})
	}
	text, err := os.ReadFile(filepath.Join(mounted, statusDirectory, "counters"))
	require.NoError(t, err)
	counted := map[string]int64{}
	require.NoError(t, json.Unmarshal(text, &counted))
	assert.Positive(t, counted[mount.ReadBytes], "the reads went through the mount")
	assert.Positive(t, counted[mount.WrittenBytes])
}

// A wrong expectation shows on the disk's own file system.
func TestExpectationsHoldOnDisk(t *testing.T) {
	for name, test := range mounttest.All {
		t.Run(name, func(t *testing.T) { test(t, t.TempDir()) })
	}
}

func TestStandardLibrarysOwnTest(t *testing.T) {
	mounted := t.TempDir()
	elsewhere(t, mounted)
	require.NoError(t, os.MkdirAll(filepath.Join(mounted, "a", "b"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(mounted, "a", "b", "f"), []byte("hello"), 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(mounted, "g"), make([]byte, 5000), 0o644))
	assert.NoError(t, fstest.TestFS(os.DirFS(mounted), "a/b/f", "g"))
}

func TestMountShowsItself(t *testing.T) {
	mounted := t.TempDir()
	elsewhere(t, mounted)
	paths, err := os.ReadFile(filepath.Join(mounted, statusDirectory, "paths"))
	require.NoError(t, err)
	assert.Equal(t, "mount=fuse\nread=copy\nwrite=chain\n", string(paths))
	require.NoError(t, os.WriteFile(filepath.Join(mounted, "f"), []byte("hello"), 0o644))
	counters, err := os.ReadFile(filepath.Join(mounted, statusDirectory, "counters"))
	require.NoError(t, err)
	assert.Contains(t, string(counters), `"mount_fuse_written_bytes": 5`)
	assert.ErrorIs(t, os.WriteFile(filepath.Join(mounted, statusDirectory, "paths"), nil, 0o644), syscall.EROFS)
	entries, err := os.ReadDir(mounted)
	require.NoError(t, err)
	assert.Len(t, entries, 1, "it is in no listing")
}

// Close to open: what one mount has closed, another opens.
func TestWhatIsClosedHereIsOpenedThere(t *testing.T) {
	here, there := t.TempDir(), t.TempDir()
	elsewhere(t, here, there)
	for i, text := range []string{"first", "second, and longer", "3"} {
		from, to := here, there
		if i%2 == 1 {
			from, to = there, here
		}
		require.NoError(t, os.WriteFile(filepath.Join(from, "f"), []byte(text), 0o644))
		assert.Eventually(t, func() bool { // sizes and names are believed for a second
			got, err := os.ReadFile(filepath.Join(to, "f"))
			return err == nil && string(got) == text
		}, 10*time.Second, 20*time.Millisecond, text)
	}
}

func TestProgramsWorkOnIt(t *testing.T) {
	mounted := t.TempDir()
	elsewhere(t, mounted)
	run := func(name string, arguments ...string) string {
		t.Helper()
		if _, err := exec.LookPath(name); err != nil {
			t.Skipf("%s is not installed", name)
		}
		command := exec.CommandContext(t.Context(), name, arguments...)
		command.Dir = mounted
		command.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.org",
			"GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@example.org")
		out, err := command.CombinedOutput()
		require.NoError(t, err, "%s: %s", name, out)
		return string(out)
	}
	require.NoError(t, os.Mkdir(filepath.Join(mounted, "tree"), 0o755))
	for _, name := range []string{"a", "b", "c"} {
		require.NoError(t, os.WriteFile(filepath.Join(mounted, "tree", name), []byte(strings.Repeat(name, 10_000)), 0o644))
	}
	run("tar", "cf", "tree.tar", "tree")
	require.NoError(t, os.Mkdir(filepath.Join(mounted, "out"), 0o755))
	run("tar", "xf", "tree.tar", "-C", "out")
	run("diff", "-r", "tree", "out/tree")
	run("git", "init", "-q", "repository")
	run("cp", "-r", "tree", "repository")
	run("git", "-C", "repository", "add", ".")
	run("git", "-C", "repository", "commit", "-q", "-m", "all")
	run("git", "clone", "-q", "repository", "clone")
	run("diff", "-r", "tree", "clone/tree")
	assert.Empty(t, run("git", "-C", "clone", "status", "--porcelain"))
}

// A process that is killed leaves a mount that nobody answers for: the next mount
// clears it, and Unmount ends it.
func TestDeadMountIsCleared(t *testing.T) {
	if directory := os.Getenv("WAGGLE_TEST_MOUNT"); directory != "" {
		c, err := client.Dial(t.Context(), os.Getenv("WAGGLE_TEST_META"), client.Options{})
		require.NoError(t, err)
		m, err := New(Config{Client: c, Directory: directory, Cluster: "test"})
		require.NoError(t, err)
		require.NoError(t, m.Serve(t.Context()))
		return
	}
	mounted, killed := t.TempDir(), t.TempDir()
	_, cluster := on(t, mounted)
	kill := func() {
		t.Helper()
		command := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^TestDeadMountIsCleared$")
		command.Env = append(os.Environ(), "WAGGLE_TEST_MOUNT="+killed, "WAGGLE_TEST_META="+cluster.Meta)
		require.NoError(t, command.Start())
		require.Eventually(t, func() bool { m, err := mountOn(killed); return err == nil && m != nil }, 20*time.Second, 10*time.Millisecond)
		require.NoError(t, command.Process.Kill())
		command.Wait()
		var ignored unix.Statfs_t
		require.Eventually(t, func() bool { return errors.Is(unix.Statfs(killed, &ignored), unix.ENOTCONN) }, 20*time.Second, 10*time.Millisecond)
	}
	kill()
	c, err := client.Dial(t.Context(), cluster.Meta, client.Options{})
	require.NoError(t, err)
	m, err := New(Config{Client: c, Directory: killed, Cluster: "test"})
	require.NoError(t, err)
	require.NoError(t, m.server.WaitMount())
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- m.Serve(ctx) }()
	require.NoError(t, os.WriteFile(filepath.Join(killed, "f"), []byte("alive"), 0o644))
	stop()
	require.NoError(t, <-ended)
	require.NoError(t, c.Close())

	kill()
	require.NoError(t, Unmount(killed, false))
	_, err = os.Stat(killed)
	assert.NoError(t, err)
	assert.ErrorContains(t, Unmount(killed, false), "not mounted")
}

func TestBadConfigurationIsOneLine(t *testing.T) {
	mounted := t.TempDir()
	c, _ := on(t, mounted)
	_, err := New(Config{Client: c, Directory: filepath.Join(mounted, "missing")})
	assert.ErrorContains(t, err, "no directory")
	_, err = New(Config{Client: c, Directory: t.TempDir(), Path: "telepathy"})
	assert.ErrorIs(t, err, datapath.ErrUnknown)
}

// A process that does not answer keeps its users waiting; force ends that.
func TestForcedUnmountEndsWaiting(t *testing.T) {
	mounted := t.TempDir()
	c, _ := on(t, t.TempDir())
	m, err := New(Config{Client: c, Directory: mounted, Cluster: "test"})
	require.NoError(t, err)
	require.NoError(t, m.server.WaitMount())
	f, err := os.Create(filepath.Join(mounted, "f"))
	require.NoError(t, err)
	defer f.Close()
	assert.ErrorIs(t, Unmount(mounted, false), unix.EBUSY)
	require.NoError(t, Unmount(mounted, true))
	_, err = f.Write([]byte("too late"))
	assert.Error(t, err)
	require.NoError(t, m.Serve(t.Context()), "it has ended")
}
