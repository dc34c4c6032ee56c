package figure

import (
	"image/color"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

const (
	margin     = vg.Length(4)
	bandGap    = vg.Length(5) // between legend, plots and notes
	legendRow  = vg.Length(10)
	keyWidth   = vg.Length(20) // of a legend entry's sample
	entryGap   = vg.Length(9)
	noteRow    = noteSize * 1.25
	panelGap   = vg.Length(8)
	axisAllows = vg.Length(45) // what a y axis takes of a panel's width, about
)

// grid is a figure's plots, in rows and columns of equal data areas.
type grid struct {
	plots     [][]*plot.Plot
	rowHeight vg.Length
	wide      bool // as wide as a page, whatever the number of columns
	backing   backing
}

// panel finds the plot of the i-th of so many panels in a row, after folding.
func (g grid) panel(row, panels, i int) *plot.Plot {
	columns := len(g.plots[0])
	folded := (panels + columns - 1) / columns // rows that one row became
	return g.plots[row*folded+i/columns][i%columns]
}

// legendEntry explains one line, or one filling.
type legendEntry struct {
	name string
	// A line with a marker, or, with fill, a box.
	style      style
	markerOnly bool
	fill       *filling
}

// filling is how an area looks: a colour, and lines over it.
type filling struct {
	colour color.Color
	hatch  hatch
}

// legend explains the series that were drawn.
func (s *selection) legend(drawn map[string]bool) []legendEntry {
	var entries []legendEntry
	for _, name := range s.names {
		if drawn[name] {
			entries = append(entries, legendEntry{name: name, style: s.colours.of(name)})
		}
	}
	return entries
}

// lay arranges a chart: the legend in a band above the plots, notes in a band
// below, so that neither ever covers data.
func lay(c *chart, notes []string) (width, height vg.Length, paint func(draw.Canvas)) {
	width = singleColumn
	if c.grid.wide || len(c.grid.plots[0]) > 1 {
		width = doubleColumn
	}
	inner := width - 2*margin
	legend := legendRows(c.legend, inner)
	lines := wrap(notes, inner)
	legendHeight := band(len(legend), legendRow)
	notesHeight := band(len(lines), noteRow)
	plots := vg.Length(len(c.grid.plots))*(c.grid.rowHeight+panelGap) - panelGap
	height = plots + legendHeight + notesHeight + 2*margin

	return width, height, func(canvas draw.Canvas) {
		canvas.SetColor(color.White)
		canvas.Fill(canvas.Rectangle.Path())
		canvas = draw.Crop(canvas, margin, -margin, margin, -margin)
		drawLegend(canvas, legend)
		drawNotes(canvas, lines)
		drawGrid(c.grid, draw.Crop(canvas, 0, 0, notesHeight, -legendHeight))
	}
}

func band(rows int, rowHeight vg.Length) vg.Length {
	if rows == 0 {
		return 0
	}
	return vg.Length(rows)*rowHeight + bandGap
}

func drawGrid(g grid, canvas draw.Canvas) {
	tiles := draw.Tiles{Rows: len(g.plots), Cols: len(g.plots[0]), PadX: panelGap, PadY: panelGap}
	for i, row := range plot.Align(g.plots, tiles, canvas) {
		for j, cell := range row {
			if p := g.plots[i][j]; p != nil {
				if g.backing != measured {
					drawBacking(p.DataCanvas(cell), g.backing)
				}
				p.Draw(cell)
			}
		}
	}
}

// legendRows breaks a legend into rows that fit the width.
func legendRows(entries []legendEntry, width vg.Length) [][]legendEntry {
	var rows [][]legendEntry
	var x vg.Length
	for _, e := range entries {
		w := entryWidth(e)
		if len(rows) == 0 || x+w > width {
			rows = append(rows, nil)
			x = 0
		}
		last := len(rows) - 1
		rows[last] = append(rows[last], e)
		x += w + entryGap
	}
	return rows
}

func entryWidth(e legendEntry) vg.Length {
	return keyWidth + 3 + textStyle(tickSize, black).Width(printable(e.name))
}

func drawLegend(canvas draw.Canvas, rows [][]legendEntry) {
	y := canvas.Max.Y - legendRow/2
	for _, row := range rows {
		x := canvas.Min.X
		for _, e := range row {
			drawKey(canvas, e, x, y)
			drawBeside(canvas, textStyle(tickSize, black), vg.Point{X: x + keyWidth + 3, Y: y}, printable(e.name))
			x += entryWidth(e) + entryGap
		}
		y -= legendRow
	}
}

func drawKey(canvas draw.Canvas, e legendEntry, x, y vg.Length) {
	if e.fill != nil {
		fillBox(canvas, *e.fill, vg.Rectangle{Min: vg.Point{X: x + 4, Y: y - 3}, Max: vg.Point{X: x + keyWidth, Y: y + 3}})
		return
	}
	if !e.markerOnly {
		canvas.StrokeLine2(e.style.line(), x, y, x+keyWidth, y)
	}
	canvas.DrawGlyphNoClip(e.style.glyph(), vg.Point{X: x + keyWidth/2, Y: y})
}

func drawNotes(canvas draw.Canvas, lines []string) {
	sty := textStyle(noteSize, grey)
	for i, line := range lines {
		y := canvas.Min.Y + vg.Length(len(lines)-1-i)*noteRow + 1
		canvas.FillText(sty, vg.Point{X: canvas.Min.X, Y: y}, line)
	}
}

// wrap breaks notes into lines that fit the width.
func wrap(notes []string, width vg.Length) []string {
	sty := textStyle(noteSize, grey)
	var lines []string
	for _, note := range notes {
		line := ""
		for _, word := range strings.Fields(note) {
			word = printable(word)
			longer := strings.TrimSpace(line + " " + word)
			if line != "" && sty.Width(longer) > width {
				lines = append(lines, line)
				longer = word
			}
			line = longer
		}
		lines = append(lines, line)
	}
	return lines
}

// hatch is a pattern of lines over an area.
type hatch int

const (
	noHatch hatch = iota
	risingHatch
	fallingHatch
	crossHatch
	levelHatch
)

const hatchGap = vg.Length(3)

// fillBox fills a rectangle, draws its hatch within it, and its outline.
func fillBox(canvas draw.Canvas, f filling, r vg.Rectangle) {
	if r.Size().X <= 0 || r.Size().Y <= 0 {
		return
	}
	canvas.SetColor(f.colour)
	canvas.Fill(r.Path())
	hatchStyle := draw.LineStyle{Color: color.RGBA{A: 255}, Width: 0.5}
	clip := draw.Canvas{Canvas: canvas.Canvas, Rectangle: r}
	for _, line := range hatchLines(f.hatch, r) {
		clip.StrokeLines(hatchStyle, clip.ClipLinesXY(line)...)
	}
	outline := draw.LineStyle{Color: color.RGBA{A: 255}, Width: 0.3}
	clip.StrokeLines(outline, []vg.Point{r.Min, {X: r.Max.X, Y: r.Min.Y}, r.Max, {X: r.Min.X, Y: r.Max.Y}, r.Min})
}

func hatchLines(h hatch, r vg.Rectangle) [][]vg.Point {
	var lines [][]vg.Point
	w, height := r.Size().X, r.Size().Y
	switch h {
	case risingHatch:
		for x := r.Min.X - height; x < r.Max.X; x += hatchGap {
			lines = append(lines, []vg.Point{{X: x, Y: r.Min.Y}, {X: x + height, Y: r.Max.Y}})
		}
	case fallingHatch:
		for x := r.Min.X; x < r.Max.X+height; x += hatchGap {
			lines = append(lines, []vg.Point{{X: x, Y: r.Min.Y}, {X: x - height, Y: r.Max.Y}})
		}
	case crossHatch:
		return append(hatchLines(risingHatch, r), hatchLines(fallingHatch, r)...)
	case levelHatch:
		for y := r.Min.Y + hatchGap/2; y < r.Max.Y; y += hatchGap / 1.5 {
			lines = append(lines, []vg.Point{{X: r.Min.X, Y: y}, {X: r.Min.X + w, Y: y}})
		}
	}
	return lines
}
