package runner

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"waggle/experiments"
	"waggle/experiments/spec"
	"waggle/results"
)

// written is the plan of an experiment as a run directory gives it back.
func written(t *testing.T, o Options) results.Plan {
	plans, err := o.Plan()
	require.NoError(t, err)
	var plan results.Plan
	for _, p := range plans {
		plan.Experiments = append(plan.Experiments, p.Planned())
	}
	text, err := json.Marshal(plan)
	require.NoError(t, err)
	var back results.Plan
	require.NoError(t, json.Unmarshal(text, &back))
	return back
}

func parsed(t *testing.T, text string) Options {
	e, err := spec.Parse("test.yaml", []byte(text), KnownPaths())
	require.NoError(t, err)
	return Options{Experiments: []*spec.Experiment{e}, Effort: spec.Smoke}
}

func TestARunGoesOnOnlyAsItWasBegun(t *testing.T) {
	text := strings.Replace(tiny, "TOPOLOGY", "local", 1) + "exclude: [{read: floor, workload: random-read}]\n"
	begun := written(t, parsed(t, text))
	require.Empty(t, planDifference(begun, written(t, parsed(t, text))))
	for _, edit := range []struct{ from, to, want string }{
		{"operations: 200", "operations: 10", "tiny was begun with trials of"},
		{"warm_up_seconds: 0.01", "warm_up_seconds: 0.5", "trials of"},
		{"smoke: {repetitions: 2", "smoke: {repetitions: 3", "repetitions 2 and not 3"},
		{"clients: [2]", "clients: [2, 3]", "levels of clients [2] and not [2,3]"},
		{"clients: [2]", "depth: [2]", "levels of clients [2] and not none"},
		{"files: 2,", "files: 3,", `fixed {"chunk_bytes":65536`},
		{"metrics: [throughput, latency, cpu, copies]", "metrics: [throughput, latency, cpu]", "metrics"},
		{"workload: random-read}]", "workload: sequential-read}]", "exclude"},
		{"control: {read: copy}", "control: {read: copy, workload: random-read}", "control"},
		{"workload: [sequential-read, random-read]", "workload: [random-read, sequential-read]", "levels of workload"},
	} {
		require.Contains(t, text, edit.from)
		difference := planDifference(begun, written(t, parsed(t, strings.Replace(text, edit.from, edit.to, 1))))
		require.Contains(t, difference, edit.want, edit.to)
	}
}

func TestTheRunDirectoryAloneSaysHowToGoOn(t *testing.T) {
	for _, name := range experiments.Names() {
		e, err := experiments.Load(name, KnownPaths())
		require.NoError(t, err)
		override, err := spec.ParseOverride("clients=3,4", KnownPaths())
		require.NoError(t, err)
		revisions := []Revision{{Name: "base"}, {Name: "head"}}
		for _, o := range []Options{
			{Experiments: []*spec.Experiment{e}, Effort: spec.Quick},
			{Experiments: []*spec.Experiment{e}, Effort: spec.Smoke, Overrides: []spec.Override{override}},
			{Experiments: []*spec.Experiment{e}, Effort: spec.Full, Revisions: revisions},
		} {
			if len(o.Overrides) > 0 && !override.AppliesTo(e) {
				continue
			}
			begun := written(t, o)
			again := Options{Revisions: o.Revisions}
			require.NoError(t, again.Begun(begun), name)
			require.Empty(t, planDifference(begun, written(t, again)), name)
			want, err := o.Plan()
			require.NoError(t, err)
			have, err := again.Plan()
			require.NoError(t, err)
			trials := order(have, 7, nil)
			for i, trial := range order(want, 7, nil) {
				require.True(t, reflect.DeepEqual(trial.cell, trials[i].cell), "%s, trial %d", name, i)
			}
			require.Len(t, trials, len(order(want, 7, nil)), name)
			if len(o.Revisions) > 0 {
				require.ErrorContains(t, (&Options{}).Begun(begun), "--revision NAME=PROGRAM")
			}
		}
	}
	old := results.Plan{Experiments: []results.PlannedExperiment{{Name: "old", Effort: "quick", Repetitions: 1}}}
	require.ErrorContains(t, (&Options{}).Begun(old), "how long a trial is")
}
