// Package estimate turns what a running simulation observes into numbers with
// intervals, and says when they are narrow enough to stop.
//
// Observations of a queue are correlated, so they are put into batches, whose
// means hardly are; when there are too many batches, neighbours are merged. The
// batches at the start that belong to the warm-up are cut off where what is left
// has the smallest error (MSER, White 1997). Intervals are Student's, at 95 %,
// widened by what correlation is left between neighbouring batches.
package estimate

import (
	"fmt"
	"math"

	"github.com/HdrHistogram/hdrhistogram-go"
	"gonum.org/v1/gonum/stat/distuv"
)

const (
	firstBatch = 16   // observations
	most       = 64   // batches, before neighbours are merged
	fewest     = 20   // batches from which an interval is believed
	longest    = 1e13 // nanoseconds, the highest latency that is told apart
	digits     = 2    // of latencies, in the histograms
)

// Batches collects observations.
type Batches struct {
	// Whole keeps the start: of a run in which something happens at a time, nothing
	// may be cut off.
	Whole bool

	batches []batch
	now     batch
	size    int64
	spare   []*hdrhistogram.Histogram
}

// batch is what was observed between two times.
type batch struct {
	count      int64
	sum        float64 // of latencies, nanoseconds
	begin, end int64
	latency    *hdrhistogram.Histogram
	amounts    Amounts
}

// Amounts are totals that grow while a simulation runs, such as processor time.
// They may have any meaning, as long as it stays the same.
type Amounts [12]float64

func (a Amounts) minus(b Amounts) Amounts {
	for i := range a {
		a[i] -= b[i]
	}
	return a
}

// New returns an empty collection that begins at a simulated time.
func New(now int64) *Batches {
	b := &Batches{size: firstBatch}
	b.now = batch{begin: now, latency: b.histogram()}
	return b
}

func (b *Batches) histogram() *hdrhistogram.Histogram {
	if last := len(b.spare) - 1; last >= 0 {
		h := b.spare[last]
		b.spare = b.spare[:last]
		h.Reset()
		return h
	}
	return hdrhistogram.New(1, longest, digits)
}

// Observe takes in one operation that ended now. It says whether a batch is full
// with it: then Close must be called.
func (b *Batches) Observe(latencyNS int64) (full bool) {
	b.now.count++
	b.now.sum += float64(latencyNS)
	b.now.latency.RecordValue(min(max(latencyNS, 1), longest)) // can't fail within the range
	return b.now.count >= b.size
}

// Close ends a batch. Totals are what the amounts have grown to since the start.
func (b *Batches) Close(now int64, totals Amounts) {
	b.now.end = now
	b.now.amounts = totals
	b.batches = append(b.batches, b.now)
	b.now = batch{begin: now, latency: b.histogram()}
	if len(b.batches) == most {
		b.merge()
	}
}

func (b *Batches) merge() {
	for i := range most / 2 {
		x, y := b.batches[2*i], b.batches[2*i+1]
		x.latency.Merge(y.latency)
		b.spare = append(b.spare, y.latency)
		b.batches[i] = batch{x.count + y.count, x.sum + y.sum, x.begin, y.end, x.latency, y.amounts}
	}
	b.batches = b.batches[:most/2]
	b.size *= 2
}

// Interval is a number with the interval in which it is, with 95 % confidence.
type Interval struct{ Value, Low, High float64 }

// HalfWidth is half of the interval's width as a share of the value.
func (i Interval) HalfWidth() float64 {
	if i.Value == 0 {
		return 0
	}
	return (i.High - i.Low) / 2 / math.Abs(i.Value)
}

// Holds says whether a value is in the interval.
func (i Interval) Holds(v float64) bool { return v >= i.Low && v <= i.High }

// String is the value with its interval.
func (i Interval) String() string { return fmt.Sprintf("%.4g [%.4g, %.4g]", i.Value, i.Low, i.High) }

// Result is what a collection says once the warm-up is cut off.
type Result struct {
	Operations int64
	// Seconds is the simulated time of these operations, WarmUp what was cut off.
	Seconds, WarmUp float64
	// Rate is operations a second; latencies are in seconds.
	Rate, Mean, P50, P99 Interval
	// Each of the amounts by operation.
	PerOperation [len(Amounts{})]Interval
	Latency      *hdrhistogram.Histogram
}

// Enough says whether there are batches for an interval.
func (b *Batches) Enough() bool { return len(b.batches) >= fewest }

// Result gives the numbers so far. An error says that there are too few.
func (b *Batches) Result() (Result, error) {
	if len(b.batches) < 2 {
		return Result{}, fmt.Errorf("simulator: %d operations ended, at least %d are needed for a number with an interval: simulate longer", b.now.count+int64(len(b.batches))*b.size, 2*b.size)
	}
	cut := b.warmUp()
	kept := b.batches[cut:]
	r := Result{Latency: hdrhistogram.New(1, longest, digits), WarmUp: float64(kept[0].begin-b.batches[0].begin) / 1e9}
	var before Amounts
	if cut > 0 {
		before = b.batches[cut-1].amounts
	}
	columns := make([][]float64, 4+len(before))
	for _, x := range kept {
		r.Operations += x.count
		r.Latency.Merge(x.latency)
		columns[0] = append(columns[0], float64(x.count)/max(1, float64(x.end-x.begin))*1e9)
		columns[1] = append(columns[1], x.sum/float64(x.count)/1e9)
		columns[2] = append(columns[2], float64(x.latency.ValueAtQuantile(50))/1e9)
		columns[3] = append(columns[3], float64(x.latency.ValueAtQuantile(99))/1e9)
		for i, amount := range x.amounts.minus(before) {
			columns[4+i] = append(columns[4+i], amount/float64(x.count))
		}
		before = x.amounts
	}
	r.Seconds = float64(kept[len(kept)-1].end-kept[0].begin) / 1e9
	r.Rate, r.Mean, r.P50, r.P99 = student(columns[0]), student(columns[1]), student(columns[2]), student(columns[3])
	for i := range r.PerOperation {
		r.PerOperation[i] = student(columns[4+i])
	}
	// Rates of batches of equal size average harmonically.
	total := float64(r.Operations) / r.Seconds
	r.Rate = Interval{total, total * r.Rate.Low / r.Rate.Value, total * r.Rate.High / r.Rate.Value}
	return r, nil
}

// warmUp says how many of the first batches are to be cut off, at most half.
func (b *Batches) warmUp() int {
	if b.Whole {
		return 0
	}
	best, least := 0, math.Inf(1)
	for cut := 0; cut <= len(b.batches)/2 && len(b.batches)-cut >= 2; cut++ {
		var sum, squares, n float64
		for _, x := range b.batches[cut:] {
			mean := x.sum / float64(x.count)
			sum += mean
			squares += mean * mean
			n++
		}
		if score := (squares - sum*sum/n) / (n * n); score < least {
			best, least = cut, score
		}
	}
	return best
}

// student gives the mean of batches with its interval.
func student(x []float64) Interval {
	n := float64(len(x))
	mean := 0.0
	for _, v := range x {
		mean += v / n
	}
	variance, neighbours := 0.0, 0.0
	for i, v := range x {
		variance += (v - mean) * (v - mean) / (n - 1)
		if i > 0 {
			neighbours += (v - mean) * (x[i-1] - mean) / (n - 1)
		}
	}
	if variance > 0 {
		if rho := min(0.9, neighbours/variance); rho > 0 {
			variance *= (1 + rho) / (1 - rho)
		}
	}
	half := distuv.StudentsT{Mu: 0, Sigma: 1, Nu: n - 1}.Quantile(0.975) * math.Sqrt(variance/n)
	return Interval{mean, mean - half, mean + half}
}
