// Package station holds what a simulated system is made of: stations, where jobs
// wait and are served, and the [Network] through which jobs walk.
//
// A job follows a [Program], a list of steps. A step names a station and how much
// the job needs there: nanoseconds, or bytes where a station moves bytes. Because
// a cluster has the same station on every host, a step may name a row of stations
// and let the job's client or server choose the one in it. A fork sends copies
// ahead and waits for some of them: replication, quorums, reads of many servers.
//
// Each station keeps its own books (arrivals, departures, time spent, area under
// the number inside). [Network.CheckLittle] compares them at the end of a run: by
// Little's law they must agree to the nanosecond, or a job was lost or served twice.
package station

import (
	"fmt"
	"math/rand/v2"

	"waggle/experiments/sim/engine"
)

// ID names a station of a network.
type ID int32

// By says which station of a row a step means.
type By uint8

// The choices: the named one itself, or that of the job's client or server host.
const (
	Itself By = iota
	ClientHost
	ServerHost
)

// Step is one visit of a program.
type Step struct {
	At ID
	By By
	// Behind counts servers on from the job's own, Divide makes a row of groups of
	// so many hosts: racks. 0 is one.
	Behind, Divide int32
	// Amount is what the job needs: nanoseconds, or bytes at stations that move
	// bytes.
	Amount int64
	// Noise spreads the amount; nil leaves it as it is. Scaled multiplies it by the
	// job's own factor.
	Noise  *Noise
	Scaled bool
	// Role is for whom processor time is counted.
	Role int8
	// Soft is work of a soft interrupt, which goes before every process.
	Soft bool
	// Wake is processor time that is needed in addition where a processor is idle
	// and must be woken, in nanoseconds. A job that has to wait wakes nobody.
	Wake int64
	// Stays lets a job that comes straight from a core of the same processors keep
	// that core: its thread goes on without waiting for anybody.
	Stays bool
	// Skip is how many of the next steps are left out when a cache has the data.
	Skip int32
	// Fork, where it is set, makes the step no visit: so many jobs follow Child,
	// and the step ends when Need of them have ended.
	Fork *Fork
}

// Fork describes jobs that a job sends ahead.
type Fork struct {
	Child int32 // program
	Count int32
	Need  int32 // 0 lets the job go on at once
	// Elsewhere sends the children to the servers behind the job's own, each to
	// another one of so many; 0 sends all to the job's own.
	Elsewhere int32
}

// Program is what a job does, from the first step to the last.
type Program []Step

// Station is a place where jobs are served.
type Station interface {
	engine.Machine
	// arrive takes a job in. The station calls Network.leave when it is served.
	arrive(job int32, amount int64, step *Step)
	books() *Books
	join(n *Network, id engine.ID)
}

// Books are what a station counts about itself.
type Books struct {
	Arrived, Left int64
	// Spent is the time that jobs that have left spent here, in nanoseconds.
	Spent int64
	// Area is the number of jobs inside, summed over time: job nanoseconds.
	Area int64
	// Busy is the time that servers worked, in server nanoseconds.
	Busy int64
	// Dropped counts what found no room.
	Dropped int64

	inside int64
	last   int64
}

func (b *Books) change(now, by int64) {
	b.Area += b.inside * (now - b.last)
	b.last = now
	b.inside += by
}

// Inside is the number of jobs at the station.
func (b Books) Inside() int64 { return b.inside }

// basis is what all stations have in common.
type basis struct {
	Books
	n  *Network
	id engine.ID
}

func (b *basis) books() *Books                   { return &b.Books }
func (b *basis) join(n *Network, id engine.ID)   { b.n, b.id = n, id }
func (b *basis) schedule(delay int64, job int32) { b.n.Engine.Schedule(delay, b.id, 0, job, 0) }

const (
	nowhere  ID    = -1
	noParent int32 = -1
)

// Job is one operation on its way, or a part of one.
type Job struct {
	Client, Server int32
	// Key is the block that the operation is about, for caches.
	Key int32
	// Factor is how much larger than usual the job's Scaled steps are.
	Factor float64
	// Began is when the job was started.
	Began int64

	program, step int32
	at            ID
	arrived       int64
	parent        int32
	parentLife    uint32
	life          uint32 // of this place in the table: jobs use it one after the other
	waiting       int32  // children that a fork waits for
	core          int32
}

// Network is a set of stations with the jobs that walk through them.
type Network struct {
	Engine *engine.Engine
	Random *rand.Rand
	// Finished is told of every job that has ended, but children of forks. It may
	// start others.
	Finished func(job int32, j Job)
	// Processor time by Step.Role, and the soft interrupts' part, in nanoseconds.
	Processor [MaxRoles]int64
	SoftIRQ   int64
	// Wakes counts how often a processor was woken.
	Wakes int64
	// Servers is how many there are, for steps that go on to the next ones.
	Servers int32

	stations []Station
	programs []Program
	jobs     []Job
	free     []int32
}

// MaxRoles bounds Step.Role.
const MaxRoles = 8

// NewNetwork returns an empty network whose random numbers follow from a seed.
// Room is for so many jobs; more make it grow.
func NewNetwork(seed uint64, room int) *Network {
	return &Network{
		Engine: engine.New(room),
		Random: rand.New(rand.NewPCG(seed, 0x9e3779b97f4a7c15)),
		jobs:   make([]Job, 0, room),
	}
}

// Add puts a station into the network.
func (n *Network) Add(s Station) ID {
	s.join(n, n.Engine.Add(s))
	n.stations = append(n.stations, s)
	return ID(len(n.stations) - 1)
}

// Program makes a program known, under a number. An error says which step can't be.
func (n *Network) Program(p Program) (int32, error) {
	takes := false
	for i, s := range p {
		switch {
		case s.Fork != nil && (s.Fork.Need > s.Fork.Count || s.Fork.Need < 0 || int(s.Fork.Child) >= len(n.programs) || s.Fork.Child < 0):
			return 0, fmt.Errorf("step %d: a fork of %d jobs that waits for %d of program %d can't be", i+1, s.Fork.Count, s.Fork.Need, s.Fork.Child)
		case s.Fork == nil && (s.At < 0 || int(s.At) >= len(n.stations)):
			return 0, fmt.Errorf("step %d: there is no station %d", i+1, s.At)
		case s.Amount < 0 || s.Wake < 0 || s.Skip < 0 || i+int(s.Skip) >= len(p):
			return 0, fmt.Errorf("step %d: amount %d, wake %d, skip %d can't be", i+1, s.Amount, s.Wake, s.Skip)
		case s.Behind < 0 || s.Divide < 0 || s.Behind > 0 && n.Servers < 1:
			return 0, fmt.Errorf("step %d: %d servers on, of %d", i+1, s.Behind, n.Servers)
		case s.Role < 0 || s.Role >= MaxRoles:
			return 0, fmt.Errorf("step %d: role %d can't be", i+1, s.Role)
		}
		takes = takes || s.Amount > 0 || s.Fork != nil && s.Fork.Need > 0
	}
	if !takes {
		return 0, fmt.Errorf("a program of %d steps takes no time: a job would end before it begins", len(p))
	}
	n.programs = append(n.programs, p)
	return int32(len(n.programs) - 1), nil
}

// After makes a program that takes one step more before another program's.
func (n *Network) After(first Step, program int32) (int32, error) {
	return n.Program(append(Program{first}, n.programs[program]...))
}

// Start sends a job on its way at once.
func (n *Network) Start(program, client, server, key int32) {
	n.StartScaled(program, client, server, key, 1)
}

// StartScaled is Start for a job whose Scaled steps are so many times as large.
func (n *Network) StartScaled(program, client, server, key int32, factor float64) {
	job := n.make(program, client, server, key)
	n.jobs[job].Factor = factor
	n.enter(job)
}

func (n *Network) make(program, client, server, key int32) int32 {
	var job int32
	if last := len(n.free) - 1; last >= 0 {
		job = n.free[last]
		n.free = n.free[:last]
	} else {
		n.jobs = append(n.jobs, Job{})
		job = int32(len(n.jobs) - 1)
	}
	n.jobs[job] = Job{Client: client, Server: server, Key: key, Began: n.Engine.Now(), program: program,
		at: nowhere, parent: noParent, life: n.jobs[job].life + 1, core: -1}
	return job
}

// enter takes the step that the job stands at.
func (n *Network) enter(job int32) {
	j := &n.jobs[job]
	program := n.programs[j.program]
	if int(j.step) >= len(program) {
		n.finish(job)
		return
	}
	s := &program[j.step]
	if s.Fork != nil {
		n.fork(job, s.Fork)
		return
	}
	at := s.At + ID(s.host(j, n.Servers))
	now := n.Engine.Now()
	j.at, j.arrived = at, now
	station := n.stations[at]
	books := station.books()
	books.change(now, 1)
	books.Arrived++
	amount := s.Amount
	if s.Noise != nil {
		amount = s.Noise.spread(amount, n.Random)
	}
	if s.Scaled {
		amount = int64(float64(amount)*j.Factor + 0.5)
	}
	station.arrive(job, amount, s)
}

// host is the place in a row of stations.
func (s *Step) host(j *Job, servers int32) int32 {
	host := int32(0)
	switch s.By {
	case ClientHost:
		host = j.Client
	case ServerHost:
		if host = j.Server; s.Behind > 0 {
			host = (host + s.Behind) % servers
		}
	}
	if s.Divide > 1 {
		host /= s.Divide
	}
	return host
}

// Program is the number of the program that a job follows.
func (j *Job) Program() int32 { return j.program }

// leave ends a job's visit; it goes on behind so many steps that are left out.
func (n *Network) leave(job int32, skip int32) {
	j := &n.jobs[job]
	now := n.Engine.Now()
	books := n.stations[j.at].books()
	books.change(now, -1)
	books.Left++
	books.Spent += now - j.arrived
	j.at = nowhere
	j.step += 1 + skip
	n.enter(job)
}

func (n *Network) fork(job int32, f *Fork) {
	n.jobs[job].waiting = f.Need
	parent := n.jobs[job]
	for i := range f.Count {
		server := parent.Server
		if f.Elsewhere > 0 {
			server = (parent.Server + 1 + i) % f.Elsewhere
		}
		child := n.make(f.Child, parent.Client, server, parent.Key)
		n.jobs[child].parent, n.jobs[child].parentLife = job, parent.life
		n.jobs[child].Factor = parent.Factor
		n.enter(child)
	}
	if f.Need == 0 {
		n.jobs[job].step++
		n.enter(job)
	}
}

func (n *Network) finish(job int32) {
	j := n.jobs[job]
	n.free = append(n.free, job)
	if j.parent == noParent {
		if n.Finished != nil {
			n.Finished(job, j)
		}
		return
	}
	parent := &n.jobs[j.parent]
	if parent.life != j.parentLife || parent.waiting == 0 {
		return // a quorum was reached without this one
	}
	if parent.waiting--; parent.waiting == 0 {
		parent.step++
		n.enter(j.parent)
	}
}

// Stations is how many there are.
func (n *Network) Stations() int { return len(n.stations) }

// Station gives a station's books as of now.
func (n *Network) Station(id ID) Books {
	b := n.stations[id].books()
	b.change(n.Engine.Now(), 0)
	return *b
}

// CheckLittle compares every station's books with each other, and with the jobs
// that are still inside: the area under their number is the time that they spent.
func (n *Network) CheckLittle() error {
	now := n.Engine.Now()
	inside := make([]int64, len(n.stations))
	spent := make([]int64, len(n.stations))
	for i := range n.jobs {
		if at := n.jobs[i].at; at != nowhere {
			inside[at]++
			spent[at] += now - n.jobs[i].arrived
		}
	}
	for i := range n.stations {
		b := n.Station(ID(i))
		if b.Arrived-b.Left != inside[i] || b.Area != b.Spent+spent[i] {
			return fmt.Errorf("simulator: station %d (%T): Little's law is broken: %d arrived, %d left, %d inside; area %d, spent %d",
				i, n.stations[i], b.Arrived, b.Left, inside[i], b.Area, b.Spent+spent[i])
		}
	}
	return nil
}
