package stats

import (
	"math"

	"waggle/results"
)

// Noise is how different two identical cells came out: the A/A control. It is
// relative: 0.02 is a difference of 2 %.
type Noise struct {
	// Twins is the number of control cells that were run twice.
	Twins int `json:"twins"`
	// Spread is the largest difference between a control cell and its twin.
	Spread float64 `json:"spread"`
	// Detectable is the smallest difference that a comparison as scattered as
	// the twins' finds four times out of five, and never less than Spread.
	Detectable float64 `json:"detectable"`
	// Systematic says that a twin's interval excludes "equal": something other
	// than chance tells identical cells apart, and the run deserves distrust.
	Systematic bool `json:"systematic"`
}

// MeasureNoise compares the control cells among groups with their twins. It has
// no answer where there is no twin that measured the metric.
func MeasureNoise(groups []Group, m results.Metric) (Noise, bool) {
	return measureNoise(groups, m, math.MaxInt)
}

// measureNoise is MeasureNoise of the first so many repetitions.
func measureNoise(groups []Group, m results.Metric, first int) (Noise, bool) {
	originals := map[string]Group{}
	for _, g := range Main(groups) {
		originals[groupName(g.Cell, g.Source, "")] = g
	}
	var n Noise
	for _, g := range groups {
		original, ok := originals[groupName(g.Cell, g.Source, "")]
		if g.Control != results.ControlAA || !ok {
			continue
		}
		a, b := original.Sample(m), g.Sample(m)
		if first < math.MaxInt {
			a, b = common(a, b, first)
		}
		ratio, ok := Ratio(a, b, sameRepetitions(a, b))
		if !ok || len(a) < 2 || len(b) < 2 {
			continue
		}
		n.Twins++
		n.Spread = max(n.Spread, Effect(ratio.Value))
		n.Detectable = max(n.Detectable, detectable(ratio, Alpha), n.Spread)
		n.Systematic = n.Systematic || excludesEqual(ratio)
	}
	return n, n.Twins > 0
}

// NoiseOf measures an experiment's noise. An experiment without a control of
// its own takes the largest noise of the run's other experiments, since they
// ran interleaved with it on the same machine.
func NoiseOf(run *results.Run, experiment string, m results.Metric) (Noise, bool) {
	in := NewInquiry(run)
	return noiseOf(run, in.groupsOf, experiment, m, math.MaxInt)
}

// noiseOf is NoiseOf of the first so many repetitions.
func noiseOf(run *results.Run, groupsOf func(string) []Group, experiment string, m results.Metric, first int) (Noise, bool) {
	if n, ok := measureNoise(groupsOf(experiment), m, first); ok {
		return n, true
	}
	var worst Noise
	for _, e := range run.Plan.Experiments {
		if n, ok := measureNoise(groupsOf(e.Name), m, first); ok && n.Spread >= worst.Spread {
			worst = n
		}
	}
	return worst, worst.Twins > 0
}

// Effect gives the size of a ratio as a relative difference, the same for a
// ratio and its inverse: 1.25 and 0.8 are both 0.25.
func Effect(ratio float64) float64 {
	return math.Exp(math.Abs(math.Log(ratio))) - 1
}

func excludesEqual(ratio Interval) bool { return ratio.Low > 1 || ratio.High < 1 }

// detectable takes the standard error from the width of an interval that is wrong
// with the given chance, and gives the relative difference that is found with a
// power of 80 % at that level.
func detectable(ratio Interval, chance float64) float64 {
	const z800 = 0.841621 // standard normal quantile
	z := math.Sqrt2 * math.Erfcinv(chance)
	standardError := math.Log(ratio.High/ratio.Low) / (2 * z)
	return math.Exp((z+z800)*standardError) - 1
}
