package workload

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// operation is a client that needs no checks.
type operation func(ctx context.Context) (int, error)

func (o operation) do(ctx context.Context) (int, error) { return o(ctx) }
func (o operation) check() error                        { return nil }

// fakeClock is moved by sleeping and by the operations of one client.
type fakeClock struct{ time time.Duration }

func (c *fakeClock) now() time.Duration               { return c.time }
func (c *fakeClock) alarm() (alarm, error)            { return c, nil }
func (c *fakeClock) close() error                     { return nil }
func (c *fakeClock) sleepUntil(t time.Duration) error { c.time = max(c.time, t); return nil }
func (c *fakeClock) taking(d time.Duration)           { c.time += d }
func (c *fakeClock) operation(d ...time.Duration) operation {
	k := -1
	return func(context.Context) (int, error) {
		k++
		c.taking(d[min(k, len(d)-1)])
		return 100, nil
	}
}

// A server that stalls once for 100 ms while 1000 requests a second are due: a
// generator that waits for it and counts from when it sends would see one slow
// request. The known answer is 100 of them: 100 ms, 99 ms, ... 1 ms.
func TestOpenLoopCountsFromTheIntendedStart(t *testing.T) {
	c := &fakeClock{}
	stall := []time.Duration{0, 0, 0, 0, 0, 100 * time.Millisecond, 0}
	got, err := run(t.Context(), c, []client{c.operation(stall...)}, pace{rate: 1000, duration: time.Second})
	require.NoError(t, err)
	require.Equal(t, int64(1000), got.operations)
	require.Equal(t, int64(100_000), got.bytes)
	require.Equal(t, time.Second, got.elapsed)
	slow := map[int64]int64{}
	for _, bar := range got.latency.Distribution() {
		if bar.Count > 0 && bar.To > int64(500*time.Microsecond) {
			slow[(bar.To+int64(500*time.Microsecond))/int64(time.Millisecond)] += bar.Count
		}
	}
	require.Len(t, slow, 100)
	for ms, count := range slow {
		require.Equal(t, int64(1), count, "%d ms", ms)
	}
	require.InEpsilon(t, 100*time.Millisecond, got.latency.Max(), 0.001)
	require.Equal(t, int64(1), got.latency.ValueAtPercentile(50))
}

func TestClosedLoopCountsFromTheSending(t *testing.T) {
	c := &fakeClock{}
	got, err := run(t.Context(), c, []client{c.operation(time.Millisecond, 100*time.Millisecond, time.Millisecond)},
		pace{duration: 200 * time.Millisecond})
	require.NoError(t, err)
	require.Equal(t, int64(101), got.operations)
	require.Equal(t, 200*time.Millisecond, got.elapsed)
	require.InEpsilon(t, time.Millisecond, got.latency.ValueAtPercentile(99), 0.001)
	require.InEpsilon(t, 100*time.Millisecond, got.latency.Max(), 0.001)
}

func TestOperationsEndALoopExactly(t *testing.T) {
	for _, rate := range []float64{0, 1e6} {
		clients := make([]client, 4)
		for i := range clients {
			clients[i] = operation(func(context.Context) (int, error) { return 1, nil })
		}
		got, err := run(t.Context(), wallClock{time.Now()}, clients, pace{rate: rate, operations: 1003})
		require.NoError(t, err)
		require.Equal(t, int64(1003), got.operations)
		require.Equal(t, int64(1003), got.latency.TotalCount())
	}
}

func TestRateThatCantBeKeptIsAnError(t *testing.T) {
	c := &fakeClock{}
	_, err := run(t.Context(), c, []client{c.operation(10 * time.Millisecond)}, pace{rate: 1000, duration: time.Second})
	require.ErrorIs(t, err, errCantKeepRate)
	require.ErrorContains(t, err, "only 401 of 1000 had started")
}

func TestFirstErrorEndsTheLoop(t *testing.T) {
	broken := errors.New("broken")
	waiting := func(ctx context.Context) (int, error) { <-ctx.Done(); return 0, ctx.Err() }
	failing := func(context.Context) (int, error) { return 0, broken }
	_, err := run(t.Context(), wallClock{time.Now()}, []client{operation(waiting), operation(failing)}, pace{operations: 10})
	require.ErrorIs(t, err, broken)
}

func TestTimerWakesAtItsTimeAndNotBefore(t *testing.T) {
	c := wallClock{time.Now()}
	a, err := c.alarm()
	require.NoError(t, err)
	for range 20 {
		at := c.now() + 300*time.Microsecond
		require.NoError(t, a.sleepUntil(at))
		require.GreaterOrEqual(t, c.now(), at)
		require.NoError(t, a.sleepUntil(at), "in the past")
	}
	require.NoError(t, a.close())
}
