package figure

import (
	"cmp"
	"fmt"
	"image/color"
	"slices"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"

	"waggle/results"
	"waggle/stats"
)

const (
	mapRow  = vg.Length(16)
	mapAxis = vg.Length(34)
	// deepest is the factor from which on a winner's colour is at its strongest.
	deepestWin = 4.0
)

// contest is a square of the crossover map: the paths that were tried there.
type contest struct {
	column, row int
	winner      string
	ratio       float64 // of the winner to the next best
	claimed     bool    // the difference may be claimed
	alone       bool    // nothing to compare with
	empty       string  // why there is no winner
	comparison  stats.Comparison
	runnerUp    string
}

// crossover maps which series wins for each level of x and of panel, and by
// how much over the next best. Squares whose difference can't be claimed are
// hatched. The panel factor is the map's y axis.
func crossover(s *selection) (*chart, error) {
	if s.spec.X == "" || s.spec.Panel == "" || s.spec.Series == "" {
		return nil, fmt.Errorf("it needs x, panel (the map's y axis) and series (the competitors)")
	}
	m := s.rateMetric()
	columns := stats.Levels(s.groups, s.experiment, s.spec.X)
	contests := s.contests(m, columns)
	if !slices.ContainsFunc(contests, func(c contest) bool { return c.empty == "" }) {
		return nil, ErrNoData
	}
	p := newPlot()
	x, _ := nominalScale(s.spec.X, columns)
	y, _ := nominalScale(s.spec.Panel, s.panelLevels())
	x.thin(float64(singleColumn-axisAllows), func(t string) float64 { return float64(textStyle(tickSize, black).Width(t)) })
	x.apply(&p.X)
	y.apply(&p.Y)
	p.X.Tick.Color, p.Y.Tick.Color = color.White, color.White // squares need none, labels their distance
	p.Add(&mapPlotter{contests: contests, colours: s.colours})
	c := &chart{
		metrics: []results.Metric{m},
		grid:    grid{plots: [][]*plot.Plot{{p}}, rowHeight: vg.Length(len(s.panels))*mapRow + mapAxis},
		legend:  mapLegend(s, contests),
		table:   mapTable(s, columns, contests),
	}
	c.alt = fmt.Sprintf("Map of the path with the highest %s by %s and %s. The numbers are in the table.",
		m.Label, strings.ToLower(FactorName(s.spec.X)), strings.ToLower(FactorName(s.spec.Panel)))
	c.findings = mapFindings(s, m, contests)
	return c, nil
}

// mapFindings counts the squares.
func mapFindings(s *selection, m results.Metric, contests []contest) []string {
	wins := map[string]int{}
	open, decided := 0, 0
	for _, c := range contests {
		switch {
		case c.empty != "" || c.alone:
		case c.claimed:
			wins[c.winner]++
			decided++
		default:
			open++
		}
	}
	total := decided + open
	var findings []string
	for _, name := range s.names {
		if wins[name] > 0 {
			findings = append(findings, fmt.Sprintf("%s has the highest %s in %d of %d squares.", name, m.Label, wins[name], total))
		}
	}
	if open > 0 {
		findings = append(findings, fmt.Sprintf("In %d of %d squares the best two can't be told apart.", open, total))
	}
	return findings
}

func (s *selection) panelLevels() []any {
	var levels []any
	for _, p := range s.panels {
		levels = append(levels, p.level)
	}
	return levels
}

// contests finds every square's winner, and judges all of them together.
func (s *selection) contests(m results.Metric, columns []any) []contest {
	in := stats.NewInquiry(s.run)
	var contests []contest
	var questions []stats.Question
	var asked []int
	for row, p := range s.panels {
		for column, level := range columns {
			c := contest{column: column, row: row}
			ranked := s.ranking(p, level, m)
			switch len(ranked) {
			case 0:
				c.empty = "–"
			case 1:
				c.winner, c.alone = ranked[0].name, true
			default:
				c.winner, c.runnerUp = ranked[0].name, ranked[1].name
				asked = append(asked, len(contests))
				questions = append(questions, in.About(stats.Pair{Baseline: ranked[1].groups[0], Treatment: ranked[0].groups[0]}, m))
			}
			contests = append(contests, c)
		}
	}
	for i, answer := range stats.Judge(questions) {
		c := &contests[asked[i]]
		c.comparison = answer
		c.claimed = answer.Verdict == stats.Better
		if answer.Ratio != nil {
			c.ratio = answer.Ratio.Value
		}
	}
	return contests
}

// ranking sorts what was measured in a square, the best first. The floor takes
// no part: it isn't a path.
func (s *selection) ranking(p panel, level any, m results.Metric) []series {
	var ranked []series
	for _, line := range p.series {
		for _, g := range line.groups {
			if g.Cell.Has(results.Cell{s.spec.X: level}) && !results.IsFloor(g.Cell[s.spec.Series]) && len(g.Sample(m)) > 0 {
				ranked = append(ranked, series{line.name, line.style, []stats.Group{g}})
			}
		}
	}
	median := func(r series) float64 { return stats.Summarize(r.groups[0].Sample(m)).Median }
	slices.SortStableFunc(ranked, func(a, b series) int { return cmp.Compare(median(b), median(a)) })
	return ranked
}

// mapPlotter draws the squares.
type mapPlotter struct {
	contests []contest
	colours  *palette
}

func (m *mapPlotter) Plot(canvas draw.Canvas, p *plot.Plot) {
	toX, toY := p.Transforms(&canvas)
	for _, c := range m.contests {
		x, y := float64(c.column), float64(c.row)
		square := vg.Rectangle{Min: vg.Point{X: toX(x - 0.5), Y: toY(y - 0.5)}, Max: vg.Point{X: toX(x + 0.5), Y: toY(y + 0.5)}}
		fillBox(canvas, m.fill(c), square)
		text := c.label()
		sty := textStyle(noteSize, black)
		sty.XAlign = draw.XCenter
		centre := vg.Point{X: toX(x), Y: toY(y)}
		if !c.claimed && c.empty == "" {
			m.clear(canvas, centre, sty.Width(text))
		}
		drawBeside(canvas, sty, centre, text)
	}
}

// clear makes room for text on a hatch.
func (m *mapPlotter) clear(canvas draw.Canvas, centre vg.Point, width vg.Length) {
	half := vg.Point{X: width/2 + 1, Y: noteSize/2 + 0.5}
	box := vg.Rectangle{Min: centre.Sub(half), Max: centre.Add(half)}
	canvas.SetColor(color.White)
	canvas.Fill(box.Path())
}

func (c contest) label() string {
	switch {
	case c.empty != "":
		return c.empty
	case c.alone:
		return "alone"
	case c.ratio >= 1000:
		return ">1000×"
	case c.ratio >= 10:
		return fmt.Sprintf("%.0f×", c.ratio)
	}
	return fmt.Sprintf("%.2f×", c.ratio)
}

// fill is the winner's colour, the stronger the more it wins by.
func (m *mapPlotter) fill(c contest) filling {
	if c.empty != "" {
		return filling{faintGrey, noHatch}
	}
	base := m.colours.of(c.winner).colour
	if c.alone {
		return filling{tint(base, 0.2), noHatch}
	}
	strength := min(1, stats.Effect(max(c.ratio, 1))/(deepestWin-1))
	f := filling{tint(base, 0.3+0.5*strength), noHatch}
	if !c.claimed {
		f.hatch = risingHatch
	}
	return f
}

// tint mixes a colour with white.
func tint(c color.RGBA, strength float64) color.RGBA {
	mix := func(v uint8) uint8 { return uint8(255 - strength*(255-float64(v))) }
	return color.RGBA{mix(c.R), mix(c.G), mix(c.B), 255}
}

func mapLegend(s *selection, contests []contest) []legendEntry {
	var entries []legendEntry
	for _, name := range s.names {
		if slices.ContainsFunc(contests, func(c contest) bool { return c.winner == name }) {
			entries = append(entries, legendEntry{name: name, fill: &filling{tint(s.colours.of(name).colour, 0.6), noHatch}})
		}
	}
	if slices.ContainsFunc(contests, func(c contest) bool { return c.winner != "" && !c.alone && !c.claimed }) {
		entries = append(entries, legendEntry{name: "not above the noise", fill: &filling{color.White, risingHatch}})
	}
	return entries
}

func mapTable(s *selection, columns []any, contests []contest) Table {
	t := Table{Header: []string{FactorName(s.spec.Panel), FactorName(s.spec.X), "Best", "Next best", "Best over next [95 %]", "Claimed"}}
	for _, c := range contests {
		row := []string{s.panels[c.row].title, LevelText(s.spec.X, columns[c.column])}
		switch {
		case c.empty != "":
			row = append(row, "no valid trial", "–", "–", "–")
		case c.alone:
			row = append(row, c.winner, "–", "–", "no: nothing to compare with")
		default:
			row = append(row, c.winner, c.runnerUp, ratioText(c.comparison), claimText(c))
		}
		t.Rows = append(t.Rows, row)
	}
	return t
}

func ratioText(c stats.Comparison) string {
	if c.Ratio == nil {
		return "–"
	}
	return fmt.Sprintf("%s [%s, %s]", ThreeDigits(c.Ratio.Value), ThreeDigits(c.Ratio.Low), ThreeDigits(c.Ratio.High))
}

func claimText(c contest) string {
	if c.claimed {
		return "yes"
	}
	return "no: " + c.comparison.Reason
}
