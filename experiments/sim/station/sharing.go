package station

import (
	"fmt"
	"math"

	"waggle/experiments/sim/engine"
)

// Sharing serves all jobs at once: n of them share a capacity equally, and none
// gets more than 1. Capacity 1 is processor sharing; a memory bus that so many
// copies at full speed saturate has their number as capacity.
//
// Time is counted in service that each job has had; a job leaves when that
// reaches what the count was at its arrival plus what it needs.
type Sharing struct {
	basis
	capacity float64
	served   float64 // nanoseconds of service that a job had that was always here
	since    int64
	heap     []share
	order    int64
	version  int32
}

type share struct {
	until float64
	order int64
	job   int32
}

// NewSharing returns a station with a capacity, in jobs served at full speed.
func NewSharing(capacity float64) (*Sharing, error) {
	if !(capacity > 0) || math.IsInf(capacity, 0) {
		return nil, fmt.Errorf("a shared station with capacity %v: must be a number above 0", capacity)
	}
	return &Sharing{capacity: capacity}, nil
}

// rate is the service that each of the jobs gets in a nanosecond.
func (s *Sharing) rate() float64 {
	return min(1, s.capacity/float64(len(s.heap)))
}

func (s *Sharing) advance() {
	now := s.n.Engine.Now()
	if len(s.heap) > 0 {
		passed := float64(now - s.since)
		s.served += float64(passed * s.rate())
		s.Busy += int64(float64(passed * min(float64(len(s.heap)), s.capacity)))
	}
	s.since = now
}

func (s *Sharing) arrive(job int32, amount int64, _ *Step) {
	s.advance()
	if len(s.heap) == 0 {
		s.served = 0
	}
	s.order++
	s.push(share{s.served + float64(amount), s.order, job})
	s.plan()
}

// plan schedules the next departure, and makes void what was scheduled before.
func (s *Sharing) plan() {
	s.version++
	if len(s.heap) == 0 {
		return
	}
	left := max(0, s.heap[0].until-s.served)
	s.n.Engine.Schedule(int64(math.Ceil(left/s.rate())), s.id, 0, 0, s.version)
}

// Handle lets the job go that has had all it needs.
func (s *Sharing) Handle(_ *engine.Engine, event engine.Event) {
	if event.Tag != s.version {
		return
	}
	s.advance()
	job := s.heap[0].job
	s.pop()
	s.plan()
	s.n.leave(job, 0)
}

func (a share) before(b share) bool {
	return a.until < b.until || a.until == b.until && a.order < b.order
}

func (s *Sharing) push(x share) {
	s.heap = append(s.heap, x)
	i := len(s.heap) - 1
	for i > 0 && x.before(s.heap[(i-1)/2]) {
		s.heap[i] = s.heap[(i-1)/2]
		i = (i - 1) / 2
	}
	s.heap[i] = x
}

func (s *Sharing) pop() {
	last := len(s.heap) - 1
	x := s.heap[last]
	s.heap = s.heap[:last]
	if last == 0 {
		return
	}
	i := 0
	for {
		c := 2*i + 1
		if c >= last {
			break
		}
		if c+1 < last && s.heap[c+1].before(s.heap[c]) {
			c++
		}
		if !s.heap[c].before(x) {
			break
		}
		s.heap[i] = s.heap[c]
		i = c
	}
	s.heap[i] = x
}
