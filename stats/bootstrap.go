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
// bootstrap interval. With paired, repetitions are resampled together. It has
// no answer if either sample is empty or a value isn't positive.
func Ratio(baseline, treatment Sample, paired bool) (Interval, bool) {
	b, t := baseline.byRepetition(), treatment.byRepetition()
	if !positive(b) || !positive(t) {
		return Interval{}, false
	}
	d := newDice(b, t)
	drawnB, drawnT := newTally(b), newTally(t)
	ratios := make([]float64, resamples)
	for i := range ratios {
		for range b {
			k := d.roll(len(b))
			drawnB.add(k)
			if paired {
				drawnT.add(k)
			}
		}
		if !paired {
			for range t {
				drawnT.add(d.roll(len(t)))
			}
		}
		ratios[i] = drawnT.takeMedian() / drawnB.takeMedian()
	}
	slices.Sort(ratios)
	tail := int((1 - Confidence) / 2 * resamples)
	return Interval{
		Value: median(drawnT.values) / median(drawnB.values),
		Low:   ratios[tail],
		High:  ratios[resamples-1-tail],
	}, true
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
