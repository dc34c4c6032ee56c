package calibrate

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"

	"waggle/results"
	"waggle/results/calibration"
)

// Predictor simulates a cell with a calibration. It is given, because analysis
// knows records and no simulator.
type Predictor func(ctx context.Context, c *calibration.Calibration, levels results.Cell) (results.Record, error)

// validated is what is compared, in the order of the table.
var validated = []struct {
	name string
	of   func(*results.Record) (float64, bool)
	aim  func(Aims) float64
}{
	{"throughput", func(r *results.Record) (float64, bool) {
		e, ok := elapsedOf(r)
		return 1 / e, ok
	}, func(a Aims) float64 { return a.Throughput }},
	{"cpu", processorOf, func(a Aims) float64 { return a.CPU }},
	{"p50", latencyOf(func(l *results.Latency) float64 { return l.P50 }), func(a Aims) float64 { return a.P50 }},
	{"p99", latencyOf(func(l *results.Latency) float64 { return l.P99 }), func(a Aims) float64 { return a.P99 }},
}

func latencyOf(of func(*results.Latency) float64) func(*results.Record) (float64, bool) {
	return func(r *results.Record) (float64, bool) {
		if r.Latency == nil {
			return 0, false
		}
		return of(r.Latency), true
	}
}

// Prediction is a held-out cell with what was predicted of it.
type Prediction struct {
	Kind, Cell string
	path       string
	rest       string // the cell without its path: cells of one rest are compared
	Metrics    map[string]Compared
}

// Compared is one metric of one held-out cell.
type Compared struct {
	Measured, Predicted float64
	// Nearest and Queue are what the null models say: the nearest cell that was
	// measured, and an M/M/c queue with the nearest cell's mean.
	Nearest, Queue float64
}

func relative(predicted, measured float64) float64 { return math.Abs(predicted/measured - 1) }

// Table is the validation: what was predicted, and how far off that was.
type Table struct {
	Runs        []string
	Declaration *Declaration
	Predictions []Prediction
	// Noise is the difference of the control cells' twins, by metric, as a share:
	// no smaller error can be claimed.
	Noise map[string]float64
	// Failed are cells that could not be simulated, with the reason.
	Failed []string
}

// Validate fits each hold-out's rest and predicts what is held out.
func Validate(ctx context.Context, runs []*results.Run, demands calibration.Demands, predict Predictor) (*Table, error) {
	declaration, err := Declared()
	if err != nil {
		return nil, err
	}
	t := &Table{Declaration: declaration, Noise: noise(runs)}
	for _, run := range runs {
		t.Runs = append(t.Runs, run.Plan.Run)
	}
	cells := cellsOf(runs)
	for _, h := range declaration.HoldOuts {
		if err := t.holdOut(ctx, &h, runs, cells, demands, predict); err != nil {
			return nil, err
		}
	}
	if len(t.Predictions) == 0 {
		return nil, errors.New("validate: the runs have no cell of any kind that is held out")
	}
	return t, nil
}

func (t *Table) holdOut(ctx context.Context, h *HoldOut, runs []*results.Run, cells []*cell, demands calibration.Demands, predict Predictor) error {
	var held []*cell
	for _, c := range cells {
		if _, known := demands[c.path]; known && h.holds(c.public()) && (!h.EachPath || c.clients == 1) {
			held = append(held, c)
		}
	}
	if len(held) == 0 {
		return nil
	}
	if !h.EachPath {
		return t.predict(ctx, h, held, runs, Options{Demands: demands, HeldOut: h.Kind, Leave: h.holds}, predict)
	}
	byPath := map[string][]*cell{}
	for _, c := range held {
		byPath[c.path] = append(byPath[c.path], c)
	}
	for _, path := range slices.Sorted(maps.Keys(byPath)) {
		leave := func(c Cell) bool { return c.Path == path }
		if err := t.predict(ctx, h, byPath[path], runs, Options{Demands: demands, HeldOut: path, Leave: leave, Counts: true}, predict); err != nil {
			return err
		}
	}
	return nil
}

func (t *Table) predict(ctx context.Context, h *HoldOut, held []*cell, runs []*results.Run, o Options, predict Predictor) error {
	fitted, err := Fit(runs, o)
	if err != nil {
		return fmt.Errorf("hold out %s: %w", o.HeldOut, err)
	}
	var rest []*cell
	for _, c := range cellsOf(runs) {
		if c.clients == 1 && !o.Leave(c.public()) {
			rest = append(rest, c)
		}
	}
	for _, c := range held {
		predicted, err := predict(ctx, fitted, c.levels)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			t.Failed = append(t.Failed, fmt.Sprintf("%s: %s: %v", h.Kind, c.name(), err))
			continue
		}
		p := Prediction{Kind: h.Kind, Cell: c.name(), path: c.path, Metrics: map[string]Compared{}}
		p.rest = fmt.Sprintf("%s %s %s %.0f %.0f %d", c.experiment, operationOf(c.path), c.topology, c.size, c.clients, c.replicas)
		near := nearest(rest, c)
		for _, v := range validated {
			measured, ok := median(c.records, v.of)
			simulated, alsoOK := v.of(&predicted)
			if !ok || !alsoOK || near == nil {
				continue
			}
			compared := Compared{Measured: measured, Predicted: simulated, Nearest: math.NaN(), Queue: math.NaN()}
			if n, ok := median(near.records, v.of); ok {
				compared.Nearest = n
			}
			if q, ok := queue(near, c.clients, fitted.CPUs)[v.name]; ok {
				compared.Queue = q
			}
			p.Metrics[v.name] = compared
		}
		t.Predictions = append(t.Predictions, p)
	}
	return nil
}

func operationOf(path string) string {
	for i := range path {
		if path[i] == '=' {
			return path[:i]
		}
	}
	return path
}

// nearest is the null model that knows no more than its neighbour: the fitted cell
// of the same operation that differs least, in the path, the topology, and the
// logarithm of the size.
func nearest(rest []*cell, c *cell) *cell {
	var best *cell
	least := math.Inf(1)
	for _, r := range rest {
		if operationOf(r.path) != operationOf(c.path) {
			continue
		}
		distance := math.Abs(math.Log2((1 + r.size) / (1 + c.size)))
		if r.path != c.path {
			distance += 8
		}
		if r.topology != c.topology {
			distance += 4
		}
		distance += math.Abs(float64(r.replicas - c.replicas))
		if distance < least {
			best, least = r, distance
		}
	}
	return best
}

// queue is the null model of a queue with the nearest cell's mean: so many clients
// share so many processors, each operation needs the neighbour's processor time.
func queue(near *cell, clients float64, processors int) map[string]float64 {
	elapsed, ok := median(near.records, elapsedOf)
	processor, alsoOK := median(near.records, processorOf)
	if !ok || !alsoOK {
		return nil
	}
	rate := min(clients/elapsed, float64(processors)/processor)
	mean := clients / rate
	return map[string]float64{"throughput": rate, "cpu": processor, "p50": mean * math.Ln2, "p99": mean * math.Log(100)}
}

// noise is the median difference of control cells' twins, by metric.
func noise(runs []*results.Run) map[string]float64 {
	differences := map[string][]float64{}
	for _, run := range runs {
		twins := map[string][2][]results.Record{}
		for _, r := range run.Records {
			if r.Valid && r.Source == results.SourceMeasured {
				both := twins[r.Experiment+" "+r.Cell.String()]
				i := 0
				if r.Control == results.ControlAA {
					i = 1
				}
				both[i] = append(both[i], r)
				twins[r.Experiment+" "+r.Cell.String()] = both
			}
		}
		for _, key := range slices.Sorted(maps.Keys(twins)) {
			for _, v := range validated {
				a, ok := median(twins[key][0], v.of)
				b, alsoOK := median(twins[key][1], v.of)
				if ok && alsoOK {
					differences[v.name] = append(differences[v.name], relative(a, b))
				}
			}
		}
	}
	n := map[string]float64{}
	for name, list := range differences {
		n[name] = middle(list)
	}
	return n
}

// Row is a line of the table: a kind's errors of one metric, as medians.
type Row struct {
	Kind, Metric          string
	Cells                 int
	Error, Nearest, Queue float64
	Noise, Aim            float64
	Met                   bool
}

// Rows sums the predictions up.
func (t *Table) Rows() (rows []Row) {
	for _, h := range t.Declaration.HoldOuts {
		for _, v := range validated {
			var ours, nearests, queues []float64
			for _, p := range t.Predictions {
				c, ok := p.Metrics[v.name]
				if p.Kind != h.Kind || !ok {
					continue
				}
				ours = append(ours, relative(c.Predicted, c.Measured))
				nearests = appendNumber(nearests, relative(c.Nearest, c.Measured))
				queues = appendNumber(queues, relative(c.Queue, c.Measured))
			}
			if len(ours) == 0 {
				continue
			}
			r := Row{Kind: h.Kind, Metric: v.name, Cells: len(ours), Error: middle(ours), Nearest: medianOrNaN(nearests), Queue: medianOrNaN(queues),
				Noise: t.Noise[v.name], Aim: v.aim(t.Declaration.Aims)}
			r.Met = r.Error <= r.Aim
			rows = append(rows, r)
		}
	}
	return rows
}

func appendNumber(list []float64, v float64) []float64 {
	if math.IsNaN(v) {
		return list
	}
	return append(list, v)
}

func medianOrNaN(list []float64) float64 {
	if len(list) == 0 {
		return math.NaN()
	}
	return middle(list)
}

// Order is how many pairs of paths a kind's predictions put in the measured order,
// of those whose throughput differs by more than the noise.
type Order struct {
	Kind        string
	Kept, Pairs int
}

// Orders counts pairs of held-out cells that differ in nothing but the path.
func (t *Table) Orders() (orders []Order) {
	for _, h := range t.Declaration.HoldOuts {
		o := Order{Kind: h.Kind}
		for i, a := range t.Predictions {
			for _, b := range t.Predictions[i+1:] {
				if a.Kind != h.Kind || b.Kind != h.Kind || a.rest != b.rest || a.path == b.path {
					continue
				}
				x, y := a.Metrics["throughput"], b.Metrics["throughput"]
				if x.Measured == 0 || y.Measured == 0 || math.Abs(math.Log(x.Measured/y.Measured)) <= 2*math.Log1p(t.Noise["throughput"]) {
					continue
				}
				o.Pairs++
				if (x.Measured > y.Measured) == (x.Predicted > y.Predicted) {
					o.Kept++
				}
			}
		}
		if o.Pairs > 0 {
			orders = append(orders, o)
		}
	}
	return orders
}
