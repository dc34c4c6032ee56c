package workload

import (
	"strconv"
	"time"

	"waggle/results"
)

// A time line begins with slices of firstSlice. One that gets longer than mostSlices
// has its slices joined in pairs, so that its length in memory, and in a record, has a
// limit, however long the trial is.
const (
	firstSlice = time.Millisecond
	mostSlices = 256
)

// timeline counts operations by when they ended.
type timeline struct {
	slice      time.Duration
	operations []int64
	slowest    []time.Duration
}

func newTimeline() *timeline { return &timeline{slice: firstSlice} }

// add counts an operation that ended at a moment after the loop's start.
func (t *timeline) add(end, latency time.Duration) {
	for end >= mostSlices*t.slice {
		t.coarsen()
	}
	i := int(end / t.slice)
	t.extend(i + 1)
	t.operations[i]++
	t.slowest[i] = max(t.slowest[i], latency)
}

func (t *timeline) extend(slices int) {
	for len(t.operations) < slices {
		t.operations, t.slowest = append(t.operations, 0), append(t.slowest, 0)
	}
}

// coarsen joins slices in pairs.
func (t *timeline) coarsen() {
	t.slice *= 2
	joined := (len(t.operations) + 1) / 2
	for i := range joined {
		operations, slowest := t.operations[2*i], t.slowest[2*i]
		if second := 2*i + 1; second < len(t.operations) {
			operations, slowest = operations+t.operations[second], max(slowest, t.slowest[second])
		}
		t.operations[i], t.slowest[i] = operations, slowest
	}
	t.operations, t.slowest = t.operations[:joined], t.slowest[:joined]
}

// merge adds what another client of the same loop did.
func (t *timeline) merge(other *timeline) {
	for t.slice < other.slice {
		t.coarsen()
	}
	for other.slice < t.slice {
		other.coarsen()
	}
	t.extend(len(other.operations))
	for i, n := range other.operations {
		t.operations[i] += n
		t.slowest[i] = max(t.slowest[i], other.slowest[i])
	}
}

// result is the time line as a record holds it, or nil of a loop without operations.
func (t *timeline) result() *results.Timeline {
	if t == nil || len(t.operations) == 0 {
		return nil
	}
	r := &results.Timeline{SliceSeconds: t.slice.Seconds(), Operations: t.operations}
	for _, d := range t.slowest {
		r.SlowestSeconds = append(r.SlowestSeconds, threeDigits(d.Seconds()))
	}
	return r
}

// threeDigits rounds to the three digits that a histogram of latencies has, too.
func threeDigits(x float64) float64 {
	rounded, _ := strconv.ParseFloat(strconv.FormatFloat(x, 'g', 3, 64), 64) // can't fail
	return rounded
}
