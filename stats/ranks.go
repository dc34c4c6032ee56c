package stats

import (
	"cmp"
	"math"
	"slices"

	"github.com/aclements/go-moremath/stats"
)

// MannWhitney gives the two-sided p-value of the Mann-Whitney U test: how
// likely two samples at least this different are if nothing distinguishes
// their cells. Where repetitions were placed, values are ranked within each
// placement, and the sums of ranks added up (van Elteren 1960, with equal weights):
// what placements do to both sides alike then costs the test nothing. Samples that
// can't be told apart, or are empty, give 1.
func MannWhitney(baseline, treatment Sample) float64 {
	list := strata(baseline, treatment)
	if len(list) == 0 {
		return 1
	}
	if len(list) > 1 {
		return rankTest(list)
	}
	result, err := stats.MannWhitneyUTest(list[0].baseline.Values(), list[0].treatment.Values(), stats.LocationDiffers)
	if err != nil {
		return 1
	}
	return min(result.P, 1)
}

// exactRanks is the most values in one placement for which all ways to deal them
// to the two sides are counted. Beyond it the sum of ranks is as good as normal.
const exactRanks = 64

// rankTest is the permutation test of the sum of the treatment's ranks over
// several placements.
func rankTest(list []stratum) float64 {
	exact := true
	sum, mean, variance := 0, 0.0, 0.0
	ways := []float64{1} // the chance of each sum of twice the ranks
	for _, s := range list {
		doubled, taken := doubledRanks(s)
		sum += taken
		n, k := float64(len(doubled)), float64(len(s.treatment))
		average, scatter := moments(doubled)
		mean += k * average
		if n > 1 {
			variance += k * (n - k) / (n - 1) * scatter
		}
		if exact = exact && len(doubled) <= exactRanks; exact {
			ways = convolve(ways, dealt(doubled, len(s.treatment)))
		}
	}
	distance := math.Abs(float64(sum) - mean)
	if exact {
		p := 0.0
		for other, chance := range ways {
			if math.Abs(float64(other)-mean) >= distance-rounding {
				p += chance
			}
		}
		return min(p, 1)
	}
	return math.Erfc(distance / math.Sqrt(2*variance))
}

// doubledRanks gives twice the midranks of a placement's values, which are whole
// numbers also where values are equal, and their sum over the treatment.
func doubledRanks(s stratum) (doubled []int, treatment int) {
	type dealtValue struct {
		value   float64
		treated bool
	}
	var all []dealtValue
	for _, o := range s.baseline {
		all = append(all, dealtValue{o.Value, false})
	}
	for _, o := range s.treatment {
		all = append(all, dealtValue{o.Value, true})
	}
	slices.SortFunc(all, func(a, b dealtValue) int { return cmp.Compare(a.value, b.value) })
	doubled = make([]int, len(all))
	for from := 0; from < len(all); {
		to := from
		for to < len(all) && all[to].value == all[from].value {
			to++
		}
		for i := from; i < to; i++ {
			doubled[i] = from + to + 1
			if all[i].treated {
				treatment += doubled[i]
			}
		}
		from = to
	}
	return doubled, treatment
}

func moments(values []int) (mean, variance float64) {
	for _, v := range values {
		mean += float64(v) / float64(len(values))
	}
	for _, v := range values {
		variance += (float64(v) - mean) * (float64(v) - mean) / float64(len(values))
	}
	return mean, variance
}

// dealt gives the chance of each sum of take ranks among all, if they are dealt at
// random.
func dealt(ranks []int, take int) []float64 {
	most := 0
	for _, r := range ranks {
		most += r
	}
	ways := make([][]float64, take+1) // by how many were taken, then by their sum
	for k := range ways {
		ways[k] = make([]float64, most+1)
	}
	ways[0][0] = 1
	for _, r := range ranks {
		for k := take; k > 0; k-- {
			for sum := most; sum >= r; sum-- {
				ways[k][sum] += ways[k-1][sum-r]
			}
		}
	}
	all := 0.0
	for _, w := range ways[take] {
		all += w
	}
	for sum := range ways[take] {
		ways[take][sum] /= all
	}
	return ways[take]
}

// convolve gives the chances of the sums of two numbers, from the chances of each.
func convolve(a, b []float64) []float64 {
	sums := make([]float64, len(a)+len(b)-1)
	for x, p := range a {
		if p == 0 {
			continue
		}
		for y, q := range b {
			sums[x+y] += p * q
		}
	}
	return sums
}

// smallestP is the smallest p-value that samples of these sizes can have, however
// different they are.
func smallestP(baseline, treatment Sample) float64 {
	ways := 1.0
	for _, s := range strata(baseline, treatment) {
		n, k := len(s.baseline)+len(s.treatment), len(s.treatment)
		for i := range k {
			ways *= float64(n-i) / float64(k-i)
		}
	}
	return min(1, 2/ways)
}
