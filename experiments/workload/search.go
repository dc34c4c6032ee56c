package workload

import (
	"context"
	"fmt"
	"math"

	"waggle/results"
)

// MaxSearchSteps is the most loops that a search runs: a closed one, then those
// of the rates that it tries.
const MaxSearchSteps = 1 + maxSearched*chances

const (
	// maxSearched is how many rates a search tries at most.
	maxSearched = 12
	// stride is how much faster or slower the next rate is until one was kept and
	// one was not.
	stride = math.Sqrt2
	// fineness is how near a search comes: it ends when the lowest rate that was
	// not kept is at most so many times the highest that was. Repetitions differ by
	// more.
	fineness = 1.1
	// chances is how many times a rate is tried before it counts as not kept: a
	// single disturbance of the machine is not the path's doing.
	chances = 2
)

// search finds the highest rate that can be kept, in operations a second. It
// begins at first, goes up or down in strides until one rate was kept and one was
// not, then takes the (geometric) middle until it is near enough.
func search(first float64, try func(rate float64) (results.SearchStep, error)) (results.Search, error) {
	s := results.Search{P99LimitSeconds: results.SustainedP99.Seconds()}
	kept, lost := 0.0, math.Inf(1)
	for rate := first; len(s.Steps) < maxSearched*chances && lost > fineness*kept; {
		held, err := attempt(&s, rate, try)
		if err != nil {
			return s, err
		}
		if held {
			kept = rate
		} else {
			lost = rate
		}
		switch {
		case kept == 0:
			rate = lost / stride
		case math.IsInf(lost, 1):
			rate = kept * stride
		default:
			rate = math.Sqrt(kept * lost)
		}
	}
	if kept == 0 {
		return s, fmt.Errorf("no rate was kept, down to %.0f operations a second: 99 of 100 operations must end within %v of when they were meant to start",
			lost, results.SustainedP99)
	}
	s.SustainedOperationsPerSecond = kept
	return s, nil
}

// attempt tries a rate until it is kept, or out of chances.
func attempt(s *results.Search, rate float64, try func(float64) (results.SearchStep, error)) (held bool, err error) {
	for range chances {
		step, err := try(rate)
		if err != nil {
			return false, err
		}
		s.Steps = append(s.Steps, step)
		if step.Held {
			return true, nil
		}
	}
	return false, nil
}

// findRate is the timed part of a trial that searches. What its steps cost is
// not told apart by their rates, so nothing but the rate comes of it.
func (t *trial) findRate(ctx context.Context) error {
	closed, err := t.run(ctx, pace{duration: t.job.Duration})
	if err != nil {
		return err
	}
	t.measured = closed
	found, err := search(float64(closed.operations)/closed.elapsed.Seconds(), func(rate float64) (results.SearchStep, error) {
		p := pace{rate: rate, duration: t.job.Duration, mayLag: true}
		done, err := t.run(ctx, p)
		t.measured.add(done)
		return stepOf(p, done), err
	})
	t.search = &found
	return err
}

// stepOf judges a step: operations that were not even begun are none that ended
// in time.
func stepOf(p pace, done tally) results.SearchStep {
	step := results.SearchStep{OfferedOperationsPerSecond: p.rate, P99Seconds: float64(done.latency.ValueAtPercentile(99)) / 1e9}
	if done.elapsed > 0 {
		step.OperationsPerSecond = float64(done.operations) / done.elapsed.Seconds()
	}
	step.Held = done.operations == p.total() && results.Sustained(step.OfferedOperationsPerSecond, step.OperationsPerSecond, step.P99Seconds)
	return step
}
