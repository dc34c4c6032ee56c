package station

import (
	"fmt"

	"waggle/experiments/sim/engine"
)

// Scheduling says how a host's processors are given to jobs.
type Scheduling struct {
	Cores int
	// SliceNS is how long a job may keep a core while others wait; 0 is for ever.
	SliceNS int64
	// SwitchNS is what it costs to take a core from one job and give it to another.
	SwitchNS int64
	// MigrateNS is what a job pays that goes on at another core than before.
	MigrateNS int64
}

// MaxCores is how many cores a host can have.
const MaxCores = 256

// Processors are the cores of a host. Soft interrupts go before processes and
// take a core from one if none is idle; processes wait in one run queue and take
// turns in slices.
type Processors struct {
	basis
	scheduling Scheduling
	cores      []core
	idle       int
	soft, run  line
	victim     int
}

type core struct {
	now     waiter
	busy    bool
	since   int64
	version int32
}

// NewProcessors returns a host's processors.
func NewProcessors(s Scheduling) (*Processors, error) {
	if s.Cores < 1 || s.Cores > MaxCores {
		return nil, fmt.Errorf("a host with %d cores: 1 to %d are possible", s.Cores, MaxCores)
	}
	if s.SliceNS < 0 || s.SwitchNS < 0 || s.MigrateNS < 0 {
		return nil, fmt.Errorf("a host's slice of %d ns, switch of %d ns and migration of %d ns must not be negative", s.SliceNS, s.SwitchNS, s.MigrateNS)
	}
	return &Processors{scheduling: s, cores: make([]core, s.Cores), idle: s.Cores}, nil
}

func (p *Processors) arrive(job int32, amount int64, step *Step) {
	w := waiter{job, amount, step}
	switch {
	case p.idle > 0:
		if step.Wake > 0 {
			w.amount += step.Wake
			p.n.Wakes++
		}
		p.start(p.idleCore(job), w)
	case step.Soft:
		p.interrupt(w)
	default:
		p.run.push(w)
	}
}

// idleCore gives an idle core: the job's last one, if that is idle.
func (p *Processors) idleCore(job int32) int {
	if last := p.n.jobs[job].core; last >= 0 && int(last) < len(p.cores) && !p.cores[last].busy {
		return int(last)
	}
	for i := range p.cores {
		if !p.cores[i].busy {
			return i
		}
	}
	panic("station: no core is idle, and some are counted")
}

// interrupt takes a core from a process, or waits for other soft interrupts.
func (p *Processors) interrupt(w waiter) {
	for range p.cores {
		p.victim = (p.victim + 1) % len(p.cores)
		c := &p.cores[p.victim]
		if c.now.step.Soft {
			continue
		}
		p.account(c)
		p.run.pushFront(c.now)
		c.busy = false
		p.idle++
		p.start(p.victim, w)
		return
	}
	p.soft.push(w)
}

func (p *Processors) start(i int, w waiter) {
	c := &p.cores[i]
	j := &p.n.jobs[w.job]
	if j.core >= 0 && j.core != int32(i) && !w.step.Soft {
		w.amount += p.scheduling.MigrateNS
	}
	j.core = int32(i)
	c.now, c.busy = w, true
	p.idle--
	p.turn(i)
}

// turn lets a core's job run to its end, or for a slice.
func (p *Processors) turn(i int) {
	c := &p.cores[i]
	c.since = p.n.Engine.Now()
	c.version++
	lasts := c.now.amount
	if s := p.scheduling.SliceNS; s > 0 && lasts > s && !c.now.step.Soft {
		lasts = s
	}
	p.n.Engine.Schedule(lasts, p.id, 0, int32(i), c.version)
}

// account takes what a core has done off its job's needs.
func (p *Processors) account(c *core) {
	ran := p.n.Engine.Now() - c.since
	c.now.amount -= ran
	p.Busy += ran
	p.n.Processor[c.now.step.Role] += ran
	if c.now.step.Soft {
		p.n.SoftIRQ += ran
	}
}

// Handle ends a core's turn.
func (p *Processors) Handle(_ *engine.Engine, event engine.Event) {
	c := &p.cores[event.Job]
	if event.Tag != c.version || !c.busy {
		return // a soft interrupt came between
	}
	p.account(c)
	done := c.now
	if done.amount > 0 && p.run.count+p.soft.count == 0 {
		p.turn(int(event.Job))
		return
	}
	c.busy = false
	p.idle++
	if done.amount > 0 {
		done.amount += p.scheduling.SwitchNS
		p.run.push(done)
	}
	p.next(int(event.Job))
	if done.amount <= 0 {
		p.n.leave(done.job, 0)
	}
}

// next gives an idle core to whoever waits.
func (p *Processors) next(i int) {
	switch {
	case p.soft.count > 0:
		p.start(i, p.soft.pop())
	case p.run.count > 0:
		p.start(i, p.run.pop())
	}
}
