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
	// ByRole lets a core that is free take the next job of the role that it had
	// last, before one of another: threads of a process take what waits for them
	// without a switch. A job of another role pays its Wake then, as it does where a
	// core is idle. StreakNS is how long a core stays with a role while others wait.
	ByRole   bool
	StreakNS int64
}

// MaxCores is how many cores a host can have.
const MaxCores = 256

// Processors are the cores of a host. Soft interrupts go before processes and
// take a core from one if none is idle; processes wait in a run queue and take
// turns in slices, each role in a queue of its own where a core prefers its last.
type Processors struct {
	basis
	scheduling Scheduling
	cores      []core
	idle       int
	soft       line
	run        [MaxRoles]line
	waiting    int // in all of run
	came       int64
	victim     int
	held       int // core whose job is just leaving, or none
}

const none = -1

type core struct {
	now     waiter
	busy    bool
	since   int64
	version int32
	role    int8  // of its last job
	streak  int64 // since when it is with that role
}

// NewProcessors returns a host's processors.
func NewProcessors(s Scheduling) (*Processors, error) {
	if s.Cores < 1 || s.Cores > MaxCores {
		return nil, fmt.Errorf("a host with %d cores: 1 to %d are possible", s.Cores, MaxCores)
	}
	if s.SliceNS < 0 || s.SwitchNS < 0 || s.MigrateNS < 0 {
		return nil, fmt.Errorf("a host's slice of %d ns, switch of %d ns and migration of %d ns must not be negative", s.SliceNS, s.SwitchNS, s.MigrateNS)
	}
	return &Processors{scheduling: s, cores: make([]core, s.Cores), idle: s.Cores, held: none}, nil
}

func (p *Processors) arrive(job int32, amount int64, step *Step) {
	w := waiter{job: job, amount: amount, step: step}
	switch {
	case step.Stays && p.keeps():
		p.start(p.held, w)
	case p.idle > 0 && p.waiting == 0:
		if step.Wake > 0 {
			w.amount += step.Wake
			p.n.Wakes++
		}
		p.start(p.idleCore(job), w)
	case step.Soft:
		p.interrupt(w)
	default:
		p.queue(w, false)
	}
}

// keeps says whether the job that is just leaving a core may go on there.
func (p *Processors) keeps() bool {
	if p.held == none || p.cores[p.held].busy {
		return false
	}
	return p.waiting == 0 || p.scheduling.StreakNS == 0 || p.n.Engine.Now()-p.cores[p.held].streak < p.scheduling.StreakNS
}

// queue lets a process wait, in front of its role's others or behind them.
func (p *Processors) queue(w waiter, front bool) {
	role := int8(0)
	if p.scheduling.ByRole {
		role = w.step.Role
	}
	p.waiting++
	if front {
		p.run[role].pushFront(w)
		return
	}
	p.came++
	w.order = p.came
	p.run[role].push(w)
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
		p.queue(c.now, true)
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
	if !w.step.Soft && c.role != w.step.Role {
		c.role, c.streak = w.step.Role, p.n.Engine.Now()
	}
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
	if done.amount > 0 && p.waiting+p.soft.count == 0 {
		p.turn(int(event.Job))
		return
	}
	c.busy = false
	p.idle++
	if done.amount > 0 {
		done.amount += p.scheduling.SwitchNS
		p.queue(done, false)
	}
	if done.amount <= 0 {
		p.held = int(event.Job)
		p.n.leave(done.job, 0)
		p.held = none
	}
	if !p.cores[event.Job].busy {
		p.next(int(event.Job))
	}
}

// next gives an idle core to whoever waits.
func (p *Processors) next(i int) {
	switch {
	case p.soft.count > 0:
		p.start(i, p.soft.pop())
	case p.waiting > 0:
		role := p.choose(&p.cores[i])
		p.waiting--
		w := p.run[role].pop()
		if p.scheduling.ByRole && w.step.Role != p.cores[i].role && w.step.Wake > 0 {
			w.amount += w.step.Wake
			p.n.Wakes++
		}
		p.start(i, w)
	}
}

// choose gives the role whose queue a core takes its next job from: its last one,
// or else the one that has waited longest.
func (p *Processors) choose(c *core) int {
	if !p.scheduling.ByRole {
		return 0
	}
	stays := p.scheduling.StreakNS == 0 || p.n.Engine.Now()-c.streak < p.scheduling.StreakNS
	if stays && p.run[c.role].count > 0 {
		return int(c.role)
	}
	oldest := -1
	for role := range p.run {
		if p.run[role].count > 0 && (oldest < 0 || p.run[role].first().order < p.run[oldest].first().order) {
			oldest = role
		}
	}
	return oldest
}
