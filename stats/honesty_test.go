package stats

import (
	"math"
	"math/rand/v2"
	"slices"
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

// together is how many times as long a trial takes with all roles on one processor.
const together = 1.3

// model is the noise of a made-up run.
type model struct {
	// slow is the share of trials in the slow heap.
	slow float64
	// placed repetitions take turns among the placements; only in free ones the
	// scheduler chooses between heaps then.
	placed bool
	// onlyTogether is how many times as long head takes with all roles on one
	// processor, beyond what it takes anyway, 0 for no difference.
	onlyTogether float64
}

// seconds is what a trial of a model takes, in units of what it would take
// undisturbed, and where it ran.
func (m model) seconds(random *rand.Rand, repetition int, revision string) (seconds float64, placement string) {
	seconds = math.Exp(trialScatter * random.NormFloat64())
	if random.Float64() < disturbed {
		seconds *= 1 + disturbance*random.Float64()
	}
	if m.placed {
		placement = results.Placements()[repetition%3]
	}
	if placement == results.PlacementTogether {
		seconds *= together
		if revision == "head" && m.onlyTogether > 0 {
			seconds *= m.onlyTogether
		}
	}
	if free := placement == "" || placement == results.PlacementFree; free && m.slow > 0 && random.Float64() < m.slow {
		seconds *= heapsApart
	}
	return seconds, placement
}

// synthetic makes a run of an experiment with cells that differ in size and
// each have a base and a head revision, of which head takes slowdown times as
// long. One cell has a control twin.
func synthetic(seed uint64, cells, repetitions int, slowdown float64) *results.Run {
	return syntheticInHeaps(seed, cells, repetitions, slowdown, 0)
}

// syntheticInHeaps is synthetic with a share of the trials in the slow heap.
func syntheticInHeaps(seed uint64, cells, repetitions int, slowdown, slow float64) *results.Run {
	return syntheticOf(model{slow: slow}, seed, cells, repetitions, slowdown)
}

// syntheticOf is synthetic with the noise of a model. Base and head have control
// twins in the first cell.
func syntheticOf(noise model, seed uint64, cells, repetitions int, slowdown float64) *results.Run {
	random := rand.New(rand.NewPCG(seed, 1))
	run := &results.Run{Plan: results.Plan{Experiments: []results.PlannedExperiment{{Name: "e", Repetitions: repetitions}}}}
	for repetition := range repetitions {
		drift := math.Exp(blockDrift * random.NormFloat64())
		trial := func(size float64, revision, control string, factor float64) {
			seconds, placement := noise.seconds(random, repetition, revision)
			seconds *= size * drift * factor
			rate := 1 / seconds
			run.Records = append(run.Records, results.Record{
				Experiment: "e", Source: results.SourceMeasured, Trial: len(run.Records), Repetition: repetition, Valid: true,
				Cell:    results.Cell{"size_bytes": size, "revision": revision},
				Control: control, Placement: placement, ThroughputBytesPerSecond: &rate,
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
	in := NewInquiry(run)
	for _, name := range metrics {
		for _, p := range PairUp(GroupRecords(run, "e"), results.Cell{"revision": "base"}, results.Cell{"revision": "head"}) {
			questions = append(questions, in.About(p, metric(t, name)))
			require.NotNil(t, questions[0].Noise)
		}
	}
	return Judge(questions)
}

// inTurns carries out a run by a sequential plan: of the trials that all says what
// they would measure, only those of cells that are still open are run.
func inTurns(all *results.Run, looks ...int) *results.Run {
	run := &results.Run{Plan: all.Plan}
	e := &run.Plan.Experiments[0]
	e.Sequential = &results.Sequential{Looks: looks, Spent: Spend(looks),
		Questions: []results.SequentialQuestion{{Metric: results.Throughput, Factor: "revision", Baseline: "base"}}}
	from := 0
	var open map[string]bool
	for _, look := range looks {
		for _, r := range all.Records {
			if from <= r.Repetition && r.Repetition < look && (from == 0 || open[r.Cell.String()]) {
				run.Records = append(run.Records, r)
			}
		}
		if open = StillOpen(run, "e"); len(open) == 0 {
			break
		}
		from = look
	}
	return run
}

func claimsAnything(answers []Comparison) bool {
	return slices.ContainsFunc(answers, func(c Comparison) bool { return c.Verdict == Better || c.Verdict == Worse || c.Verdict == Depends })
}

// noises are all kinds of noise that the statistics have to stay honest in.
var noises = map[string]model{
	"one heap": {}, "two heaps": {slow: .5}, "a small heap": {slow: .2},
	"placed": {placed: true}, "placed, two heaps": {placed: true, slow: .5}, "placed, a small heap": {placed: true, slow: .2},
}

// looks are those of the tests: with three placements, each is a whole number of
// rounds.
var looks = []int{6, 9, 12, 18}

func TestLookingSeveralTimesFlagsAtMostOneRunInTwenty(t *testing.T) {
	const runs = simulatedRuns
	for name, noise := range noises {
		t.Run(name, func(t *testing.T) {
			flagged := 0
			for seed := range uint64(runs) {
				run := inTurns(syntheticOf(noise, 5000+seed, 1, 18, 1), looks...)
				if claimsAnything(judgeRevisions(t, run, results.Throughput)) {
					flagged++
				}
			}
			t.Logf("%d of %d runs flagged", flagged, runs)
			assert.LessOrEqual(t, flagged, runs/20)
		})
	}
}

// What is clear is decided early, what is not gets all repetitions, and the
// interval that a comparison ends with covers the truth whenever it stopped.
func TestRepetitionsGoWhereTheyDecide(t *testing.T) {
	const runs = simulatedRuns / 2
	for name, c := range map[string]struct {
		noise    model
		slowdown float64
		within   float64 // the share of all trials that is run at most, on average
		found    float64 // share of the runs at least
	}{
		"clear":           {model{placed: true}, 1.6, .55, .99},
		"clear, unplaced": {model{}, 1.6, .55, .99},
		"small":           {model{placed: true}, 1.12, .95, .75},
		"in two heaps":    {model{placed: true, slow: .5}, 1.6, .8, .75},
	} {
		t.Run(name, func(t *testing.T) {
			trials, all, found, covered := 0, 0, 0, 0
			for seed := range uint64(runs) {
				planned := syntheticOf(c.noise, 9000+seed, 1, 18, c.slowdown)
				run := inTurns(planned, looks...)
				trials, all = trials+len(run.Records), all+len(planned.Records)
				answer := judgeRevisions(t, run, results.LatencyP50)[0]
				if answer.Verdict == Worse {
					found++
				}
				if answer.Ratio.Low <= c.slowdown && c.slowdown <= answer.Ratio.High {
					covered++
				}
			}
			t.Logf("found in %d of %d runs with %d of %d trials, covered in %d", found, runs, trials, all, covered)
			assert.GreaterOrEqual(t, float64(found), c.found*runs)
			assert.LessOrEqual(t, float64(trials), c.within*float64(all))
			// What 95 of 100 intervals may miss by chance, in so few runs, once in a hundred times.
			assert.GreaterOrEqual(t, float64(covered), .95*runs-2.33*math.Sqrt(runs*.95*.05))
		})
	}
}

func TestADifferenceOfPlacementsIsSaid(t *testing.T) {
	const runs = simulatedRuns / 4
	depends, other := 0, 0
	for seed := range uint64(runs) {
		run := inTurns(syntheticOf(model{placed: true, slow: .2, onlyTogether: 1.6}, 7000+seed, 1, 24, 1), 9, 12, 18, 24)
		answer := judgeRevisions(t, run, results.LatencyP50)[0]
		switch answer.Verdict {
		case Depends:
			depends++
			require.Len(t, answer.ByPlacement, 3)
			assert.Contains(t, answer.Reason, "how much depends on where the roles run: apart ")
		case Undecided:
		default:
			other++
		}
	}
	t.Logf("said in %d of %d runs, taken for one answer in %d", depends, runs, other)
	assert.GreaterOrEqual(t, depends, runs*7/10)
	assert.LessOrEqual(t, other, 1+runs/10)
}

func TestRunsWithoutADifferenceAreFlaggedAtMostOneInTwenty(t *testing.T) {
	const runs = simulatedRuns
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
