// Package figure draws a run's figures from its records, and nothing else.
//
// The way from records to a file: [DrawAll] walks the figures that the plan
// asks for and calls [Draw], which finds the kind of figure in the registry
// (see [Kinds]), selects the groups of records that it shows, and lays it out.
// What comes back is a [Figure]: the drawing, which can be written as SVG, PDF
// or PNG, and everything a reader needs beside it, namely a table of the very
// numbers that were drawn, a description in words, and warnings.
//
// One file a kind of figure; style.go, scale.go and layout.go are what they
// share. All that is computed about noise and intervals comes from package
// stats.
//
// The same records give the same bytes in every format, whatever their order.
package figure

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"

	"waggle/results"
)

// ErrNoData says that no valid record measured what a figure is to show. An
// empty picture is never drawn.
var ErrNoData = errors.New("no valid trial measured it")

// ErrTooMany says that what a figure is to show can't be told apart any more.
var ErrTooMany = errors.New("nobody could read it")

// Figure is a figure, drawn, with what belongs beside it.
type Figure struct {
	// Name is the stem of its files.
	Name       string
	Experiment results.PlannedExperiment
	Spec       results.FigureSpec
	// Metrics are the metrics it shows, the main one first.
	Metrics []results.Metric
	// Alt describes the picture to someone who can't see it.
	Alt string
	// Table holds the numbers that were drawn.
	Table Table
	// Findings are what the picture says that a plain comparison of its series
	// doesn't, a sentence each.
	Findings []string
	// Moves are what a figure of kind tornado shows.
	Moves []Move
	// Warnings are about the data. They stand in the picture too.
	Warnings []string
	// MinRepetitions and MaxRepetitions are the fewest and most valid
	// repetitions behind one point.
	MinRepetitions, MaxRepetitions int

	width, height vg.Length
	paint         func(draw.Canvas)
}

// Table is a figure in numbers.
type Table struct {
	Header []string
	Rows   [][]string
}

// chart is what a kind of figure makes of a selection: plots and what stands
// around them.
type chart struct {
	metrics []results.Metric
	grid    grid
	legend  []legendEntry
	// warnings are those that only this kind of figure has.
	warnings []string
	// caption is what the picture needs to be understood.
	caption  []string
	findings []string
	moves    []Move
	// table is the figure in numbers, empty for the usual one: a row a group, a
	// column a metric.
	table Table
	// alt says what kind of picture it is, and what it shows at a glance.
	alt string
}

// kinds is the registry: what [results.FigureSpec.Kind] can name.
var kinds = map[string]struct {
	shows string
	build func(*selection) (*chart, error)
	// withoutX says that the figure has no place for the x factor, so that its
	// levels are series.
	withoutX bool
}{
	"throughput":           {"throughput by a factor, such as size", linesOf(results.Throughput), false},
	"operations":           {"operations per second by a factor", linesOf(results.OperationRate), false},
	"scaling":              {"operations per second by number of clients, beside perfect scaling", scaling, false},
	"latency":              {"latency by offered load with the highest sustainable rate, or by a factor", latency, false},
	"latency-distribution": {"latency by percentile, from histograms", distribution, true},
	"cpu":                  {"CPU seconds per GB by role, softirq included", cpuBars(perGB), false},
	"cpu-per-operation":    {"CPU time per operation by role, softirq included", cpuBars(perOperation), false},
	"host-cpu":             {"CPU seconds per GB of a host with processors of its own, processes and kernel", hostBars, false},
	"copies":               {"copies per payload byte by direction and role", copyBars, false},
	"lookup-cost":          {"what one lookup costs: time, CPU, system calls", costDots, true},
	"floor-ratio":          {"share of the floor control's throughput that each path reaches", floorRatio, false},
	"tornado":              {"how far each setting of the machine moves a path's result, beside how far the path does", tornado, false},
	"assumptions":          {"how far a simulated advantage hangs on each number that it was simulated from", assumptions, false},
	"crossover":            {"which path wins for which x and panel level, and by how much", crossover, false},
}

// Kinds gives the kinds of figure by name, with what each shows.
func Kinds() map[string]string {
	names := make(map[string]string, len(kinds))
	for name, kind := range kinds {
		names[name] = kind.shows
	}
	return names
}

// CheckKind says whether there is a kind of figure.
func CheckKind(kind string) error {
	if _, ok := kinds[kind]; !ok {
		return fmt.Errorf("there is no kind of figure %q: use one of %s", kind, strings.Join(slices.Sorted(maps.Keys(kinds)), ", "))
	}
	return nil
}

// Skipped is a figure that the plan asks for and that the records don't give.
type Skipped struct {
	Experiment string
	Spec       results.FigureSpec
	Reason     error
}

// Failed says whether the records should have given the figure: they measured
// what it is to show, but it could not be drawn.
func (s Skipped) Failed() bool {
	return !errors.Is(s.Reason, ErrNoData) && !errors.Is(s.Reason, ErrTooMany)
}

// DrawAll draws all figures that the run's plan asks for, in its order. One that
// can't be drawn, for whatever reason, is skipped, and the others are drawn.
func DrawAll(run *results.Run) (figures []*Figure, skipped []Skipped) {
	colours := newPalette(run.Plan)
	names := map[string]int{}
	for _, experiment := range run.Plan.Experiments {
		for _, spec := range experiment.Figures {
			name := uniqueName(names, experiment.Name, spec)
			f, err := drawOne(run, experiment, spec, name, colours)
			if err != nil {
				skipped = append(skipped, Skipped{experiment.Name, spec, err})
				continue
			}
			figures = append(figures, f)
		}
	}
	return figures, skipped
}

// uniqueName makes a figure's file name of letters, digits and dashes alone.
func uniqueName(taken map[string]int, experiment string, spec results.FigureSpec) string {
	name := slug(experiment + "-" + spec.Kind)
	taken[name]++
	if n := taken[name]; n > 1 {
		name = fmt.Sprintf("%s-%d", name, n)
	}
	return name
}

func slug(s string) string {
	s = strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, strings.ToLower(s))
	return strings.Trim(s, "-")
}

func drawOne(run *results.Run, experiment results.PlannedExperiment, spec results.FigureSpec, name string, colours *palette) (*Figure, error) {
	fail := func(err error) (*Figure, error) {
		return nil, fmt.Errorf("draw figure %s of experiment %s: %w", spec.Kind, experiment.Name, err)
	}
	if err := CheckKind(spec.Kind); err != nil {
		return fail(err)
	}
	kind := kinds[spec.Kind]
	shown := spec
	if kind.withoutX {
		shown.X = ""
	}
	s, err := selectGroups(run, experiment, shown, colours)
	if err != nil {
		return fail(err)
	}
	c, err := kind.build(s)
	if err != nil {
		return fail(err)
	}
	f := &Figure{
		Name: name, Experiment: experiment, Spec: spec, Metrics: c.metrics,
		Table: c.table, Alt: c.alt, Findings: c.findings, Moves: c.moves, Warnings: append(s.warnings(c.metrics), c.warnings...),
	}
	f.MinRepetitions, f.MaxRepetitions = s.repetitions(c.metrics[0])
	if len(f.Table.Rows) == 0 {
		f.Table = s.table(c.metrics)
	}
	c.grid.backing = s.backing()
	f.width, f.height, f.paint = lay(c, slices.Concat(c.caption, s.simulationNotes(), s.absent(), f.Warnings))
	return f, nil
}
