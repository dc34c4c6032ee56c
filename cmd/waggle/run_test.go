package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"waggle/analysis/figure"
	"waggle/experiments"
	"waggle/experiments/runner"
	"waggle/experiments/spec"
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
