package workload

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"waggle/results"
)

// A stall in a trial that is short on average is seen where it was.
func TestATimelineShowsAStall(t *testing.T) {
	line := newTimeline()
	for end := time.Duration(0); end < 20*time.Millisecond; end += 100 * time.Microsecond {
		line.add(end, 100*time.Microsecond)
	}
	line.add(45*time.Millisecond, 25*time.Millisecond)
	r := line.result()
	require.Equal(t, 0.001, r.SliceSeconds)
	require.Len(t, r.Operations, 46)
	require.Equal(t, int64(10), r.Operations[3])
	require.Equal(t, 0.025, r.SlowestSeconds[45])
	require.Len(t, r.Stalls(0.0001), 1)
}

// However long a trial is, its time line has a limit, and loses no operation.
func TestATimelineHasALimit(t *testing.T) {
	one, other := newTimeline(), newTimeline()
	for end := time.Duration(0); end < 3*time.Second; end += time.Millisecond {
		one.add(end, end/10)
	}
	other.add(10*time.Millisecond, time.Millisecond)
	other.merge(one)
	r := other.result()
	require.LessOrEqual(t, len(r.Operations), mostSlices)
	require.Equal(t, 0.016, r.SliceSeconds)
	var all int64
	for _, n := range r.Operations {
		all += n
	}
	require.Equal(t, int64(3001), all)
	require.Equal(t, 0.3, r.SlowestSeconds[len(r.SlowestSeconds)-1])
	require.Nil(t, (*timeline)(nil).result())
	require.Nil(t, newTimeline().result())
	require.LessOrEqual(t, mostSlices, results.MaxSlices)
}
