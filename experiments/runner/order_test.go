package runner

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"waggle/dfs/datapath"
	"waggle/experiments/spec"
	"waggle/results"
)

func planOf(name string, cells, repetitions int) *spec.Plan {
	p := &spec.Plan{Experiment: &spec.Experiment{Name: name}, Trial: spec.Trial{Repetitions: repetitions, Duration: time.Second}}
	for n := range cells {
		p.Cells = append(p.Cells, spec.Cell{Levels: results.Cell{"clients": float64(n)}})
	}
	return p
}

func describeAll(trials []planned) (list []string) {
	for _, t := range trials {
		list = append(list, fmt.Sprint(t.number, t.repetition, t.plan.Experiment.Name, t.cell.Levels, t.seed))
	}
	return list
}

func TestOrderComesFromTheSeedAlone(t *testing.T) {
	plans := func() []*spec.Plan { return []*spec.Plan{planOf("a", 5, 3), planOf("b", 4, 2)} }
	require.Equal(t, describeAll(order(plans(), 7)), describeAll(order(plans(), 7)))
	require.NotEqual(t, describeAll(order(plans(), 7)), describeAll(order(plans(), 8)))
}

func TestEveryRepetitionIsABlockOfAllCells(t *testing.T) {
	trials := order([]*spec.Plan{planOf("a", 5, 3), planOf("b", 4, 2)}, 1)
	require.Len(t, trials, 5*3+4*2)
	seen := map[string]int{}
	sorted := true
	for i, trial := range trials {
		require.Equal(t, i, trial.number)
		require.Equal(t, min(i/9, 2), trial.repetition, "blocks of 9, 9 and 5")
		seen[fmt.Sprint(trial.repetition, trial.plan.Experiment.Name, trial.cell.Levels)]++
		sorted = sorted && trial.cell.Levels["clients"] == float64(i%9)
	}
	require.Len(t, seen, len(trials), "no cell twice in a repetition")
	require.False(t, sorted)
}

func TestEstimateGrowsWithTheTrials(t *testing.T) {
	one := Estimate([]*spec.Plan{planOf("a", 5, 1)})
	three := Estimate([]*spec.Plan{planOf("a", 5, 3)})
	require.Greater(t, one, 5*time.Second)
	require.InDelta(t, 10*1.08, (three - one).Seconds(), 0.01)
}

func testSupport() support {
	return support{
		infos: map[string]datapath.Info{"read=copy": {Proof: []string{"read_copy_bytes"}}, "read=warp": {}},
		reasons: map[string]error{
			"read=copy": nil, "read=warp": fmt.Errorf("needs a warp drive"),
			"topology=hosts": fmt.Errorf("topology=hosts: %w: network namespaces need root", datapath.ErrUnsupported),
		},
	}
}

func TestUnsupportedCellsSayWhy(t *testing.T) {
	s := testSupport()
	require.NoError(t, s.cell(spec.Parameters{Topology: "local", Read: "copy"}))
	require.EqualError(t, s.cell(spec.Parameters{Topology: "local", Read: "warp"}), "read=warp: needs a warp drive")
	require.EqualError(t, s.cell(spec.Parameters{Topology: "hosts", Read: "copy"}),
		"topology=hosts: not supported on this machine: network namespaces need root")
	require.NoError(t, s.askedFor([]spec.Override{{Name: "read", Levels: []any{"copy"}}, {Name: "clients", Levels: []any{3.0}}}))
	for _, o := range []spec.Override{{Name: "read", Levels: []any{"copy", "warp"}}, {Name: "topology", Levels: []any{"hosts"}}} {
		require.ErrorIs(t, s.askedFor([]spec.Override{o}), datapath.ErrUnsupported)
	}
}

func TestTrialWithoutProofIsNotValid(t *testing.T) {
	r := &run{support: testSupport()}
	trial := planned{cell: spec.Cell{Parameters: spec.Parameters{Workload: spec.SequentialRead, Read: "copy", SizeBytes: 1}}}
	var record results.Record
	require.NoError(t, r.fillProof(&record, trial, map[string]map[string]int64{
		"chunk": {"read_copy_bytes": 5}, "client": {"read_copy_bytes": 1, "other": 9}}))
	require.Equal(t, map[string]int64{"read_copy_bytes": 6}, record.Proof)
	require.EqualError(t, r.fillProof(&record, trial, nil), "no proof that read=copy was taken: read_copy_bytes did not grow")
}

func TestParseMachineCPU(t *testing.T) {
	cpu, err := parseMachineCPU("cpu  100 20 300 9999 50 7 40 3 0 0\n")
	require.NoError(t, err)
	require.InDelta(t, 1.2, cpu.User, 1e-9)
	require.InDelta(t, 3.07, cpu.System, 1e-9)
	require.InDelta(t, 0.4, cpu.SoftIRQ, 1e-9)
	require.InDelta(t, 4.67, cpu.Total, 1e-9)
	for _, bad := range []string{"", "cpu 1 2", "intr 1 2 3 4 5 6 7 8", "cpu 1 2 3 4 five 6 7 8"} {
		_, err := parseMachineCPU(bad)
		require.Error(t, err)
	}
}

func TestNothingPrivateIsRecorded(t *testing.T) {
	require.Equal(t, []string{"waggle", "run", "mine.yaml", "--out=x", "--set", "read=copy", "y"},
		public([]string{"/home/me/bin/waggle", "run", "/home/me/mine.yaml", "--out=/secret/x", "--set", "read=copy", "/tmp/y"}))
}

func TestAddressAfter(t *testing.T) {
	line := "floor control: tcp on 10.0.0.1:5, udp on [fd77::2]:6\n"
	tcp, err := addressAfter(line, "tcp")
	require.NoError(t, err)
	require.Equal(t, "10.0.0.1:5", tcp)
	udp, err := addressAfter(line, "udp")
	require.NoError(t, err)
	require.Equal(t, "[fd77::2]:6", udp)
	_, err = addressAfter(line, "control")
	require.ErrorContains(t, err, "names no address for control")
}

func TestPlanDifference(t *testing.T) {
	plan := func(change func(*results.PlannedExperiment)) results.Plan {
		e := results.PlannedExperiment{Name: "a", Effort: "smoke", Repetitions: 2, Factors: []results.Factor{{Name: "clients", Levels: []any{1.0}}}}
		change(&e)
		return results.Plan{Experiments: []results.PlannedExperiment{e}}
	}
	same := plan(func(*results.PlannedExperiment) {})
	require.Empty(t, planDifference(same, same))
	for want, change := range map[string]func(*results.PlannedExperiment){
		"is a and not b":                     func(e *results.PlannedExperiment) { e.Name = "b" },
		"at effort smoke and not full":       func(e *results.PlannedExperiment) { e.Effort = "full" },
		"with 2 repetitions and not 3":       func(e *results.PlannedExperiment) { e.Repetitions = 3 },
		"begun with other factors or levels": func(e *results.PlannedExperiment) { e.Factors[0].Levels = []any{2.0} },
	} {
		require.ErrorContains(t, fmt.Errorf("%s", planDifference(same, plan(change))), want)
	}
	require.Contains(t, planDifference(same, results.Plan{}), "1 experiments and not 0")
}

func TestIdleTimeOfSomeProcessors(t *testing.T) {
	const stat = "cpu  1 2 3 400 5 6 7 8 9 10\ncpu0 1 2 3 100 20 6 7 8 9 10\ncpu1 0 0 0 1000 0 0 0 0 0 0\ncpu10 0 0 0 7 0 0 0 0 0 0\nintr 1 2 3 4 5 6 7 8 9\n"
	idle, err := parseIdle(strings.NewReader(stat), []int{0, 10})
	require.NoError(t, err)
	require.InDelta(t, 1.35, idle, 1e-9)
	_, err = parseIdle(strings.NewReader(stat), []int{0, 2})
	require.ErrorContains(t, err, "1 of the processors [0 2]")

	now := time.Now()
	before := unused{[]int{0, 1}, 10, now}
	after := unused{[]int{0, 1}, 11.5, now.Add(time.Second)}
	require.InDelta(t, 0.5, after.busySince(before), 1e-9)
	require.Zero(t, unused{[]int{0, 1}, 12.01, now.Add(time.Second)}.busySince(before), "rounding")
}
