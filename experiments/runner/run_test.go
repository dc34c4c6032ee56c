package runner

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"waggle/bpf/copies"
	"waggle/bpf/reflector"
	"waggle/bpf/refusal/refusaltest"
	"waggle/experiments/spec"
	"waggle/experiments/topology"
	"waggle/internal/signaltest"
	"waggle/results"
)

// program is the waggle program, built once: roles are real processes.
var program string

func TestMain(m *testing.M) { os.Exit(buildAndRun(m)) }

func buildAndRun(m *testing.M) int {
	dir, err := os.MkdirTemp("", "waggle-test-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	program = filepath.Join(dir, "waggle")
	build := exec.Command("go", "build", "-o", program, "waggle/cmd/waggle")
	build.Stdout, build.Stderr = os.Stderr, os.Stderr
	if err := build.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "build waggle:", err)
		return 1
	}
	return m.Run()
}

const tiny = `
name: tiny
question: Does it run?
metrics: [throughput, latency, cpu, copies]
fixed: {files: 2, file_bytes: 1MiB, chunk_bytes: 64KiB, chunk_servers: 2, replication: 2, size_bytes: 64KiB}
factors:
  topology: [TOPOLOGY]
  workload: [sequential-read, random-read]
  read: [copy, floor]
  clients: [2]
control: {read: copy}
trials:
  smoke: {repetitions: 2, warm_up_seconds: 0.01, operations: 200}
  quick: {repetitions: 2, seconds: 0.05}
  full: {repetitions: 200, seconds: 0.1}
`

// lossy loses packets of one cell's links.
const lossy = `
name: lossy
question: Are packets lost where they are to be?
metrics: [throughput]
fixed: {topology: hosts, files: 1, file_bytes: 1MiB, size_bytes: 64KiB, offload: false, read: copy, duplicate_percent: 1}
factors:
  loss_percent: [0, 2]
control: {loss_percent: 0}
trials:
  smoke: {repetitions: 1, operations: 40}
  quick: {repetitions: 1, operations: 40}
  full: {repetitions: 1, operations: 40}
`

func TestLinksLosePackets(t *testing.T) {
	if err := topology.Supported(topology.Hosts); err != nil {
		t.Skip(err)
	}
	o := optionsFor(t, lossy)
	_, err := Run(t.Context(), o)
	require.NoError(t, err)
	run, err := results.Open(o.Out)
	require.NoError(t, err)
	require.Len(t, run.Records, 3, "two cells, and the control's twin")
	for _, r := range run.Records {
		require.True(t, r.Valid, r.Reason)
		require.Greater(t, r.Proof[faultPackets], int64(1600), "40 requests of 64 KiB over an MTU of 1500")
		require.Positive(t, r.Proof[faultDuplicated])
		if r.Cell["loss_percent"] == 0.0 {
			require.Zero(t, r.Proof[faultDropped])
		} else {
			require.Positive(t, r.Proof[faultDropped])
		}
	}
	requireNothingLeft(t, o)
}

// reflected has cells of both floors of lookups, where one is and where it can't be.
const reflected = `
name: reflected
question: Does the network driver answer?
metrics: [latency, cpu]
fixed: {size_bytes: 100, files: 50, xdp_pass: true, clients: 2}
factors:
  topology: [local, hosts]
  workload: [lookup, small-read]
  lookup: [udp, floor, floor-xdp]
control: {topology: hosts, lookup: floor-xdp, workload: lookup}
trials:
  smoke: {repetitions: 1, warm_up_seconds: 0.01, operations: 500}
  quick: {repetitions: 1, operations: 500}
  full: {repetitions: 1, operations: 500}
`

// The floor in the driver is proven, or said to be impossible: never another floor.
func TestTheFloorOfLookupsInTheDriver(t *testing.T) {
	if err := topology.Supported(topology.Hosts); err != nil {
		t.Skip(err)
	}
	refusaltest.SkipOrFail(t, reflector.Supported())
	o := optionsFor(t, reflected)
	_, err := Run(t.Context(), o)
	require.NoError(t, err)
	run, err := results.Open(o.Out)
	require.NoError(t, err)
	require.Len(t, run.Records, 13)
	for _, r := range run.Records {
		if r.Cell["lookup"] != "floor-xdp" {
			require.True(t, r.Valid, r.Reason)
			require.NotContains(t, r.Proof, floorXDPAnswers)
			continue
		}
		if r.Cell["topology"] == "local" {
			require.True(t, r.Unsupported)
			require.Equal(t, "lookup=floor-xdp is for two hosts: use topology=hosts", r.Reason)
			continue
		}
		require.True(t, r.Valid, r.Reason)
		require.GreaterOrEqual(t, r.Proof[floorXDPAnswers], int64(500), "an answer is counted before it is sent")
		require.Less(t, r.Proof[floorXDPAnswers], int64(600), "those of the trial alone, and of what was asked for again")
	}
	requireNothingLeft(t, o)
}

// kinds has a cell of each workload that writes, and of the small ones.
const kinds = `
name: kinds
question: Does every kind of workload run?
metrics: [cpu]
fixed: {files: 50, file_bytes: 1MiB, chunk_servers: 2, replication: 2, clients: 3}
factors:
  workload: [sequential-write, random-write, small-read, small-create, lookup]
  size_bytes: [1024, 4096]
  rate: [closed, 500]
control: {rate: closed}
trials:
  smoke: {repetitions: 1, warm_up_seconds: 0.01, operations: 60}
  quick: {repetitions: 1, seconds: 0.05}
  full: {repetitions: 1, seconds: 0.05}
`

func optionsFor(t *testing.T, text string) Options {
	e, err := spec.Parse("test.yaml", []byte(text), KnownPaths())
	require.NoError(t, err)
	return Options{Experiments: []*spec.Experiment{e}, Effort: spec.Smoke, Out: filepath.Join(t.TempDir(), "run"), Seed: 11,
		Program: program, Scratch: t.TempDir(), CommandLine: []string{"waggle"}, Progress: NewProgress(testWriter{t}, false)}
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Logf("%s", bytes.TrimSpace(b))
	return len(b), nil
}

// requireNothingLeft checks that no run holds anything.
func requireNothingLeft(t *testing.T, o Options) {
	left, err := os.ReadDir(o.Scratch)
	require.NoError(t, err)
	require.Empty(t, left)
}

func TestRunMeasuresTheFileSystemAndTheFloor(t *testing.T) {
	for _, kind := range []string{topology.Local, topology.Hosts} {
		t.Run(kind, func(t *testing.T) {
			if err := topology.Supported(kind); err != nil {
				t.Skip(err)
			}
			o := optionsFor(t, strings.Replace(tiny, "TOPOLOGY", kind, 1))
			summary, err := Run(t.Context(), o)
			require.NoError(t, err)
			all := 10 + counts(5)
			require.Equal(t, Summary{Trials: all, Valid: all, Notes: summary.Notes}, summary)
			run, err := results.Open(o.Out)
			require.NoError(t, err)
			require.Len(t, run.Records, all, "2x2 cells and the control's twin, twice, and once under the ledger")
			for _, r := range run.Records {
				requireMeasured(t, r)
			}
			requireNothingLeft(t, o)
		})
	}
}

func requireMeasured(t *testing.T, r results.Record) {
	require.True(t, r.Valid, r.Reason)
	require.Equal(t, int64(200), *r.Operations)
	require.Equal(t, int64(200*65536), *r.PayloadBytes)
	if r.Cell["read"] == "copy" {
		// The client has the last request's bytes before the server counts them.
		require.GreaterOrEqual(t, r.Proof["read_copy_bytes"], *r.PayloadBytes-65536)
	} else {
		require.Empty(t, r.Proof)
	}
	require.NotEmpty(t, r.Connections.Congestion)
	if r.Repetition < 2 {
		require.Nil(t, r.Copies, "the ledger is for the trials that count copies")
		requireTimed(t, r)
	} else {
		require.Nil(t, r.OperationsPerSecond, "no time is taken under the ledger")
		require.Nil(t, r.CPU)
		require.Nil(t, r.Latency)
		// pread and send on the server, receive on the client: each byte is
		// copied three times, and headers and polls add a little.
		require.InDelta(t, 3, r.Copies.PerPayloadByte, 0.1)
		require.Positive(t, *r.Syscalls)
		require.Positive(t, *r.ContextSwitches)
	}
}

// counts is how many trials count copies, which not every machine can.
func counts(trials int) int {
	if copies.Supported(copies.Boundary) != nil {
		return 0
	}
	return trials
}

// requireTimed checks what is measured of the processors and of the course of a trial.
func requireTimed(t *testing.T, r results.Record) {
	switch {
	case r.CPU == nil:
		require.Contains(t, r.Disturbance.Exceeded, "too early or too late")
	case r.Cell["read"] == "copy":
		require.Contains(t, r.CPU.ByRole, "client")
		require.Contains(t, r.CPU.ByRole, "chunk")
	default:
		require.Contains(t, r.CPU.ByRole, "floor")
	}
	require.Positive(t, r.Disturbance.Attempts)
	if runtime.NumCPU() > 1 {
		require.Contains(t, results.Placements(), r.Placement)
		require.NotNil(t, r.Latency)
	}
	var ended int64
	for _, n := range r.Timeline.Operations {
		ended += n
	}
	require.Equal(t, *r.Operations, ended, "every operation is in the time line")
}

func TestEveryKindOfWorkload(t *testing.T) {
	o := optionsFor(t, kinds)
	summary, err := Run(t.Context(), o)
	require.NoError(t, err)
	require.Equal(t, Summary{Trials: 21, Valid: 21, Notes: summary.Notes}, summary)
	requireNothingLeft(t, o)
}

// searching has a cell that searches, of the file system and of the floor.
const searching = `
name: searching
question: How much load is sustained?
metrics: [cpu, copies]
fixed: {workload: lookup, files: 50, size_bytes: 100, clients: 2, rate: search}
factors:
  lookup: [udp, floor]
control: {lookup: udp}
trials:
  smoke: {repetitions: 1, seconds: 0.02}
  quick: {repetitions: 1, seconds: 0.02}
  full: {repetitions: 1, seconds: 0.02}
`

// A search gives a rate, how it came by it, and no numbers of a mixture of rates.
func TestASearchGivesTheRateAlone(t *testing.T) {
	o := optionsFor(t, searching)
	_, err := Run(t.Context(), o)
	require.NoError(t, err)
	run, err := results.Open(o.Out)
	require.NoError(t, err)
	require.Len(t, run.Records, 3, "nothing is counted of a mixture of rates")
	for _, r := range run.Records {
		require.True(t, r.Valid, r.Reason)
		require.Positive(t, r.Search.SustainedOperationsPerSecond)
		require.NotEmpty(t, r.Search.Steps)
		require.Positive(t, *r.Operations)
		require.Nil(t, r.OperationsPerSecond)
		require.Nil(t, r.ThroughputBytesPerSecond)
		require.Nil(t, r.Latency)
		require.Empty(t, r.LatencyHistogram)
		require.Nil(t, r.CPU)
		require.Nil(t, r.Copies)
	}
	requireNothingLeft(t, o)
}

// stopAfter ends a run's context when so many trials are done.
type stopAfter struct {
	Progress
	left int
	stop func()
}

func (s *stopAfter) Trial(cell string, r results.Record) {
	s.Progress.Trial(cell, r)
	if s.left--; s.left == 0 {
		s.stop()
	}
}

func TestInterruptedRunIsResumedInItsOrder(t *testing.T) {
	o := optionsFor(t, strings.Replace(tiny, "TOPOLOGY", "local", 1))
	ctx, cancel := context.WithCancel(t.Context())
	o.Progress = &stopAfter{o.Progress, 3, cancel}
	_, err := Run(ctx, o)
	require.ErrorIs(t, err, ErrInterrupted)
	require.ErrorContains(t, err, fmt.Sprint(7+counts(5), " trials left"))
	requireNothingLeft(t, o)

	// A crash in the middle of a line leaves half of one.
	f, err := os.OpenFile(filepath.Join(o.Out, results.RecordsFile), os.O_WRONLY|os.O_APPEND, 0)
	require.NoError(t, err)
	_, err = f.WriteString(`{"schema":1,"run":"`)
	require.NoError(t, err)
	require.NoError(t, f.Close())

	o.Progress, o.Seed = NewProgress(testWriter{t}, false), 99 // the seed of the run that was begun counts
	_, err = Run(t.Context(), o)
	require.ErrorContains(t, err, "already holds a run")
	o.Resume = true
	other := o
	other.Effort = spec.Quick
	_, err = Run(t.Context(), other)
	require.ErrorContains(t, err, `tiny was begun with effort "smoke" and not "quick"`)
	// The run directory alone says how to go on.
	begun, err := results.OpenPlan(o.Out)
	require.NoError(t, err)
	alone := Options{Out: o.Out, Resume: true, Program: program, Scratch: o.Scratch, Progress: o.Progress}
	require.NoError(t, alone.Begun(begun))
	summary, err := Run(t.Context(), alone)
	require.NoError(t, err)
	require.Equal(t, 7+counts(5), summary.Valid)

	run, err := results.Open(o.Out)
	require.NoError(t, err)
	plans, err := o.Plan()
	require.NoError(t, err)
	places, err := placements()
	require.NoError(t, err)
	wanted := order(plans, 11, places)
	require.Len(t, run.Records, len(wanted))
	for i, r := range run.Records {
		require.Equal(t, wanted[i].cell.Levels.String(), r.Cell.String(), "trial %d", i)
		require.Equal(t, wanted[i].repetition, r.Repetition)
	}
}

// killOnce kills a chunk server after the first trial.
type killOnce struct {
	Progress
	t      *testing.T
	killed bool
}

func (k *killOnce) Trial(cell string, r results.Record) {
	k.Progress.Trial(cell, r)
	if pids := pidsOf(k.t, "chunk-1"); !k.killed && len(pids) > 0 {
		k.killed = true
		require.NoError(k.t, syscall.Kill(pids[0], syscall.SIGKILL))
	}
}

// pidsOf finds roles of this test's runs by their name, through the lock files.
func pidsOf(t *testing.T, name string) (pids []int) {
	locks, err := filepath.Glob("/run/waggle/*.lock")
	require.NoError(t, err)
	for _, lock := range locks {
		var c struct{ Cgroup string }
		data, err := os.ReadFile(lock)
		if err != nil || json.Unmarshal(data, &c) != nil || c.Cgroup == "" || !strings.Contains(string(data), "TestR") {
			continue // of somebody else's
		}
		files, err := filepath.Glob(filepath.Join(c.Cgroup, "*-"+name, "cgroup.procs"))
		require.NoError(t, err)
		for _, file := range files {
			text, _ := os.ReadFile(file)
			for _, field := range strings.Fields(string(text)) {
				pid, err := strconv.Atoi(field)
				require.NoError(t, err)
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

func TestRoleThatDiesCostsItsTrialAndNoMore(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("finds the role to kill by its cgroup, which needs root")
	}
	o := optionsFor(t, strings.Replace(tiny, "TOPOLOGY", "local", 1))
	o.Progress = &killOnce{Progress: o.Progress, t: t}
	summary, err := Run(t.Context(), o)
	require.NoError(t, err)
	all := 10 + counts(5)
	require.Equal(t, Summary{Trials: all, Valid: all - 1, Invalid: 1, Notes: summary.Notes}, summary)
	run, err := results.Open(o.Out)
	require.NoError(t, err)
	for _, r := range run.Records {
		if !r.Valid {
			require.Contains(t, r.Reason, "chunk-1 ended: signal: killed")
		}
	}
	requireNothingLeft(t, o)
}

// Signals go to a real `waggle run`.
func TestRunProcessThatIsStopped(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("finds the roles by their cgroups, which needs root")
	}
	signaltest.Heed(t, syscall.SIGINT, syscall.SIGHUP)
	for _, by := range []syscall.Signal{syscall.SIGINT, syscall.SIGHUP, syscall.SIGKILL} {
		t.Run(by.String(), func(t *testing.T) { stopAndResume(t, by) })
	}
}

func stopAndResume(t *testing.T, signal syscall.Signal) {
	o := optionsFor(t, strings.Replace(tiny, "TOPOLOGY", "hosts", 1))
	file := filepath.Join(t.TempDir(), "tiny.yaml")
	require.NoError(t, os.WriteFile(file, []byte(strings.Replace(tiny, "TOPOLOGY", "hosts", 1)), 0o600))
	command := func(effort string, more ...string) *exec.Cmd {
		return exec.Command(program, append([]string{"run", file, "--effort", effort, "--out", o.Out, "--scratch", o.Scratch, "--seed", "1"}, more...)...)
	}
	first := command("full")
	var output bytes.Buffer
	first.Stderr = &output
	require.NoError(t, first.Start())
	require.Eventually(t, func() bool {
		records, err := os.ReadFile(filepath.Join(o.Out, results.RecordsFile))
		return err == nil && bytes.Count(records, []byte("\n")) > 2
	}, time.Minute, 10*time.Millisecond)
	pids := append(pidsOf(t, "chunk-1"), pidsOf(t, "client")...)
	require.NotEmpty(t, pids)
	require.NoError(t, first.Process.Signal(signal))
	err := first.Wait()
	require.Error(t, err)
	for _, pid := range pids {
		require.Eventually(t, func() bool { return syscall.Kill(pid, 0) != nil }, 10*time.Second, 10*time.Millisecond)
	}
	if signal != syscall.SIGKILL {
		require.Contains(t, output.String(), "--resume --out "+o.Out)
		requireNothingLeft(t, o)
	}
	// The next start cleans up, whatever it runs.
	o.Out = filepath.Join(t.TempDir(), "second")
	second, err := command("smoke").CombinedOutput()
	require.NoError(t, err, "%s", second)
	requireNothingLeft(t, o)
}
