package workload

import (
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const someTimers = `Timer List Version: v0.10
HRTIMER_MAX_CLOCK_BASES: 8
now at 1000000000 nsecs

cpu: 0
 clock 0:
  .nohz           : 1
  .idle_sleeptime : 500 nsecs
  .iowait_sleeptime: 7 nsecs
cpu: 11
  .nohz           : 1
  .idle_sleeptime : 600 nsecs
  .iowait_sleeptime: 0 nsecs
`

func TestParseTimerList(t *testing.T) {
	at, idle, err := parseTimerList([]byte(someTimers))
	require.NoError(t, err)
	require.Equal(t, time.Second, at)
	require.Equal(t, map[int]time.Duration{0: 507, 11: 600}, idle)
	_, _, err = parseTimerList([]byte("now at 5 nsecs\ncpu: 0\n .nohz : 0\n .idle_sleeptime : 0 nsecs\n"))
	require.ErrorIs(t, err, errNoIdleClocks)
	_, _, err = parseTimerList([]byte("cpu: 0\n .idle_sleeptime : many nsecs\n"))
	require.ErrorContains(t, err, "many")
}

func TestParseProcStat(t *testing.T) {
	s, err := parseProcStat([]byte("cpu  100 20 300 9999 50 7 40 3 0 0\ncpu0 1 2 3 100 20 6 7 8 9 10\ncpu10 0 0 0 7 0 0 0 0 0 0\nintr 1 2 3 4 5 6 7 8 9\n"))
	require.NoError(t, err)
	require.Equal(t, procStat{user: 1200 * time.Millisecond, system: 3070 * time.Millisecond, softirq: 400 * time.Millisecond, steal: 30 * time.Millisecond,
		idle: map[int]time.Duration{0: 1200 * time.Millisecond, 10: 70 * time.Millisecond}}, s)
	for _, bad := range []string{"", "cpu 1 2", "intr 1 2 3 4 5 6 7 8 9", "cpu 1 2 3 4 five 6 7 8 9"} {
		_, err := parseProcStat([]byte(bad))
		require.Error(t, err, bad)
	}
}

func FuzzParseProcessors(f *testing.F) {
	f.Add([]byte(someTimers))
	f.Add([]byte("cpu  1 2 3 4 5 6 7 8 9 10\ncpu0 1 2 3 4 5 6 7 8 9 10\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, idle, err := parseTimerList(b); err == nil {
			require.NotEmpty(t, idle)
		}
		if s, err := parseProcStat(b); err == nil {
			require.NotEmpty(t, s.idle)
		}
	})
}

// On this machine: no processor is idle for longer than was looked. Root sees it to
// the nanosecond.
func TestProcessorsOfThisMachine(t *testing.T) {
	before, err := readProcessors(true)
	require.NoError(t, err)
	for start := time.Now(); time.Since(start) < 20*time.Millisecond; {
	}
	after, err := readProcessors(false)
	require.NoError(t, err)
	p := after.since(before)
	require.Equal(t, os.Geteuid() == 0, p.Exact)
	require.GreaterOrEqual(t, p.Window, 0.02)
	var idle float64
	for _, seconds := range p.Idle {
		require.GreaterOrEqual(t, seconds, 0.0)
		require.LessOrEqual(t, seconds, p.Window)
		idle += seconds
	}
	if p.Exact {
		// This test has kept one processor busy, unless it was taken away from it.
		require.Less(t, idle, float64(len(p.Idle))*p.Window-0.01)
	}
}
