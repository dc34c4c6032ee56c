package copies

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestSnapshotsOfBoundaryHaveNoSites(t *testing.T) {
	sum := Counts{Moves: map[Key]Move{{Class: ClassCopy, To: KindUser}: {1, 2, 0, 0}}}
	sum = sum.Plus(sum).Minus(Counts{})
	require.Equal(t, Copied{KernelToUserBytes: 4}, sum.Copied())
}

// startUncounted runs a stopped known answer without the ledger knowing, and ends it with the test.
func startUncounted(t *testing.T, name string) int {
	t.Helper()
	command := exec.Command("/proc/self/exe")
	command.Env = append(os.Environ(), programVariable+"="+name, directoryVariable+"="+t.TempDir(), "GOMAXPROCS=2")
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	require.NoError(t, command.Start())
	pid := command.Process.Pid
	require.NoError(t, command.Process.Release())
	waitStopped(t, pid)
	return pid
}

const simplest = "readv and writev on a pipe"

func simplestAnswer() knownAnswer {
	return knownAnswers[slices.IndexFunc(knownAnswers, func(k knownAnswer) bool { return k.name == simplest })]
}

func runPart(t *testing.T, pid int) {
	t.Helper()
	require.NoError(t, unix.Kill(pid, unix.SIGCONT))
	waitStopped(t, pid)
}

func end(t *testing.T, pid int) {
	t.Helper()
	require.NoError(t, unix.Kill(pid, unix.SIGCONT))
	waitEnded(t, pid)
}

func TestAddProcessCountsARunningOne(t *testing.T) {
	l := openForTest(t, Boundary)
	pid := startUncounted(t, simplest)
	require.NoError(t, l.AddProcess("late", pid))
	runPart(t, pid)
	compareRows(t, simplestAnswer(), must1(l.Snapshot()).Roles["late"].Moves)
	end(t, pid)
	require.ErrorContains(t, l.AddProcess("late", pid), "there is no such process")
}

func TestAddCgroupCountsWhatRunsBelowIt(t *testing.T) {
	l := openForTest(t, Boundary)
	root, err := cgroupMount()
	require.NoError(t, err)
	group := filepath.Join(root, fmt.Sprintf("waggle-copies-test-%d", os.Getpid()))
	inner := filepath.Join(group, "inner")
	require.NoError(t, os.MkdirAll(inner, 0o755))
	defer os.Remove(group)
	defer os.Remove(inner)

	pid := startUncounted(t, simplest)
	require.NoError(t, os.WriteFile(filepath.Join(inner, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0o644))
	require.NoError(t, l.AddCgroup("group", group))
	runPart(t, pid)
	counts := must1(l.Snapshot()).Roles["group"]
	compareRows(t, simplestAnswer(), counts.Moves)
	require.NotZero(t, counts.Wakeups, "wake-ups are found by another way than the rest")
	end(t, pid)

	require.NoError(t, os.Remove(inner))
	require.NoError(t, os.Remove(group), "the ledger must not keep a control group alive")
	require.False(t, CgroupExists(group))
	_, err = l.Snapshot()
	require.NoError(t, err)
	require.Error(t, l.AddCgroup("group", group))
	require.ErrorContains(t, l.AddCgroup("group", "/tmp"), "not a version 2 control group")
}

func TestTwoLedgersAtOnce(t *testing.T) {
	first, second := openForTest(t, Boundary), openForTest(t, Boundary)
	pid := startUncounted(t, simplest)
	require.NoError(t, first.AddProcess("a", pid))
	require.NoError(t, second.AddProcess("b", pid))
	runPart(t, pid)
	end(t, pid)
	compareRows(t, simplestAnswer(), must1(first.Snapshot()).Roles["a"].Moves)
	compareRows(t, simplestAnswer(), must1(second.Snapshot()).Roles["b"].Moves)
}

// The switches of all threads must be those that the kernel itself counts.
func TestSwitchesAgreeWithTheKernel(t *testing.T) {
	l := openForTest(t, Boundary)
	pid := startUncounted(t, "thread pool")
	defer end(t, pid)
	require.NoError(t, l.AddProcess("pool", pid))
	before := kernelSwitches(t, pid)
	runPart(t, pid)
	// The last threads may still be on their way to stop.
	require.Eventually(t, func() bool {
		now, counted := kernelSwitches(t, pid), must1(l.Snapshot()).Roles["pool"]
		return now[0]-before[0] == counted.VoluntarySwitches && now[1]-before[1] == counted.InvoluntarySwitches
	}, 10*time.Second, 10*time.Millisecond)
}

// kernelSwitches adds up voluntary and involuntary switches of a process's threads.
func kernelSwitches(t *testing.T, pid int) (sum [2]uint64) {
	t.Helper()
	paths := must1(filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid)))
	for _, path := range paths {
		file := must1(os.Open(path))
		lines := bufio.NewScanner(file)
		for lines.Scan() {
			name, value, _ := strings.Cut(lines.Text(), ":")
			if i := slices.Index([]string{"voluntary_ctxt_switches", "nonvoluntary_ctxt_switches"}, name); i >= 0 {
				sum[i] += must1(strconv.ParseUint(strings.TrimSpace(value), 10, 64))
			}
		}
		must(file.Close())
	}
	return sum
}

// Every process must leave the table again: it is far smaller than their number.
func TestManyShortProcessesLeaveNothing(t *testing.T) {
	if _, err := exec.LookPath("sh"); err != nil {
		t.Skip("there is no shell to start processes")
	}
	const processes, tableSize = 500, 8
	l := openWithTable(t, tableSize)
	command := exec.Command("sh", "-c", fmt.Sprintf("i=0; while [ $i -lt %d ]; do (:); i=$((i+1)); done", processes))
	require.NoError(t, l.Start("short", command))
	require.NoError(t, command.Wait())
	s := must1(l.Snapshot())
	require.Zero(t, s.Losses)
	require.Greater(t, s.Roles["short"].SystemCalls, uint64(processes))
	require.Zero(t, targetsOf(l))
}

func openWithTable(t *testing.T, processes int) *Ledger {
	t.Helper()
	if err := preconditions(Boundary); err != nil {
		t.Skip(err)
	}
	l, err := Open(Options{Backend: Boundary, MaxProcesses: processes})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.Close()) })
	return l
}

func TestAFullTableOfProcessesIsSaid(t *testing.T) {
	l := openWithTable(t, 1)
	pid := startUncounted(t, "fork and exec in between")
	require.NoError(t, l.AddProcess("full", pid))
	runPart(t, pid)
	end(t, pid)
	require.Equal(t, uint64(1), must1(l.Snapshot()).Losses.Processes)
	other := startUncounted(t, simplest)
	require.NoError(t, l.AddProcess("full", other), "the first one has ended")
	require.ErrorContains(t, l.AddProcess("full", os.Getpid()), "its limit")
	runPart(t, other)
	end(t, other)
}

func targetsOf(l *Ledger) (n int) {
	var key uint32
	var value boundaryTarget
	for entries := l.boundary.Targets.Iterate(); entries.Next(&key, &value); n++ {
	}
	return n
}

func TestAKilledLedgerLeavesNothingAttached(t *testing.T) {
	if err := preconditions(Boundary); err != nil {
		t.Skip(err)
	}
	command := exec.Command("/proc/self/exe")
	command.Env = append(os.Environ(), programVariable+"=inner ledger")
	command.Stderr = os.Stderr
	out, err := command.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, command.Start())
	var id uint32
	_, err = fmt.Fscan(out, &id)
	require.NoError(t, err)
	require.True(t, programExists(id))

	require.NoError(t, command.Process.Kill())
	require.Error(t, command.Wait())
	require.Eventually(t, func() bool { return !programExists(id) }, 10*time.Second, 10*time.Millisecond)
}

func programExists(id uint32) bool {
	program, err := ebpf.NewProgramFromID(ebpf.ProgramID(id))
	if err != nil {
		return false
	}
	program.Close()
	return true
}

func FuzzParseKernelSymbols(f *testing.F) {
	f.Add("ffffffff84748180 t bio_copy_from_iter\nffffffffc0001000 T f [module]\n", uint64(0xffffffff84748190))
	f.Add("0000000000000000 T hidden\n", uint64(0))
	f.Add("ffffffff84748180 d data", uint64(1))
	f.Fuzz(func(t *testing.T, text string, address uint64) {
		symbols, err := parseKernelSymbols(strings.NewReader(text))
		if err != nil {
			return
		}
		require.NotEmpty(t, symbols.nameOf(address))
		for _, symbol := range symbols {
			require.LessOrEqual(t, symbols[0].address, symbol.address)
		}
	})
}

func TestNamesOfKernelSymbols(t *testing.T) {
	symbols, err := parseKernelSymbols(strings.NewReader("2000 T second\n1000 t first\n1800 d data\n"))
	require.NoError(t, err)
	require.Equal(t, "0xfff", symbols.nameOf(0xfff))
	require.Equal(t, "first", symbols.nameOf(0x1000))
	require.Equal(t, "first", symbols.nameOf(0x1fff))
	require.Equal(t, "second", symbols.nameOf(0x2001))
	_, err = parseKernelSymbols(strings.NewReader("0 T hidden\n"))
	require.ErrorContains(t, err, "kptr_restrict")
}
