// Package cluster makes a network of stations of an experiment's cell, and runs
// it: hosts with processors, cards, page caches and disks, clients that do what the
// cell says, servers that fail.
//
// What an operation costs comes from a calibration ([Model]); what hosts can do from
// a machine model; how often a path does what from the path's own stages. What was
// not measured, or lies beyond what was, is said with every result.
package cluster

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"waggle/experiments/sim/machine"
	"waggle/experiments/sim/station"
	"waggle/experiments/spec"
	"waggle/results/calibration"
)

// Model is what simulations are made from.
type Model struct {
	Machine     *machine.Machine
	Calibration *calibration.Calibration
	Demands     calibration.Demands
	// Sizes are the request sizes of a trace, nil without one.
	Sizes []int64

	latency float64 // from host to host, in microseconds, of the cell that runs
}

// cost is what an operation takes.
type cost struct {
	// critical is processor time that the operation waits for, beside what goes on
	// next to it, delay what it waits for without one; in seconds.
	critical, beside, delay float64
	// Of each wake-up, where a processor was idle.
	wake, wakeBeside float64
	// client is the client's share of the processor time.
	client   float64
	inDriver bool
	alone    bool // the client does all by itself, and nobody is woken
	work     calibration.Work
	spread   *station.Noise
}

// wakePoints is how often an exchange wakes somebody who waits: the server, then
// the client.
const wakePoints = 2

// price is what one of a feature costs, in seconds.
func (m *Model) price(f calibration.Feature) (processor, elapsed float64) {
	if name := "costs." + string(f) + "_ns"; m.Machine.Has(name) {
		seconds := m.Machine.Number(name, 0) / 1e9
		return seconds, seconds
	}
	factor := m.Machine.Number(machine.FactorPrefix+string(f), 1) / m.Machine.Number("processors.speed", 1)
	p := m.Calibration.Price(f)
	return p.Processor.Value * factor, p.Elapsed.Value * factor
}

// cost gives what an operation of a path costs, and what of it is extrapolated.
func (m *Model) cost(path string, hosts bool, replicas int, size float64) (cost, []string, error) {
	point, beyond, err := m.point(path, hosts, replicas, size)
	if err != nil {
		return cost{}, nil, err
	}
	var processor, elapsed, switched, switchedElapsed float64
	for _, f := range calibration.Features {
		p, e := m.price(f)
		processor += p * point.Counted[f]
		elapsed += e * point.Counted[f]
		if f == calibration.Switch {
			switched, switchedElapsed = p*point.Counted[f], e*point.Counted[f]
		}
	}
	processor *= point.Processor
	elapsed *= point.Elapsed
	switched *= point.Processor
	switchedElapsed = min(switchedElapsed*point.Elapsed, switched)
	processor += m.Machine.Number("paths."+path+".processor_ns", 0) / 1e9
	elapsed += (m.Machine.Number("paths."+path+".processor_ns", 0) + m.Machine.Number("paths."+path+".elapsed_ns", 0)) / 1e9

	c := cost{work: point.Counted, wake: switchedElapsed / wakePoints, wakeBeside: switched - switchedElapsed, inDriver: m.Demands[path].InDriver}
	c.critical = max(0, min(elapsed-switchedElapsed, processor-switched))
	c.delay = max(0, elapsed-switchedElapsed-c.critical)
	c.beside = max(0, processor-switched-c.critical)
	c.client = clientShare(point.By)
	const hardly = 0.9
	if c.alone = !c.inDriver && c.client > hardly; c.alone {
		c.client = 1
	}
	c.spread, err = station.Table(m.spread(path, hosts, replicas, size, elapsed))
	return c, beyond, err
}

// spread is how much single operations of a path differ.
func (m *Model) spread(path string, hosts bool, replicas int, size, elapsed float64) []float64 {
	topology := spec.Local
	if hosts {
		topology = spec.Hosts
	}
	for _, known := range []struct {
		topology string
		replicas int
	}{{topology, replicas}, {spec.Local, replicas}, {topology, 1}, {spec.Local, 1}} {
		if p, ok := m.Calibration.Path(path, known.topology, known.replicas); ok {
			return m.Calibration.Spread(p, size, elapsed)
		}
	}
	return m.Calibration.Spread(nil, size, elapsed)
}

func clientShare(by map[string]float64) float64 {
	sum := 0.0
	for _, role := range slices.Sorted(maps.Keys(by)) {
		sum += by[role]
	}
	if sum == 0 {
		return 0.5
	}
	return by["client"] / sum
}

// point is what is known of a path at a size, and what of that is a guess.
func (m *Model) point(path string, hosts bool, replicas int, size float64) (calibration.Point, []string, error) {
	topology := spec.Local
	if hosts {
		topology = spec.Hosts
	}
	demand, declared := m.Demands[path]
	if !declared {
		if demand, declared = m.Machine.Demand(path); !declared {
			return calibration.Point{}, nil, fmt.Errorf("%s can't be simulated: neither the program nor the machine model %s says what its stages do", path, m.Machine.Name)
		}
	}
	packets := demand.At(size, replicas, hosts, 0)[calibration.Packet]
	if p, ok := m.Calibration.Path(path, topology, replicas); ok {
		return at(p, size, demand), beyondSizes(p, size), nil
	}
	if p, ok := m.Calibration.Path(path, spec.Local, replicas); ok {
		point := at(p, size, demand)
		point.Counted[calibration.Packet] = packets
		return point, append(beyondSizes(p, size), path+" was measured within one host only"), nil
	}
	if p, ok := m.Calibration.Path(path, topology, 1); ok {
		point := at(p, size, demand)
		more := float64(replicas - 1)
		point.Counted = point.Counted.Plus(more, demand.ReplicaOperation).Plus(more*size, demand.ReplicaByte)
		point.Counted[calibration.Operation] += more
		return point, append(beyondSizes(p, size), fmt.Sprintf("%s was measured with 1 replica only", path)), nil
	}
	residual := 1.0
	if n := len(m.Calibration.Residuals); n > 0 {
		residual = m.Calibration.Residuals[n/2]
	}
	return calibration.Point{SizeBytes: size, Counted: demand.At(size, replicas, hosts, 0), Processor: residual, Elapsed: residual, By: demand.By},
		[]string{path + " was never measured"}, nil
}

// at is what is expected of a path at a size. Where a single size was measured, the
// path's own declaration says what another one needs more or less.
func at(p *calibration.Path, size float64, demand calibration.Demand) calibration.Point {
	point := p.At(size)
	point.Counted = maps.Clone(point.Counted)
	if len(p.Points) > 1 {
		return point
	}
	only := p.Points[0]
	for f, n := range demand.Byte {
		point.Counted[f] = max(0, only.Counted[f]+n*(size-only.SizeBytes))
	}
	return point
}

func beyondSizes(p *calibration.Path, size float64) []string {
	least, most := p.Points[0].SizeBytes, p.Points[len(p.Points)-1].SizeBytes
	if size >= least && size <= most {
		return nil
	}
	return []string{fmt.Sprintf("size_bytes=%.0f (%s was measured from %.0f to %.0f)", size, p.Name, least, most)}
}

// beyondMeasured says what of a cell lies outside of everything that was measured.
func (m *Model) beyondMeasured(p *spec.Parameters) (beyond []string) {
	clients := float64(p.Clients * max(1, p.Simulation.ClientHosts))
	if most := m.Calibration.Most["clients"]; clients > most {
		beyond = append(beyond, fmt.Sprintf("clients=%.0f (measured up to %.0f)", clients, most))
	}
	if !m.Machine.OneHost {
		beyond = append(beyond, "machine="+m.Machine.Name+" (calibrated on "+m.Calibration.Machine+")")
	} else if p.Simulation.Cores != 0 && p.Simulation.Cores != m.Calibration.CPUs {
		beyond = append(beyond, fmt.Sprintf("cores=%d (calibrated on %d)", p.Simulation.Cores, m.Calibration.CPUs))
	}
	return beyond
}

// pathOf names the data path that a cell's operations take.
func pathOf(p *spec.Parameters, write bool) (string, float64, error) {
	switch {
	case p.ClientSpin:
		return "", 0, errors.New("client_spin=true can't be simulated: what polling costs is not calibrated")
	case write, p.Workload == spec.SequentialWrite, p.Workload == spec.RandomWrite:
		return "write=" + p.Write, float64(p.SizeBytes), nil
	case p.Workload == spec.SequentialRead, p.Workload == spec.RandomRead:
		return "read=" + p.Read, float64(p.SizeBytes), nil
	case p.Workload == spec.Lookup:
		if p.HitPercent != 100 {
			return "", 0, fmt.Errorf("hit_percent=%d can't be simulated: what a miss costs is not calibrated", p.HitPercent)
		}
		return "lookup=" + p.Lookup, 0, nil
	case p.Workload == spec.SmallRead && p.SizeBytes <= inlineBytes:
		return "lookup=" + p.Lookup, float64(p.SizeBytes), nil
	case p.Workload == spec.HTTPGet:
		return "relay=" + p.Relay, float64(p.FileBytes), nil
	}
	return "", 0, fmt.Errorf("workload=%s can't be simulated: no path stands for it alone", p.Workload)
}

// inlineBytes is the largest file that comes with its lookup.
const inlineBytes = 1 << 10

// vary applies an experiment's parameter vary, such as "card.gigabits_per_second*1.3".
func vary(m *machine.Machine, text string) (*machine.Machine, error) {
	if text == "" || text == spec.NoVariation {
		return m, nil
	}
	name, factor, ok := strings.Cut(text, "*")
	var by float64
	if ok {
		_, err := fmt.Sscanf(factor, "%g", &by)
		ok = err == nil && by > 0 && !math.IsInf(by, 0)
	}
	if !ok {
		return nil, fmt.Errorf("vary=%s: write NAME*FACTOR, as card.gigabits_per_second*1.3", text)
	}
	return m.With(name, by)
}
