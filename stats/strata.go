package stats

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"waggle/results"
)

// A repetition may have been placed on purpose: all roles on one processor, or
// apart (results.Record.Placement). Placements are blocks of the experiment.
// Values of two placements form two heaps, so nothing is estimated from a mixture of them:
// samples are split by placement here, and what is found in each is combined.

// stratum is what two samples have in one placement.
type stratum struct {
	placement           string
	baseline, treatment Sample
}

// strata splits two samples by placement. What only one of them has takes no part.
func strata(baseline, treatment Sample) []stratum {
	if !baseline.placed() && !treatment.placed() {
		return []stratum{{baseline: baseline, treatment: treatment}}
	}
	var list []stratum
	for _, placement := range append(results.Placements(), "") {
		s := stratum{placement, baseline.at(placement), treatment.at(placement)}
		if len(s.baseline) > 0 && len(s.treatment) > 0 {
			list = append(list, s)
		}
	}
	return list
}

// placed reports whether any observation's placement was chosen.
func (s Sample) placed() bool {
	return slices.ContainsFunc(s, func(o Observation) bool { return o.Placement != "" })
}

// at keeps the observations of one placement.
func (s Sample) at(placement string) Sample {
	var kept Sample
	for _, o := range s {
		if o.Placement == placement {
			kept = append(kept, o)
		}
	}
	return kept
}

// placements are those in which there is an observation, in the order in which
// they are to be shown. A sample whose repetitions were not placed has none.
func (s Sample) placements() []string {
	return slices.DeleteFunc(results.Placements(), func(p string) bool { return len(s.at(p)) == 0 })
}

// PlacementSummary describes a sample in one placement.
type PlacementSummary struct {
	Placement string  `json:"placement"`
	N         int     `json:"n"`
	Median    float64 `json:"median"`
	Low       float64 `json:"low"`
	High      float64 `json:"high"`
}

// byPlacement describes a sample in each of its placements, if it has several.
func byPlacement(s Sample) []PlacementSummary {
	placements := s.placements()
	if len(placements) < 2 {
		return nil
	}
	list := make([]PlacementSummary, len(placements))
	for i, p := range placements {
		sum := summarize(s.at(p).Values())
		list[i] = PlacementSummary{Placement: p, N: sum.N, Median: sum.Median, Low: sum.Low, High: sum.High}
	}
	return list
}

// middleOf combines the medians of placements, each with the same weight: by their
// geometric mean, so that ratios of what is combined are combined ratios.
func middleOf(medians []float64) float64 {
	if len(medians) == 1 {
		return medians[0]
	}
	sum := 0.0
	for _, m := range medians {
		if m <= 0 {
			return meanOf(medians)
		}
		sum += math.Log(m)
	}
	return math.Exp(sum / float64(len(medians)))
}

func meanOf(values []float64) float64 {
	sum := 0.0
	for _, v := range values {
		sum += v / float64(len(values))
	}
	return sum
}

// stratifiedInterval estimates the combined median of a sample with placements,
// with a bootstrap interval that resamples within them.
func stratifiedInterval(s Sample) Interval {
	d := newDice(s.byRepetition())
	var tallies []*tally
	var medians []float64
	for _, p := range s.placements() {
		values := s.at(p).byRepetition()
		tallies = append(tallies, newTally(values))
		medians = append(medians, median(values.Values()))
	}
	estimate := Interval{Value: middleOf(medians)}
	drawn := make([]float64, resamples)
	for i := range drawn {
		for k, t := range tallies {
			for range t.values {
				t.add(d.roll(len(t.values)))
			}
			medians[k] = t.takeMedian()
		}
		drawn[i] = middleOf(medians)
	}
	estimate.Low, estimate.High = ends(drawn, Alpha)
	return estimate
}

// ends are the bounds of an interval with the given chance of error, from resamples.
func ends(drawn []float64, chance float64) (low, high float64) {
	slices.Sort(drawn)
	tail := int(chance / 2 * float64(len(drawn)))
	return drawn[tail], drawn[len(drawn)-1-tail]
}

// PlacementComparison is a comparison within one placement. It says what was
// measured there; Comparison.Verdict says what may be claimed.
type PlacementComparison struct {
	Placement string   `json:"placement"`
	N         int      `json:"n"`
	Ratio     Interval `json:"ratio"`
}

// byPlacement compares the two sides within each placement.
func (q Question) byPlacement() []PlacementComparison {
	var list []PlacementComparison
	for _, s := range strata(q.Baseline, q.Treatment) {
		if r, ok := ratio(s.baseline, s.treatment, q.Interleaved && sameRepetitions(s.baseline, s.treatment), q.chance()); ok {
			list = append(list, PlacementComparison{s.placement, min(len(s.baseline), len(s.treatment)), r})
		}
	}
	return list
}

// Within splits a question by placement, for comparisons whose answer depends on it.
func (q Question) Within() (placements []string, questions []Question) {
	for _, s := range strata(q.Baseline, q.Treatment) {
		part := q
		part.Baseline, part.Treatment = s.baseline, s.treatment
		placements, questions = append(placements, s.placement), append(questions, part)
	}
	return placements, questions
}

// shuffles is how many times ratios are dealt to placements at random.
const shuffles = 4000

// placementsDiffer gives the p-value, corrected for the looks of a sequential
// plan, that the ratio of treatment to baseline is the same in all placements: a
// permutation test of the ranks of the repetitions' ratios (Kruskal and Wallis
// 1952). It is 1 where there is nothing to compare.
func placementsDiffer(q Question) float64 {
	var ratios []float64
	var sizes []int
	for _, s := range strata(q.Baseline, q.Treatment) {
		paired := repetitionRatios(s)
		if len(paired) > 1 {
			ratios, sizes = append(ratios, paired...), append(sizes, len(paired))
		}
	}
	if len(sizes) < 2 {
		return 1
	}
	ranks, _ := doubledRanks(stratum{baseline: sampleOf(ratios)})
	ranks = inOrderOf(ratios, ranks)
	found := betweenPlacements(ranks, sizes)
	d := newDice(q.Baseline.byRepetition(), q.Treatment.byRepetition())
	atLeast := 1
	for range shuffles {
		for i := len(ranks) - 1; i > 0; i-- {
			k := d.roll(i + 1)
			ranks[i], ranks[k] = ranks[k], ranks[i]
		}
		if betweenPlacements(ranks, sizes) >= found-rounding {
			atLeast++
		}
	}
	return min(1, float64(atLeast)/(shuffles+1)*Alpha/q.chance())
}

// repetitionRatios are the logarithms of treatment over baseline, for the
// repetitions that both sides have.
func repetitionRatios(s stratum) []float64 {
	baseline := map[int]float64{}
	for _, o := range s.baseline {
		baseline[o.Repetition] = o.Value
	}
	var list []float64
	for _, o := range s.treatment.byRepetition() {
		if b := baseline[o.Repetition]; b > 0 && o.Value > 0 {
			list = append(list, math.Log(o.Value/b))
		}
	}
	return list
}

func sampleOf(values []float64) Sample {
	s := make(Sample, len(values))
	for i, v := range values {
		s[i].Value = v
	}
	return s
}

// inOrderOf deals ranks, which are ascending, to the values that have them.
func inOrderOf(values []float64, ranks []int) []int {
	order := make([]int, len(values))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(values[a], values[b]) })
	dealt := make([]int, len(values))
	for rank, i := range order {
		dealt[i] = ranks[rank]
	}
	return dealt
}

// betweenPlacements grows with the differences between the sums of ranks.
func betweenPlacements(ranks, sizes []int) float64 {
	statistic, from := 0.0, 0
	for _, n := range sizes {
		sum := 0
		for _, r := range ranks[from : from+n] {
			sum += r
		}
		statistic += float64(sum) * float64(sum) / float64(n)
		from += n
	}
	return statistic
}

// dependsOnPlacement reports that the answer in one placement is not that in
// another: that the intervals of two placements that roles were pinned to don't
// overlap, by more than the noise, and don't point the same way. Roles that were left
// free find themselves now in the one, now in the other: they scatter more, which a test of ranks
// takes for a difference.
func (c *Comparison) dependsOnPlacement(noise float64) bool {
	pinned := slices.DeleteFunc(slices.Clone(c.ByPlacement), func(p PlacementComparison) bool { return p.Placement == results.PlacementFree })
	for i, p := range pinned {
		for _, q := range pinned[:i] {
			low, high := p.Ratio, q.Ratio
			if low.Value > high.Value {
				low, high = high, low
			}
			sameWay := low.Low > 1 || high.High < 1
			if !sameWay && low.High < high.Low && Effect(high.Value/low.Value) > max(noise, Negligible) {
				return true
			}
		}
	}
	return false
}

// placementsText gives the ratio of each placement.
func (c *Comparison) placementsText() string {
	var parts []string
	for _, p := range c.ByPlacement {
		parts = append(parts, fmt.Sprintf("%s %.3gx [%.3g, %.3g]", p.Placement, p.Ratio.Value, p.Ratio.Low, p.Ratio.High))
	}
	return "how much depends on where the roles run: " + strings.Join(parts, ", ")
}
