package runner

import (
	"fmt"
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
	require.Equal(t, describeAll(order(plans(), 7, results.Placements())), describeAll(order(plans(), 7, results.Placements())))
	require.NotEqual(t, describeAll(order(plans(), 7, results.Placements())), describeAll(order(plans(), 8, results.Placements())))
}

func TestEveryRepetitionIsABlockOfAllCells(t *testing.T) {
	trials := order([]*spec.Plan{planOf("a", 5, 3), planOf("b", 4, 2)}, 1, nil)
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
			"congestion=auto": nil, "topology=hosts": fmt.Errorf("topology=hosts: %w: network namespaces need root", datapath.ErrUnsupported),
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

// Trials that count copies come first, one of each cell that is no search, and are
// numbered behind the repetitions that are timed.
func TestCopiesAreCountedBesideTheTimedRepetitions(t *testing.T) {
	counting := planOf("a", 3, 4)
	counting.Experiment.Metrics, counting.Trial.Counts = []spec.Metric{spec.Copies}, 2
	counting.Cells[2].Parameters.SearchRate = true
	timedOnly := planOf("b", 2, 4)
	timedOnly.Trial.Counts = 2
	seen := map[string]bool{}
	for i, trial := range order([]*spec.Plan{counting, timedOnly}, 1, nil) {
		require.Equal(t, i < 4, trial.counted)
		if trial.counted {
			require.Equal(t, "a", trial.plan.Experiment.Name)
			require.False(t, trial.cell.Parameters.SearchRate)
			require.Equal(t, 4+i/2, trial.repetition)
		}
		name := fmt.Sprint(trial.plan.Experiment.Name, trial.cell.Levels, trial.repetition)
		require.False(t, seen[name])
		seen[name] = true
	}
}

// Each round of repetitions has each placement once, in no fixed order, and all cells
// of a repetition have the same one but for those that have their own.
func TestPlacementsTakeTurns(t *testing.T) {
	own := planOf("own", 2, 30)
	own.Factors = []results.Factor{{Name: "pin", Levels: []any{"none"}}}
	own.Cells[0].Parameters.Pin = spec.PinGateway
	placed := map[int]string{}
	for _, trial := range order([]*spec.Plan{planOf("a", 3, 30), own}, 3, results.Placements()) {
		if trial.plan == own {
			require.Empty(t, trial.placement)
			require.Equal(t, trial.cell.Parameters.Pin, trial.pinOf())
			continue
		}
		if was, ok := placed[trial.repetition]; ok {
			require.Equal(t, was, trial.placement)
		}
		placed[trial.repetition] = trial.placement
	}
	rounds := map[string]bool{}
	for r := 0; r < 30; r += 3 {
		require.ElementsMatch(t, results.Placements(), []string{placed[r], placed[r+1], placed[r+2]})
		rounds[placed[r]+placed[r+1]] = true
	}
	require.Greater(t, len(rounds), 2)
	require.Equal(t, spec.PinApart, planned{placement: results.PlacementApart}.pinOf())
	require.Equal(t, spec.PinTogether, planned{placement: results.PlacementTogether}.pinOf())
	require.Equal(t, spec.PinNone, planned{placement: results.PlacementFree}.pinOf())
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
		"is a and not b": func(e *results.PlannedExperiment) { e.Name = "b" },
		"begun with effort \"smoke\" and not \"full\"": func(e *results.PlannedExperiment) { e.Effort = "full" },
		"with repetitions 2 and not 3":                 func(e *results.PlannedExperiment) { e.Repetitions = 3 },
		"with levels of clients [1] and not [2]":       func(e *results.PlannedExperiment) { e.Factors[0].Levels = []any{2.0} },
	} {
		require.ErrorContains(t, fmt.Errorf("%s", planDifference(same, plan(change))), want)
	}
	require.Contains(t, planDifference(same, results.Plan{}), "1 experiments and not 0")
}
