package workload

import (
	"context"
	"math"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"waggle/results"
)

// holding makes a try of a system that sustains so many operations a second.
func holding(most float64, tried *int) func(float64) (results.SearchStep, error) {
	return func(rate float64) (results.SearchStep, error) {
		*tried++
		return results.SearchStep{OfferedOperationsPerSecond: rate, Held: rate <= most}, nil
	}
}

func TestSearchFindsTheHighestRateFromAnyStart(t *testing.T) {
	for _, first := range []float64{1200, 10_000, 12_345, 90_000} {
		tried := 0
		got, err := search(first, holding(12_345, &tried))
		require.NoError(t, err)
		require.LessOrEqual(t, got.SustainedOperationsPerSecond, 12_345.0)
		require.GreaterOrEqual(t, got.SustainedOperationsPerSecond*fineness, 12_345.0, "from %v", first)
		require.Len(t, got.Steps, tried, "every step is told")
		require.InDelta(t, results.SustainedP99.Seconds(), got.P99LimitSeconds, 0)
	}
}

// A rate gets a second chance, and no third.
func TestASearchIsNotMisledByOneDisturbance(t *testing.T) {
	tried := 0
	steady := holding(12_345, &tried)
	got, err := search(10_000, func(rate float64) (results.SearchStep, error) {
		step, err := steady(rate)
		step.Held = step.Held && tried%2 == 0
		return step, err
	})
	require.NoError(t, err)
	require.GreaterOrEqual(t, got.SustainedOperationsPerSecond*fineness, 12_345.0)
}

func TestASearchEnds(t *testing.T) {
	tried := 0
	_, err := search(1000, holding(0, &tried))
	require.ErrorContains(t, err, "no rate was kept, down to")
	require.LessOrEqual(t, tried, maxSearched*chances)
	tried = 0
	_, err = search(1000, holding(math.Inf(1), &tried))
	require.NoError(t, err)
	require.LessOrEqual(t, tried, maxSearched*chances)
}

// A server of which each operation takes 1 ms, with one client, sustains 1000
// operations a second, whatever it is asked for.
func TestStepsOfASearchOnAClock(t *testing.T) {
	try := func(rate float64) results.SearchStep {
		c := &fakeClock{}
		p := pace{rate: rate, duration: time.Second, mayLag: true}
		done, err := run(t.Context(), c, []client{c.operation(time.Millisecond)}, p)
		require.NoError(t, err)
		return stepOf(p, done)
	}
	require.True(t, try(500).Held)
	require.True(t, try(1000).Held)
	late := try(1100)
	require.False(t, late.Held)
	require.InEpsilon(t, 1000, late.OperationsPerSecond, 0.01)
	require.False(t, try(100_000).Held, "a loop that lags too much ends early, and did not hold")
}

// The clients of a search are not asked to do anything after it.
func TestALaggingLoopEndsByItself(t *testing.T) {
	var done atomic.Int64
	slow := operation(func(context.Context) (int, error) {
		done.Add(1)
		time.Sleep(time.Millisecond)
		return 1, nil
	})
	got, err := run(t.Context(), wallClock{time.Now()}, []client{slow, slow}, pace{rate: 1e6, duration: 10 * time.Millisecond, mayLag: true})
	require.NoError(t, err)
	require.Equal(t, done.Load(), got.operations)
	require.Less(t, got.operations, int64(10_000))
}
