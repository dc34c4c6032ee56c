package calibrate

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"sort"

	"waggle/results"
	"waggle/results/calibration"
)

// cell is a measured cell, as the model sees it: which path, how large, how many
// clients, and the medians of its trials.
type cell struct {
	experiment string
	levels     results.Cell // with what the experiment fixes
	path       string       // such as "read=copy"
	topology   string
	size       float64
	clients    float64
	replicas   int
	records    []results.Record
}

// Name shows a cell to people.
func (c *cell) name() string {
	s := fmt.Sprintf("%s %s, %.0f B", c.path, c.topology, c.size)
	if c.clients != 1 {
		s += fmt.Sprintf(", %.0f clients", c.clients)
	}
	if c.replicas > 1 {
		s += fmt.Sprintf(", %d replicas", c.replicas)
	}
	return s
}

// Defaults of parameters that an experiment neither varies nor fixes.
const (
	defaultSize     = 64 << 10
	defaultTopology = "local"
	inlineSize      = 1 << 10 // bytes up to which a file comes with its lookup
)

// plain holds the levels that every cell of the model has of parameters that the
// model does not know: cells with others are left out.
var plain = map[string][]any{
	"pin": {"none"}, "offload": {true}, "hit_percent": {100.0}, "client_spin": {false}, "rate": {"closed"}, "revision": {""},
}

// cellsOf gathers the valid measured records of runs by cell, leaving out what
// the model does not speak of.
func cellsOf(runs []*results.Run) []*cell {
	byName := map[string]*cell{}
	for _, run := range runs {
		for _, r := range run.Records {
			if !r.Valid || r.Source != results.SourceMeasured || r.Search != nil {
				continue
			}
			planned, ok := run.Experiment(r.Experiment)
			if !ok {
				continue
			}
			levels := maps.Clone(planned.Fixed)
			if levels == nil {
				levels = results.Cell{}
			}
			maps.Copy(levels, r.Cell)
			c, ok := describe(levels)
			if !ok {
				continue
			}
			c.experiment = r.Experiment
			name := r.Experiment + " " + r.Cell.String()
			if byName[name] == nil {
				byName[name] = c
			}
			byName[name].records = append(byName[name].records, r)
		}
	}
	var cells []*cell
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		cells = append(cells, byName[name])
	}
	return cells
}

// describe finds the path and the parameters of a cell.
func describe(levels results.Cell) (*cell, bool) {
	for name, allowed := range plain {
		if level, ok := levels[name]; ok && !slices.Contains(allowed, level) {
			return nil, false
		}
	}
	c := &cell{levels: levels, topology: text(levels, "topology", defaultTopology), size: number(levels, "size_bytes", defaultSize),
		clients: number(levels, "clients", 1), replicas: int(number(levels, "replication", 1))}
	switch text(levels, "workload", "sequential-read") {
	case "sequential-read", "random-read":
		c.path = "read=" + text(levels, "read", "copy")
	case "sequential-write", "random-write":
		c.path = "write=" + text(levels, "write", "chain")
	case "lookup":
		c.path, c.size = "lookup="+text(levels, "lookup", "udp"), 0
	case "small-read":
		if c.size > inlineSize {
			return nil, false // a lookup and a read: no path of its own
		}
		c.path = "lookup=" + text(levels, "lookup", "udp")
	default:
		return nil, false
	}
	return c, true
}

func text(levels results.Cell, name, fallback string) string {
	if s, ok := levels[name].(string); ok {
		return s
	}
	return fallback
}

func number(levels results.Cell, name string, fallback float64) float64 {
	if n, ok := levels[name].(float64); ok {
		return n
	}
	return fallback
}

// processorOf is the processor time of an operation of all roles together, in
// seconds. It is the roles' and not the machine's, because other programs run on
// the machine, too.
func processorOf(r *results.Record) (float64, bool) {
	if r.CPU == nil || r.Operations == nil || *r.Operations == 0 {
		return 0, false
	}
	sum := 0.0
	for _, role := range slices.Sorted(maps.Keys(r.CPU.ByRole)) { // in an order, so that sums are the same each time
		sum += r.CPU.ByRole[role]
	}
	return sum / float64(*r.Operations), sum > 0
}

// elapsedOf is the time from one operation to the next, in seconds, of all clients.
func elapsedOf(r *results.Record) (float64, bool) {
	if r.OperationsPerSecond == nil || *r.OperationsPerSecond == 0 {
		return 0, false
	}
	return 1 / *r.OperationsPerSecond, true
}

// countedOf is what the ledger counted of an operation.
func countedOf(r *results.Record) (calibration.Work, bool) {
	if r.Syscalls == nil || r.ContextSwitches == nil || r.Copies == nil || r.Operations == nil || *r.Operations == 0 {
		return nil, false
	}
	n := float64(*r.Operations)
	copied := r.Copies.UserToKernelBytes + r.Copies.KernelToUserBytes + r.Copies.InUserBytes
	if r.Copies.InKernelBytes != nil {
		copied += *r.Copies.InKernelBytes
	}
	return calibration.Work{
		calibration.Call:       float64(*r.Syscalls) / n,
		calibration.Switch:     float64(*r.ContextSwitches) / n,
		calibration.CopiedByte: float64(copied) / n,
	}, true
}

// median of what some of the records answer.
func median(records []results.Record, of func(*results.Record) (float64, bool)) (float64, bool) {
	var values []float64
	for i := range records {
		if v, ok := of(&records[i]); ok {
			values = append(values, v)
		}
	}
	if len(values) == 0 {
		return math.NaN(), false
	}
	return middle(values), true
}

func middle(values []float64) float64 {
	sorted := slices.Clone(values)
	sort.Float64s(sorted)
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// work is what an operation of a cell does: what the ledger counted of it, and
// what the path declares of the rest.
func (c *cell) work(records []results.Record, demand calibration.Demand) (calibration.Work, bool) {
	declared := demand.At(c.size, c.replicas, c.topology == "hosts", 0)
	w := calibration.Work{calibration.Operation: 1}
	for _, f := range calibration.Features[1:] {
		w[f] = declared[f]
	}
	for _, f := range []calibration.Feature{calibration.Call, calibration.Switch, calibration.CopiedByte} {
		n, ok := median(records, func(r *results.Record) (float64, bool) {
			counted, ok := countedOf(r)
			return counted[f], ok
		})
		if !ok {
			return nil, false
		}
		w[f] = n
	}
	return w, true
}
