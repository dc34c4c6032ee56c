package storm

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"time"

	"waggle/bpf/faults"
)

// event is one thing that happens in a storm, so long after its begin.
type event struct {
	after time.Duration
	what  string
	do    func(*storm) error
}

// plan is what a seed makes of a storm: all that happens to the cluster, and
// when. What clients do meanwhile follows from the seed, too, but not in which
// order their messages arrive.
type plan struct {
	seed   uint64
	events []event
	// lossy: several machines may have lost what was not synced, or the others may
	// not have had it.
	lossy bool
	// powerLosses and touched count chunk servers, by what happens to them.
	powerLosses, touched int
}

// A storm's faults begin within stormTime, and last up to half as long again.
const stormTime = 500 * time.Millisecond

// makers are the kinds of faults. A seed takes some of them.
var makers = []struct {
	weight int
	make   func(*planner)
}{
	{4, (*planner).cutClient},
	{3, (*planner).loseAnswers},
	{2, (*planner).cutServers},
	{4, (*planner).isolate},
	{3, (*planner).noise},
	{3, (*planner).pause},
	{4, (*planner).kill},
	{4, (*planner).losePower},
	{1, (*planner).loseAllPower},
	{1, (*planner).fillDisk},
	{1, (*planner).failDisk},
}

// planner draws the events of a plan.
type planner struct {
	*plan
	random *rand.Rand
	busy   map[int]bool // machines that something happens to already; 0 is the metadata server
	// earliest is when the next fault may begin.
	earliest time.Duration
}

func newPlan(seed uint64) *plan {
	p := &planner{plan: &plan{seed: seed}, random: rand.New(rand.NewPCG(seed, 0)), busy: make(map[int]bool)}
	total := 0
	for _, m := range makers {
		total += m.weight
	}
	for range 1 + p.random.IntN(4) {
		pick := p.random.IntN(total)
		for _, m := range makers {
			if pick -= m.weight; pick < 0 {
				m.make(p)
				break
			}
		}
	}
	return p.finish()
}

// newPowerLossPlan draws so many losses of power, of one machine or of several,
// one after the other.
func newPowerLossPlan(seed uint64, losses int) *plan {
	p := &planner{plan: &plan{seed: seed}, random: rand.New(rand.NewPCG(seed, 0))}
	for i := range losses {
		p.earliest = time.Duration(i) * stormTime
		p.busy = make(map[int]bool)
		if p.random.IntN(2) == 0 {
			p.losePower()
		} else {
			p.loseAllPower()
		}
	}
	return p.finish()
}

func (p *planner) finish() *plan {
	p.lossy = p.powerLosses > 1 || p.powerLosses == 1 && p.touched > 1
	slices.SortStableFunc(p.events, func(a, b event) int { return cmp.Compare(a.after, b.after) })
	return p.plan
}

func (p *plan) String() string {
	var text strings.Builder
	fmt.Fprintf(&text, "storm %d:", p.seed)
	for _, e := range p.events {
		fmt.Fprintf(&text, "\n  %4d ms: %s", e.after.Milliseconds(), e.what)
	}
	return text.String()
}

// between draws a time in ms.
func (p *planner) between(least, most int) time.Duration {
	return time.Duration(least+p.random.IntN(most-least+1)) * time.Millisecond
}

func (p *planner) at() time.Duration {
	return p.earliest + p.between(0, int(stormTime.Milliseconds()))
}

func (p *planner) add(after time.Duration, do func(*storm) error, what string, arguments ...any) {
	p.events = append(p.events, event{after, fmt.Sprintf(what, arguments...), do})
}

// victim draws a machine that nothing happens to yet, from the given first on.
func (p *planner) victim(first int) (int, bool) {
	m := first + p.random.IntN(1+chunkServers-first)
	if p.busy[m] {
		return 0, false
	}
	p.busy[m] = true
	if m > 0 {
		p.touched++
	}
	return m, true
}

func machineName(m int) string {
	if m == 0 {
		return "the metadata server"
	}
	return fmt.Sprintf("chunk server %d", m-1)
}

// side is where packets come from or go to: a client's alias of the metadata
// server, all clients, or a machine.
type side func(*storm) netip.Addr

func machineSide(m int) side {
	return func(s *storm) netip.Addr { return s.cluster.machines()[m].address() }
}

func clientSide(s *storm) netip.Addr { return s.cluster.network.clientAddress() }

func aliasSide(i int) side {
	return func(s *storm) netip.Addr { return s.cluster.network.address(clientAlias + i) }
}

// rule puts a rule into force in one or both directions, and clears it later.
func (p *planner) rule(r faults.Rule, a, b side, begin, end time.Duration, what string) {
	ways := [][2]side{{a, b}, {b, a}}
	switch p.random.IntN(4) {
	case 0:
		ways, what = ways[:1], what+", one way"
	case 1:
		ways, what = ways[1:], what+", the other way"
	}
	r.Seed = p.random.Uint64()
	p.add(begin, func(s *storm) error {
		for _, w := range ways {
			r.From, r.To = w[0](s), w[1](s)
			if err := s.cluster.network.injector(way{r.From, r.To}).Set(r); err != nil {
				return err
			}
		}
		return nil
	}, "%s", what)
	p.add(end, func(s *storm) error {
		for _, w := range ways {
			from, to := w[0](s), w[1](s)
			if err := s.cluster.network.injector(way{from, to}).Clear(from, to); err != nil {
				return err
			}
		}
		return nil
	}, "no more %s", what)
}

// cutClient cuts a client off from the metadata server, mostly for longer than
// its session lives.
func (p *planner) cutClient() {
	begin := p.at()
	i := p.random.IntN(clients)
	p.rule(faults.Rule{Cut: true}, aliasSide(i), clientSide, begin, begin+p.between(300, 1300), fmt.Sprintf("cut between client %d and the metadata server", i))
}

// pair draws two machines, or the clients and a chunk server.
func (p *planner) pair() (a, b side, what string) {
	x, y := p.random.IntN(2+chunkServers), p.random.IntN(1+chunkServers)
	if x == y || x == 1+chunkServers && y == 0 {
		x, y = 1, 2
	}
	p.touched++
	if x == 1+chunkServers {
		return clientSide, machineSide(y), "the clients and " + machineName(y)
	}
	return machineSide(x), machineSide(y), machineName(x) + " and " + machineName(y)
}

// loseAnswers has the metadata server carry out what clients ask for, and die before
// they hear of it.
func (p *planner) loseAnswers() {
	if p.busy[0] {
		return
	}
	p.busy[0] = true
	begin := p.at()
	died := begin + p.between(20, 150)
	// Events of one moment happen in this order: what is lost stays lost.
	p.add(died, func(s *storm) error { s.cluster.meta.kill(); return s.cluster.meta.start() }, "kill and start the metadata server")
	for i := range clients {
		p.cut(aliasSide(i), clientSide, begin, died, fmt.Sprintf("cut from the metadata server to client %d", i))
	}
}

// cut lets nothing through in one direction.
func (p *planner) cut(from, to side, begin, end time.Duration, what string) {
	p.add(begin, func(s *storm) error {
		a, b := from(s), to(s)
		return s.cluster.network.injector(way{a, b}).Set(faults.Rule{From: a, To: b, Cut: true})
	}, "%s", what)
	p.add(end, func(s *storm) error {
		a, b := from(s), to(s)
		return s.cluster.network.injector(way{a, b}).Clear(a, b)
	}, "no more %s", what)
}

func (p *planner) cutServers() {
	begin := p.at()
	a, b, what := p.pair()
	p.rule(faults.Rule{Cut: true}, a, b, begin, begin+p.between(100, 900), "cut between "+what)
}

// isolate cuts a chunk server off from all servers, and not from the clients.
func (p *planner) isolate() {
	m, ok := p.victim(1)
	if !ok {
		return
	}
	begin := p.at()
	end := begin + p.between(200, 1200)
	for other := range 1 + chunkServers {
		if other != m {
			p.rule(faults.Rule{Cut: true}, machineSide(m), machineSide(other), begin, end, fmt.Sprintf("cut between %s and %s", machineName(m), machineName(other)))
		}
	}
}

func (p *planner) noise() {
	begin := p.at()
	a, b, what := p.pair()
	r := faults.Rule{Drop: p.random.Float64() / 10, Duplicate: p.random.Float64() / 5, Hold: p.random.Float64() / 5}
	p.rule(r, a, b, begin, begin+p.between(300, 1000), fmt.Sprintf("drop %.0f %%, duplicate %.0f %% and hold %.0f %% between %s", 100*r.Drop, 100*r.Duplicate, 100*r.Hold, what))
}

// pause stops a machine's process, for less or more than a session lives and
// until it is taken for dead.
func (p *planner) pause() {
	m, ok := p.victim(0)
	if !ok {
		return
	}
	begin := p.at()
	p.add(begin, func(s *storm) error { s.cluster.machines()[m].pause(); return nil }, "pause %s", machineName(m))
	p.add(begin+p.between(50, 900), func(s *storm) error { s.cluster.machines()[m].resume(); return nil }, "resume %s", machineName(m))
}

func (p *planner) kill() {
	m, ok := p.victim(0)
	if !ok {
		return
	}
	begin := p.at()
	p.add(begin, func(s *storm) error { s.cluster.machines()[m].kill(); return nil }, "kill %s", machineName(m))
	p.add(begin+p.between(0, 900), func(s *storm) error { return s.cluster.machines()[m].revive() }, "start %s", machineName(m))
}

// losePower takes a machine's memory, after the kernel has written some of it to
// the disk.
func (p *planner) losePower() {
	m, ok := p.victim(0)
	if !ok {
		return
	}
	if m > 0 {
		p.powerLosses++
	}
	p.powerLoss([]int{m}, "the power of "+machineName(m))
}

func (p *planner) loseAllPower() {
	first := p.random.IntN(2) // with or without the metadata server
	var all []int
	for m := first; m <= chunkServers; m++ {
		if !p.busy[m] {
			all = append(all, m)
			p.busy[m] = true
		}
	}
	p.powerLosses += 2
	p.powerLoss(all, []string{"the power of all machines that are well", "the power of all chunk servers that are well"}[first])
}

func (p *planner) powerLoss(victims []int, what string) {
	begin, scatter := p.at(), p.random.Uint64()
	p.add(begin, func(s *storm) error { return s.losePower(victims, scatter) }, "lose %s", what)
	p.add(begin+p.between(0, int(stormTime.Milliseconds())), func(s *storm) error {
		return each(s.machines(victims), (*machine).revive)
	}, "give back %s", what)
}

func (p *planner) fillDisk() {
	m, ok := p.victim(1)
	if !ok {
		return
	}
	begin := p.at()
	p.add(begin, func(s *storm) error { return s.cluster.machines()[m].disk.fill() }, "fill the disk of %s", machineName(m))
	p.add(begin+p.between(100, 600), func(s *storm) error { return s.cluster.machines()[m].disk.unfill() }, "make room on the disk of %s", machineName(m))
}

// failDisk has a disk answer EIO for most of what is on it. The machine gets its
// old disk back: what could not be written to it is lost.
func (p *planner) failDisk() {
	m, ok := p.victim(1)
	if !ok {
		return
	}
	p.powerLosses++
	begin := p.at()
	p.add(begin, func(s *storm) error { return s.cluster.machines()[m].disk.fail() }, "break the disk of %s", machineName(m))
	p.add(begin+p.between(100, 600), func(s *storm) error {
		err := s.cluster.machines()[m].revive()
		s.loseUnsynced()
		return err
	}, "mend the disk of %s", machineName(m))
}
