package figure

import (
	"errors"
	"slices"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"

	"waggle/results"
	"waggle/stats"
)

const (
	barPitch    = vg.Length(10) // from one row to the next
	barHalf     = 0.36          // of a bar's height, in rows
	barsAxis    = vg.Length(30) // what the x axis below takes
	textAllows  = 1.14          // leaves room for the number behind a bar
	missingText = "not supported here"
)

// barRow is a row of a chart of horizontal bars: a bar, or with heading the
// name of the rows below it. Bars lie because their names then need no room
// from each other.
type barRow struct {
	heading  string
	name     string
	segments []segment
	// total is drawn as a marker with its interval where it isn't simply the
	// end of the bar, dot as the only thing in the row.
	total *stats.Summary
	dot   *style
	value float64 // written behind the bar
	why   string  // instead of a bar
}

type segment struct {
	fill  filling
	value float64
}

func (r barRow) end() float64 {
	sum := 0.0
	for _, s := range r.segments {
		sum += s.value
	}
	if r.total != nil {
		sum = max(sum, r.total.High)
		for _, p := range r.total.ByPlacement {
			sum = max(sum, p.High)
		}
	}
	return sum
}

// barRows makes a panel's rows, under headings if there is an x factor. The
// row of a group that measured nothing says why.
func (s *selection) barRows(p panel, fill func(line series, g stats.Group) (barRow, bool)) []barRow {
	levels := append(stats.Levels(s.groups, s.experiment, s.spec.X), nil) // at last what has no level
	var rows []barRow
	for _, level := range levels {
		if level != nil && len(levels) > 2 {
			rows = append(rows, barRow{heading: Capital(FactorLevel(s.spec.X, level))})
		}
		for _, line := range p.series {
			for _, g := range line.groups {
				if have, ok := g.Cell[s.spec.X]; ok != (level != nil) || ok && results.FormatLevel(have) != results.FormatLevel(level) {
					continue
				}
				row, ok := fill(line, g)
				if !ok {
					row = barRow{why: whyMissing(g)}
				}
				row.name = line.name
				if level == nil && len(levels) > 2 {
					row.name += " (no " + strings.ToLower(FactorName(s.spec.X)) + ")"
				}
				rows = append(rows, row)
			}
		}
	}
	return rows
}

func whyMissing(g stats.Group) string {
	if _, not := g.Unsupported(); not {
		return missingText
	}
	if len(g.Records) == 0 {
		return "no valid trial"
	}
	return "not measured"
}

// barPanels draws a panel a plot.
func barPanels(s *selection, q quantity, fill func(series, stats.Group) (barRow, bool)) (grid, error) {
	var panels [][]barRow
	for _, p := range s.panels {
		panels = append(panels, s.barRows(p, fill))
	}
	plots, height, err := barPlots(panels, q)
	if err != nil {
		return grid{}, err
	}
	for i, p := range plots {
		p.Title.Text = printable(s.panels[i].title)
	}
	return barGrid(plots, height), nil
}

// barPlots draws rows of bars, several plots on one scale.
func barPlots(panels [][]barRow, q quantity) (plots []*plot.Plot, rowHeight vg.Length, err error) {
	largest, longest, drawn := 0.0, 0, false
	for _, rows := range panels {
		longest = max(longest, len(rows))
		for _, r := range rows {
			largest = max(largest, r.end())
			drawn = drawn || len(r.segments) > 0 || r.total != nil
		}
	}
	if !drawn {
		return nil, 0, ErrNoData
	}
	x := linearScale(q, 0, largest*textAllows)
	for _, rows := range panels {
		plots = append(plots, rowPlot(rows, longest, x, func(v float64) string { return ThreeDigits(x.at(v)) }))
	}
	return plots, rowsHeight(longest), nil
}

// dotsLogAbove is the ratio of largest to smallest value from which dots stand on
// a logarithmic axis: on a linear one all but the largest would be in one heap.
// Bars never do, since their length has to mean something.
const dotsLogAbove = 8

// dotPlot draws rows of dots, the axis about so wide, and marks limits behind them.
func dotPlot(rows []barRow, q quantity, width vg.Length, limits ...float64) (*plot.Plot, error) {
	values := slices.Clone(limits)
	drawn := false
	for _, r := range rows {
		if r.total != nil {
			values = append(values, r.total.Low, r.total.Median, r.total.High)
			for _, p := range r.total.ByPlacement {
				values = append(values, p.Low, p.High)
			}
			drawn = true
		}
	}
	if !drawn {
		return nil, ErrNoData
	}
	var x scale
	write := q.text
	if smallest, largest := extremes(values); largest < dotsLogAbove*smallest || largest == 0 {
		x = linearScale(q, 0, largest*textAllows)
		write = func(v float64) string { return ThreeDigits(x.at(v)) }
	} else {
		x = logScale(q, values)
		x.max += (x.max - x.min) * (textAllows - 1)
		x.thin(float64(width), func(text string) float64 { return float64(textStyle(tickSize, black).Width(text)) })
	}
	var marks []plot.Plotter
	for _, v := range limits {
		marks = append(marks, limitLine{at: x.at(v), upright: true})
	}
	return rowPlot(rows, len(rows), x, write, marks...), nil
}

// rowsHeight is what a plot of so many rows takes.
func rowsHeight(rows int) vg.Length { return vg.Length(rows)*barPitch + barsAxis }

// rowPlot is a plot of rows with marks behind them. Write gives the number that
// stands with each row.
func rowPlot(rows []barRow, longest int, x scale, write func(float64) string, marks ...plot.Plotter) *plot.Plot {
	p := newPlot()
	x.apply(&p.X)
	nameRows(p, rows, longest)
	p.Add(verticalGrid())
	p.Add(marks...)
	p.Add(&barPlotter{rows, x, write})
	return p
}

func verticalGrid() plot.Plotter {
	g := gridLines()
	g.Horizontal.Color = nil
	return g
}

// nameRows puts the rows' names on the y axis, the first row at the top.
func nameRows(p *plot.Plot, rows []barRow, longest int) {
	p.Y.Min, p.Y.Max = -float64(longest)+0.4, 0.6
	p.Y.Tick.Length = 0
	var ticks []plot.Tick
	for i, r := range rows {
		if r.heading == "" {
			ticks = append(ticks, plot.Tick{Value: -float64(i), Label: printable(r.name)})
		}
	}
	p.Y.Tick.Marker = plot.ConstantTicks(ticks)
}

// barPlotter draws rows of bars.
type barPlotter struct {
	rows  []barRow
	x     scale
	write func(float64) string
}

func (b *barPlotter) Plot(canvas draw.Canvas, p *plot.Plot) {
	toX, toY := p.Transforms(&canvas)
	for i, r := range b.rows {
		y := -float64(i)
		if r.heading != "" {
			b.drawHeading(canvas, r, toY(y), i > 0)
			continue
		}
		start := 0.0
		for _, s := range r.segments {
			fillBox(canvas, s.fill, vg.Rectangle{
				Min: vg.Point{X: toX(b.x.at(start)), Y: toY(y - barHalf)},
				Max: vg.Point{X: toX(b.x.at(start + s.value)), Y: toY(y + barHalf)},
			})
			start += s.value
		}
		if r.total != nil {
			b.drawTotal(canvas, r, toX, toY(y))
		}
		text := r.why
		if text == "" {
			text = b.write(r.value)
		}
		drawBeside(canvas, textStyle(noteSize, black), vg.Point{X: toX(b.x.at(r.end())) + 4, Y: toY(y)}, text)
	}
}

func (b *barPlotter) drawHeading(canvas draw.Canvas, r barRow, y vg.Length, separate bool) {
	if separate {
		canvas.StrokeLine2(draw.LineStyle{Color: paleGrey, Width: 0.4}, canvas.Min.X, y+barPitch/2, canvas.Max.X, y+barPitch/2)
	}
	drawBeside(canvas, textStyle(tickSize, grey), vg.Point{X: canvas.Min.X + 3, Y: y}, printable(r.heading))
}

var totalStyle = style{colour: black, marker: draw.PlusGlyph{}}

// drawTotal draws a total with its interval, lying.
func (b *barPlotter) drawTotal(canvas draw.Canvas, r barRow, toX func(float64) vg.Length, y vg.Length) {
	sty := totalStyle
	if r.dot != nil {
		sty = *r.dot
	}
	if r.dot != nil && placementsApart(r.total.ByPlacement) {
		b.drawPlacements(canvas, r, toX, y)
		return
	}
	low, high := toX(b.x.at(r.total.Low)), toX(b.x.at(r.total.High))
	bar := draw.LineStyle{Color: sty.colour, Width: 0.7}
	if high > low {
		canvas.StrokeLine2(bar, low, y, high, y)
		canvas.StrokeLine2(bar, low, y-1.5, low, y+1.5)
		canvas.StrokeLine2(bar, high, y-1.5, high, y+1.5)
	}
	canvas.DrawGlyphNoClip(sty.glyph(), vg.Point{X: toX(b.x.at(r.total.Median)), Y: y})
}

// placementMarkers tell the placements of the roles apart.
var placementMarkers = map[string]draw.GlyphDrawer{
	results.PlacementApart: draw.SquareGlyph{}, results.PlacementTogether: draw.TriangleGlyph{}, results.PlacementFree: draw.RingGlyph{},
}

const placementsCaption = "Where placements differ, each is shown: square apart, triangle together, ring free; the number is their geometric mean."

// placementsApart reports that two placements' intervals don't overlap: what is
// between them was then measured by nobody.
func placementsApart(placements []stats.PlacementSummary) bool {
	for i, p := range placements {
		for _, q := range placements[:i] {
			if p.Low > q.High || q.Low > p.High {
				return true
			}
		}
	}
	return false
}

// showsPlacements reports that some group's placements are drawn one by one.
func (s *selection) showsPlacements(metrics []results.Metric) bool {
	for _, g := range s.groups {
		for _, m := range metrics {
			if sample := g.Sample(m); len(sample) > 0 && placementsApart(stats.Summarize(sample).ByPlacement) {
				return true
			}
		}
	}
	return false
}

// drawPlacements draws a row's median in each placement, one above the other.
func (b *barPlotter) drawPlacements(canvas draw.Canvas, r barRow, toX func(float64) vg.Length, y vg.Length) {
	const apart = 2.6
	for i, p := range r.total.ByPlacement {
		at := y + vg.Length(float64(len(r.total.ByPlacement)-1)/2-float64(i))*apart
		low, high := toX(b.x.at(p.Low)), toX(b.x.at(p.High))
		if high > low {
			canvas.StrokeLine2(draw.LineStyle{Color: r.dot.colour, Width: .6}, low, at, high, at)
		}
		canvas.DrawGlyphNoClip(draw.GlyphStyle{Color: r.dot.colour, Radius: 1.5, Shape: placementMarkers[p.Placement]}, vg.Point{X: toX(b.x.at(p.Median)), Y: at})
	}
}

// barsApart draws a panel at one place on the x axis a plot, each with a scale of
// its own: what differs by orders of magnitude from place to place would leave
// nothing to see of the smaller ones on a common scale.
func barsApart(s *selection, q quantity, fill func(series, stats.Group) (barRow, bool)) (grid, error) {
	places, err := s.apart()
	if err != nil {
		return grid{}, err
	}
	var plots []*plot.Plot
	var highest vg.Length
	for _, p := range places {
		for _, panel := range p.selection.panels {
			drawn, height, err := barPlots([][]barRow{p.selection.barRows(panel, fill)}, q)
			if errors.Is(err, ErrNoData) {
				continue
			}
			if err != nil {
				return grid{}, err
			}
			drawn[0].Title.Text = printable(joinTitles(panel.title, p.title))
			plots, highest = append(plots, drawn[0]), max(highest, height)
		}
	}
	if len(plots) == 0 {
		return grid{}, ErrNoData
	}
	return barGrid(plots, highest), nil
}

func joinTitles(titles ...string) string {
	return Capital(strings.Join(slices.DeleteFunc(titles, func(t string) bool { return t == "" }), ", "))
}

// barGrid arranges bar plots: few side by side, more below each other.
func barGrid(plots []*plot.Plot, rowHeight vg.Length) grid {
	const columns = 2
	g := grid{rowHeight: rowHeight}
	for len(plots) > columns {
		g.plots = append(g.plots, plots[:columns])
		plots = plots[columns:]
	}
	if len(g.plots) > 0 {
		plots = append(plots, make([]*plot.Plot, columns-len(plots))...)
	}
	g.plots = append(g.plots, plots)
	return g
}

// dotChart has a dot a series, a row of plots a metric, a column a place on the x
// axis. Every plot has a scale of its own.
func dotChart(s *selection, axis horizontal, names ...string) (*chart, error) {
	places, err := s.apart()
	if err != nil {
		return nil, err
	}
	c := &chart{grid: grid{wide: len(places) > 1}}
	for _, name := range names {
		m := metricNamed(name)
		if !s.drawable(m) {
			continue
		}
		var row []*plot.Plot
		var rows []barRow
		for _, p := range places {
			before := rows
			rows = p.selection.dotRows(m)
			dots, err := dotPlot(rows, quantityOf(m), dotsWidth(len(places)))
			if errors.Is(err, ErrNoData) {
				continue
			}
			if err != nil {
				return nil, err
			}
			dots.Title.Text = printable(joinTitles(p.title))
			if len(row) > 0 && sameRows(before, rows) {
				dots.Y.Tick.Marker = plot.ConstantTicks(nil) // the names stand on the left
			}
			c.grid.rowHeight = max(c.grid.rowHeight, rowsHeight(len(rows)))
			row = append(row, dots)
		}
		if len(row) == 0 {
			continue
		}
		c.metrics = append(c.metrics, m)
		c.grid.plots = append(c.grid.plots, append(row, make([]*plot.Plot, len(places)-len(row))...))
	}
	if len(c.metrics) == 0 {
		return nil, ErrNoData
	}
	c.caption = s.unplaced(axis, c.metrics)
	if s.showsPlacements(c.metrics) {
		c.caption = append(c.caption, placementsCaption)
	}
	c.alt = altText(s, "Dots with error bars", c.metrics)
	return c, nil
}

// sameRows reports whether two plots have the same names on their left.
func sameRows(a, b []barRow) bool {
	return slices.EqualFunc(a, b, func(a, b barRow) bool { return a.name == b.name && a.heading == b.heading })
}

// dotsWidth is about how wide the axis of each of so many plots beside each
// other is.
func dotsWidth(columns int) vg.Length {
	if columns == 1 {
		return singleColumn - 2*axisAllows
	}
	return (doubleColumn - 2*axisAllows) / vg.Length(columns)
}

// costDots shows what one operation costs, a column a cost.
func costDots(s *selection) (*chart, error) {
	return dots(s, results.LatencyP50, results.CPUPerOperation, results.SyscallsPerOperation, results.CopiedPerOperation)
}

// dots has a row a series and a column a metric.
func dots(s *selection, names ...string) (*chart, error) {
	c := &chart{grid: grid{plots: [][]*plot.Plot{nil}}}
	for _, name := range names {
		m := metricNamed(name)
		if !s.drawable(m) {
			continue // the experiment didn't measure it
		}
		rows := s.dotRows(m)
		dots, err := dotPlot(rows, quantityOf(m), dotsWidth(len(names)))
		if err != nil {
			return nil, err
		}
		if len(c.metrics) > 0 {
			dots.Y.Tick.Marker = plot.ConstantTicks(nil) // the names stand on the left
		}
		c.metrics = append(c.metrics, m)
		c.grid.rowHeight = rowsHeight(len(rows))
		c.grid.plots[0] = append(c.grid.plots[0], dots)
	}
	if len(c.metrics) == 0 {
		return nil, ErrNoData
	}
	c.alt = altText(s, "Dots with error bars", c.metrics)
	return c, nil
}

// dotRows puts all panels below each other.
func (s *selection) dotRows(m results.Metric) []barRow {
	var rows []barRow
	for _, p := range s.panels {
		if p.title != "" {
			rows = append(rows, barRow{heading: p.title})
		}
		rows = append(rows, s.barRows(p, func(line series, g stats.Group) (barRow, bool) {
			sum := stats.Summarize(g.Sample(m))
			return barRow{total: &sum, dot: &line.style, value: sum.Median}, sum.N > 0
		})...)
	}
	return rows
}
