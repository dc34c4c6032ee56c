package engine

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// recorder keeps what it is told.
type recorder struct{ events []Event }

func (r *recorder) Handle(_ *Engine, event Event) { r.events = append(r.events, event) }

func TestEventsComeInTheOrderOfTimeAndThenOfScheduling(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	e, r := New(0), &recorder{}
	id := e.Add(r)
	var want []Event
	for i := range int32(5000) {
		delay := random.Int64N(200) // many ties
		e.Schedule(delay, id, 0, i, 0)
		want = append(want, Event{At: delay, Job: i})
	}
	slices.SortStableFunc(want, func(a, b Event) int { return cmp.Compare(a.At, b.At) })
	e.Run(Never)
	require.Len(t, r.events, len(want))
	for i := range want {
		require.Equal(t, want[i].At, r.events[i].At, i)
		require.Equal(t, want[i].Job, r.events[i].Job, i)
	}
	require.Equal(t, 0, e.Waiting())
	require.Equal(t, uint64(5000), e.Handled())
}

// brancher schedules none, one or several events for each that it handles, so
// that holes in the heap are filled, closed and left.
type brancher struct {
	random *rand.Rand
	id     ID
	left   int
	last   int64
	seen   uint64
	t      *testing.T
}

func (b *brancher) Handle(e *Engine, event Event) {
	require.GreaterOrEqual(b.t, event.At, b.last)
	require.Equal(b.t, event.At, e.Now())
	b.last = event.At
	b.seen = b.seen*31 + uint64(event.At) + uint64(event.Job)
	for range b.random.IntN(3) {
		if b.left > 0 {
			b.left--
			e.Schedule(b.random.Int64N(1000), b.id, 0, int32(b.left), 0)
		}
	}
}

func TestASeedGivesTheSameRun(t *testing.T) {
	run := func(seed uint64) (uint64, uint64) {
		e := New(4)
		b := &brancher{random: rand.New(rand.NewPCG(seed, 0)), left: 20000, t: t}
		b.id = e.Add(b)
		for i := range int32(50) {
			e.Schedule(int64(i), b.id, 0, i, 0)
		}
		e.Run(Never)
		return b.seen, e.Handled()
	}
	seen, handled := run(7)
	again, handledAgain := run(7)
	require.Equal(t, seen, again)
	require.Equal(t, handled, handledAgain)
	require.Greater(t, handled, uint64(1000))
	other, _ := run(8)
	require.NotEqual(t, seen, other)
}

func TestRunStopsInTimeAndGoesOn(t *testing.T) {
	e, r := New(0), &recorder{}
	id := e.Add(r)
	for _, delay := range []int64{10, 20, 30} {
		e.Schedule(delay, id, 0, 0, 0)
	}
	e.Run(20)
	require.Len(t, r.events, 2)
	e.Run(25)
	require.Equal(t, int64(25), e.Now())
	e.Schedule(-5, id, 1, 0, 0)
	e.Schedule(math.MaxInt64, id, 2, 0, 0)
	e.Run(Never - 1)
	require.Len(t, r.events, 4)
	require.Equal(t, int64(25), r.events[2].At, "a negative delay is none")
	require.Equal(t, 1, e.Waiting(), "what overflows never comes")
}

// ping keeps each job going: what most events of a simulation do.
type ping struct {
	random *rand.PCG
	id     ID
}

func (p *ping) Handle(e *Engine, event Event) {
	e.Schedule(int64(p.random.Uint64()>>44), p.id, 0, event.Job, 0)
}

func TestEventsAllocateNothing(t *testing.T) {
	e, p := New(1024), &ping{random: rand.NewPCG(1, 1)}
	p.id = e.Add(p)
	for i := range int32(1000) {
		e.Schedule(int64(i), p.id, 0, i, 0)
	}
	until := int64(0)
	require.Zero(t, testing.AllocsPerRun(10, func() {
		until += 1e6
		e.Run(until)
	}))
	require.Greater(t, e.Handled(), uint64(10_000))
}

// BenchmarkEvents has 1,000 state machines and 32,000 jobs, as a large cluster.
func BenchmarkEvents(b *testing.B) {
	e := New(32_000)
	for range 1000 {
		p := &ping{random: rand.NewPCG(1, 1)}
		p.id = e.Add(p)
		for j := range int32(32) {
			e.Schedule(int64(p.random.Uint64()>>44), p.id, 0, j, 0)
		}
	}
	b.ReportAllocs()
	b.ResetTimer()
	for e.Handled() < uint64(b.N) {
		e.Run(e.Now() + 1000)
	}
	b.ReportMetric(float64(e.Handled())/b.Elapsed().Seconds()/1e6, "Mevents/s")
}
