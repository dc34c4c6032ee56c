package claims

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/assert"

	"waggle/results"
	"waggle/stats"
)

// Whoever picks the best of several paths on each side and compares these has
// looked at all of them: that must not make one run in twenty claim a difference
// where there is none.
func TestTheBestOfEqualPathsIsNotClaimedToBeBetter(t *testing.T) {
	const runs, repetitions = 200, 12
	c := &Catalogue{EBPF: map[string][]string{"read": {"e0", "e1", "e2"}}}
	m, err := results.MetricNamed(results.Throughput)
	assert.NoError(t, err)
	flagged := 0
	for seed := range uint64(runs) {
		random := rand.New(rand.NewPCG(seed, 9))
		run := &results.Run{Plan: results.Plan{Experiments: []results.PlannedExperiment{{Name: "e", Repetitions: repetitions}}}}
		add := func(repetition int, path, control string) {
			v := math.Exp(.05 * random.NormFloat64())
			run.Records = append(run.Records, results.Record{Experiment: "e", Repetition: repetition, Trial: len(run.Records), Valid: true,
				Source: results.SourceMeasured, Cell: results.Cell{"read": path}, Control: control, ThroughputBytesPerSecond: &v})
		}
		for repetition := range repetitions {
			for i := range 3 {
				add(repetition, fmt.Sprint("e", i), "")
			}
			for i := range 5 {
				add(repetition, fmt.Sprint("o", i), "")
			}
			add(repetition, "o0", results.ControlAA)
		}
		in := stats.NewInquiry(run)
		var questions []stats.Question
		for _, p := range c.BestOfBoth(stats.GroupRecords(run, "e"), "read", m) {
			questions = append(questions, in.About(p, m))
		}
		if v := stats.Judge(questions)[0].Verdict; v == stats.Better || v == stats.Worse {
			flagged++
		}
	}
	t.Logf("%d of %d runs flagged", flagged, runs)
	assert.LessOrEqual(t, flagged, runs/20)
}
