// Package calibrate finds what a machine's operations are made of: what a copied
// KB, a system call, a switch costs there, from measured records alone.
//
// [Fit] takes the trials at low load, one or two clients in a closed loop, and solves
// time = Σ how often × what it costs by non-negative least squares, once for the
// roles' processor time and once for the time that passes. Each path's residual is
// kept, as the distribution of single operations is. [Validate] compares what was
// predicted with what was measured, on cells that the fit never saw.
package calibrate

import (
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"sort"

	"waggle/results"
	"waggle/results/calibration"
)

// Resamples is how often the fit is repeated for its intervals.
const Resamples = 400

// Options say what to fit.
type Options struct {
	Demands calibration.Demands
	// Leave is asked for each cell whether it is held out; nil holds out none.
	Leave func(cell Cell) bool
	// Counts keeps what the ledger counted of the cells that are held out, for them
	// to be predicted from that alone.
	Counts bool
	// HeldOut says in words what is.
	HeldOut string
}

// Cell is a cell as hold-outs are declared on it.
type Cell struct {
	Experiment, Path, Topology string
	SizeBytes, Clients         float64
	Replicas                   int
}

func (c *cell) public() Cell {
	return Cell{c.experiment, c.path, c.topology, c.size, c.clients, c.replicas}
}

// observation is a cell that takes part in the fit.
type observation struct {
	*cell
	work               calibration.Work
	processor, elapsed float64
	by                 map[string]float64 // each role's share of the processor time
	hidden             bool               // nothing but the counts may be used
}

// Fit calibrates from runs of one machine.
func Fit(runs []*results.Run, o Options) (*calibration.Calibration, error) {
	if len(runs) == 0 {
		return nil, errors.New("calibrate: no run is given")
	}
	if err := sameMachine(runs); err != nil {
		return nil, err
	}
	observations, left := o.observe(cellsOf(runs))
	const fewest = 6
	if len(ofOneClient(observations)) < fewest {
		return nil, fmt.Errorf("calibrate: %d cells of one client have processor time, system calls, switches and copies counted, at least %d are needed: run read-path, copies and lookup-path", len(observations), fewest)
	}
	c := &calibration.Calibration{
		Schema: calibration.Schema, Machine: runs[0].Environment.CPU, CPUs: runs[0].Environment.CPUs,
		PathSet: slices.Sorted(maps.Keys(o.Demands)), HeldOut: o.HeldOut,
		Least: map[string]float64{}, Most: map[string]float64{},
	}
	for _, run := range runs {
		c.Runs = append(c.Runs, run.Plan.Run)
	}
	for _, x := range observations {
		c.Records += len(x.records)
	}
	price(c, observations)
	observations, left = ofOneClient(observations), ofOneClient(left)
	explain(c, observations)
	addPaths(c, observations)
	if o.Counts {
		addPaths(c, o.unexplained(c, left))
	}
	bounds(c, observations)
	for _, x := range cellsOf(runs) {
		c.Most["clients"] = max(c.Most["clients"], x.clients)
	}
	return c, c.Check()
}

func sameMachine(runs []*results.Run) error {
	first := runs[0].Environment
	for _, run := range runs[1:] {
		if e := run.Environment; e.CPU != first.CPU || e.CPUs != first.CPUs || e.Kernel != first.Kernel {
			return fmt.Errorf("calibrate: run %s is of %d CPUs %s, Linux %s, and run %s of %d CPUs %s, Linux %s: a calibration is of one machine",
				runs[0].Plan.Run, first.CPUs, first.CPU, first.Kernel, run.Plan.Run, e.CPUs, e.CPU, e.Kernel)
		}
	}
	return nil
}

// lowLoad is how many clients a cell may have to be fitted. With two, an operation
// switches less and its processor time tells what a switch costs apart from a call;
// what an operation takes is that of one client.
const lowLoad = 2

// observe picks the cells that are fitted: low load, everything counted.
func (o *Options) observe(cells []*cell) (observations, left []observation) {
	for _, c := range cells {
		demand, known := o.Demands[c.path]
		if c.clients > lowLoad || !known {
			continue
		}
		work, counted := c.work(c.records, demand)
		processor, ok := median(c.records, processorOf)
		elapsed, alsoOK := median(c.records, elapsedOf)
		switch x := (observation{cell: c, work: work, processor: processor, elapsed: elapsed, by: shares(c.records)}); {
		case !counted || !ok || !alsoOK:
		case o.Leave != nil && o.Leave(c.public()):
			left = append(left, x)
		default:
			observations = append(observations, x)
		}
	}
	return observations, left
}

// price fits what one of each feature costs, with intervals: the fit is repeated
// with cells, and trials of each cell, drawn with replacement. The seed follows
// from the data.
func price(c *calibration.Calibration, observations []observation) {
	processor, elapsed := solve(observations)
	random := rand.New(rand.NewPCG(seed(observations), 0))
	var processors, elapseds [][]float64
	for range Resamples {
		drawn := make([]observation, len(observations))
		for i := range drawn {
			drawn[i] = observations[random.IntN(len(observations))].redraw(random)
		}
		if len(ofOneClient(drawn)) == 0 {
			continue
		}
		p, e := solve(drawn)
		processors, elapseds = append(processors, p), append(elapseds, e)
	}
	for i, f := range calibration.Features {
		c.Prices = append(c.Prices, calibration.Price{Feature: f,
			Processor: interval(processor[i], processors, i), Elapsed: interval(elapsed[i], elapseds, i)})
	}
}

func solve(observations []observation) (processor, elapsed []float64) {
	var rows, alone [][]float64
	var processors, elapseds []float64
	for _, x := range observations {
		var row []float64
		for _, f := range calibration.Features {
			row = append(row, x.work[f])
		}
		rows, processors = append(rows, row), append(processors, x.processor)
		if x.clients == 1 {
			alone, elapseds = append(alone, row), append(elapseds, x.elapsed)
		}
	}
	return leastSquares(rows, processors), leastSquares(alone, elapseds)
}

func ofOneClient(observations []observation) []observation {
	return slices.DeleteFunc(slices.Clone(observations), func(x observation) bool { return x.clients != 1 })
}

// redraw is the observation with its trials drawn again.
func (x observation) redraw(random *rand.Rand) observation {
	records := make([]results.Record, len(x.records))
	for i := range records {
		records[i] = x.records[random.IntN(len(records))]
	}
	if p, ok := median(records, processorOf); ok {
		x.processor = p
	}
	if e, ok := median(records, elapsedOf); ok {
		x.elapsed = e
	}
	return x
}

func seed(observations []observation) uint64 {
	h := fnv.New64a()
	for _, x := range observations {
		fmt.Fprintln(h, x.name(), x.processor, x.elapsed)
	}
	return h.Sum64()
}

func interval(value float64, resamples [][]float64, i int) calibration.Interval {
	var all []float64
	for _, r := range resamples {
		all = append(all, r[i])
	}
	sort.Float64s(all)
	at := func(q float64) float64 { return all[int(q*float64(len(all)-1)+0.5)] }
	return calibration.Interval{Value: value, Low: at(.025), High: at(.975)}
}

// explain notes how well the prices explain what was fitted.
func explain(c *calibration.Calibration, observations []observation) {
	var errorsOfProcessor, errorsOfElapsed []float64
	for _, x := range observations {
		processor, elapsed := c.Cost(x.work)
		errorsOfProcessor = append(errorsOfProcessor, relative(processor, x.processor))
		errorsOfElapsed = append(errorsOfElapsed, relative(elapsed, x.elapsed))
		c.Residuals = append(c.Residuals, x.processor/processor)
	}
	c.MedianErrorProcessor, c.MedianErrorElapsed = middle(errorsOfProcessor), middle(errorsOfElapsed)
	sort.Float64s(c.Residuals)
}

// unexplained is what the ledger counted of cells that were held out, at the time
// that the prices say.
func (o *Options) unexplained(c *calibration.Calibration, left []observation) []observation {
	expected := slices.Clone(left)
	for i := range expected {
		x := &expected[i]
		x.processor, x.elapsed = c.Cost(x.work)
		x.by = o.Demands[x.path].By
		x.hidden = true
	}
	return expected
}

// addPaths keeps what each path took beside what the prices explain.
func addPaths(c *calibration.Calibration, observations []observation) {
	points := map[string][]observation{}
	for _, x := range observations {
		key := fmt.Sprintf("%s %s %d", x.path, x.topology, x.replicas)
		points[key] = append(points[key], x)
	}
	for _, key := range slices.Sorted(maps.Keys(points)) {
		all := points[key]
		path := calibration.Path{Name: all[0].path, Topology: all[0].topology, Replicas: all[0].replicas}
		bySize := map[float64][]observation{}
		for _, x := range all {
			bySize[x.size] = append(bySize[x.size], x)
		}
		for _, size := range slices.Sorted(maps.Keys(bySize)) {
			path.Points = append(path.Points, point(c, size, bySize[size]))
		}
		c.Paths = append(c.Paths, path)
	}
}

// point is what several cells of one path and size have in common.
func point(c *calibration.Calibration, size float64, all []observation) calibration.Point {
	p := calibration.Point{SizeBytes: size, Counted: calibration.Work{}, By: map[string]float64{}}
	n := float64(len(all))
	var ofProcessor, ofElapsed, seconds float64
	for _, x := range all {
		processor, elapsed := c.Cost(x.work)
		ofProcessor += math.Log(x.processor/processor) / n
		ofElapsed += math.Log(x.elapsed/elapsed) / n
		seconds += math.Log(x.elapsed) / n
		for f, count := range x.work {
			if count > 0 {
				p.Counted[f] += count / n
			}
		}
		for role, share := range x.by {
			p.By[role] += share / n
		}
	}
	p.Processor, p.Elapsed = math.Exp(ofProcessor), math.Exp(ofElapsed)
	p.ElapsedSeconds, p.Spread = math.Exp(seconds), spread(all)
	return p
}

// shares gives each role's part of the processor time.
func shares(records []results.Record) map[string]float64 {
	by, sum := map[string]float64{}, 0.0
	for _, r := range records {
		if r.CPU == nil {
			continue
		}
		for _, role := range slices.Sorted(maps.Keys(r.CPU.ByRole)) {
			by[role] += r.CPU.ByRole[role]
			sum += r.CPU.ByRole[role]
		}
	}
	for role := range by {
		by[role] /= sum
	}
	return by
}

// spread gives the noise of single operations: quantiles of the latency over its
// mean, averaged over the trials of some cells.
func spread(observations []observation) []float64 {
	const points = 128
	logarithms := make([]float64, points)
	n := 0.0
	for _, x := range observations {
		for _, r := range x.records {
			if r.LatencyHistogram == "" || x.hidden {
				continue
			}
			h, err := results.DecodeHistogram(r.LatencyHistogram)
			if err != nil || h.TotalCount() < points/4 {
				continue
			}
			quantiles := make([]float64, points)
			mean := 0.0
			for i := range quantiles {
				quantiles[i] = max(1, float64(h.ValueAtPercentile(100*(float64(i)+.5)/points)))
				mean += quantiles[i] / points
			}
			for i := range quantiles {
				logarithms[i] += math.Log(quantiles[i] / mean)
			}
			n++
		}
	}
	if n == 0 {
		return nil
	}
	factors := make([]float64, points)
	mean := 0.0
	for i := range factors {
		factors[i] = math.Exp(logarithms[i] / n)
		mean += factors[i] / points
	}
	for i := range factors {
		factors[i] = max(1e-3, math.Round(factors[i]/mean*1e3)/1e3)
	}
	return factors
}

// bounds notes within which parameters was fitted.
func bounds(c *calibration.Calibration, observations []observation) {
	for _, x := range observations {
		for name, v := range map[string]float64{"size_bytes": x.size, "clients": x.clients, "replication": float64(x.replicas)} {
			if least, ok := c.Least[name]; !ok || v < least {
				c.Least[name] = v
			}
			c.Most[name] = max(c.Most[name], v)
		}
	}
}
