package stats

import (
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
	ratios := make([]float64, resamples)
	drawnB, drawnT := make([]float64, len(b)), make([]float64, len(t))
	for i := range ratios {
		for j := range drawnB {
			k := d.roll(len(b))
			drawnB[j] = b[k].Value
			if paired {
				drawnT[j] = t[k].Value
			}
		}
		if !paired {
			for j := range drawnT {
				drawnT[j] = t[d.roll(len(t))].Value
			}
		}
		slices.Sort(drawnB)
		slices.Sort(drawnT)
		ratios[i] = median(drawnT) / median(drawnB)
	}
	slices.Sort(ratios)
	tail := int((1 - Confidence) / 2 * resamples)
	return Interval{
		Value: median(t.Values()) / median(b.Values()),
		Low:   ratios[tail],
		High:  ratios[resamples-1-tail],
	}, true
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
