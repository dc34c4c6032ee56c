package figure

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"

	"waggle/results"
)

// simulatedRun has two paths under a number that was varied. What the number does
// turns round which path is the faster one.
func simulatedRun(beyond ...string) *results.Run {
	spec := results.FigureSpec{Kind: "assumptions", Title: "What it hangs on", X: "vary", Series: "read", Baseline: "copy"}
	levels := []any{"none", "cost.call*0.7", "cost.call*1.3", "memory.gigabytes_per_second*0.7", "memory.gigabytes_per_second*1.3"}
	run := &results.Run{Plan: results.Plan{Run: "simulated", Experiments: []results.PlannedExperiment{{Name: "what-if", Question: "What if?",
		Factors: []results.Factor{{Name: "read", Levels: []any{"copy", "rdma"}}, {Name: "vary", Levels: levels}}, Figures: []results.FigureSpec{spec}}}}}
	rates := map[string]float64{"none": 1.1, "cost.call*0.7": 0.9, "cost.call*1.3": 1.3, "memory.gigabytes_per_second*0.7": 1.09, "memory.gigabytes_per_second*1.3": 1.11}
	trial := 0
	for _, level := range levels {
		for _, path := range []string{"copy", "rdma"} {
			for repetition := range 6 {
				rate := 1e6
				if path == "rdma" {
					rate *= rates[level.(string)]
				}
				run.Records = append(run.Records, results.Record{Experiment: "what-if", Trial: trial, Repetition: repetition, Valid: true,
					Source: results.SourceSimulated, Cell: results.Cell{"read": path, "vary": level}, ThroughputBytesPerSecond: &rate,
					Simulation: &results.Simulation{Machine: "moon-base", Beyond: beyond}})
				trial++
			}
		}
	}
	return run
}

func TestWhatASimulationHangsOn(t *testing.T) {
	figures, skipped := DrawAll(simulatedRun())
	require.Empty(t, skipped)
	require.Len(t, figures, 1)
	rows := figures[0].Table.Rows
	require.Len(t, rows, 2)
	require.Equal(t, "call (flips)", rows[0][1], "the number that matters most, on top")
	require.Equal(t, "memory.gigabytes_per_second", rows[1][1])
	require.Len(t, figures[0].Findings, 1)
	require.Contains(t, figures[0].Findings[0], "Whether rdma beats copy depends on call")
}

func TestSimulatedFiguresAreHatchedAndExtrapolatedOnesTwice(t *testing.T) {
	var sizes []int
	for _, run := range []*results.Run{simulatedRun(), simulatedRun("servers=1000")} {
		figures, _ := DrawAll(run)
		dir := t.TempDir()
		require.NoError(t, WriteAll(dir, figures))
		svg, err := figures[0].SVG()
		require.NoError(t, err)
		require.Contains(t, string(svg), "moon-base")
		sizes = append(sizes, bytes.Count(svg, []byte("<path")))
	}
	require.Greater(t, sizes[1], sizes[0]+20, "lines both ways")
	require.Equal(t, measured, (&selection{}).backing())
}
