package copies

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// A knownAnswer is a small program whose copies are known by construction. It runs in a
// process of its own (this test binary again), which stops itself before and after the
// part that counts, so that snapshots can be taken at exactly these points.
type knownAnswer struct {
	name string
	// prepare sets up files and sockets in an empty directory, and returns the part that counts.
	prepare func(dir string) func()
	// want is every row that the part adds, except those of ClassCall.
	want map[Key]Move
	// unordered is for rows whose number of calls the scheduler decides: only bytes are compared.
	unordered bool
	// ignore drops rows that other code of the process makes, such as a starting Go runtime.
	ignore func(Key) bool
	// sites is what backend sites counts otherwise than backend boundary.
	sites siteDifference
	// missing says why this machine can't run it, or is nil.
	missing func(dir string) string
	// killed is for programs that the test kills instead of letting them finish.
	killed bool
}

// A siteDifference says what the copy functions see that the boundary doesn't, and the reverse.
type siteDifference struct {
	inKernel        int64
	userToKernel    int64
	kernelToUser    int64
	inKernelUnknown bool
}

const (
	programVariable   = "WAGGLE_KNOWN_ANSWER"
	directoryVariable = "WAGGLE_KNOWN_ANSWER_DIR"
)

func TestMain(m *testing.M) {
	if name := os.Getenv(programVariable); name != "" {
		runAsProgram(name, os.Getenv(directoryVariable))
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func runAsProgram(name, dir string) {
	runtime.LockOSThread()
	debug.SetGCPercent(-1) // its helper threads would add wake-ups, not copies; calmer all the same
	if innerProgram, ok := innerPrograms[name]; ok {
		innerProgram()
		return
	}
	index := slices.IndexFunc(knownAnswers, func(k knownAnswer) bool { return k.name == name })
	part := knownAnswers[index].prepare(dir)
	stopSelf()
	part()
	stopSelf()
}

// stopSelf addresses the calling thread: a signal to the process may be taken by another
// thread while this one runs on.
func stopSelf() { must(unix.Tgkill(os.Getpid(), unix.Gettid(), unix.SIGSTOP)) }

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func must1[T any](value T, err error) T {
	must(err)
	return value
}

// startProgram starts a known answer under the ledger and returns once it stopped before its part.
func startProgram(t *testing.T, l *Ledger, k knownAnswer) (pid int, role string) {
	t.Helper()
	role = k.name
	dir := t.TempDir()
	if k.missing != nil {
		if reason := k.missing(dir); reason != "" {
			t.Skip(reason)
		}
	}
	stderr := must1(os.Create(filepath.Join(dir, "stderr")))
	t.Cleanup(func() {
		if t.Failed() {
			text, _ := os.ReadFile(stderr.Name())
			t.Logf("%s wrote: %s", k.name, text)
		}
		stderr.Close()
	})
	command := exec.Command("/proc/self/exe")
	// GOMAXPROCS keeps the starting runtime from reading files to find it out.
	command.Env = append(os.Environ(), programVariable+"="+k.name, directoryVariable+"="+dir, "GOMAXPROCS=2")
	command.Stderr = stderr
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // no stopped program outlives the test
	require.NoError(t, l.Start(role, command))
	pid = command.Process.Pid
	require.NoError(t, command.Process.Release())
	waitStopped(t, pid)
	return pid, role
}

func waitStopped(t *testing.T, pid int) {
	t.Helper()
	var status unix.WaitStatus
	_, err := unix.Wait4(pid, &status, unix.WUNTRACED, nil)
	require.NoError(t, err)
	require.True(t, status.Stopped(), "it ended early: exit %d, signal %v", status.ExitStatus(), status.Signal())
}

func waitEnded(t *testing.T, pid int) unix.WaitStatus {
	t.Helper()
	var status unix.WaitStatus
	_, err := unix.Wait4(pid, &status, 0, nil)
	require.NoError(t, err)
	return status
}

// count runs a known answer and returns what the ledger counted of its part.
func count(t *testing.T, l *Ledger, k knownAnswer) Counts {
	t.Helper()
	pid, role := startProgram(t, l, k)
	before := must1(l.Snapshot())
	require.NoError(t, unix.Kill(pid, unix.SIGCONT))
	if k.killed {
		waitUntilBlocked(t, pid)
		require.NoError(t, unix.Kill(pid, unix.SIGKILL))
		waitEnded(t, pid)
	} else {
		waitStopped(t, pid)
	}
	after := must1(l.Snapshot())
	if !k.killed {
		require.NoError(t, unix.Kill(pid, unix.SIGCONT))
		require.Equal(t, 0, waitEnded(t, pid).ExitStatus())
	}
	difference := after.Minus(before)
	require.Zero(t, difference.Losses)
	return difference.Roles[role]
}

// waitUntilBlocked waits for the pipe write in which the program to be killed ends up, on
// whichever of its threads.
func waitUntilBlocked(t *testing.T, pid int) {
	t.Helper()
	blocked := func() bool {
		for _, path := range must1(filepath.Glob(fmt.Sprintf("/proc/%d/task/*/wchan", pid))) {
			text, err := os.ReadFile(path)
			if err == nil && strings.Contains(string(text), "pipe_write") {
				return true
			}
		}
		return false
	}
	require.Eventually(t, blocked, time.Minute, time.Millisecond)
}

func openForTest(t testing.TB, b Backend) *Ledger {
	t.Helper()
	if err := preconditions(b); err != nil {
		t.Skip(err)
	}
	l, err := Open(Options{Backend: b})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.Close()) })
	return l
}

func TestKnownAnswersBoundary(t *testing.T) {
	l := openForTest(t, Boundary)
	for _, k := range knownAnswers {
		t.Run(k.name, func(t *testing.T) {
			compareRows(t, k, count(t, l, k).Moves)
		})
	}
}

// Both backends count the same run: where they should agree they must, to the byte.
func TestKnownAnswersSites(t *testing.T) {
	l := openForTest(t, Sites)
	for _, k := range knownAnswers {
		t.Run(k.name, func(t *testing.T) {
			counts := count(t, l, k)
			compareRows(t, k, counts.Moves)
			copied := payloadBySites(counts.Sites)
			want := map[Direction]int64{
				UserToKernel: int64(counts.Crossed(UserToKernel)) + k.sites.userToKernel,
				KernelToUser: int64(counts.Crossed(KernelToUser)) + k.sites.kernelToUser,
				InKernel:     k.sites.inKernel,
			}
			if k.sites.inKernelUnknown {
				delete(want, InKernel)
				delete(copied, InKernel)
			}
			require.Equal(t, want, copied, "%v", counts.Sites)
		})
	}
}

// payloadBySites leaves out the functions that mostly copy packet headers.
func payloadBySites(sites map[Site]SiteCount) map[Direction]int64 {
	sum := map[Direction]int64{UserToKernel: 0, KernelToUser: 0, InKernel: 0}
	for site, count := range sites {
		if site.Function != "pskb_expand_head" && site.Function != "skb_copy_bits" {
			sum[site.Direction] += int64(count.Bytes)
		}
	}
	return sum
}

func compareRows(t *testing.T, k knownAnswer, got map[Key]Move) {
	t.Helper()
	want := make(map[string]Move)
	for key, move := range k.want {
		if k.unordered {
			move = Move{Bytes: move.Bytes}
		}
		want[describe(key)] = move
	}
	seen := make(map[string]Move)
	for key, move := range got {
		if key.Class == ClassCall || (k.ignore != nil && k.ignore(key)) {
			continue
		}
		if k.unordered {
			move = Move{Bytes: move.Bytes}
		}
		seen[describe(key)] = move
	}
	require.Equal(t, want, seen)
}

func describe(k Key) string {
	return fmt.Sprintf("%v %v %v -> %v", k.Class, k.Operation, k.From, k.To)
}
