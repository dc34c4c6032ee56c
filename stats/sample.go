package stats

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"github.com/aclements/go-moremath/stats"
)

const (
	// Confidence is that of every interval.
	Confidence = 0.95
	// Alpha is the share of wrong ones expected among claimed differences.
	Alpha = 0.05
	// EnoughRepetitions is the fewest for which the median has a 95 % interval
	// that assumes nothing about the distribution. Fewer is a warning.
	EnoughRepetitions = 6
	// MinRepetitions is the fewest for which the Mann-Whitney test can find any
	// difference at the 5 % level. With fewer, nothing is claimed of a timing.
	MinRepetitions = 4
)

// Observation is one trial's value of a metric.
type Observation struct {
	Repetition int
	// Placement is where the repetition's roles ran, "" if that was not chosen.
	Placement string
	Value     float64
}

// Sample is a cell's values of one metric, at most one a repetition.
type Sample []Observation

// Values gives the sample's values in ascending order.
func (s Sample) Values() []float64 {
	values := make([]float64, len(s))
	for i, o := range s {
		values[i] = o.Value
	}
	slices.Sort(values)
	return values
}

// byRepetition gives the sample in an order that doesn't depend on the one it
// came in.
func (s Sample) byRepetition() Sample {
	return slices.SortedFunc(slices.Values(s), func(a, b Observation) int {
		return cmp.Or(a.Repetition-b.Repetition, cmp.Compare(a.Value, b.Value))
	})
}

// Summary describes a sample.
type Summary struct {
	N      int     `json:"n"`
	Median float64 `json:"median"`
	// Low and High bound the median with 95 % confidence, from the order of the
	// values alone. With fewer than EnoughRepetitions there is no such interval:
	// they are then the smallest and largest value, and a warning says so.
	Low  float64 `json:"low"`
	High float64 `json:"high"`
	Min  float64 `json:"min"`
	Max  float64 `json:"max"`
	// ByPlacement describes the sample in each placement, if it has several.
	ByPlacement []PlacementSummary `json:"by_placement,omitempty"`
	// Warnings are to be shown with every number drawn from this summary.
	Warnings []string `json:"warnings,omitempty"`
}

// Summarize describes a sample; an empty one gives the zero Summary with a
// warning. The median of a sample whose repetitions were placed is the geometric
// mean of the placements' medians, and its interval resamples within them.
func Summarize(s Sample) Summary {
	values := s.Values()
	if len(values) == 0 {
		return Summary{Warnings: []string{"no valid trial"}}
	}
	sum := summarize(values)
	if sum.ByPlacement = byPlacement(s); sum.ByPlacement != nil {
		combined := stratifiedInterval(s)
		sum.Median, sum.Low, sum.High = combined.Value, combined.Low, combined.High
	}
	return sum
}

// summarize describes values in ascending order, of which there is at least one.
func summarize(values []float64) Summary {
	sum := Summary{N: len(values), Median: median(values), Min: values[0], Max: values[len(values)-1]}
	interval := stats.QuantileCI(len(values), 0.5, Confidence)
	_, sum.Low, sum.High = interval.SampleCI(stats.Sample{Xs: values, Sorted: true})
	if math.IsInf(sum.Low, 0) || math.IsInf(sum.High, 0) {
		sum.Low, sum.High = sum.Min, sum.Max
		sum.Warnings = []string{tooFew(len(values))}
	}
	return sum
}

func tooFew(n int) string {
	return fmt.Sprintf("too few repetitions: %d, a 95 %% interval of a median needs %d", n, EnoughRepetitions)
}

// Median gives the middle of the values, NaN if there are none. It doesn't
// change values.
func Median(values []float64) float64 {
	return median(slices.Sorted(slices.Values(values)))
}

// median is Median for values in ascending order.
func median(sorted []float64) float64 {
	n := len(sorted)
	if n == 0 {
		return math.NaN()
	}
	if n%2 == 1 {
		return sorted[n/2]
	}
	return sorted[n/2-1]/2 + sorted[n/2]/2
}
