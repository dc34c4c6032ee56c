package regress

import (
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"waggle/results"
	"waggle/stats"
)

// revisionUnderTest is a made-up revision: what it costs where.
type revisionUnderTest struct {
	slowdown float64 // of read=copy
	copies   float64 // per byte of read=copy
	broken   bool    // read=sendfile gives no valid trial
}

var good = revisionUnderTest{slowdown: 1, copies: 2}

// made makes records of both read paths with the scatter of a shared machine.
type made struct {
	random *rand.Rand
	run    *results.Run
}

func newMade(seed uint64, name string) *made {
	return &made{rand.New(rand.NewPCG(seed, 2)), &results.Run{
		Plan: results.Plan{Schema: results.Schema, Run: name, Start: time.Unix(int64(seed), 0).UTC(),
			Experiments: []results.PlannedExperiment{{Name: "read-path", Question: "?", Effort: "quick", Repetitions: 20}}},
		Environment: results.Environment{Schema: results.Schema, Kernel: "6.18", CPU: "Test", CPUs: 2, MemoryBytes: 1,
			Commit: fmt.Sprintf("c%06d", seed), Revisions: map[string]string{"base": "aaa", "head": "bbb"}},
	}}
}

func (m *made) add(r revisionUnderTest, repetition int, cell results.Cell, control string) {
	const size, operations = 4096, 1000
	seconds := math.Exp(.04 * m.random.NormFloat64())
	copies := r.copies
	record := results.Record{Schema: results.Schema, Run: m.run.Plan.Run, Experiment: "read-path", Trial: len(m.run.Records),
		Repetition: repetition, Source: results.SourceMeasured, Cell: cell, Control: control, Valid: true}
	if cell["read"] == "sendfile" {
		copies = 1
		if r.broken {
			record.Valid, record.Reason = false, "a block did not match its checksum"
			m.run.Records = append(m.run.Records, record)
			return
		}
	} else {
		seconds *= r.slowdown
	}
	rate, ops, payload, calls := operations/seconds, int64(operations), int64(operations*size), int64(2*operations)
	record.Operations, record.PayloadBytes, record.Syscalls, record.OperationsPerSecond = &ops, &payload, &calls, &rate
	record.Latency = &results.Latency{P50: seconds / 1000, P90: seconds / 500, P99: seconds / 400, P999: seconds / 300, Max: seconds / 200, Mean: seconds / 900}
	record.Copies = &results.Copies{UserToKernelBytes: payload, KernelToUserBytes: payload * int64(copies-1), PerPayloadByte: copies, Backend: "boundary"}
	m.run.Records = append(m.run.Records, record)
}

// madeRun is a run of one revision.
func madeRun(seed uint64, name string, r revisionUnderTest) *results.Run {
	m := newMade(seed, name)
	for repetition := range 20 {
		m.add(r, repetition, results.Cell{"read": "copy"}, "")
		m.add(r, repetition, results.Cell{"read": "copy"}, results.ControlAA)
		m.add(r, repetition, results.Cell{"read": "sendfile"}, "")
	}
	return m.run
}

// madeInterleaved is a run of two revisions.
func madeInterleaved(seed uint64, base, head revisionUnderTest) *results.Run {
	m := newMade(seed, "both")
	for repetition := range 20 {
		for _, read := range []string{"copy", "sendfile"} {
			m.add(base, repetition, results.Cell{"read": read, "revision": "base"}, "")
			m.add(head, repetition, results.Cell{"read": read, "revision": "head"}, "")
		}
		m.add(base, repetition, results.Cell{"read": "copy", "revision": "base"}, results.ControlAA)
	}
	return m.run
}

func save(t *testing.T, dir string, run *results.Run) {
	w, err := results.Create(dir, run.Plan, run.Environment)
	require.NoError(t, err)
	for _, r := range run.Records {
		require.NoError(t, w.Append(r))
	}
	require.NoError(t, w.Close())
}

func TestTwoRunsOfOneCommitShowNoRegression(t *testing.T) {
	for seed := range uint64(20) {
		r, err := Compare(madeRun(seed, "a", good), madeRun(seed+1000, "b", good))
		require.NoError(t, err)
		assert.False(t, r.Failed(), r.Text())
		assert.Empty(t, r.Improvements())
		assert.Contains(t, r.Headline(), "no regression")
	}
}

func TestAnAddedCopyFailsByNameEvenBetweenTwoRuns(t *testing.T) {
	r, err := Compare(madeRun(1, "a", good), madeRun(2, "b", revisionUnderTest{slowdown: 2, copies: 3}))
	require.NoError(t, err)
	require.True(t, r.Failed())
	var names []string
	for _, f := range r.Regressions() {
		names = append(names, f.Cell+" "+f.Metric)
		assert.True(t, f.Exact)
	}
	assert.Equal(t, []string{"read=copy copies_per_byte", "read=copy kernel_to_user_per_byte"}, names,
		"the slowdown may not be claimed between two runs")
	assert.Contains(t, r.Text(), "WORSE   read-path, read=copy: copies_per_byte: 3 instead of 2 copies/B, counted")
	assert.Contains(t, r.Markdown(), "| read-path | `read=copy` | copies_per_byte | 2 copies/B | 3 copies/B | +50 % | worse: 3 instead of 2 copies/B, counted |")
}

func TestASlowdownIsFoundWhereRevisionsRanInterleaved(t *testing.T) {
	r, err := CompareRevisions(madeInterleaved(3, good, revisionUnderTest{slowdown: 1.15, copies: 2}))
	require.NoError(t, err)
	require.True(t, r.Failed())
	for _, f := range r.Regressions() {
		assert.Equal(t, "read=copy", f.Cell)
		assert.True(t, f.Paired)
	}
	assert.Equal(t, "aaa", r.Base.Commit)
	assert.Equal(t, "bbb", r.Head.Commit)

	r, err = CompareRevisions(madeInterleaved(3, good, good))
	require.NoError(t, err)
	assert.False(t, r.Failed(), r.Text())
}

func TestTwoPartsOfOneRunCountAsInterleaved(t *testing.T) {
	r, err := Compare(madeRun(1, "same", good), madeRun(2, "same", revisionUnderTest{slowdown: 1.5, copies: 2}))
	require.NoError(t, err)
	assert.True(t, r.Interleaved)
	assert.True(t, r.Failed())
}

func TestACellThatNoLongerRunsIsBroken(t *testing.T) {
	broken := good
	broken.broken = true
	r, err := Compare(madeRun(1, "a", good), madeRun(2, "b", broken))
	require.NoError(t, err)
	assert.True(t, r.Failed())
	assert.Equal(t, []Broken{{"read-path", "read=sendfile", "a block did not match its checksum"}}, r.Broken)
	assert.Contains(t, r.Text(), "BROKEN  read-path, read=sendfile")

	r, err = Compare(madeRun(1, "a", broken), madeRun(2, "b", good))
	require.NoError(t, err)
	assert.False(t, r.Failed())
	assert.Contains(t, r.Warnings, "read-path, read=sendfile: base has no valid trial: a block did not match its checksum")
}

func TestDifferentMachinesAndCodeAreWarnedOf(t *testing.T) {
	head := madeRun(2, "b", good)
	head.Environment.Kernel, head.Environment.Dirty = "6.1", true
	r, err := Compare(madeRun(1, "a", good), head)
	require.NoError(t, err)
	assert.Contains(t, strings.Join(r.Warnings, "\n"), "different machines: kernel 6.18, then 6.1")
	assert.Contains(t, strings.Join(r.Warnings, "\n"), "uncommitted changes")
}

func TestNothingInCommonIsAnError(t *testing.T) {
	empty := newMade(1, "empty").run
	_, err := Compare(empty, madeRun(1, "a", good))
	require.ErrorContains(t, err, "no cell in common")
	_, err = CompareRevisions(madeRun(1, "a", good))
	require.ErrorContains(t, err, "compares no revisions")
	require.ErrorContains(t, err, "--revision base=PROGRAM")
}

func TestJSONHoldsTheNumbers(t *testing.T) {
	r, err := CompareRevisions(madeInterleaved(3, good, revisionUnderTest{slowdown: 1.15, copies: 2}))
	require.NoError(t, err)
	text, err := json.Marshal(r)
	require.NoError(t, err)
	var back map[string]any
	require.NoError(t, json.Unmarshal(text, &back))
	first := back["findings"].([]any)[0].(map[string]any)
	assert.Equal(t, "operation_rate", first["metric"])
	assert.Equal(t, "worse", first["verdict"])
	assert.Contains(t, first, "adjusted_p")
}

func TestMarkdownKeepsTextFromBeingMarkup(t *testing.T) {
	r := Report{Broken: []Broken{{"e", "read=`a|b`", "<script> @everyone | [x](y)"}}}
	md := r.Markdown()
	assert.NotContains(t, md, "<script>")
	assert.NotContains(t, md, "@everyone")
	assert.Contains(t, md, "`read='a\\|b'`")
}

func TestChangePointsAreWhereTheLevelChanges(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 5))
	level := func(n int, mean float64) []float64 {
		out := make([]float64, n)
		for i := range out {
			out[i] = mean * (1 + .02*random.NormFloat64())
		}
		return out
	}
	series := append(append(level(20, 100), level(15, 110)...), level(25, 100)...)
	at := changePoints(series)
	require.Len(t, at, 2)
	assert.InDelta(t, 20, at[0], 1)
	assert.InDelta(t, 35, at[1], 1)
	assert.Equal(t, at, changePoints(series), "the same answer each time")

	assert.Empty(t, changePoints(nil))
	assert.Empty(t, changePoints([]float64{1, 1, 1, 1, 1, 1, 1}))
	assert.Equal(t, []int{3}, changePoints([]float64{1, 1, 1, 2, 2, 2}))
	assert.Empty(t, changePoints(append(level(10, 100), append([]float64{150}, level(10, 100)...)...)), "one disturbed run is no change")

	flagged := 0
	for range 200 {
		if len(changePoints(level(30, 100))) > 0 {
			flagged++
		}
	}
	t.Logf("%d of 200 series without a change flagged", flagged)
	assert.LessOrEqual(t, flagged, 10)
}

func TestHistoryFindsTheCommit(t *testing.T) {
	dir := t.TempDir()
	for i := range uint64(12) {
		r := good
		if i >= 6 {
			r = revisionUnderTest{slowdown: 1.3, copies: 3}
		}
		run := madeRun(100+i, fmt.Sprintf("run%d", i), r)
		run.Records = run.Records[:12]
		if i >= 9 {
			run.Environment.Kernel = "6.19"
		}
		save(t, filepath.Join(dir, fmt.Sprintf("run%02d", 11-i)), run) // the order of names is not the order of time
	}
	runs, err := OpenHistory(dir)
	require.NoError(t, err)
	h := Follow(runs)
	changed := map[string]Trend{}
	for _, t := range h.Changed() {
		changed[t.Cell+" "+t.Metric] = t
	}
	for _, name := range []string{"read=copy latency_p50", "read=copy operation_rate", "read=copy copies_per_byte"} {
		require.Contains(t, changed, name)
		require.Len(t, changed[name].Changes, 1)
		c := changed[name].Changes[0]
		assert.Equal(t, "c000106", c.Commit, name)
		assert.Equal(t, stats.Worse, c.Verdict, name)
		assert.Empty(t, c.Machine)
	}
	assert.NotContains(t, changed, "read=sendfile copies_per_byte")
	assert.Contains(t, strings.Join(h.Warnings, "\n"), "another machine than the one before: kernel 6.18, then 6.19")
	assert.Contains(t, h.Text(), "copies_per_byte: 3 copies/B at c000106, 2 copies/B before")
	assert.Contains(t, h.Markdown(), "| read-path | `read=copy` |")

	pictures := t.TempDir()
	names, err := h.Draw(pictures)
	require.NoError(t, err)
	assert.Contains(t, names, "trend-read-path-copies_per_byte.svg")
	again := t.TempDir()
	_, err = Follow(runs).Draw(again)
	require.NoError(t, err)
	for _, name := range names {
		a, err := os.ReadFile(filepath.Join(pictures, name))
		require.NoError(t, err)
		b, err := os.ReadFile(filepath.Join(again, name))
		require.NoError(t, err)
		assert.Equal(t, a, b, name)
		decoder := xml.NewDecoder(strings.NewReader(string(a)))
		for err == nil {
			_, err = decoder.Token()
		}
		assert.Equal(t, io.EOF, err)
	}
}

// System calls are counted, but how often a process polls is chance: their trend
// is not that of a count, or every run would be a change.
func TestWhatScattersWithinARunIsNoCount(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var runs []*results.Run
	for i := range uint64(12) {
		run := madeRun(200+i, fmt.Sprintf("run%d", i), good)
		run.Records = run.Records[:12]
		for k := range run.Records {
			calls := int64(2000 * (1 + .2*random.Float64()))
			run.Records[k].Syscalls = &calls
		}
		runs = append(runs, run)
	}
	require.Empty(t, Follow(runs).Changed())
}

func TestHistoryNeedsRuns(t *testing.T) {
	_, err := OpenHistory(t.TempDir())
	require.ErrorContains(t, err, "holds no run directory")
	_, err = OpenHistory(filepath.Join(t.TempDir(), "missing"))
	require.Error(t, err)
	dir := t.TempDir()
	save(t, filepath.Join(dir, "a"), madeRun(1, "a", good))
	runs, err := OpenHistory(dir)
	require.NoError(t, err)
	assert.Contains(t, Follow(runs).Warnings[0], "1 runs")
}

// changed gives a run with the records that keep changes and wants.
func changed(run *results.Run, keep func(*results.Record) bool) *results.Run {
	kept := run.Records[:0]
	for _, r := range run.Records {
		if keep(&r) {
			kept = append(kept, r)
		}
	}
	run.Records = kept
	return run
}

func TestWhatBaseMeasuredAndHeadDidNotFails(t *testing.T) {
	for name, c := range map[string]struct {
		keep func(*results.Record) bool
		want string
	}{
		"a cell":        {func(r *results.Record) bool { return r.Cell["read"] != "sendfile" }, "BROKEN  read-path, read=sendfile: it has no trial"},
		"an experiment": {func(r *results.Record) bool { return false }, "BROKEN  read-path: head has no trial of it"},
		"the ledger": {func(r *results.Record) bool { r.Copies, r.Syscalls = nil, nil; return true },
			"BROKEN  read-path, read=copy: head did not measure copies_per_byte, user_to_kernel_per_byte, kernel_to_user_per_byte"},
	} {
		r, err := Compare(madeRun(1, "a", good), changed(madeRun(2, "b", good), c.keep))
		require.NoError(t, err, name)
		assert.True(t, r.Failed(), name)
		assert.Contains(t, r.Text(), c.want, name)
		assert.NotContains(t, r.Headline(), "no regression", name)
		assert.Contains(t, r.Markdown(), "**broken**", name)
	}
	one := changed(madeInterleaved(3, good, good), func(r *results.Record) bool {
		return r.Cell["revision"] == "base" || r.Cell["read"] == "copy"
	})
	r, err := CompareRevisions(one)
	require.NoError(t, err)
	assert.True(t, r.Failed())
	assert.Contains(t, r.Text(), "BROKEN  read-path, read=sendfile")
}

func TestAComparisonWithoutAnAnswerIsNoPass(t *testing.T) {
	timingsAlone := func(r *results.Record) bool { r.Copies, r.Syscalls, r.PayloadBytes = nil, nil, nil; return true }
	r, err := Compare(changed(madeRun(1, "a", good), timingsAlone), changed(madeRun(2, "b", good), timingsAlone))
	require.NoError(t, err)
	assert.True(t, r.Failed(), "timings of two runs are not compared")
	assert.Contains(t, r.Headline(), "nothing could be compared")
}

// scattering makes about so many system calls a thousand operations.
func scattering(run *results.Run, seed uint64, about float64) *results.Run {
	random := rand.New(rand.NewPCG(seed, 3))
	return changed(run, func(r *results.Record) bool {
		calls := int64(about * (1 + .2*random.Float64()))
		r.Syscalls = &calls
		return true
	})
}

func TestThreeTimesTheSystemCallsAreAFindingBetweenTwoRuns(t *testing.T) {
	r, err := Compare(scattering(madeRun(1, "a", good), 1, 2000), scattering(madeRun(2, "b", good), 2, 6000))
	require.NoError(t, err)
	require.True(t, r.Failed())
	for _, f := range r.Regressions() {
		assert.Equal(t, results.SyscallsPerOperation, f.Metric)
	}
	r, err = Compare(scattering(madeRun(1, "a", good), 1, 2000), scattering(madeRun(2, "b", good), 2, 2300))
	require.NoError(t, err)
	require.False(t, r.Failed(), "within what a machine does: %s", r.Text())

	runs := []*results.Run{scattering(madeRun(1, "a", good), 1, 2000), scattering(madeRun(2, "b", good), 2, 6000)}
	h := Follow(runs)
	require.True(t, h.Failed())
	require.Contains(t, h.Text(), results.SyscallsPerOperation)
	require.False(t, Follow(runs[:1]).Failed())
}
