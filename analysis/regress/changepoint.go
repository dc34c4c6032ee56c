package regress

import (
	"math"
	"slices"

	"github.com/aclements/go-moremath/stats"
)

const (
	// fewestPoints is the fewest runs between two changes: with fewer, a change
	// can't be told from a run that was disturbed.
	fewestPoints = 3
	// surePValue is when a change is reported. It is this small because the place
	// of the split is chosen among all; Hunter uses the same.
	surePValue = 0.001
	// candidatePValue is when a split is looked at again with its neighbours: a
	// change there and back shows less in the whole than in its parts.
	candidatePValue = 0.01
)

// changePoints finds where a series changes its level: the indices of the first
// values of each new level.
//
// The place of a split is the one of E-Divisive: the largest energy distance
// between what lies before and behind (Matteson and James 2014). Whether it
// counts is asked of Student's t-test, and not of random permutations, so that
// the answer is the same each time; splits that their neighbours explain better
// are taken back (Fleming and others, "Hunter", ICPE 2023).
func changePoints(series []float64) []int {
	changes := split(series, 0, len(series))
	for len(changes) > 0 {
		weakest, p := leastSure(series, changes)
		if p <= surePValue {
			break
		}
		changes = slices.Delete(changes, weakest, weakest+1)
	}
	return changes
}

// split bisects series[from:to] as long as the halves differ.
func split(series []float64, from, to int) []int {
	at := bestSplit(series, from, to)
	if at < 0 || levelsDiffer(series[from:at], series[at:to]) > candidatePValue {
		return nil
	}
	return slices.Concat(split(series, from, at), []int{at}, split(series, at, to))
}

// bestSplit gives the index with the largest energy distance, or -1 where there
// are too few points.
func bestSplit(series []float64, from, to int) int {
	best, bestDistance := -1, 0.0
	for at := from + fewestPoints; at <= to-fewestPoints; at++ {
		if d := energyDistance(series[from:at], series[at:to]); best < 0 || d > bestDistance {
			best, bestDistance = at, d
		}
	}
	return best
}

// energyDistance is the scaled sample energy statistic with exponent 1.
func energyDistance(a, b []float64) float64 {
	m, n := float64(len(a)), float64(len(b))
	between := 0.0
	for _, x := range a {
		for _, y := range b {
			between += math.Abs(x - y)
		}
	}
	return m * n / (m + n) * (2*between/(m*n) - within(a) - within(b))
}

// within is the mean distance between two values of a.
func within(a []float64) float64 {
	sum := 0.0
	for i, x := range a {
		for _, y := range a[:i] {
			sum += math.Abs(x - y)
		}
	}
	return sum / float64(len(a)*(len(a)-1)/2)
}

func leastSure(series []float64, changes []int) (index int, p float64) {
	bounds := slices.Concat([]int{0}, changes, []int{len(series)})
	for i := range changes {
		if q := levelsDiffer(series[bounds[i]:bounds[i+1]], series[bounds[i+1]:bounds[i+2]]); q >= p {
			index, p = i, q
		}
	}
	return index, p
}

// levelsDiffer gives the p-value of Student's t-test.
func levelsDiffer(a, b []float64) float64 {
	result, err := stats.TwoSampleTTest(stats.Sample{Xs: a}, stats.Sample{Xs: b}, stats.LocationDiffers)
	if err == nil {
		return result.P
	}
	if stats.Mean(a) != stats.Mean(b) { // two constant levels: no scatter to doubt them for
		return 0
	}
	return 1
}
