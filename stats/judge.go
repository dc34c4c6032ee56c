package stats

import (
	"fmt"
	"math"

	"waggle/results"
)

// Verdict is what may be said about treatment and baseline.
type Verdict string

// The verdicts.
const (
	Better       Verdict = "better"
	Worse        Verdict = "worse"
	NoDifference Verdict = "no difference"
	// Depends: the treatment does better in one placement of the roles than in
	// another, by more than chance, and there is no one answer for all.
	Depends Verdict = "depends on placement"
	// Undecided: the data are too few or too noisy to say, Reason says which.
	Undecided Verdict = "undecided"
)

const (
	// Negligible is the relative difference below which an interval that
	// includes "equal" is called no difference. It is 5 %.
	Negligible = 0.05
	// MostMargin is the most that "no difference" may leave open. Noise beyond it
	// leaves a question undecided: that two things differ by less than a quarter
	// is worth knowing, by less than three quarters isn't.
	MostMargin = 0.25
	// countTolerance is how far the repetitions of a counted metric may spread,
	// relative to their median, and still be compared as a count: heartbeats and
	// the odd control message are counted too.
	countTolerance = 0.005
	// farApart is by what factor counts that scatter must differ, in all of their
	// repetitions, for a difference to be claimed without statistics: no machine
	// makes as many more system calls of the same code.
	farApart = 1.5
	// rounding is what division may do to two equal quotients.
	rounding = 1e-9
)

// Question asks whether a treatment differs from a baseline in one metric.
type Question struct {
	Metric              results.Metric
	Baseline, Treatment Sample
	// Interleaved says that both sides' trials were interleaved in one run. Only
	// then is a difference between timings due to the treatment. Without it
	// nothing is claimed, except of counts.
	Interleaved bool
	// Noise is that of the run, nil if it isn't known: nothing is then claimed,
	// except of counts.
	Noise *Noise
	// Look is the look of a sequential plan that the samples are from, nil where all
	// cells got the same number of repetitions.
	Look *Look
}

// chance is how probable a wrong claim from these samples may be: the whole error
// rate, or what the plan lets their look spend of it.
func (q Question) chance() float64 {
	if q.Look == nil {
		return Alpha
	}
	return Alpha * q.Look.Share
}

// Comparison is the answer to a question, with the numbers behind it.
type Comparison struct {
	Metric    string  `json:"metric"`
	Unit      string  `json:"unit"`
	Baseline  Summary `json:"baseline"`
	Treatment Summary `json:"treatment"`
	// Exact says that counts were compared, with no statistics involved.
	Exact bool `json:"exact"`
	// Paired says that the interval comes from resampling whole repetitions.
	Paired bool `json:"paired"`
	// Ratio is treatment over baseline. It is absent where the baseline is zero.
	Ratio *Interval `json:"ratio,omitempty"`
	// P is the Mann-Whitney test's p-value, corrected for the looks of a sequential
	// plan; AdjustedP the same corrected for all questions asked together. Both are 1
	// where the test wasn't made.
	P         float64 `json:"p"`
	AdjustedP float64 `json:"adjusted_p"`
	// Look is the look of a sequential plan that decided, or the last one so far.
	Look *Look `json:"look,omitempty"`
	// ByPlacement compares within each placement of the roles, if there are several
	// and they come out differently. Ratio, their mean, then says less than they do.
	ByPlacement []PlacementComparison `json:"by_placement,omitempty"`
	// Noise is the A/A spread: no difference below it is claimed.
	Noise *float64 `json:"noise,omitempty"`
	// Detectable is the smallest relative difference that this comparison could
	// have found four times out of five.
	Detectable *float64 `json:"detectable,omitempty"`
	Verdict    Verdict  `json:"verdict"`
	// Reason is one line for people; it always says why a verdict is Undecided.
	Reason   string   `json:"reason"`
	Warnings []string `json:"warnings,omitempty"`
}

// Judge answers questions together, so that asking many of them doesn't make
// one of them come true by chance. The i-th answer is to the i-th question.
func Judge(questions []Question) []Comparison {
	answers := make([]Comparison, len(questions))
	var family []*float64 // all p-values, to be corrected together
	differ := make([]float64, len(questions))
	for i, q := range questions {
		answers[i] = measure(q)
		if answers[i].Exact {
			continue
		}
		answers[i].AdjustedP = answers[i].P
		family = append(family, &answers[i].AdjustedP)
		if differ[i] = placementsDiffer(q); differ[i] < 1 {
			family = append(family, &differ[i])
		}
	}
	adjustAll(family)
	for i, q := range questions {
		if !answers[i].Exact && differ[i] <= Alpha {
			answers[i].ByPlacement = q.byPlacement()
		}
		answers[i].Verdict, answers[i].Reason = decide(q, &answers[i])
	}
	return answers
}

func adjustAll(family []*float64) {
	p := make([]float64, len(family))
	for i := range family {
		p[i] = *family[i]
	}
	for i, adjusted := range Adjust(p) {
		*family[i] = adjusted
	}
}

// measure computes everything about a question that doesn't depend on the
// others.
func measure(q Question) Comparison {
	c := Comparison{
		Metric: q.Metric.Name, Unit: q.Metric.Unit,
		Baseline: Summarize(q.Baseline), Treatment: Summarize(q.Treatment),
		P: 1, AdjustedP: 1,
	}
	if q.Metric.Exact && c.Baseline.IsCount() && c.Treatment.IsCount() {
		c.Exact = true
		c.Baseline.Warnings, c.Treatment.Warnings = nil, nil
		if c.Baseline.Median > 0 {
			ratio := c.Treatment.Median / c.Baseline.Median
			c.Ratio = &Interval{ratio, ratio, ratio}
		}
		return c
	}
	c.Look = q.Look
	c.Paired = q.Interleaved && sameRepetitions(q.Baseline, q.Treatment)
	if ratio, ok := ratio(q.Baseline, q.Treatment, c.Paired, q.chance()); ok {
		smallest := detectable(ratio, q.chance())
		if q.Noise != nil {
			smallest = max(smallest, q.Noise.Spread)
		}
		c.Ratio, c.Detectable = &ratio, &smallest
	}
	c.P = min(1, MannWhitney(q.Baseline, q.Treatment)*Alpha/q.chance())
	if q.Noise != nil {
		c.Noise = &q.Noise.Spread
	}
	c.Warnings = warnings(q, c)
	return c
}

func warnings(q Question, c Comparison) []string {
	var w []string
	if n := min(c.Baseline.N, c.Treatment.N); n < EnoughRepetitions {
		w = append(w, tooFew(n))
	}
	if q.Noise == nil {
		w = append(w, "no A/A control: the noise of this run is not known")
	}
	if q.Noise != nil && q.Noise.Systematic {
		w = append(w, "the A/A control's twins differ by more than chance")
	}
	return w
}

// IsCount reports whether a counted metric's repetitions agree. One repetition
// alone can't show that.
func (s Summary) IsCount() bool {
	return s.N >= 2 && s.Max-s.Min <= countTolerance*s.Median
}

func decide(q Question, c *Comparison) (Verdict, string) {
	switch {
	case c.Baseline.N == 0:
		return Undecided, "the baseline has no valid trial"
	case c.Treatment.N == 0:
		return Undecided, "the treatment has no valid trial"
	case c.Exact:
		return decideCount(q.Metric, c)
	case q.Metric.Exact && FarApart(c.Baseline, c.Treatment):
		return direction(q.Metric, c.Baseline.Median, c.Treatment.Median), fmt.Sprintf("%.4g to %.4g instead of %.4g to %.4g %s, counted",
			c.Treatment.Min, c.Treatment.Max, c.Baseline.Min, c.Baseline.Max, q.Metric.Unit)
	case c.Ratio == nil:
		return Undecided, "a ratio needs values above zero"
	case q.Look != nil && q.Look.Number == 0:
		return Undecided, fmt.Sprintf("the first look of the plan is not complete: %d and %d repetitions", c.Baseline.N, c.Treatment.N)
	case min(c.Baseline.N, c.Treatment.N) < MinRepetitions:
		return Undecided, fmt.Sprintf("too few repetitions: %d and %d, a difference can't be told from chance below %d",
			c.Baseline.N, c.Treatment.N, MinRepetitions)
	case smallestP(q.Baseline, q.Treatment) > q.chance():
		return Undecided, fmt.Sprintf("too few repetitions: %d and %d, a difference can't be told from chance%s",
			c.Baseline.N, c.Treatment.N, q.Look.text())
	case !q.Interleaved:
		return Undecided, "the two sides did not run interleaved: what differs may be the machine"
	case q.Noise == nil:
		return Undecided, "no A/A control: the noise of this run is not known"
	}
	return decideTiming(q.Metric, c)
}

// decideCount compares counts: equal repetitions exactly, and those that spread
// a little only beyond the tolerance for that.
func decideCount(m results.Metric, c *Comparison) (Verdict, string) {
	a, b := c.Baseline.Median, c.Treatment.Median
	tolerance := rounding
	if c.Baseline.Min != c.Baseline.Max || c.Treatment.Min != c.Treatment.Max {
		tolerance = countTolerance
	}
	if math.Abs(b-a) <= tolerance*max(a, b) {
		return NoDifference, fmt.Sprintf("both %.4g %s, counted", a, m.Unit)
	}
	return direction(m, a, b), fmt.Sprintf("%.4g instead of %.4g %s, counted", b, a, m.Unit)
}

// SameCount reports whether two counts, such as the medians of two runs, are
// equal but for what heartbeats add.
func SameCount(a, b float64) bool { return math.Abs(b-a) <= countTolerance*max(a, b) }

// FarApart reports whether counts that scatter differ so much, in every
// repetition, that neither chance nor the machine explains it. One repetition
// alone can't show that.
func FarApart(a, b Summary) bool {
	if a.Median > b.Median {
		a, b = b, a
	}
	return min(a.N, b.N) >= 2 && b.Min > farApart*a.Max && b.Min-a.Max > max(a.Max-a.Min, b.Max-b.Min)
}

func decideTiming(m results.Metric, c *Comparison) (Verdict, string) {
	noise, effect := *c.Noise, Effect(c.Ratio.Value)
	if m.Exact && SameCount(c.Baseline.Median, c.Treatment.Median) {
		return NoDifference, fmt.Sprintf("both %.4g %s, counted", c.Baseline.Median, m.Unit)
	}
	if c.dependsOnPlacement(noise) {
		return Depends, c.placementsText()
	}
	if c.AdjustedP <= Alpha && excludesEqual(*c.Ratio) && effect > noise {
		reason := fmt.Sprintf("%.3gx [%.3g, %.3g], p = %.2g, A/A noise %.1f %%", c.Ratio.Value, c.Ratio.Low, c.Ratio.High, c.AdjustedP, 100*noise)
		if len(c.ByPlacement) > 0 {
			reason += "; " + c.placementsText()
		}
		return direction(m, 1, c.Ratio.Value), reason
	}
	margin := max(Negligible, noise)
	if margin <= MostMargin && Effect(c.Ratio.Low) <= margin && Effect(c.Ratio.High) <= margin {
		return NoDifference, fmt.Sprintf("no difference above %.1f %%: %.3gx [%.3g, %.3g]",
			100*margin, c.Ratio.Value, c.Ratio.Low, c.Ratio.High)
	}
	if c.AdjustedP <= Alpha && effect <= noise {
		return Undecided, fmt.Sprintf("too noisy: a difference of %.1f %% is not above the A/A noise of %.1f %%", 100*effect, 100*noise)
	}
	return Undecided, fmt.Sprintf("too noisy: %.3gx [%.3g, %.3g], p = %.2g; differences of %.1f %% could have been found",
		c.Ratio.Value, c.Ratio.Low, c.Ratio.High, c.AdjustedP, 100**c.Detectable)
}

func direction(m results.Metric, baseline, treatment float64) Verdict {
	if (treatment > baseline) == m.HigherBetter {
		return Better
	}
	return Worse
}
