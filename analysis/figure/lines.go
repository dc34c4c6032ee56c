package figure

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"

	"waggle/results"
	"waggle/stats"
)

const linesHeight = 1.6 * vg.Inch

// point is a measured point of a line, in the units of its metric.
type point struct {
	x            float64 // position on the x scale
	name         string  // of that position
	y, low, high float64
	ringed       bool
}

// curve is a series as a line.
type curve struct {
	name   string
	style  style
	points []point
}

// horizontal is a figure's x axis.
type horizontal struct {
	scale scale
	// at gives a group's place on it, or false if it has none.
	at func(stats.Group) (float64, bool)
	// nominal says that the levels are words: then there is no line between them.
	nominal bool
	// logY asks for a logarithmic y axis, whatever the values.
	logY bool
	// ringed says which groups to draw a ring around. It may be nil.
	ringed func(stats.Group) bool
	// limits are values of a metric, by its name, to mark across its plots.
	limits map[string]float64
}

// factorAxis makes the x axis of the spec's factor.
func factorAxis(s *selection) (horizontal, error) {
	if s.spec.X == "" {
		return horizontal{}, fmt.Errorf("it needs an x factor")
	}
	levels := stats.Levels(s.groups, s.experiment, s.spec.X)
	if len(levels) == 0 {
		return horizontal{}, fmt.Errorf("no cell has the x factor %q", s.spec.X)
	}
	sc, position, nominal := factorScale(s.spec.X, levels)
	return horizontal{scale: sc, nominal: nominal, at: func(g stats.Group) (float64, bool) {
		level, ok := g.Cell[s.spec.X]
		if !ok {
			return 0, false
		}
		return position(level), true
	}}, nil
}

func (h horizontal) valueScale(q quantity, values []float64) scale {
	if _, largest := extremes(values); h.logY && largest > 0 {
		return logScale(q, values)
	}
	return valueScale(q, values)
}

func metricNamed(name string) results.Metric {
	m, err := results.MetricNamed(name)
	if err != nil {
		panic("figure: " + err.Error()) // the names are constants
	}
	return m
}

// linesOf makes a kind of figure with a row of plots a metric, over a factor.
func linesOf(names ...string) func(*selection) (*chart, error) {
	return func(s *selection) (*chart, error) {
		axis, err := factorAxis(s)
		if err != nil {
			return nil, err
		}
		if s.tooFewForLines() {
			return dotChart(s, axis, names...)
		}
		return lineChart(s, axis, names...)
	}
}

// tooFewForLines reports that lines would go through so few places that the eye
// could not follow them: one, or two with many series in a tangle.
func (s *selection) tooFewForLines() bool {
	const tangle = 4
	places := len(stats.Levels(s.groups, s.experiment, s.spec.X))
	return places == 1 || places == 2 && len(s.names) > tangle
}

func lineChart(s *selection, axis horizontal, names ...string) (*chart, error) {
	c := &chart{grid: grid{rowHeight: linesHeight}}
	drawn := map[string]bool{}
	for _, name := range names {
		m := metricNamed(name)
		if !s.drawable(m) {
			continue
		}
		c.metrics = append(c.metrics, m)
		row := make([][]curve, len(s.panels))
		for i, p := range s.panels {
			row[i] = curvesOf(p, axis, m)
			for _, k := range row[i] {
				drawn[k.name] = drawn[k.name] || len(k.points) > 0
			}
		}
		c.grid.plots = append(c.grid.plots, plotRow(s, axis, m, row))
	}
	if len(c.metrics) == 0 {
		return nil, ErrNoData
	}
	foldPanels(c, s, axis)
	c.legend = s.legend(drawn)
	c.caption = s.unplaced(axis, c.metrics)
	c.alt = altText(s, "Line chart", c.metrics)
	return c, nil
}

// unplaced names the series with numbers that have no place on the x axis.
func (s *selection) unplaced(axis horizontal, metrics []results.Metric) []string {
	without := map[string]bool{}
	for _, g := range s.groups {
		if _, ok := axis.at(g); !ok && s.measured(g, metrics) {
			without[s.curveName(g)] = true
		}
	}
	return appendNames(nil, "Not drawn, because without a value for the x axis: ", without)
}

func curvesOf(p panel, axis horizontal, m results.Metric) []curve {
	var curves []curve
	for _, line := range p.series {
		k := curve{name: line.name, style: line.style}
		for _, g := range line.groups {
			x, ok := axis.at(g)
			sum := stats.Summarize(g.Sample(m))
			if ok && sum.N > 0 {
				ringed := axis.ringed != nil && axis.ringed(g)
				k.points = append(k.points, point{x: x, y: sum.Median, low: sum.Low, high: sum.High, ringed: ringed})
			}
		}
		slices.SortStableFunc(k.points, func(a, b point) int { return cmp.Compare(a.x, b.x) })
		curves = append(curves, k)
	}
	return curves
}

// plotRow draws panels side by side on one pair of scales, so that they can be
// compared by eye.
func plotRow(s *selection, axis horizontal, m results.Metric, panels [][]curve) []*plot.Plot {
	var values []float64
	limit, limited := axis.limits[m.Name]
	if limited {
		values = append(values, limit)
	}
	for _, curves := range panels {
		for _, k := range curves {
			for _, p := range k.points {
				values = append(values, p.y, p.low, p.high)
			}
		}
	}
	y := axis.valueScale(quantityOf(m), values)
	var plots []*plot.Plot
	for i, curves := range panels {
		p := newPlot()
		p.Title.Text = printable(s.panels[i].title)
		axis.scale.apply(&p.X)
		y.apply(&p.Y)
		p.Add(gridLines())
		if limited {
			p.Add(limitLine{at: y.at(limit)})
		}
		addCurves(p, y, curves, axis.nominal)
		plots = append(plots, p)
	}
	return plots
}

func addCurves(p *plot.Plot, y scale, curves []curve, nominal bool) {
	for i, k := range curves {
		shift := 0.0
		if nominal {
			shift = 0.6 * (float64(i+1)/float64(len(curves)+1) - 0.5)
		}
		p.Add(&curvePlotter{curve: k, y: y, shift: shift, joined: !nominal})
	}
}

// curvePlotter draws a curve with error bars.
type curvePlotter struct {
	curve  curve
	y      scale
	shift  float64
	joined bool
}

func (c *curvePlotter) Plot(canvas draw.Canvas, p *plot.Plot) {
	toX, toY := p.Transforms(&canvas)
	var line []vg.Point
	for _, pt := range c.curve.points {
		line = append(line, vg.Point{X: toX(pt.x + c.shift), Y: toY(c.y.at(pt.y))})
	}
	if c.joined {
		canvas.StrokeLines(c.curve.style.line(), line)
	}
	for i, pt := range c.curve.points {
		drawErrorBar(canvas, c.curve.style, line[i].X, toY(c.y.at(pt.low)), toY(c.y.at(pt.high)))
		canvas.DrawGlyphNoClip(c.curve.style.glyph(), line[i])
		if pt.ringed {
			canvas.DrawGlyphNoClip(draw.GlyphStyle{Color: black, Radius: 4.5, Shape: draw.RingGlyph{}}, line[i])
		}
	}
}

func drawErrorBar(canvas draw.Canvas, sty style, x, low, high vg.Length) {
	const cap = 1.5
	bar := draw.LineStyle{Color: sty.colour, Width: 0.7}
	if high > low {
		canvas.StrokeLine2(bar, x, low, x, high)
		canvas.StrokeLine2(bar, x-cap, low, x+cap, low)
		canvas.StrokeLine2(bar, x-cap, high, x+cap, high)
	}
}

// foldPanels breaks a row of many panels into rows of at most three, thins the
// labels that would collide, and removes axis labels that repeat.
func foldPanels(c *chart, s *selection, axis horizontal) {
	const columns = 3
	var folded [][]*plot.Plot
	for _, row := range c.grid.plots {
		for len(row) > columns {
			folded = append(folded, row[:columns])
			row = row[columns:]
		}
		if len(folded) > 0 && len(folded[0]) == columns && len(s.panels) > columns {
			row = append(row, make([]*plot.Plot, columns-len(row))...)
		}
		folded = append(folded, row)
	}
	c.grid.plots = folded
	width := singleColumn - axisAllows
	if n := len(folded[0]); n > 1 {
		width = doubleColumn/vg.Length(n) - axisAllows
	}
	thinned := axis.scale
	thinned.ticks = slices.Clone(axis.scale.ticks)
	thinned.thin(float64(width), func(text string) float64 { return float64(textStyle(tickSize, black).Width(text)) })
	for i, row := range folded {
		for j, p := range row {
			if p == nil {
				continue
			}
			thinned.apply(&p.X)
			if j > 0 {
				p.Y.Label.Text = ""
			}
			if below := i+1 < len(folded) && folded[i+1][j] != nil; below {
				p.X.Label.Text = ""
			}
		}
	}
}

// scaling is operations per second by number of clients, with a thin line for
// what the first series would reach if clients cost each other nothing.
func scaling(s *selection) (*chart, error) {
	axis, err := factorAxis(s)
	if err != nil {
		return nil, err
	}
	if axis.nominal {
		return nil, fmt.Errorf("its x factor %q has no numbers: scaling needs a count", s.spec.X)
	}
	axis.logY = true // perfect scaling is then a straight line
	c, err := lineChart(s, axis, results.OperationRate)
	if err != nil {
		return nil, err
	}
	y := axis.valueScale(quantityOf(c.metrics[0]), s.values(c.metrics[0]))
	drawn := false
	for i, p := range s.panels {
		start, ok := perfect(s, p, axis, c.metrics[0])
		if !ok {
			continue
		}
		drawn = true
		start.y = y
		c.grid.panel(0, len(s.panels), i).Add(start)
	}
	if drawn {
		c.legend = append(c.legend, legendEntry{name: "perfect scaling", style: perfectStyle})
	}
	return c, nil
}

var perfectStyle = style{colour: grey, dashes: []vg.Length{1, 2}, marker: noMarker{}}

// noMarker is drawn nowhere.
type noMarker struct{}

func (noMarker) DrawGlyph(*draw.Canvas, draw.GlyphStyle, vg.Point) {}

// values are all that is drawn of a metric, ends of intervals included.
func (s *selection) values(m results.Metric) []float64 {
	var values []float64
	for _, g := range s.groups {
		if sum := stats.Summarize(g.Sample(m)); sum.N > 0 {
			values = append(values, sum.Median, sum.Low, sum.High)
		}
	}
	return values
}

// perfectLine is proportional to x, within the plot.
type perfectLine struct {
	perUnit      float64 // metric per unit of x
	levels       []float64
	positionOf   func(float64) float64
	y            scale
	largestValue float64
}

// perfect starts from the fewest clients of a panel's first series.
func perfect(s *selection, p panel, axis horizontal, m results.Metric) (*perfectLine, bool) {
	for _, g := range p.series[0].groups {
		level, ok := g.Cell[s.spec.X].(float64)
		sum := stats.Summarize(g.Sample(m))
		if !ok || level <= 0 || sum.N == 0 {
			continue
		}
		line := &perfectLine{perUnit: sum.Median / level, positionOf: axis.scale.at}
		for _, l := range stats.Levels(s.groups, s.experiment, s.spec.X) {
			if f := l.(float64); f >= level {
				line.levels = append(line.levels, f)
			}
		}
		return line, len(line.levels) > 1
	}
	return nil, false
}

func (l *perfectLine) Plot(canvas draw.Canvas, p *plot.Plot) {
	toX, toY := p.Transforms(&canvas)
	const steps = 64
	first, last := l.levels[0], l.levels[len(l.levels)-1]
	var line []vg.Point
	for i := range steps + 1 {
		x := first * math.Pow(last/first, float64(i)/steps)
		y := toY(l.y.at(x * l.perUnit))
		if y > canvas.Max.Y {
			break
		}
		line = append(line, vg.Point{X: toX(l.positionOf(x)), Y: y})
	}
	canvas.StrokeLines(perfectStyle.line(), line)
}

// altText describes a figure for those who can't see it.
func altText(s *selection, what string, metrics []results.Metric) string {
	var labels []string
	for _, m := range metrics {
		labels = append(labels, m.Label)
	}
	text := fmt.Sprintf("%s of %s", what, strings.Join(labels, " and "))
	if s.spec.X != "" {
		text += " by " + strings.ToLower(FactorName(s.spec.X))
	}
	text += " for " + strings.Join(s.names, ", ")
	if best, q, ok := s.extreme(metrics[0]); ok {
		text += fmt.Sprintf(". Highest: %s for %s", q, best)
	}
	return text + ". The numbers are in the table."
}

// extreme finds the group with the highest median.
func (s *selection) extreme(m results.Metric) (group, value string, ok bool) {
	highest := math.Inf(-1)
	for _, p := range s.panels {
		for _, line := range p.series {
			for _, g := range line.groups {
				sum := stats.Summarize(g.Sample(m))
				if sum.N == 0 || sum.Median <= highest {
					continue
				}
				highest, ok = sum.Median, true
				group = strings.Join(s.factorCells(p, line, g), ", ")
				value = quantityOf(m).text(sum.Median)
			}
		}
	}
	return group, value, ok
}
