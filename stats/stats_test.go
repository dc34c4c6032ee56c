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

func sample(values ...float64) Sample {
	s := make(Sample, len(values))
	for i, v := range values {
		s[i] = Observation{Repetition: i, Value: v}
	}
	return s
}

func metric(t testing.TB, name string) results.Metric {
	m, err := results.MetricNamed(name)
	require.NoError(t, err)
	return m
}

func shuffled[T any](random *rand.Rand, xs []T) []T {
	out := append([]T(nil), xs...)
	random.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}

func TestMedian(t *testing.T) {
	values := []float64{3, 1, 2}
	assert.Equal(t, 2.0, Median(values))
	assert.Equal(t, []float64{3, 1, 2}, values)
	assert.Equal(t, 2.5, Median([]float64{4, 1, 2, 3}))
	assert.Equal(t, math.MaxFloat64, Median([]float64{math.MaxFloat64, math.MaxFloat64}))
	assert.True(t, math.IsNaN(Median(nil)))
}

func TestSummaryWarnsOfTooFewRepetitions(t *testing.T) {
	s := Summarize(sample(5, 1, 4, 2, 3))
	assert.Equal(t, Summary{N: 5, Median: 3, Low: 1, High: 5, Min: 1, Max: 5,
		Warnings: []string{"too few repetitions: 5, a 95 % interval of a median needs 6"}}, s)
	s = Summarize(sample(1, 2, 3, 4, 5, 6))
	assert.Empty(t, s.Warnings)
	assert.Equal(t, 1.0, s.Low)
	assert.Equal(t, 6.0, s.High)
	assert.Equal(t, []string{"no valid trial"}, Summarize(nil).Warnings)
}

func TestRatioOfConstantsIsExact(t *testing.T) {
	for _, paired := range []bool{false, true} {
		ratio, ok := Ratio(sample(2, 2, 2), sample(3, 3, 3), paired)
		require.True(t, ok)
		assert.Equal(t, Interval{1.5, 1.5, 1.5}, ratio)
	}
	for _, s := range []Sample{nil, sample(0, 1), sample(-1)} {
		_, ok := Ratio(sample(1), s, false)
		assert.False(t, ok)
	}
}

func TestPairingRemovesWhatABlockSharesWithItself(t *testing.T) {
	baseline, treatment := sample(1, 2, 4, 8, 16, 32, 64), sample(2, 4, 8, 16, 32, 64, 128)
	paired, _ := Ratio(baseline, treatment, true)
	assert.Equal(t, Interval{2, 2, 2}, paired)
	apart, _ := Ratio(baseline, treatment, false)
	assert.Less(t, apart.Low, 1.0)
	assert.Greater(t, apart.High, 4.0)
}

func TestAdjustHasKnownAnswers(t *testing.T) {
	// The worked example of Benjamini and Hochberg (1995), section 3.2: at 5 %,
	// the four smallest of 15 are kept.
	p := []float64{.0001, .0004, .0019, .0095, .0201, .0278, .0298, .0344, .0459, .3240, .4262, .5719, .6528, .7590, 1}
	adjusted := Adjust(p)
	for i, a := range adjusted {
		assert.Equal(t, i < 4, a <= Alpha, "p = %v adjusted to %v", p[i], a)
	}
	assert.InDelta(t, .0015, adjusted[0], 1e-12)
	assert.InDelta(t, .0095*15/4, adjusted[3], 1e-12)
	assert.Equal(t, []float64{.02, .04}, Adjust([]float64{.01, .04}))
	assert.Empty(t, Adjust(nil))
}

func TestMannWhitneyHasKnownAnswers(t *testing.T) {
	assert.InDelta(t, 2.0/70, MannWhitney(sample(1, 2, 3, 4), sample(5, 6, 7, 8)), 1e-12)
	assert.InDelta(t, 2.0/924, MannWhitney(sample(1, 2, 3, 4, 5, 6), sample(7, 8, 9, 10, 11, 12)), 1e-12)
	assert.Equal(t, 1.0, MannWhitney(sample(1, 1, 1), sample(1, 1, 1)))
	assert.Equal(t, 1.0, MannWhitney(nil, sample(1)))
}

func TestEffectIsTheSameBothWays(t *testing.T) {
	assert.InDelta(t, .25, Effect(1.25), 1e-12)
	assert.InDelta(t, .25, Effect(.8), 1e-12)
	assert.Equal(t, 0.0, Effect(1))
}

func TestCountsAreComparedExactly(t *testing.T) {
	copies := metric(t, results.CopiesPerByte)
	for name, c := range map[string]struct {
		baseline, treatment Sample
		want                Verdict
		exact               bool
	}{
		"equal":                {sample(2, 2, 2), sample(2, 2, 2), NoDifference, true},
		"an added copy":        {sample(2, 2, 2), sample(3, 3, 3), Worse, true},
		"one byte in a GB":     {sample(2, 2), sample(2+1e-8, 2+1e-8), Worse, true},
		"rounding":             {sample(2, 2), sample(2+1e-15, 2+1e-15), NoDifference, true},
		"from none":            {sample(0, 0), sample(1, 1), Worse, true},
		"to none":              {sample(1, 1), sample(0, 0), Better, true},
		"both none":            {sample(0, 0), sample(0, 0), NoDifference, true},
		"heartbeats":           {sample(2.001, 2.003), sample(2.004, 2.002), NoDifference, true},
		"copy and heartbeats":  {sample(2.001, 2.003), sample(3.002, 3.001), Worse, true},
		"not a count":          {sample(2, 2.5, 3), sample(3, 3.5, 4), Undecided, false},
		"one repetition alone": {sample(2), sample(3), Undecided, false},
	} {
		t.Run(name, func(t *testing.T) {
			got := Judge([]Question{{Metric: copies, Baseline: c.baseline, Treatment: c.treatment}})[0]
			assert.Equal(t, c.want, got.Verdict, got.Reason)
			assert.Equal(t, c.exact, got.Exact)
		})
	}
}

func TestNothingIsClaimedOfTimingsWithoutGrounds(t *testing.T) {
	latency := metric(t, results.LatencyP50)
	slow, fast := sample(20, 21, 22, 23, 24, 25, 26), sample(10, 11, 12, 13, 14, 15, 16)
	quiet := &Noise{Twins: 1, Spread: .01}
	for name, c := range map[string]struct {
		question Question
		want     Verdict
		reason   string
	}{
		"plain":          {Question{Interleaved: true, Noise: quiet, Baseline: slow, Treatment: fast}, Better, "A/A noise 1.0 %"},
		"inverse":        {Question{Interleaved: true, Noise: quiet, Baseline: fast, Treatment: slow}, Worse, ""},
		"two runs":       {Question{Noise: quiet, Baseline: slow, Treatment: fast}, Undecided, "did not run interleaved"},
		"unknown noise":  {Question{Interleaved: true, Baseline: slow, Treatment: fast}, Undecided, "no A/A control"},
		"below noise":    {Question{Interleaved: true, Noise: &Noise{Spread: .2}, Baseline: fast, Treatment: sample(11, 11, 12, 13, 14, 15, 16)}, NoDifference, "above 20.0 %"},
		"much noise":     {Question{Interleaved: true, Noise: &Noise{Spread: 3}, Baseline: slow, Treatment: fast}, Undecided, "not above the A/A noise of 300.0 %"},
		"three each":     {Question{Interleaved: true, Noise: quiet, Baseline: slow[:3], Treatment: fast[:3]}, Undecided, "too few repetitions"},
		"no baseline":    {Question{Interleaved: true, Noise: quiet, Treatment: fast}, Undecided, "the baseline has no valid trial"},
		"no treatment":   {Question{Interleaved: true, Noise: quiet, Baseline: fast}, Undecided, "the treatment has no valid trial"},
		"zeros":          {Question{Interleaved: true, Noise: quiet, Baseline: sample(0, 0, 0, 0), Treatment: fast}, Undecided, "above zero"},
		"same":           {Question{Interleaved: true, Noise: quiet, Baseline: fast, Treatment: fast}, NoDifference, "5.0 %"},
		"scattered":      {Question{Interleaved: true, Noise: quiet, Baseline: sample(1, 5, 2, 9, 3, 7), Treatment: sample(2, 4, 3, 8, 1, 9)}, Undecided, "too noisy"},
		"near the noise": {Question{Interleaved: true, Noise: &Noise{Spread: .7}, Baseline: sample(10, 11, 12, 13, 14, 15, 11), Treatment: sample(17, 18, 19, 20, 21, 25, 30)}, Undecided, "not above the A/A noise"},
	} {
		t.Run(name, func(t *testing.T) {
			c.question.Metric = latency
			got := Judge([]Question{c.question})[0]
			assert.Equal(t, c.want, got.Verdict, got.Reason)
			assert.Contains(t, got.Reason, c.reason)
		})
	}
}

func TestGroupsFollowThePlan(t *testing.T) {
	run := &results.Run{Plan: results.Plan{Experiments: []results.PlannedExperiment{{
		Name: "e", Factors: []results.Factor{{Name: "read", Levels: []any{"sendfile", "copy"}}, {Name: "clients", Levels: []any{1.0, 16.0, 4.0}}},
	}}}}
	add := func(read string, clients float64, repetition int, change func(*results.Record)) {
		v := float64(repetition)
		r := results.Record{Experiment: "e", Source: results.SourceMeasured, Repetition: repetition, Valid: true,
			Cell: results.Cell{"read": read, "clients": clients}, ThroughputBytesPerSecond: &v}
		if change != nil {
			change(&r)
		}
		run.Records = append(run.Records, r)
	}
	add("copy", 4, 1, nil)
	add("copy", 4, 0, nil)
	add("copy", 4, 0, func(r *results.Record) { r.Control = results.ControlAA })
	add("copy", 16, 0, func(r *results.Record) { r.Valid, r.Reason = false, "a role died" })
	add("sendfile", 4, 0, nil)
	add("splice", 2, 0, func(r *results.Record) { r.Valid, r.Unsupported, r.Reason = false, true, "no splice here" })
	add("copy", 1, 0, func(r *results.Record) { r.Experiment = "other" })

	groups := GroupRecords(run, "e")
	var names []string
	for _, g := range groups {
		names = append(names, g.Cell.String()+" "+g.Control)
	}
	assert.Equal(t, []string{"clients=4 read=sendfile ", "clients=16 read=copy ", "clients=4 read=copy ", "clients=4 read=copy A/A", "clients=2 read=splice "}, names)
	assert.Equal(t, sample(0, 1), groups[2].Sample(metric(t, results.Throughput)))
	assert.Empty(t, groups[2].Sample(metric(t, results.LatencyP50)))
	assert.Len(t, groups[1].Rejected, 1)
	_, unsupported := groups[1].Unsupported()
	assert.False(t, unsupported)
	reason, unsupported := groups[4].Unsupported()
	assert.True(t, unsupported)
	assert.Equal(t, "no splice here", reason)

	plan := run.Plan.Experiments[0]
	assert.Equal(t, []any{"sendfile", "copy", "splice"}, Levels(groups, plan, "read"))
	assert.Equal(t, []any{16.0, 4.0, 2.0}, Levels(groups, plan, "clients"))
	assert.Empty(t, Levels(groups, plan, "missing"))
	assert.Len(t, Main(groups), 4)

	pairs := PairUp(groups, results.Cell{"read": "copy"}, results.Cell{"read": "sendfile"})
	require.Len(t, pairs, 1)
	assert.Equal(t, "clients=4 read=copy", pairs[0].Baseline.Cell.String())
	assert.Empty(t, pairs[0].Baseline.Control)
}

// placedSample is a sample whose repetitions took turns among placements.
func placedSample(placements int, values ...float64) Sample {
	s := sample(values...)
	for i := range s {
		s[i].Placement = results.Placements()[i%placements]
	}
	return s
}

func TestRanksWithinPlacementsHaveKnownAnswers(t *testing.T) {
	// Two placements with two values a side: each can be dealt in 6 ways.
	baseline, treatment := placedSample(2, 1, 100, 2, 200), placedSample(2, 3, 300, 4, 400)
	assert.InDelta(t, 2.0/36, MannWhitney(baseline, treatment), 1e-12)
	assert.InDelta(t, 2.0/36, smallestP(baseline, treatment), 1e-12)
	assert.Equal(t, 1.0, MannWhitney(placedSample(2, 5, 6, 5, 6), placedSample(2, 5, 6, 5, 6)))
	// With one placement, and without ties, it is the library's test.
	a, b := sample(1, 5, 9, 11, 30), sample(2, 6, 12, 14, 40, 41)
	want := MannWhitney(a, b)
	assert.InDelta(t, want, rankTest([]stratum{{baseline: a, treatment: b}}), 1e-12)
	// What is beyond counting is nearly the same by the normal distribution.
	var long, longer Sample
	for i := range 2 * exactRanks {
		long = append(long, Observation{Repetition: i, Value: float64(i)})
		longer = append(longer, Observation{Repetition: i, Value: float64(i) + 9.5})
	}
	assert.InDelta(t, MannWhitney(long, longer), rankTest([]stratum{{baseline: long, treatment: longer}}), .005)
}

func TestPlacementsAreNotMixed(t *testing.T) {
	// Everything takes a hundred times as long in the second placement.
	baseline, treatment := placedSample(2, 1, 100, 1.1, 110, 1, 100, 1.1, 110), placedSample(2, 2, 200, 2.2, 220, 2, 200, 2.2, 220)
	ratio, ok := Ratio(baseline, treatment, true)
	require.True(t, ok)
	assert.InDelta(t, 2, ratio.Low, 1e-9)
	assert.InDelta(t, 2, ratio.High, 1e-9)
	sum := Summarize(baseline)
	assert.InDelta(t, 10.5, sum.Median, 1e-9, "the geometric mean of 1.05 and 105")
	assert.Less(t, sum.High/sum.Low, 1.2)
	assert.Equal(t, []PlacementSummary{{"apart", 4, 1.05, 1, 1.1}, {"together", 4, 105, 100, 110}}, sum.ByPlacement)
	assert.Nil(t, Summarize(placedSample(1, 1, 2, 3)).ByPlacement)
}

func TestTheSharesOfLooks(t *testing.T) {
	shares := Spend([]int{9, 12, 18, 24})
	want := []float64{.0274, .0837, .361, .528} // of 2 - 2*Phi(1.96/sqrt(t)) at t = .375, .5, .75, 1
	sum := 0.0
	for i, s := range shares {
		assert.InDelta(t, want[i], s, .001)
		sum += s
	}
	assert.InDelta(t, 1, sum, 1e-12)
	assert.InDelta(t, 1, Spend([]int{7})[0], 1e-12)
}

func TestLooksThatCouldDecideNothingAreNotPlanned(t *testing.T) {
	for placements, want := range map[int][][]int{
		1: {{4}, {5, 6}, {5, 6, 8}, {6, 8, 10, 12}, {9, 12, 15, 18}},
		3: {{4}, {6}, {6, 8}, {9, 12}, {9, 12, 15, 18}},
	} {
		for i, most := range []int{4, 6, 8, 12, 18} {
			looks := PlanLooks(most, placements)
			assert.Equal(t, want[i], looks, "%d repetitions in %d placements", most, placements)
			assert.Len(t, Spend(looks), len(looks))
		}
	}
}

func TestAQuestionIsAboutTheLastCompleteLook(t *testing.T) {
	run := inTurns(synthetic(1, 1, 18, 1), 6, 9, 18)
	run.Records = slices.DeleteFunc(run.Records, func(r results.Record) bool { return r.Cell["revision"] == "head" && r.Repetition >= 10 })
	run.Records[1].Valid, run.Records[1].Reason = false, "a role died" // head in repetition 0
	pair := PairUp(GroupRecords(run, "e"), results.Cell{"revision": "base"}, results.Cell{"revision": "head"})[0]
	m := metric(t, results.Throughput)
	q := NewInquiry(run).About(pair, m)
	assert.Equal(t, 2, q.Look.Number)
	assert.Len(t, q.Baseline, 8, "of nine, the one that head lacks takes no part")
	assert.Len(t, q.Treatment, 8)

	run.Records = slices.DeleteFunc(run.Records, func(r results.Record) bool { return r.Repetition >= 5 })
	pair = PairUp(GroupRecords(run, "e"), results.Cell{"revision": "base"}, results.Cell{"revision": "head"})[0]
	q = NewInquiry(run).About(pair, m)
	assert.Zero(t, q.Look.Number)
	answer := Judge([]Question{q})[0]
	assert.Equal(t, Undecided, answer.Verdict)
	assert.Contains(t, answer.Reason, "the first look of the plan is not complete")
}

func TestWhatIsOpenGetsMoreRepetitions(t *testing.T) {
	run := inTurns(synthetic(3, 2, 18, 1), 9, 12, 18)
	run.Records = slices.DeleteFunc(run.Records, func(r results.Record) bool { return r.Repetition >= 9 })
	for i := range run.Records { // the second cell is clear
		if r := &run.Records[i]; r.Cell["size_bytes"] == 2.0 && r.Cell["revision"] == "head" {
			*r.ThroughputBytesPerSecond *= 3
		}
	}
	assert.Equal(t, map[string]bool{"revision=base size_bytes=1": true, "revision=head size_bytes=1": true}, StillOpen(run, "e"))
	run.Plan.Experiments[0].Sequential.Looks = []int{5, 7, 9}
	assert.Empty(t, StillOpen(run, "e"), "there is no look behind the last")
	run.Plan.Experiments[0].Sequential = nil
	assert.Empty(t, StillOpen(run, "e"))
}
