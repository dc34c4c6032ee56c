package figure

import (
	"fmt"
	"image/color"
	"math"
	"strconv"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"

	"waggle/results"
	"waggle/stats"
)

// Headline is one comparison of the picture that a report opens on: the best eBPF
// path against the best of the others, somewhere.
type Headline struct {
	// Experiment and Metric say what was compared, Paths what with what, Place where.
	Experiment, Metric, Paths, Place string
	Comparison                       stats.Comparison
	// HigherBetter is that of the metric: in the picture, eBPF wins to the right.
	HigherBetter bool
	// Marked says that a setting of the machine moves the result more than the
	// path does.
	Marked bool
}

// Ratio is the comparison's ratio turned so that above 1 means that eBPF is better.
func (h Headline) Ratio() (stats.Interval, bool) {
	if h.Comparison.Ratio == nil {
		return stats.Interval{}, false
	}
	return h.towards(*h.Comparison.Ratio), true
}

func (h Headline) towards(r stats.Interval) stats.Interval {
	if h.HigherBetter || r.Low <= 0 {
		return r
	}
	return stats.Interval{Value: 1 / r.Value, Low: 1 / r.High, High: 1 / r.Low}
}

// MostHeadlines is the most comparisons that the picture shows.
const MostHeadlines = 40

// DrawHeadlines draws the picture that a report opens on, twice: for a page, and for
// a narrow screen. Headlines of one experiment stand together, in the order given.
func DrawHeadlines(headlines []Headline) (wide, narrow *Figure, err error) {
	rows := headlineRows(headlines)
	if len(rows) == 0 {
		return nil, nil, ErrNoData
	}
	spec := results.FigureSpec{Kind: "headlines", Title: "Does eBPF pay here?"}
	figureOf := func(l headlineLayout) *Figure {
		p := headlinePainter{rows: rows, layout: l, axis: ratioAxis(rows)}
		return &Figure{Name: l.name, Spec: spec, Alt: headlineAlt(headlines), Table: headlineTable(headlines),
			width: l.width, height: p.height(), paint: p.paint}
	}
	return figureOf(wideHeadlines), figureOf(narrowHeadlines), nil
}

// headlineRow is a line of the picture: the name of an experiment, a comparison,
// or a comparison within a placement.
type headlineRow struct {
	heading string
	text    string
	ratio   *stats.Interval
	look    headlineLook
	number  string
}

type headlineLook int

const (
	undecidedLook headlineLook = iota
	betterLook
	worseLook
	equalLook
	placementLook
)

func headlineRows(headlines []Headline) []headlineRow {
	var rows []headlineRow
	heading := ""
	for _, h := range headlines {
		ratio, ok := h.Ratio()
		if !ok {
			continue
		}
		if now := h.Experiment + ": " + h.Metric; now != heading {
			heading = now
			rows = append(rows, headlineRow{heading: heading})
		}
		rows = append(rows, h.rows(ratio)...)
	}
	return rows
}

func (h Headline) rows(ratio stats.Interval) []headlineRow {
	text := h.Paths
	if h.Place != "" {
		text = h.Place + ": " + text
	}
	if h.Marked {
		text += " †"
	}
	row := headlineRow{text: text, ratio: &ratio, look: h.look(), number: ThreeDigits(ratio.Value) + "×"}
	switch row.look {
	case undecidedLook:
		row.number = "open"
	case equalLook:
		row.number = "equal"
	case placementLook:
		rows := []headlineRow{{text: text, number: "depends"}}
		for _, p := range h.Comparison.ByPlacement {
			within := h.towards(p.Ratio)
			rows = append(rows, headlineRow{text: "   roles " + p.Placement, ratio: &within, look: placementLook, number: ThreeDigits(within.Value) + "×"})
		}
		return rows
	}
	return []headlineRow{row}
}

func (h Headline) look() headlineLook {
	switch h.Comparison.Verdict {
	case stats.Better:
		return betterLook
	case stats.Worse:
		return worseLook
	case stats.NoDifference:
		return equalLook
	case stats.Depends:
		return placementLook
	}
	return undecidedLook
}

// style is how a comparison's estimate is drawn: what is undecided is hollow.
func (l headlineLook) style() style {
	switch l {
	case betterLook:
		return style{colour: blue, marker: draw.CircleGlyph{}}
	case worseLook:
		return style{colour: vermillion, marker: draw.BoxGlyph{}}
	case equalLook:
		return style{colour: grey, marker: draw.CircleGlyph{}}
	case placementLook:
		return style{colour: purple, marker: draw.TriangleGlyph{}}
	}
	return style{colour: grey, marker: draw.RingGlyph{}}
}

// headlineLayout says where things stand in the picture.
type headlineLayout struct {
	name  string
	width vg.Length
	// text is the width of the column of words, 0 if they stand above the intervals.
	text   vg.Length
	number vg.Length
	// row and heading are heights.
	row, heading vg.Length
}

var (
	wideHeadlines   = headlineLayout{name: "headlines", width: doubleColumn, text: 196, number: 34, row: 11, heading: 14}
	narrowHeadlines = headlineLayout{name: "headlines-narrow", width: singleColumn, number: 34, row: 20, heading: 15}
)

// headlineAxisHeight is what the axis takes, with the words that explain it.
const headlineAxisHeight = vg.Length(26)

// ratioAxis is a logarithmic axis around 1 on which all rows are seen.
func ratioAxis(rows []headlineRow) scale {
	const leastSpan, most = 1.3, 64.0
	span := leastSpan
	for _, r := range rows {
		if r.ratio != nil && r.ratio.Value > 0 {
			span = max(span, r.ratio.Value, 1/r.ratio.Value, min(r.ratio.High, 2*r.ratio.Value), min(1/r.ratio.Low, 2/r.ratio.Value))
		}
	}
	span = min(span, most) * 1.05
	s := scale{min: -math.Log(span), max: math.Log(span), at: func(v float64) float64 {
		return min(max(math.Log(v), -math.Log(span)), math.Log(span))
	}}
	for _, v := range []float64{.03, .1, .2, .5, .8, 1, 1.25, 2, 5, 10, 30} {
		if (v == .8 || v == 1.25) && span > 2.5 || v < 1/span || v > span {
			continue
		}
		s.ticks = append(s.ticks, plot.Tick{Value: math.Log(v), Label: ratioLabel(v)})
	}
	return s
}

// ratioLabel writes a ratio of the axis; one below 1 as a fraction's decimals.
func ratioLabel(v float64) string { return strconv.FormatFloat(v, 'g', 3, 64) + "×" }

// headlinePainter draws the picture.
type headlinePainter struct {
	rows   []headlineRow
	layout headlineLayout
	axis   scale
}

func (p headlinePainter) height() vg.Length {
	height := 2*margin + 2*headlineAxisHeight + legendRow
	for _, r := range p.rows {
		height += p.rowHeight(r)
	}
	return height
}

func (p headlinePainter) rowHeight(r headlineRow) vg.Length {
	switch {
	case r.heading != "":
		return p.layout.heading
	case p.layout.text == 0 && r.ratio == nil:
		return p.layout.row / 2
	}
	return p.layout.row
}

func (p headlinePainter) paint(canvas draw.Canvas) {
	canvas.SetColor(color.White)
	canvas.Fill(canvas.Rectangle.Path())
	canvas = draw.Crop(canvas, margin, -margin, margin, -margin)
	area := draw.Crop(canvas, p.layout.text+2, -p.layout.number, headlineAxisHeight+legendRow, -headlineAxisHeight)
	p.paintAxis(area)
	y := area.Max.Y
	for _, r := range p.rows {
		y -= p.rowHeight(r)
		p.paintRow(canvas, area, r, y)
	}
	p.paintKey(draw.Crop(canvas, 0, 0, 0, -(canvas.Max.Y - canvas.Min.Y - legendRow)))
}

func (p headlinePainter) x(area draw.Canvas, v float64) vg.Length {
	return area.Min.X + vg.Length((p.axis.at(v)-p.axis.min)/(p.axis.max-p.axis.min))*(area.Max.X-area.Min.X)
}

// paintAxis draws the axis above and below, and the line of no difference.
func (p headlinePainter) paintAxis(area draw.Canvas) {
	end := math.Inf(-1)
	words := textStyle(tickSize, grey)
	for _, t := range p.axis.ticks {
		x := p.x(area, math.Exp(t.Value))
		line := draw.LineStyle{Color: paleGrey, Width: .4}
		if t.Value == 0 {
			line = draw.LineStyle{Color: black, Width: .8}
		}
		area.StrokeLine2(line, x, area.Min.Y, x, area.Max.Y)
		half := words.Width(t.Label) / 2
		if float64(x-half) < end+2 {
			continue
		}
		end = float64(x + half)
		drawBeside(area, words, vg.Point{X: x - half, Y: area.Max.Y + 5}, t.Label)
		drawBeside(area, words, vg.Point{X: x - half, Y: area.Min.Y - 6}, t.Label)
	}
	one := p.x(area, 1)
	left, right := "other paths better", "eBPF better"
	for _, y := range []vg.Length{area.Max.Y + 16, area.Min.Y - 17} {
		lose, win := textStyle(tickSize, vermillion), textStyle(tickSize, blue)
		drawBeside(area, lose, vg.Point{X: one - 14 - lose.Width(left), Y: y}, left)
		drawBeside(area, win, vg.Point{X: one + 14, Y: y}, right)
		drawArrow(area, vermillion, one-3, one-11, y)
		drawArrow(area, blue, one+3, one+11, y)
	}
}

func drawArrow(canvas draw.Canvas, c color.Color, from, to, y vg.Length) {
	sty := draw.LineStyle{Color: c, Width: .9}
	back := vg.Length(2.5)
	if to > from {
		back = -back
	}
	canvas.StrokeLine2(sty, from, y, to, y)
	canvas.StrokeLine2(sty, to, y, to+back, y+1.8)
	canvas.StrokeLine2(sty, to, y, to+back, y-1.8)
}

// paintRow draws a row whose lower edge is at y.
func (p headlinePainter) paintRow(canvas, area draw.Canvas, r headlineRow, y vg.Length) {
	height := p.rowHeight(r)
	if r.heading != "" {
		canvas.StrokeLine2(draw.LineStyle{Color: paleGrey, Width: .6}, canvas.Min.X, y+height-1, canvas.Max.X, y+height-1)
		drawBeside(canvas, textStyle(tickSize, grey), vg.Point{X: canvas.Min.X, Y: y + (height-2)/2}, limited(r.heading, 60))
		return
	}
	middle, words := y+height/2, vg.Point{X: canvas.Min.X, Y: y + height/2}
	if p.layout.text == 0 {
		middle, words = y+p.layout.row*.28, vg.Point{X: canvas.Min.X + 2, Y: y + height - p.layout.row*.27}
	}
	sty := textStyle(tickSize, black)
	text := limited(r.text, 60)
	widest := area.Min.X - canvas.Min.X - 4
	if p.layout.text == 0 {
		widest = canvas.Max.X - canvas.Min.X - 2
	}
	drawBeside(canvas, sty, words, fitting(sty.Width, text, widest))
	look := r.look.style()
	number := textStyle(tickSize, look.colour)
	if r.ratio == nil {
		middle = words.Y
	}
	drawBeside(canvas, number, vg.Point{X: canvas.Max.X - number.Width(r.number), Y: middle}, r.number)
	if r.ratio == nil {
		return
	}
	p.paintInterval(area, *r.ratio, look, middle)
}

// paintInterval draws an estimate with its interval. An interval that leaves the
// picture has no end there.
func (p headlinePainter) paintInterval(area draw.Canvas, r stats.Interval, look style, y vg.Length) {
	bar := draw.LineStyle{Color: look.colour, Width: 1}
	low, high := p.x(area, r.Low), p.x(area, r.High)
	if high > low {
		area.StrokeLine2(bar, low, y, high, y)
	}
	for _, end := range []vg.Length{low, high} {
		if end > area.Min.X && end < area.Max.X {
			area.StrokeLine2(bar, end, y-2, end, y+2)
		}
	}
	at := vg.Point{X: p.x(area, r.Value), Y: y}
	_, ring := look.marker.(draw.RingGlyph)
	_, triangle := look.marker.(draw.TriangleGlyph)
	if ring || triangle { // hollow all the way through
		area.DrawGlyphNoClip(draw.GlyphStyle{Color: color.White, Radius: 2.6, Shape: draw.CircleGlyph{}}, at)
	}
	area.DrawGlyphNoClip(draw.GlyphStyle{Color: look.colour, Radius: 2.6, Shape: look.marker}, at)
}

// paintKey explains the looks that occur.
func (p headlinePainter) paintKey(band draw.Canvas) {
	used := map[headlineLook]bool{}
	for _, r := range p.rows {
		if r.ratio != nil {
			used[r.look] = true
		}
	}
	x, y := band.Min.X+4, band.Min.Y+legendRow/2
	for _, e := range []struct {
		look headlineLook
		name string
	}{{betterLook, "eBPF wins"}, {worseLook, "eBPF loses"}, {equalLook, "equal"}, {undecidedLook, "open"}, {placementLook, "depends"}} {
		if !used[e.look] {
			continue
		}
		sty := e.look.style()
		band.DrawGlyphNoClip(draw.GlyphStyle{Color: sty.colour, Radius: 2.6, Shape: sty.marker}, vg.Point{X: x, Y: y})
		words := textStyle(tickSize, black)
		drawBeside(band, words, vg.Point{X: x + 6, Y: y}, e.name)
		x += 6 + words.Width(e.name) + entryGap
	}
}

// fitting cuts text to a width.
func fitting(width func(string) vg.Length, text string, widest vg.Length) string {
	runes := []rune(text)
	for len(runes) > 1 && width(text) > widest {
		runes = runes[:len(runes)-1]
		text = strings.TrimRight(string(runes), " ") + "…"
	}
	return text
}

func headlineTable(headlines []Headline) Table {
	t := Table{Header: []string{"Experiment", "Where", "Compared", "By", "eBPF against the other [95 %]", "Verdict", "n"}}
	for _, h := range headlines {
		ratio, ok := h.Ratio()
		if !ok {
			continue
		}
		number := ThreeDigits(ratio.Value) + "×"
		if ratio.Low < ratio.High {
			number += fmt.Sprintf(" [%s, %s]", ThreeDigits(ratio.Low), ThreeDigits(ratio.High))
		}
		place := h.Place
		if place == "" {
			place = "–"
		}
		n := min(h.Comparison.Baseline.N, h.Comparison.Treatment.N)
		t.Rows = append(t.Rows, []string{h.Experiment, place, h.Paths, h.Metric, number, string(h.Comparison.Verdict), fmt.Sprint(n)})
	}
	return t
}

func headlineAlt(headlines []Headline) string {
	count := map[headlineLook]int{}
	for _, h := range headlines {
		count[h.look()]++
	}
	return fmt.Sprintf("Ratios with intervals of the best eBPF path to the best other path, %d comparisons on a logarithmic axis: eBPF better in %d, worse in %d, equal in %d, dependent on placement in %d, open in %d. The numbers are in the table.",
		len(headlines), count[betterLook], count[worseLook], count[equalLook], count[placementLook], count[undecidedLook])
}
