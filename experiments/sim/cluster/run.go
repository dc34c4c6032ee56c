package cluster

import (
	"context"
	"fmt"
	"math"
	"sort"
	"strings"

	"waggle/experiments/sim/estimate"
	"waggle/experiments/sim/station"
	"waggle/experiments/spec"
	"waggle/results/calibration"
)

// Limits of one simulation.
type Limits struct {
	// Width is how narrow the intervals must be, as half of their width over the
	// value, for rate and mean; percentiles may be five times as wide.
	Width float64
	// Events is how many are handled at most.
	Events uint64
	// Seconds is how long is simulated at most, or exactly where a cell has
	// failures: what happens then depends on the time.
	Seconds float64
}

// Outcome is what a simulation of a cell says.
type Outcome struct {
	estimate.Result
	Events uint64
	// Payload is bytes an operation, on average.
	Payload float64
	// Calls and Copied are the system calls and copied bytes of an operation, as the
	// model assumes them.
	Calls, Copied float64
	Lost          int64 // packets' bursts that found no room in a queue
	// What was copied after failures, and when the last of it was.
	RepairedBytes   int64
	RepairedSeconds float64
	// Beyond says what is extrapolated.
	Beyond []string
	// Narrow says that the intervals became as narrow as asked for.
	Narrow bool
}

// patience is how many times longer than asked for is simulated where next to
// nothing has ended.
const patience = 50

// Places of amounts that are counted, behind the processor time by role.
const (
	AmountSoftIRQ = roles
	AmountWakes   = roles + 1
)

// simulation is a cell that runs.
type simulation struct {
	m        *Model
	n        *station.Network
	h        *hosts
	p        *spec.Parameters
	programs []int32          // by kind of operation
	chances  []float64        // of each kind, summed up
	spreads  []*station.Noise // of each kind's single operations
	popular  []float64        // cumulative popularity of blocks, nil if all are alike
	batches  *estimate.Batches
	seconds  float64
	failures failures
}

// Run simulates a cell from a seed.
func (model *Model) Run(ctx context.Context, p *spec.Parameters, seed uint64, limits Limits) (*Outcome, error) {
	varied, err := vary(model.Machine, p.Simulation.Vary)
	if err != nil {
		return nil, err
	}
	m := *model
	m.Machine = varied
	m.latency = m.number(p.Simulation.LinkLatencyUS, "network.latency_us", 0)
	s, outcome, err := m.build(p, seed)
	if err != nil {
		return nil, err
	}
	s.seconds = limits.Seconds
	s.start()
	if err := s.run(ctx, limits, outcome); err != nil {
		return nil, err
	}
	return outcome, s.n.CheckLittle()
}

func (m *Model) build(p *spec.Parameters, seed uint64) (*simulation, *Outcome, error) {
	total := p.Clients * max(1, p.Simulation.ClientHosts)
	s := &simulation{m: m, n: station.NewNetwork(seed, 2*total), p: p, batches: estimate.New(0)}
	s.batches.Whole = p.Simulation.FailedServers > 0
	var err error
	if s.h, err = m.hosts(s.n, p); err != nil {
		return nil, nil, err
	}
	o := &Outcome{Beyond: m.beyondMeasured(p)}
	if err := s.operations(o); err != nil {
		return nil, nil, err
	}
	if z := p.Simulation.Zipf; z > 0 {
		s.popular = zipf(int(s.h.servers)*blocksOfServer, z)
	}
	return s, o, s.prepareFailures()
}

// operations makes the programs of what the clients do.
func (s *simulation) operations(o *Outcome) error {
	sizes := s.m.Sizes
	if len(sizes) == 0 || s.p.Simulation.Trace == "" {
		sizes = []int64{-1}
	}
	for _, size := range sizes {
		p := *s.p
		if size >= 0 {
			p.SizeBytes = size
		}
		writes := float64(p.Simulation.WritePercent) / 100
		if err := s.operation(o, &p, false, (1-writes)/float64(len(sizes))); err != nil {
			return err
		}
		if writes > 0 {
			if err := s.operation(o, &p, true, writes/float64(len(sizes))); err != nil {
				return err
			}
		}
	}
	return nil
}

// operation makes the program of one kind of operation, which has a chance.
func (s *simulation) operation(o *Outcome, p *spec.Parameters, write bool, chance float64) error {
	b := &builder{s.m, s.n, s.h}
	path, size, err := pathOf(p, write)
	if err != nil {
		return err
	}
	var program int32
	var c cost
	replicas := int32(1)
	if p.Simulation.IndexDepth > 0 {
		program, err = b.indexed(path, p.Simulation.IndexDepth)
		c.work, c.spread = calibration.Work{}, always
	} else {
		writes := strings.HasPrefix(path, "write=")
		if writes {
			replicas = int32(p.Replication)
		}
		var beyond []string
		if c, beyond, err = s.m.cost(path, p.Topology == spec.Hosts || s.h.fabric, int(replicas), size); err != nil {
			return err
		}
		o.Beyond = append(o.Beyond, beyond...)
		switch bytes := int64(size); {
		case writes && path == "write=chain" && replicas > 1:
			program, err = b.chained(c, bytes, replicas)
		case writes && replicas > 1:
			program, err = b.fannedOut(c, bytes, replicas)
		case writes:
			program, err = b.exchange(c, bytes, 0, storedBytes{written: bytes})
		case p.Simulation.Stripes > 1:
			program, err = b.striped(c, bytes, int32(p.Simulation.Stripes))
		default:
			program, err = b.exchange(c, 0, bytes, storedBytes{read: bytes})
		}
	}
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	last := 0.0
	if n := len(s.chances); n > 0 {
		last = s.chances[n-1]
	}
	s.programs, s.chances = append(s.programs, program), append(s.chances, last+chance)
	s.spreads = append(s.spreads, c.spread)
	o.Payload += chance * size
	o.Calls += chance * c.work[calibration.Call]
	o.Copied += chance * c.work[calibration.CopiedByte]
	return nil
}

// always is the spread of operations that all take the same.
var always, _ = station.Table([]float64{1})

func zipf(blocks int, exponent float64) []float64 {
	cumulative := make([]float64, blocks)
	sum := 0.0
	for i := range cumulative {
		sum += math.Pow(float64(i+1), -exponent)
		cumulative[i] = sum
	}
	for i := range cumulative {
		cumulative[i] /= sum
	}
	return cumulative
}

// begin sends a client's next operation on its way.
func (s *simulation) begin(client int32) {
	random := s.n.Random
	kind := 0
	if len(s.chances) > 1 {
		kind = min(len(s.chances)-1, sort.SearchFloat64s(s.chances, random.Float64()*s.chances[len(s.chances)-1]))
	}
	blocks := s.h.servers * blocksOfServer
	block := int32(0)
	switch {
	case s.popular != nil:
		block = min(blocks-1, int32(sort.SearchFloat64s(s.popular, random.Float64())))
	case blocks > 1:
		block = random.Int32N(blocks)
	}
	server, program := s.failures.redirect(s, block%s.h.servers, s.programs[kind])
	s.n.StartScaled(program, client, server, block, s.spreads[kind].Factor(random))
}

// start sets clients going: each its next operation when the last has ended, or
// operations at a rate.
func (s *simulation) start() {
	hosts := int(s.h.clients)
	if s.p.Rate > 0 {
		s.n.Arrive(s.p.Rate, func() { s.begin(s.n.Random.Int32N(int32(hosts))) })
	} else {
		for i := range s.p.Clients * hosts {
			s.begin(int32(i % hosts))
		}
	}
	s.failures.start(s)
}

func (s *simulation) finished(_ int32, j station.Job) {
	if s.failures.own(j.Program()) {
		s.failures.finished(s, j)
		return
	}
	if s.batches.Observe(s.n.Engine.Now() - j.Began) {
		s.batches.Close(s.n.Engine.Now(), s.amounts())
		s.n.Engine.Stop()
	}
	if s.p.Rate == 0 {
		s.begin(j.Client)
	}
}

func (s *simulation) amounts() (a estimate.Amounts) {
	for role := range roles {
		a[role] = float64(s.n.Processor[role])
	}
	a[AmountSoftIRQ], a[AmountWakes] = float64(s.n.SoftIRQ), float64(s.n.Wakes)
	return a
}

// run goes on until the intervals are narrow, or a limit is reached.
func (s *simulation) run(ctx context.Context, limits Limits, o *Outcome) error {
	s.n.Finished = s.finished
	until := int64(limits.Seconds * 1e9)
	const between = 50 // batches between two looks at the intervals
	for looks := 0; ; looks++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		s.n.Engine.Run(until)
		o.Events = s.n.Engine.Handled()
		done := s.n.Engine.Now() >= until || o.Events >= limits.Events || s.n.Engine.Waiting() == 0
		if !done && (looks%between != 0 || !s.batches.Enough() || s.p.Simulation.FailedServers > 0) {
			continue
		}
		r, err := s.batches.Result()
		if err != nil && done {
			if until >= int64(limits.Seconds*1e9*patience) || o.Events >= limits.Events {
				return err
			}
			until += int64(limits.Seconds * 1e9) // operations are slow, as those that lose packets are
			continue
		}
		o.Result = r
		o.Narrow = r.Rate.HalfWidth() <= limits.Width && r.Mean.HalfWidth() <= limits.Width && r.P99.HalfWidth() <= 5*limits.Width
		if done || o.Narrow {
			break
		}
	}
	for id := range s.n.Stations() {
		o.Lost += s.n.Station(station.ID(id)).Dropped
	}
	o.RepairedBytes, o.RepairedSeconds = s.failures.repaired*repairBytes, float64(s.failures.repairedAt)/1e9
	return nil
}
