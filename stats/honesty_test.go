package stats

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"waggle/results"
)

// The tests of this file hold the statistics to what they promise, over runs
// whose truth is known because they are made up here. The made-up noise is that
// of a shared machine: every trial scatters by 5 %, all trials of a repetition
// drift together by 4 %, and one trial in twenty is disturbed and takes up to
// half as long again.
const (
	trialScatter = .05
	blockDrift   = .04
	disturbed    = .05
	disturbance  = .5
)

// heapsApart is how many times as long a trial takes in which the scheduler put
// two roles on one processor, where that is decided once a trial, for good: as
// reads of 1 MiB over TCP were found to do on two processors, half of the time.
const heapsApart = 2.2

// synthetic makes a run of an experiment with cells that differ in size and
// each have a base and a head revision, of which head takes slowdown times as
// long. One cell has a control twin.
func synthetic(seed uint64, cells, repetitions int, slowdown float64) *results.Run {
	return syntheticInHeaps(seed, cells, repetitions, slowdown, 0)
}

// syntheticInHeaps is synthetic with a share of the trials in the slow heap.
func syntheticInHeaps(seed uint64, cells, repetitions int, slowdown, slow float64) *results.Run {
	random := rand.New(rand.NewPCG(seed, 1))
	run := &results.Run{Plan: results.Plan{Experiments: []results.PlannedExperiment{{Name: "e"}}}}
	for repetition := range repetitions {
		drift := math.Exp(blockDrift * random.NormFloat64())
		trial := func(size float64, revision, control string, factor float64) {
			seconds := size * drift * factor * math.Exp(trialScatter*random.NormFloat64())
			if random.Float64() < disturbed {
				seconds *= 1 + disturbance*random.Float64()
			}
			if slow > 0 && random.Float64() < slow {
				seconds *= heapsApart
			}
			rate := 1 / seconds
			run.Records = append(run.Records, results.Record{
				Experiment: "e", Source: results.SourceMeasured, Trial: len(run.Records), Repetition: repetition, Valid: true,
				Cell:    results.Cell{"size_bytes": size, "revision": revision},
				Control: control, ThroughputBytesPerSecond: &rate,
				Latency: &results.Latency{P50: seconds, P99: seconds * 3},
			})
		}
		for cell := range cells {
			trial(float64(cell+1), "base", "", 1)
			trial(float64(cell+1), "head", "", slowdown)
		}
		trial(1, "base", results.ControlAA, 1)
	}
	return run
}

func judgeRevisions(t testing.TB, run *results.Run, metrics ...string) []Comparison {
	var questions []Question
	groups := GroupRecords(run, "e")
	for _, name := range metrics {
		m := metric(t, name)
		noise, ok := NoiseOf(run, "e", m)
		require.True(t, ok)
		for _, p := range PairUp(groups, results.Cell{"revision": "base"}, results.Cell{"revision": "head"}) {
			questions = append(questions, Question{Metric: m, Interleaved: true, Noise: &noise,
				Baseline: p.Baseline.Sample(m), Treatment: p.Treatment.Sample(m)})
		}
	}
	return Judge(questions)
}

func TestRunsWithoutADifferenceAreFlaggedAtMostOneInTwenty(t *testing.T) {
	const runs = 200
	for name, c := range map[string]struct {
		cells, repetitions int
		slow               float64
	}{"few repetitions": {6, 5, 0}, "many repetitions": {6, 12, 0}, "two heaps": {2, 8, .5}, "a small heap": {2, 8, .2}} {
		t.Run(name, func(t *testing.T) {
			flagged := 0
			for seed := range uint64(runs) {
				for _, answer := range judgeRevisions(t, syntheticInHeaps(seed, c.cells, c.repetitions, 1, c.slow), results.Throughput, results.LatencyP50) {
					if answer.Verdict == Better || answer.Verdict == Worse {
						flagged++
						break
					}
				}
			}
			t.Logf("%d of %d runs flagged", flagged, runs)
			assert.LessOrEqual(t, flagged, runs/20)
		})
	}
}

func TestATenPercentSlowdownIsFoundAndItsIntervalCoversIt(t *testing.T) {
	const runs, slowdown = 200, 1.10
	found, covered := 0, 0
	for seed := range uint64(runs) {
		c := judgeRevisions(t, synthetic(1000+seed, 1, 20, slowdown), results.LatencyP50)[0]
		require.True(t, c.Paired)
		if c.Verdict == Worse {
			found++
		}
		if c.Ratio.Low <= slowdown && slowdown <= c.Ratio.High {
			covered++
		}
	}
	t.Logf("found in %d, covered by the interval in %d of %d runs", found, covered, runs)
	assert.GreaterOrEqual(t, found, runs*95/100)
	assert.GreaterOrEqual(t, covered, runs*95/100)
}

func TestTheOrderOfRecordsChangesNothing(t *testing.T) {
	run := synthetic(7, 4, 8, 1.05)
	want := judgeRevisions(t, run, results.Throughput, results.LatencyP50)
	random := rand.New(rand.NewPCG(1, 1))
	for range 5 {
		run.Records = shuffled(random, run.Records)
		assert.Equal(t, want, judgeRevisions(t, run, results.Throughput, results.LatencyP50))
	}
	s := sample(3, 1, 4, 1, 5)
	assert.Equal(t, Summarize(s), Summarize(shuffled(random, s)))
	assert.Equal(t, MannWhitney(s, sample(2, 7, 1)), MannWhitney(shuffled(random, s), sample(2, 7, 1)))
}

func TestDetectableIsWhatIsReallyDetected(t *testing.T) {
	// The promise is four times out of five; the median's interval is itself an
	// estimate, so half to all of the runs keep it.
	const runs = 100
	var typical []float64
	for seed := range uint64(runs) {
		typical = append(typical, *judgeRevisions(t, synthetic(2000+seed, 1, 20, 1), results.LatencyP50)[0].Detectable)
	}
	effect := Median(typical)
	found := 0
	for seed := range uint64(runs) {
		if judgeRevisions(t, synthetic(3000+seed, 1, 20, 1+effect), results.LatencyP50)[0].Verdict == Worse {
			found++
		}
	}
	t.Logf("a difference of %.1f %% was found in %d of %d runs", 100*effect, found, runs)
	assert.GreaterOrEqual(t, found, runs/2)
}

func TestNoiseComesFromTheTwins(t *testing.T) {
	run := synthetic(1, 2, 20, 1)
	m := metric(t, results.LatencyP50)
	n, ok := MeasureNoise(GroupRecords(run, "e"), m)
	require.True(t, ok)
	assert.Equal(t, 1, n.Twins)
	assert.Less(t, n.Spread, .1)
	assert.GreaterOrEqual(t, n.Detectable, n.Spread)
	assert.False(t, n.Systematic)

	for i := range run.Records {
		if run.Records[i].Control != "" {
			run.Records[i].Latency.P50 *= 1.3
		}
	}
	n, ok = MeasureNoise(GroupRecords(run, "e"), m)
	require.True(t, ok)
	assert.InDelta(t, .3, n.Spread, .1)
	assert.True(t, n.Systematic)

	_, ok = MeasureNoise(Main(GroupRecords(run, "e")), m)
	assert.False(t, ok, "without a twin the noise is not known")

	run.Plan.Experiments = append(run.Plan.Experiments, results.PlannedExperiment{Name: "without control"})
	borrowed, ok := NoiseOf(run, "without control", m)
	require.True(t, ok)
	assert.Equal(t, n, borrowed)
}
