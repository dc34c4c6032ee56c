package stats

import (
	"cmp"
	"encoding/binary"
	"hash/fnv"
	"math"
	"math/bits"
	"math/rand/v2"
	"slices"
)

// resamples is enough for the ends of a 95 % interval to be steady to about a
// tenth of its width.
const resamples = 2000

// Interval is an estimate with its 95 % bounds.
type Interval struct {
	Value float64 `json:"value"`
	Low   float64 `json:"low"`
	High  float64 `json:"high"`
}

// Ratio estimates median(treatment) / median(baseline) with a percentile
// bootstrap interval. With paired, repetitions are resampled together. Where
// repetitions were placed, it is the geometric mean of the placements' ratios,
// resampled within each. It has no answer if either sample is empty or a value
// isn't positive.
func Ratio(baseline, treatment Sample, paired bool) (Interval, bool) {
	return ratio(baseline, treatment, paired, Alpha)
}

// ratio is Ratio with an interval that is wrong with the given chance.
func ratio(baseline, treatment Sample, paired bool, chance float64) (Interval, bool) {
	b, t := baseline.byRepetition(), treatment.byRepetition()
	list := strata(b, t)
	if !positive(b) || !positive(t) || len(list) == 0 {
		return Interval{}, false
	}
	d := newDice(b, t)
	draws := make([]*pairOfTallies, len(list))
	for i, s := range list {
		draws[i] = &pairOfTallies{newTally(s.baseline), newTally(s.treatment), paired && sameRepetitions(s.baseline, s.treatment)}
	}
	ratios := make([]float64, resamples)
	within := make([]float64, len(list))
	for i := range ratios {
		for k, pair := range draws {
			within[k] = pair.draw(d)
		}
		ratios[i] = middleOf(within)
	}
	for k, pair := range draws {
		within[k] = median(pair.treatment.values) / median(pair.baseline.values)
	}
	estimate := Interval{Value: middleOf(within)}
	estimate.Low, estimate.High = ends(ratios, chance)
	return estimate, true
}

// pairOfTallies resamples the two sides of one placement.
type pairOfTallies struct {
	baseline, treatment *tally
	paired              bool
}

// draw resamples both sides once, and gives the ratio of their medians.
func (p *pairOfTallies) draw(d dice) float64 {
	for range p.baseline.values {
		k := d.roll(len(p.baseline.values))
		p.baseline.add(k)
		if p.paired {
			p.treatment.add(k)
		}
	}
	if !p.paired {
		for range p.treatment.values {
			p.treatment.add(d.roll(len(p.treatment.values)))
		}
	}
	return p.treatment.takeMedian() / p.baseline.takeMedian()
}

// tally collects draws from a sample by rank, so that their median is found
// without sorting them.
type tally struct {
	values []float64 // ascending
	rank   []int     // of each observation among the values
	times  []int     // each value was drawn
	drawn  int
}

func newTally(s Sample) *tally {
	order := make([]int, len(s))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(s[a].Value, s[b].Value) })
	t := &tally{values: s.Values(), rank: make([]int, len(s)), times: make([]int, len(s))}
	for rank, i := range order {
		t.rank[i] = rank
	}
	return t
}

func (t *tally) add(observation int) {
	t.times[t.rank[observation]]++
	t.drawn++
}

// takeMedian gives the median of what was drawn, and starts anew.
func (t *tally) takeMedian() float64 {
	lower, upper := t.at((t.drawn-1)/2), t.at(t.drawn/2)
	clear(t.times)
	t.drawn = 0
	return lower/2 + upper/2
}

// at gives the k-th smallest of what was drawn, from 0.
func (t *tally) at(k int) float64 {
	for rank, times := range t.times {
		if k -= times; k < 0 {
			return t.values[rank]
		}
	}
	return math.NaN()
}

// sameRepetitions reports whether two samples can be compared in pairs.
func sameRepetitions(a, b Sample) bool {
	return slices.EqualFunc(a.byRepetition(), b.byRepetition(), func(x, y Observation) bool {
		return x.Repetition == y.Repetition
	})
}

func positive(s Sample) bool {
	for _, o := range s {
		if o.Value <= 0 {
			return false
		}
	}
	return len(s) > 0
}

// dice draws indices. Its seed is the data, and it uses nothing of the random
// generator but its 64-bit output, which never changes between Go versions.
type dice struct{ source *rand.PCG }

func newDice(samples ...Sample) dice {
	hash := fnv.New128a()
	for _, s := range samples {
		_ = binary.Write(hash, binary.LittleEndian, uint64(len(s)))
		for _, o := range s {
			_ = binary.Write(hash, binary.LittleEndian, math.Float64bits(o.Value))
		}
	}
	seed := hash.Sum(nil)
	return dice{rand.NewPCG(binary.LittleEndian.Uint64(seed), binary.LittleEndian.Uint64(seed[8:]))}
}

// roll draws from 0 to n-1.
func (d dice) roll(n int) int {
	high, _ := bits.Mul64(d.source.Uint64(), uint64(n))
	return int(high)
}
