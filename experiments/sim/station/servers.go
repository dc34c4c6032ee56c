package station

import (
	"errors"

	"waggle/experiments/sim/engine"
)

// Servers is a queue in front of some equal servers, first come, first served.
type Servers struct {
	basis
	free  int
	queue line
}

// NewServers returns a station of so many servers.
func NewServers(count int) (*Servers, error) {
	if count < 1 {
		return nil, errors.New("a station without a server serves nobody")
	}
	return &Servers{free: count}, nil
}

func (s *Servers) arrive(job int32, amount int64, _ *Step) {
	if s.free == 0 {
		s.queue.push(waiter{job: job, amount: amount})
		return
	}
	s.free--
	s.serve(job, amount)
}

func (s *Servers) serve(job int32, amount int64) {
	s.Busy += amount
	s.schedule(amount, job)
}

// Handle ends a job's service.
func (s *Servers) Handle(_ *engine.Engine, event engine.Event) {
	if s.queue.count > 0 {
		next := s.queue.pop()
		s.serve(next.job, next.amount)
	} else {
		s.free++
	}
	s.n.leave(event.Job, 0)
}

// Delay keeps every job for as long as it says, however many there are: time on
// a wire, thinking.
type Delay struct{ basis }

func (d *Delay) arrive(job int32, amount int64, _ *Step) { d.schedule(amount, job) }

// Handle ends a job's delay.
func (d *Delay) Handle(_ *engine.Engine, event engine.Event) { d.n.leave(event.Job, 0) }

// Commit is a group commit: what comes while a sync runs shares the next one.
type Commit struct {
	basis
	syncing, next []int32
	amount        int64
	running       bool
}

func (c *Commit) arrive(job int32, amount int64, _ *Step) {
	c.next = append(c.next, job)
	c.amount = max(c.amount, amount)
	if !c.running {
		c.begin()
	}
}

func (c *Commit) begin() {
	c.running = true
	c.syncing, c.next = c.next, c.syncing
	c.Busy += c.amount
	c.schedule(c.amount, -1)
	c.amount = 0
}

// Handle ends a sync, and with it the wait of all that share it.
func (c *Commit) Handle(_ *engine.Engine, _ engine.Event) {
	for _, job := range c.syncing {
		c.n.leave(job, 0)
	}
	c.syncing = c.syncing[:0]
	c.running = false
	if len(c.next) > 0 {
		c.begin()
	}
}
