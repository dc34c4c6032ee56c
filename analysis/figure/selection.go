package figure

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"waggle/results"
	"waggle/stats"
)

// Limits of a figure: beyond them nobody could read it.
const (
	maxSeries = 16
	maxPanels = 12
)

// selection is what a figure shows: the groups of an experiment that its spec
// asks for, sorted into panels and series.
type selection struct {
	run        *results.Run
	experiment results.PlannedExperiment
	spec       results.FigureSpec
	groups     []stats.Group // control twins left out
	panels     []panel
	// names are those of all series, in the order of the plan.
	names   []string
	colours *palette
	// others are the factors that vary besides x, series and panel.
	others []string
}

// panel is a part of a figure with axes of its own.
type panel struct {
	title  string
	level  any
	series []series
}

// series is a line or a row of bars.
type series struct {
	name   string
	style  style
	groups []stats.Group // in the order of the levels of x
}

func selectGroups(run *results.Run, experiment results.PlannedExperiment, spec results.FigureSpec, colours *palette) (*selection, error) {
	s := &selection{run: run, experiment: experiment, spec: spec, colours: colours}
	s.groups = stats.Where(stats.Main(stats.GroupRecords(run, experiment.Name)), spec.Where)
	if len(s.groups) == 0 {
		return nil, ErrNoData
	}
	if err := s.checkRange(); err != nil {
		return nil, err
	}
	if s.spec.Panel == "" && len(stats.Levels(s.groups, experiment, results.RevisionFactor)) > 1 {
		s.spec.Panel = results.RevisionFactor // no experiment file knows of it
	}
	s.others = s.otherFactors()
	levels := []any{nil}
	if s.spec.Panel != "" {
		levels = stats.Levels(s.groups, experiment, s.spec.Panel)
	}
	for _, level := range levels {
		s.panels = append(s.panels, s.panel(level))
	}
	for _, p := range s.panels {
		for _, line := range p.series {
			if !slices.Contains(s.names, line.name) {
				s.names = append(s.names, line.name)
			}
		}
	}
	if len(s.names) > maxSeries {
		return nil, fmt.Errorf("%w: %d series are more than the %d that can be told apart: narrow it with `where`", ErrTooMany, len(s.names), maxSeries)
	}
	if len(s.panels) > maxPanels {
		return nil, fmt.Errorf("%w: %d panels are more than %d: narrow it with `where`", ErrTooMany, len(s.panels), maxPanels)
	}
	return s, nil
}

// placeOnX is what a selection shows at one place on the x axis.
type placeOnX struct {
	title     string
	selection *selection
}

// apart separates a selection by the levels of x. Without an x it stays whole.
func (s *selection) apart() ([]placeOnX, error) {
	levels := stats.Levels(s.groups, s.experiment, s.spec.X)
	if len(levels) == 0 {
		return []placeOnX{{selection: s}}, nil
	}
	var places []placeOnX
	for _, level := range levels {
		spec := s.spec
		spec.X, spec.Where = "", maps.Clone(s.spec.Where)
		if spec.Where == nil {
			spec.Where = results.Cell{}
		}
		spec.Where[s.spec.X] = level
		at, err := selectGroups(s.run, s.experiment, spec, s.colours)
		if err != nil {
			return nil, err
		}
		places = append(places, placeOnX{FactorLevel(s.spec.X, level), at})
	}
	return places, nil
}

// Values beyond these can't have been measured, and would overflow on their way
// into a picture.
const (
	smallestValue = 1e-18
	largestValue  = 1e18
)

func (s *selection) checkRange() error {
	outside := func(v float64) bool {
		return math.Abs(v) > largestValue || v != 0 && math.Abs(v) < smallestValue
	}
	for _, g := range s.groups {
		for factor, level := range g.Cell {
			if f, ok := level.(float64); ok && outside(f) {
				return fmt.Errorf("level %v of factor %s can't be drawn: it is beyond %g", f, factor, largestValue)
			}
		}
		for _, m := range append(results.Metrics(), offeredLoad) {
			for _, v := range g.Sample(m).Values() {
				if outside(v) {
					return fmt.Errorf("%s of %v %s in cell %s can't be drawn: values go from %g to %g",
						m.Label, v, m.Unit, g.Cell, smallestValue, largestValue)
				}
			}
		}
	}
	return nil
}

// otherFactors finds what varies among the groups and has no place in the
// figure. It becomes a part of the series' names, because groups that differ
// must never be drawn as if they were one.
func (s *selection) otherFactors() []string {
	levels := map[string]map[string]bool{}
	for _, g := range s.groups {
		for factor, level := range g.Cell {
			if levels[factor] == nil {
				levels[factor] = map[string]bool{}
			}
			levels[factor][results.FormatLevel(level)] = true
		}
	}
	placed := []string{s.spec.X, s.spec.Series, s.spec.Panel}
	var others []string
	for _, factor := range slices.Sorted(maps.Keys(levels)) {
		if len(levels[factor]) > 1 && !slices.Contains(placed, factor) {
			others = append(others, factor)
		}
	}
	return others
}

func (s *selection) panel(level any) panel {
	p := panel{level: level}
	groups := s.groups
	if level != nil {
		p.title = FactorLevel(s.spec.Panel, level)
		groups = stats.Where(groups, results.Cell{s.spec.Panel: level})
	}
	index := map[string]int{}
	for _, g := range groups {
		name := s.seriesName(g)
		i, ok := index[name]
		if !ok {
			i = len(p.series)
			index[name] = i
			p.series = append(p.series, series{name: name, style: s.colours.of(name)})
		}
		p.series[i].groups = append(p.series[i].groups, g)
	}
	order := stats.Levels(groups, s.experiment, s.spec.Series)
	slices.SortStableFunc(p.series, func(a, b series) int {
		return s.seriesRank(order, a) - s.seriesRank(order, b)
	})
	return p
}

// seriesRank puts series in the plan's order, with the floors at the end.
func (s *selection) seriesRank(order []any, line series) int {
	level, ok := line.groups[0].Cell[s.spec.Series]
	if !ok || results.IsFloor(level) {
		return len(order)
	}
	return slices.IndexFunc(order, func(o any) bool { return results.FormatLevel(o) == results.FormatLevel(level) })
}

func (s *selection) seriesName(g stats.Group) string {
	var parts []string
	if level, ok := g.Cell[s.spec.Series]; ok {
		parts = append(parts, seriesLevel(s.spec.Series, level))
	}
	for _, factor := range s.others {
		if level, ok := g.Cell[factor]; ok {
			parts = append(parts, FactorLevel(factor, level))
		}
	}
	if g.Source == results.SourceSimulated {
		parts = append(parts, "simulated")
	}
	if len(parts) == 0 {
		return s.experiment.Name
	}
	return strings.Join(parts, ", ")
}

// drawable reports whether any group measured the metric.
func (s *selection) drawable(m results.Metric) bool {
	return slices.ContainsFunc(s.groups, func(g stats.Group) bool { return len(g.Sample(m)) > 0 })
}

// measured reports whether a group measured any of the metrics.
func (s *selection) measured(g stats.Group, metrics []results.Metric) bool {
	return slices.ContainsFunc(metrics, func(m results.Metric) bool { return len(g.Sample(m)) > 0 })
}

// rateMetric is throughput, or where no bytes were moved operations per second.
func (s *selection) rateMetric() results.Metric {
	m := metricNamed(results.Throughput)
	if _, largest := extremes(s.values(m)); largest > 0 {
		return m
	}
	return metricNamed(results.OperationRate)
}

// repetitions gives the fewest and the most valid trials behind a value of the
// metric.
func (s *selection) repetitions(m results.Metric) (fewest, most int) {
	fewest = math.MaxInt
	for _, g := range s.groups {
		if n := len(g.Sample(m)); n > 0 {
			fewest, most = min(fewest, n), max(most, n)
		}
	}
	if most == 0 {
		return 0, 0
	}
	return fewest, most
}

// warnings are those that the data call for, whatever the kind of figure.
func (s *selection) warnings(metrics []results.Metric) []string {
	var notes []string
	m := metrics[0]
	if n, _ := s.repetitions(m); n < stats.EnoughRepetitions && !(m.Exact && n > 1) { // counts need no interval
		notes = append(notes, fmt.Sprintf("Too few repetitions (%d; a 95 %% interval needs %d): bars span all of them.", n, stats.EnoughRepetitions))
	}
	return notes
}

// absent says what has no point or bar in the figure.
func (s *selection) absent() []string {
	var notes []string
	unsupported, invalid := map[string]bool{}, map[string]bool{}
	for _, g := range s.groups {
		switch _, not := g.Unsupported(); {
		case not:
			unsupported[s.curveName(g)] = true
		case len(g.Records) == 0:
			invalid[s.curveName(g)] = true
		}
	}
	notes = appendNames(notes, "Not supported on this machine: ", unsupported)
	return appendNames(notes, "No valid trial in some cells of: ", invalid)
}

func appendNames(notes []string, what string, names map[string]bool) []string {
	if len(names) == 0 {
		return notes
	}
	return append(notes, what+strings.Join(slices.Sorted(maps.Keys(names)), ", ")+".")
}

// table is the usual table: a row a group, a column a metric.
func (s *selection) table(metrics []results.Metric) Table {
	t := Table{Header: s.factorHeader()}
	for _, m := range metrics {
		t.Header = append(t.Header, Capital(m.Label)+" [95 %]")
	}
	t.Header = append(t.Header, "n")
	for _, p := range s.panels {
		for _, line := range p.series {
			for _, g := range line.groups {
				t.Rows = append(t.Rows, append(s.factorCells(p, line, g), metricCells(g, metrics)...))
			}
		}
	}
	return t
}

func (s *selection) factorHeader() []string {
	var header []string
	if s.spec.Panel != "" {
		header = append(header, FactorName(s.spec.Panel))
	}
	header = append(header, cmp.Or(FactorName(s.spec.Series), "Series"))
	if s.spec.X != "" {
		header = append(header, FactorName(s.spec.X))
	}
	return header
}

func (s *selection) factorCells(p panel, line series, g stats.Group) []string {
	var cells []string
	if s.spec.Panel != "" {
		cells = append(cells, p.title)
	}
	cells = append(cells, line.name)
	if s.spec.X != "" {
		text := "–"
		if level, ok := g.Cell[s.spec.X]; ok {
			text = LevelText(s.spec.X, level)
		}
		cells = append(cells, text)
	}
	return cells
}

func metricCells(g stats.Group, metrics []results.Metric) []string {
	var cells []string
	most := 0
	for _, m := range metrics {
		sample := g.Sample(m)
		most = max(most, len(sample))
		cells = append(cells, summaryText(stats.Summarize(sample), m, g))
	}
	return append(cells, fmt.Sprint(most))
}

// summaryText is a median with its interval, or why there is none.
func summaryText(sum stats.Summary, m results.Metric, g stats.Group) string {
	if sum.N > 0 {
		q := quantityOf(m)
		return q.interval(sum.Median, sum.Low, sum.High)
	}
	if _, not := g.Unsupported(); not {
		return "unsupported"
	}
	if len(g.Records) == 0 {
		return "no valid trial"
	}
	return "–"
}
