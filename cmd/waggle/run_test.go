package main

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"waggle/analysis/figure"
	"waggle/experiments"
	"waggle/experiments/runner"
	"waggle/experiments/spec"
	"waggle/results"
)

func TestExperimentsThatComeWithWaggle(t *testing.T) {
	list, err := loadExperiments([]string{"all"}, runner.KnownPaths())
	require.NoError(t, err)
	require.Len(t, list, len(experiments.Names()))
	limits := map[spec.Effort]time.Duration{spec.Smoke: time.Minute, spec.Quick: 4 * time.Minute, spec.Full: time.Hour}
	for effort, limit := range limits {
		var plans []*spec.Plan
		for _, e := range list {
			p, err := e.Plan(effort, nil)
			require.NoError(t, err)
			require.Less(t, runner.Estimate([]*spec.Plan{p}), time.Hour, "%s at %s", e.Name, effort)
			plans = append(plans, p)
			for _, f := range e.Figures {
				require.Contains(t, figure.Kinds(), f.Kind, "%s: %s", e.Name, f.Title)
			}
		}
		require.Less(t, runner.Estimate(plans), limit, "all at %s", effort)
	}
}

func TestRunRefusesWhatItCantDo(t *testing.T) {
	for _, test := range []struct {
		want string
		args []string
	}{
		{"name an experiment", []string{"run"}},
		{`there is no experiment "nonsense": choose from`, []string{"run", "nonsense"}},
		{"no such file", []string{"run", "./nonsense.yaml"}},
		{"given twice", []string{"run", "read-path", "read-path"}},
		{`effort "huge" is unknown`, []string{"run", "read-path", "--effort", "huge"}},
		{"read=teleport: choose one of", []string{"run", "read-path", "--set", "read=teleport"}},
		{"none of the chosen experiments has it", []string{"run", "read-path", "--set", "rate=5"}},
		{"--resume needs --out", []string{"run", "read-path", "--resume"}},
		{"--resume needs --out", []string{"run", "--resume"}},
		{"--scratch: directories can't be made in /missing", []string{"run", "read-path", "--scratch", "/missing"}},
	} {
		code, _, stderr := waggle(t, test.args...)
		require.Equal(t, exitUsage, code, test.args)
		require.Contains(t, stderr, test.want)
	}
}

func TestRunShowsWhatItWouldDo(t *testing.T) {
	code, stdout, _ := waggle(t, "run", "--list")
	require.Zero(t, code)
	for _, name := range experiments.Names() {
		require.Contains(t, stdout, name)
	}
	code, stdout, _ = waggle(t, "run", "read-path", "--dry-run", "--effort", "smoke", "--set", "clients=2,3", "--set", "size_bytes=4KiB")
	require.Zero(t, code)
	require.Contains(t, stdout, "topology=local read=floor size_bytes=4096 clients=3\n")
	require.Contains(t, stdout, "topology=local read=copy size_bytes=4096 clients=2 (A/A)\n")
	require.Contains(t, stdout, "takes about")
}

// experimentFile writes an experiment with a figure of a kind.
func experimentFile(t *testing.T, kind string) string {
	path := filepath.Join(t.TempDir(), "mine.yaml")
	require.NoError(t, os.WriteFile(path, []byte(`
name: mine
question: Is it drawn?
fixed: {files: 2, file_bytes: 64KiB, size_bytes: 4KiB, chunk_servers: 1}
factors: {read: [copy, floor]}
control: {read: copy}
trials:
  smoke: {repetitions: 1, operations: 20}
  quick: {repetitions: 1, operations: 20}
  full: {repetitions: 1, operations: 20}
figures: [{kind: `+kind+`, title: T, x: read, series: read}]
`), 0o600))
	return path
}

func TestAFigureOfAKindThatThereIsNotIsRefusedBeforeAnythingIsMeasured(t *testing.T) {
	for _, more := range [][]string{nil, {"--dry-run"}} {
		out := filepath.Join(t.TempDir(), "run")
		code, _, stderr := waggle(t, append([]string{"run", experimentFile(t, "thruput"), "--out", out}, more...)...)
		require.Equal(t, exitUsage, code)
		require.Contains(t, stderr, `there is no kind of figure "thruput": use one of `)
		require.NoDirExists(t, out)
	}
}

func TestARunGoesOnByItsDirectoryAlone(t *testing.T) {
	out := filepath.Join(t.TempDir(), "run")
	plan := func(args ...string) string {
		code, stdout, stderr := waggle(t, append([]string{"run", "--dry-run"}, args...)...)
		require.Zero(t, code, stderr)
		return stdout
	}
	file := experimentFile(t, "operations")
	want := plan(file, "--effort", "smoke", "--set", "read=copy,sendfile")
	o := runner.Options{Effort: spec.Smoke}
	var err error
	o.Experiments, err = loadExperiments([]string{file}, runner.KnownPaths())
	require.NoError(t, err)
	override, err := spec.ParseOverride("read=copy,sendfile", runner.KnownPaths())
	require.NoError(t, err)
	o.Overrides = []spec.Override{override}
	plans, err := o.Plan()
	require.NoError(t, err)
	w, err := results.Create(out, results.Plan{Run: "r", Experiments: []results.PlannedExperiment{plans[0].Planned()}},
		results.Environment{CPUs: 1, MemoryBytes: 1})
	require.NoError(t, err)
	require.NoError(t, w.Close())
	require.NoError(t, os.Remove(file))
	require.Equal(t, want, plan("--resume", "--out", out))

	code, _, stderr := waggle(t, "run", "--resume", "--out", out, "--effort", "full")
	require.Equal(t, exitUsage, code)
	require.Contains(t, stderr, "begun at effort smoke and not full")
	code, _, stderr = waggle(t, "run", "--resume", "--out", out, "--set", "read=copy")
	require.Equal(t, exitUsage, code)
	require.Contains(t, stderr, "--set goes with experiments that are named")
}
