package main

import (
	"bytes"
	"errors"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"waggle/internal/signaltest"
)

// asProgram is set in the environment of this test's binary where it is to be
// the program itself, in a process of its own.
const asProgram = "WAGGLE_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
	}
	os.Exit(m.Run())
}

// upProcess is `waggle up` in a process of its own.
type upProcess struct {
	*exec.Cmd
	mu  sync.Mutex
	out bytes.Buffer
}

func (u *upProcess) Write(p []byte) (int, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.out.Write(p)
}

func (u *upProcess) output() string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.out.String()
}

func startUp(t *testing.T, dir, meta string, more ...string) *upProcess {
	t.Helper()
	u := &upProcess{Cmd: exec.Command(os.Args[0], append([]string{"up", "--dir", dir, "--meta", meta}, more...)...)}
	u.Env = append(os.Environ(), asProgram+"=1")
	u.Stdout, u.Stderr = u, u
	u.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	require.NoError(t, u.Start())
	t.Cleanup(func() { u.Process.Kill(); u.Wait() })
	return u
}

func (u *upProcess) awaitReady(t *testing.T) {
	t.Helper()
	require.Eventually(t, func() bool { return strings.Contains(u.output(), "ready after") }, 60*time.Second, 20*time.Millisecond,
		"not ready")
}

// children are the processes of the roles.
func (u *upProcess) children(t *testing.T) (pids []int) {
	t.Helper()
	tasks, err := filepath.Glob("/proc/" + strconv.Itoa(u.Process.Pid) + "/task/*/children")
	require.NoError(t, err)
	for _, task := range tasks {
		list, err := os.ReadFile(task)
		if errors.Is(err, fs.ErrNotExist) {
			continue // the thread has ended
		}
		require.NoError(t, err)
		for _, field := range strings.Fields(string(list)) {
			pid, err := strconv.Atoi(field)
			require.NoError(t, err)
			pids = append(pids, pid)
		}
	}
	return pids
}

func requireGone(t *testing.T, pids []int) {
	t.Helper()
	require.Eventually(t, func() bool {
		for _, pid := range pids {
			if unix.Kill(pid, 0) == nil && !isZombie(pid) {
				return false
			}
		}
		return true
	}, 20*time.Second, 20*time.Millisecond, "processes %v are left", pids)
}

// isZombie says whether a process has ended, but was not waited for: where no
// init process does that.
func isZombie(pid int) bool {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	_, state, _ := strings.Cut(string(stat), ") ")
	return err != nil || strings.HasPrefix(state, "Z")
}

// freeAddress stays free until it is used, even if that is repeatedly: only
// connections from 127.0.0.1 take ports by themselves.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.2:0")
	require.NoError(t, err)
	defer l.Close()
	return l.Addr().String()
}

// makeTree makes a local tree with everything that put and get copy.
func makeTree(t *testing.T) string {
	t.Helper()
	root := filepath.Join(t.TempDir(), "tree")
	when := time.Date(2001, 2, 3, 4, 5, 6, 789, time.UTC)
	require.NoError(t, os.MkdirAll(filepath.Join(root, "a", "empty"), 0o755))
	for name, size := range map[string]int{"nothing": 0, "small": 100, "a/limit": 1024, "a/more": 1025, "big": 3 << 20, "\xff odd\n": 5} {
		path := filepath.Join(root, name)
		require.NoError(t, os.WriteFile(path, bytes.Repeat([]byte(name+"."), size/len(name)+1)[:size], 0o640))
		require.NoError(t, os.Chtimes(path, when, when))
	}
	require.NoError(t, os.Chmod(filepath.Join(root, "a", "more"), 0o400))
	require.NoError(t, os.Symlink("a/limit", filepath.Join(root, "link")))
	require.NoError(t, os.Symlink("/nowhere", filepath.Join(root, "a", "dangling")))
	require.NoError(t, os.Chmod(filepath.Join(root, "a", "empty"), 0o700))
	require.NoError(t, os.Chtimes(filepath.Join(root, "a"), when, when))
	return root
}

// describeTree says all about a tree that a copy has to keep.
func describeTree(t *testing.T, root string) map[string]string {
	t.Helper()
	tree := make(map[string]string)
	require.NoError(t, filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		require.NoError(t, err)
		info, err := d.Info()
		require.NoError(t, err)
		text := info.Mode().String() + " " + info.ModTime().UTC().Format(time.RFC3339Nano)
		switch {
		case info.Mode().IsRegular():
			content, err := os.ReadFile(path)
			require.NoError(t, err)
			text += " " + string(content)
		case info.Mode()&fs.ModeSymlink != 0:
			target, err := os.Readlink(path)
			require.NoError(t, err)
			text = "-> " + target
		}
		tree[path[len(root):]] = text
		return nil
	}))
	return tree
}

func TestACluster(t *testing.T) {
	dir, meta := filepath.Join(t.TempDir(), "data"), freeAddress(t)
	do := func(want int, args ...string) string {
		t.Helper()
		code, stdout, stderr := waggle(t, append(args, "--meta", meta)...)
		require.Equal(t, want, code, "%v: %s%s", args, stdout, stderr)
		return stdout + stderr
	}
	require.Regexp(t, `^waggle: [^\n]*no answer within 2s [^\n]*connection refused[^\n]*waggle up[^\n]*\n$`, do(1, "ls", "/"))

	cluster := startUp(t, dir, meta)
	cluster.awaitReady(t)
	require.Contains(t, do(1, "up", "--dir", dir), "a cluster runs on")
	require.Contains(t, do(1, "up", "--dir", t.TempDir()), "something listens on")

	tree := makeTree(t)
	require.Contains(t, do(0, "put", tree, "/tree"), "put: 6 files, 3.0 MiB")
	require.Contains(t, do(0, "put", tree, "/tree"), "put: 0 files, 0 B")
	do(0, "mkdir", "-p", "/some/where")
	do(0, "put", filepath.Join(tree, "big"), "/some/where")
	do(0, "mv", "/some/where/big", "/some/big")
	require.Equal(t, "big\nwhere\n", do(0, "ls", "/some"))
	require.Contains(t, do(0, "ls", "-l", "/tree"), "link -> a/limit")
	require.Contains(t, do(0, "stat", "/some/big", "--json"), `"size_bytes": 3145728`)
	require.Equal(t, strings.Repeat("small.", 17)[:100], do(0, "cat", "/tree/small"))
	require.Contains(t, do(1, "cat", "/none"), "no such file")
	require.Contains(t, do(1, "rm", "/some"), "--recursive")
	require.Contains(t, do(0, "ls", "--json", "/tree"), `"name_bytes":"/yBvZGQK"`, "no UTF-8")
	require.Contains(t, do(2, "put", "--replication", "9", tree, "/t"), "at most 8")
	require.Contains(t, do(2, "put", "--chunk-size", "100KiB", tree, "/t"), "a power of two")
	require.NotContains(t, do(1, "put", "/none", "/t"), "were copied")
	do(0, "rm", "-r", "/some")
	do(1, "rm", "-r", "/some")
	require.Contains(t, do(0, "trash"), `"/some/big"`)
	require.Contains(t, do(0, "df"), "1 removed files, 3.0 MiB, can be undeleted")
	require.Contains(t, do(1, "undelete", "/some/big"), "no such file", "its directory is gone")
	do(0, "undelete", "/some/big", "--to", "/big")
	require.Equal(t, strings.Repeat("big.", 2)[:8], do(0, "cat", "/big")[:8])
	do(0, "rm", "/big")
	do(2, "decommission", "first")
	require.Contains(t, do(1, "decommission", "77"), "no chunk server 77")
	require.Contains(t, do(0, "rebalance"), "chunks will be moved")
	do(2, "rm", "/")
	do(2, "mv", "one")
	require.Contains(t, do(0, "df", "--json"), `"files": 8`) // with links

	children := cluster.children(t)
	require.Len(t, children, 4)
	require.NoError(t, cluster.Process.Signal(syscall.SIGINT))
	require.NoError(t, cluster.Wait(), cluster.output())
	requireGone(t, children)

	// Everything is there again, also after the whole cluster was killed.
	for _, name := range []string{"interrupted", "killed"} {
		cluster = startUp(t, dir, meta)
		cluster.awaitReady(t)
		back := filepath.Join(t.TempDir(), name)
		require.Contains(t, do(0, "get", "/tree", back), "get: 6 files")
		require.Equal(t, describeTree(t, tree), describeTree(t, back))
		children = cluster.children(t)
		require.NoError(t, cluster.Process.Kill())
		cluster.Wait()
		requireGone(t, children)
	}
}

func TestAClusterEndsWithAnyRole(t *testing.T) {
	cluster := startUp(t, t.TempDir(), freeAddress(t))
	cluster.awaitReady(t)
	children := cluster.children(t)
	require.NoError(t, unix.Kill(children[1], unix.SIGKILL))
	err := cluster.Wait()
	var exit *exec.ExitError
	require.ErrorAs(t, err, &exit)
	require.Equal(t, exitFailed, exit.ExitCode())
	require.Regexp(t, `waggle: (meta|chunk-\d) ended: signal: killed`, cluster.output())
	requireGone(t, children)
}

func TestAHangupEndsAClusterInOrder(t *testing.T) {
	signaltest.Heed(t, syscall.SIGHUP)
	cluster := startUp(t, t.TempDir(), freeAddress(t), "--chunk-servers", "1")
	cluster.awaitReady(t)
	children := cluster.children(t)
	require.NoError(t, cluster.Process.Signal(syscall.SIGHUP))
	require.NoError(t, cluster.Wait(), cluster.output())
	requireGone(t, children)
}

func TestAClusterThatServesOthersIsReachedWhereTheyReachThisMachine(t *testing.T) {
	_, port, err := net.SplitHostPort(freeAddress(t))
	require.NoError(t, err)
	cluster := startUp(t, t.TempDir(), net.JoinHostPort("0.0.0.0", port), "--chunk-servers", "1", "--advertise", "127.0.0.3")
	cluster.awaitReady(t)
	meta := net.JoinHostPort("127.0.0.2", port)
	code, stdout, stderr := waggle(t, "df", "--json", "--meta", meta)
	require.Zero(t, code, stderr)
	require.Regexp(t, `"data_address": "127.0.0.3:\d+"`, stdout)
	require.Regexp(t, `"control_address": "127.0.0.3:\d+"`, stdout)
	local := filepath.Join(t.TempDir(), "f")
	require.NoError(t, os.WriteFile(local, make([]byte, 5000), 0o600))
	code, _, stderr = waggle(t, "put", "--meta", meta, local, "/f")
	require.Zero(t, code, stderr)
}
