package runner

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"waggle/experiments/spec"
	"waggle/results"
	"waggle/stats"
)

// comparing is a plan of three cells: one is three times as fast as the baseline, one
// as fast.
func comparing() (*spec.Plan, results.Plan) {
	p := &spec.Plan{
		Experiment: &spec.Experiment{Name: "e", Questions: []results.SequentialQuestion{{Metric: results.OperationRate, Factor: "read", Baseline: "copy"}}},
		Trial:      spec.Trial{Repetitions: 6, Duration: time.Second},
		Factors:    []results.Factor{{Name: "read", Levels: []any{"copy", "fast", "same"}}},
	}
	for _, level := range p.Factors[0].Levels {
		p.Cells = append(p.Cells, spec.Cell{Levels: results.Cell{"read": level}})
	}
	p.Cells = append(p.Cells, spec.Cell{Levels: results.Cell{"read": "copy"}, Control: results.ControlAA})
	sequential := sequence(p, results.Placements(), time.Hour)
	planned := results.PlannedExperiment{Name: "e", Factors: p.Factors, Repetitions: p.Trial.Repetitions, Sequential: sequential}
	return p, results.Plan{Experiments: []results.PlannedExperiment{planned}}
}

// carry runs all trials that are wanted, and returns how many each cell got.
func carry(p *spec.Plan, l *looking) map[string]int {
	got := map[string]int{}
	trials := order([]*spec.Plan{p}, 5, results.Placements())
	for i, t := range trials {
		if !l.wants(t, trials[i:]) {
			continue
		}
		level := t.cell.Levels["read"].(string)
		rate := map[string]float64{"copy": 100, "same": 100, "fast": 5000}[level] + float64(t.seed%1000)
		l.add(results.Record{Experiment: "e", Source: results.SourceMeasured, Trial: t.number, Repetition: t.repetition, Cell: t.cell.Levels, Control: t.cell.Control,
			Placement: t.placement, Valid: true, OperationsPerSecond: &rate}, time.Millisecond)
		got[level+t.cell.Control]++
	}
	return got
}

func TestOnlyOpenComparisonsGetMoreRepetitions(t *testing.T) {
	p, plan := comparing()
	s := plan.Experiments[0].Sequential
	require.Equal(t, 18, p.Trial.Repetitions)
	require.Equal(t, stats.PlanLooks(18, 3), s.Looks)
	require.Greater(t, len(s.Looks), 1)
	got := carry(p, newLooking(plan, time.Hour))
	require.Less(t, got["fast"], 18, "it was clear before the last look")
	require.Contains(t, s.Looks, got["fast"])
	require.Equal(t, 18, got["same"], "which can't be told from the baseline")
	require.Equal(t, 18, got["copy"])
	require.Equal(t, 18, got["copy"+results.ControlAA])
}

// No look is begun that does not fit: a run without time stops after the first.
func TestWithoutTimeNothingIsBegun(t *testing.T) {
	p, plan := comparing()
	l := newLooking(plan, time.Hour)
	l.deadline = time.Now()
	first := plan.Experiments[0].Sequential.Looks[0]
	for cell, n := range carry(p, l) {
		require.Equal(t, first, n, cell)
	}
}

// What has nothing to decide, and what counts copies, is not looked at.
func TestAPlanWithoutQuestionsIsFixed(t *testing.T) {
	p, _ := comparing()
	p.Experiment.Questions = nil
	require.Nil(t, sequence(p, nil, time.Hour))
	p, plan := comparing()
	l := newLooking(plan, time.Hour)
	l.open["e"] = map[string]bool{}
	require.True(t, l.wants(planned{plan: p, cell: p.Cells[0], counted: true}, nil))
	require.False(t, l.wants(planned{plan: p, cell: p.Cells[0]}, nil))
}
