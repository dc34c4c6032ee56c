package figure

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"

	"waggle/results"
	"waggle/stats"
)

// floorRatio draws the share of the floor control's throughput that each path
// reaches: how near the limit the file system is.
func floorRatio(s *selection) (*chart, error) {
	axis, err := factorAxis(s)
	if err != nil {
		return nil, err
	}
	baseline := cmp.Or(s.spec.Baseline, results.Floor)
	c := &chart{metrics: []results.Metric{s.rateMetric()}}
	panels, table := s.shares(baseline, axis, c.metrics[0])
	if len(table.Rows) == 0 {
		return nil, fmt.Errorf("no cell has a %s=%s beside it to be compared with: %w", s.spec.Series, baseline, ErrNoData)
	}
	c.table = table
	if s.tooFewForLines() {
		err = c.shareDots(s, baseline, panels)
	} else {
		c.shareLines(s, baseline, axis, panels)
	}
	if err != nil {
		return nil, err
	}
	c.findings = shareFindings(s, baseline, panels)
	c.alt = fmt.Sprintf("Line chart of %s as a share of %s, by %s. The numbers are in the table.",
		c.metrics[0].Label, baseline, strings.ToLower(FactorName(s.spec.X)))
	return c, nil
}

// shareLines draws the shares as lines over the x factor.
func (c *chart) shareLines(s *selection, baseline string, axis horizontal, panels [][]curve) {
	c.grid = grid{rowHeight: linesHeight, plots: [][]*plot.Plot{sharePlots(s, baseline, axis, panels)}}
	foldPanels(c, s, axis)
	drawn := map[string]bool{}
	for _, k := range slices.Concat(panels...) {
		drawn[k.name] = true
	}
	c.legend = append(s.legend(drawn), legendEntry{name: baseline, style: limitStyle})
}

// shareDots draws a plot a place on the x axis, where there are too few for lines.
func (c *chart) shareDots(s *selection, baseline string, panels [][]curve) error {
	q := shareQuantity(baseline)
	levels := stats.Levels(s.groups, s.experiment, s.spec.X)
	var row []*plot.Plot
	var before []barRow
	for _, level := range levels {
		rows := s.shareRows(panels, LevelText(s.spec.X, level))
		p, err := dotPlot(rows, q, dotsWidth(len(levels)), 1)
		if errors.Is(err, ErrNoData) {
			continue
		}
		if err != nil {
			return err
		}
		p.Title.Text = printable(joinTitles(FactorLevel(s.spec.X, level)))
		if len(row) > 0 && sameRows(before, rows) {
			p.Y.Tick.Marker = plot.ConstantTicks(nil) // the names stand on the left
		}
		before = rows
		c.grid.rowHeight = max(c.grid.rowHeight, rowsHeight(len(rows)))
		row = append(row, p)
	}
	c.grid.plots = [][]*plot.Plot{row}
	c.legend = []legendEntry{{name: baseline, style: limitStyle}}
	return nil
}

// shareRows are the shares at one place, under the titles of the panels.
func (s *selection) shareRows(panels [][]curve, place string) []barRow {
	var rows []barRow
	for i, curves := range panels {
		if title := s.panels[i].title; title != "" {
			rows = append(rows, barRow{heading: title})
		}
		for _, k := range curves {
			for _, p := range k.points {
				if p.name == place {
					rows = append(rows, barRow{name: k.name, dot: &k.style, value: p.y, total: &stats.Summary{N: 1, Median: p.y, Low: p.low, High: p.high}})
				}
			}
		}
	}
	return rows
}

// shares compares every group with the baseline, and gives the curves of each
// panel and their numbers.
func (s *selection) shares(baseline string, axis horizontal, m results.Metric) (panels [][]curve, t Table) {
	t.Header = append(s.factorHeader(), "Share of "+baseline+" [95 %]", "n")
	panels = make([][]curve, len(s.panels))
	for i, p := range s.panels {
		for _, line := range p.series {
			k := curve{name: line.name, style: line.style}
			for _, g := range line.groups {
				x, placed := axis.at(g)
				ratio, ok := s.shareOf(baseline, g, m)
				if !placed || !ok {
					continue
				}
				k.points = append(k.points, point{x: x, name: LevelText(s.spec.X, g.Cell[s.spec.X]), y: ratio.Value, low: ratio.Low, high: ratio.High})
				t.Rows = append(t.Rows, append(s.factorCells(p, line, g),
					fmt.Sprintf("%s [%s, %s]", percent(ratio.Value), percent(ratio.Low), percent(ratio.High)), fmt.Sprint(len(g.Sample(m)))))
			}
			if len(k.points) > 0 {
				panels[i] = append(panels[i], k)
			}
		}
	}
	return panels, t
}

func shareQuantity(baseline string) quantity {
	return quantity{"Share of " + baseline, []unit{{"%", 0.01}}}
}

func sharePlots(s *selection, baseline string, axis horizontal, panels [][]curve) []*plot.Plot {
	highest := 1.0
	for _, k := range slices.Concat(panels...) {
		for _, p := range k.points {
			highest = max(highest, p.high)
		}
	}
	y := linearScale(shareQuantity(baseline), 0, highest)
	var row []*plot.Plot
	for i, curves := range panels {
		p := newPlot()
		p.Title.Text = printable(s.panels[i].title)
		axis.scale.apply(&p.X)
		y.apply(&p.Y)
		p.Add(gridLines(), limitLine{at: y.at(1)})
		addCurves(p, y, curves, axis.nominal)
		row = append(row, p)
	}
	return row
}

// shareFindings says for each curve how near the limit it comes at its nearest,
// and where it stays furthest.
func shareFindings(s *selection, baseline string, panels [][]curve) []string {
	text := func(p point) string {
		return fmt.Sprintf("%s [%s, %s] (%s)", percent(p.y), percent(p.low), percent(p.high), p.name)
	}
	byShare := func(a, b point) int { return cmp.Compare(a.y, b.y) }
	limit := baseline
	if baseline == results.Floor {
		limit = "the floor"
	}
	rough := ""
	if n, _ := s.repetitions(s.rateMetric()); n < stats.EnoughRepetitions {
		rough = fmt.Sprintf(" (a rough figure: %d repetitions)", n)
	}
	var findings []string
	for i, curves := range panels {
		for _, k := range curves {
			where := ""
			if title := s.panels[i].title; title != "" {
				where = " (" + title + ")"
			}
			low, high := slices.MinFunc(k.points, byShare), slices.MaxFunc(k.points, byShare)
			finding := fmt.Sprintf("%s%s reaches %s of %s", k.name, where, text(high), limit)
			if low.x != high.x {
				finding = fmt.Sprintf("%s%s reaches between %s and %s of %s", k.name, where, text(low), text(high), limit)
			}
			findings = append(findings, finding+rough+".")
		}
	}
	return findings
}

// shareOf compares a group with the one that has the baseline's level and is
// equal otherwise.
func (s *selection) shareOf(baseline string, g stats.Group, m results.Metric) (stats.Interval, bool) {
	level, ok := g.Cell[s.spec.Series]
	if !ok || level == baseline {
		return stats.Interval{}, false
	}
	pairs := stats.PairUp(s.groups, results.Cell{s.spec.Series: baseline}, results.Cell{s.spec.Series: level})
	for _, pair := range pairs {
		if pair.Treatment.Cell.String() == g.Cell.String() && pair.Treatment.Source == g.Source {
			answer := stats.Judge([]stats.Question{stats.NewInquiry(s.run).About(pair, m)})[0]
			if answer.Ratio != nil {
				return *answer.Ratio, true
			}
		}
	}
	return stats.Interval{}, false
}

func percent(ratio float64) string { return ThreeDigits(100*ratio) + " %" }

var limitStyle = style{colour: grey, dashes: []vg.Length{4, 2}, marker: noMarker{}}

// limitLine marks a value across the whole plot.
type limitLine struct {
	at      float64
	upright bool
}

func (l limitLine) Plot(canvas draw.Canvas, p *plot.Plot) {
	toX, toY := p.Transforms(&canvas)
	if l.upright {
		canvas.StrokeLine2(limitStyle.line(), toX(l.at), canvas.Min.Y, toX(l.at), canvas.Max.Y)
		return
	}
	canvas.StrokeLine2(limitStyle.line(), canvas.Min.X, toY(l.at), canvas.Max.X, toY(l.at))
}
