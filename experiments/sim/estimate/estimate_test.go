package estimate

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// run observes an autocorrelated series with mean 1000 that begins far off.
func run(seed uint64, observations int) *Batches {
	random := rand.New(rand.NewPCG(seed, 0))
	b := New(0)
	x := 5000.0
	var now int64
	for range observations {
		x = 1000 + .98*(x-1000) + 40*random.NormFloat64()
		now += 10
		if b.Observe(int64(x)) {
			b.Close(now, Amounts{float64(now) * 3})
		}
	}
	return b
}

func TestIntervalsHoldTheTruthAboutAsOftenAsTheySay(t *testing.T) {
	const runs = 60
	held := 0
	for seed := range uint64(runs) {
		r, err := run(seed, 30_000).Result()
		require.NoError(t, err)
		require.Less(t, r.Mean.HalfWidth(), 0.05)
		require.Greater(t, r.WarmUp, 0.0, "the start is cut off")
		if r.Mean.Holds(1000e-9) {
			held++
		}
	}
	require.Greater(t, held, runs*85/100)
}

func TestRatesAndAmounts(t *testing.T) {
	r, err := run(1, 10_000).Result()
	require.NoError(t, err)
	require.InEpsilon(t, 1e8, r.Rate.Value, 1e-9)
	require.InEpsilon(t, 30, r.PerOperation[0].Value, 1e-9)
	require.InDelta(t, 0, r.PerOperation[0].HalfWidth(), 1e-9)
	require.Equal(t, r.Operations, r.Latency.TotalCount())
	require.InEpsilon(t, float64(r.Operations)/1e8, r.Seconds, 1e-9)
}

func TestMergingBatchesLosesNothing(t *testing.T) {
	b := New(0)
	total := int64(0)
	for i := range int64(100_000) {
		total++
		if b.Observe(100) {
			b.Close(i+1, Amounts{float64(i + 1)})
		}
	}
	var counted int64
	for _, x := range b.batches {
		counted += x.count
		require.Equal(t, x.count, x.latency.TotalCount())
	}
	require.Equal(t, total-b.now.count, counted)
	require.Less(t, len(b.batches), most)
}

func TestTooLittleIsAnError(t *testing.T) {
	_, err := run(1, 20).Result()
	require.ErrorContains(t, err, "simulate longer")
	require.False(t, run(1, 20).Enough())
	require.True(t, run(1, 16*20).Enough())
}
