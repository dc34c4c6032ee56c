package station

import (
	"fmt"
	"math"

	"waggle/experiments/sim/engine"
)

// Fabric is a network whose flows share links like a fluid, by max-min fairness:
// no flow could get more without taking from one that has no more itself. A
// job's amount is bytes; its client and server say which links it takes.
//
// All flows are looked at whenever one comes or goes, which takes time in
// proportion to flows times links: for some hundreds of flows. Larger networks
// use [Link], one after the other.
type Fabric struct {
	basis
	capacity []float64 // by link, bytes a nanosecond
	route    func(client, server int32) []int32
	flows    []flow
	since    int64
	version  int32

	left   []float64 // scratch: capacity that is not given out yet
	users  []int32   // scratch: flows on the link that have no rate yet
	frozen []bool
}

type flow struct {
	job   int32
	links []int32
	left  float64
	rate  float64
}

// NewFabric returns a fabric of links with capacities in bytes a second. Route
// gives the links between a job's server and client; what it returns is kept.
func NewFabric(bytesPerSecond []float64, route func(client, server int32) []int32) (*Fabric, error) {
	f := &Fabric{route: route, left: make([]float64, len(bytesPerSecond)), users: make([]int32, len(bytesPerSecond))}
	for i, b := range bytesPerSecond {
		if !(b > 0) || math.IsInf(b, 0) {
			return nil, fmt.Errorf("link %d of a fabric has %v B/s: must be a number above 0", i, b)
		}
		f.capacity = append(f.capacity, b/1e9)
	}
	return f, nil
}

func (f *Fabric) arrive(job int32, bytes int64, _ *Step) {
	f.advance()
	j := &f.n.jobs[job]
	f.flows = append(f.flows, flow{job: job, links: f.route(j.Client, j.Server), left: float64(bytes)})
	f.share()
	f.plan()
}

func (f *Fabric) advance() {
	now := f.n.Engine.Now()
	passed := float64(now - f.since)
	for i := range f.flows {
		f.flows[i].left -= float64(passed * f.flows[i].rate)
	}
	if len(f.flows) > 0 {
		f.Busy += now - f.since
	}
	f.since = now
}

// share fills all flows at one pace; what runs into a full link is frozen.
func (f *Fabric) share() {
	copy(f.left, f.capacity)
	clear(f.users)
	f.frozen = append(f.frozen[:0], make([]bool, len(f.flows))...)
	for i := range f.flows {
		for _, l := range f.flows[i].links {
			f.users[l]++
		}
	}
	for range f.flows {
		tightest, least := int32(-1), math.Inf(1)
		for l := range f.left {
			if f.users[l] > 0 && f.left[l]/float64(f.users[l]) < least {
				tightest, least = int32(l), f.left[l]/float64(f.users[l])
			}
		}
		if tightest < 0 {
			return
		}
		f.freeze(tightest, least)
	}
}

// freeze gives every flow of a link its final rate.
func (f *Fabric) freeze(link int32, rate float64) {
	for i := range f.flows {
		if f.frozen[i] || !contains(f.flows[i].links, link) {
			continue
		}
		f.frozen[i] = true
		f.flows[i].rate = rate
		for _, l := range f.flows[i].links {
			f.left[l] = max(0, f.left[l]-rate)
			f.users[l]--
		}
	}
}

func contains(links []int32, link int32) bool {
	for _, l := range links {
		if l == link {
			return true
		}
	}
	return false
}

func (f *Fabric) plan() {
	f.version++
	soonest := math.Inf(1)
	for i := range f.flows {
		soonest = min(soonest, max(0, f.flows[i].left)/f.flows[i].rate)
	}
	if !math.IsInf(soonest, 0) {
		f.n.Engine.Schedule(int64(math.Ceil(soonest)), f.id, 0, 0, f.version)
	}
}

// Handle lets the flows go that have sent everything.
func (f *Fabric) Handle(_ *engine.Engine, event engine.Event) {
	if event.Tag != f.version {
		return
	}
	f.advance()
	const rounding = 1e-3 // bytes: what float64 leaves behind
	var done []int32
	kept := f.flows[:0]
	for _, flow := range f.flows {
		if flow.left <= rounding {
			done = append(done, flow.job)
		} else {
			kept = append(kept, flow)
		}
	}
	f.flows = kept
	f.share()
	f.plan()
	for _, job := range done {
		f.n.leave(job, 0)
	}
}
