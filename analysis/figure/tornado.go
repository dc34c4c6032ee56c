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

// Move is how far something moves a result: a setting of the machine a path's, or the
// choice of the path itself that of the baseline.
type Move struct {
	// Setting is what was changed, "" for the path.
	Setting string
	// Path is whose result was moved.
	Path       string
	Comparison stats.Comparison
}

// told reports that a test found the move.
func (m Move) told() bool {
	v := m.Comparison.Verdict
	return v == stats.Better || v == stats.Worse
}

// effect is how far the result moved, as a relative difference.
func (m Move) effect() float64 {
	if m.Comparison.Ratio == nil {
		return 0
	}
	return stats.Effect(m.Comparison.Ratio.Value)
}

// tornado draws how far each setting of the x factor moves the result of each path,
// against the factor's first level, beside how far the path does. The furthest
// stand on top.
func tornado(s *selection) (*chart, error) {
	levels := stats.Levels(s.groups, s.experiment, s.spec.X)
	m := s.rateMetric()
	if len(levels) < 2 || !s.drawable(m) {
		return nil, ErrNoData
	}
	if s.spec.Series == "" || s.spec.Baseline == "" {
		return nil, fmt.Errorf("it needs series and baseline: the factor of the paths, and one of these")
	}
	settings, paths := s.moves(levels, m)
	if len(settings) == 0 {
		return nil, ErrNoData
	}
	rows := tornadoRows(settings, paths)
	c := &chart{metrics: []results.Metric{m}, moves: slices.Concat(paths, settings)}
	c.grid = grid{plots: [][]*plot.Plot{{s.tornadoPlot(rows)}}, rowHeight: vg.Length(len(rows))*tornadoPitch + barsAxis}
	for _, name := range s.names {
		c.legend = append(c.legend, legendEntry{name: name, fill: &filling{s.colours.of(name).colour, noHatch}})
	}
	c.caption = []string{fmt.Sprintf("Each bar: %s with a setting, over that with “%s”; on top, what the path does. Pale or none: not told from no effect.",
		m.Label, LevelText(s.spec.X, levels[0]))}
	c.findings = tornadoFindings(settings, paths, m)
	c.table = s.tornadoTable(slices.Concat(paths, settings), m)
	c.alt = fmt.Sprintf("Bars: how far each setting moves %s of %s, and how far the path does. The numbers are in the table.", m.Label, strings.Join(s.names, " and "))
	return c, nil
}

// moves compares all settings with the first, and the paths with each other at the
// first; all judged together.
func (s *selection) moves(levels []any, m results.Metric) (settings, paths []Move) {
	in := stats.NewInquiry(s.run)
	var all []Move
	var questions []stats.Question
	ask := func(setting string, pairs []stats.Pair) {
		for _, p := range pairs {
			if len(p.Baseline.Sample(m)) > 0 && len(p.Treatment.Sample(m)) > 0 {
				all = append(all, Move{Setting: setting, Path: s.seriesName(p.Treatment)})
				questions = append(questions, in.About(p, m))
			}
		}
	}
	asIs := results.Cell{s.spec.X: levels[0]}
	for _, path := range stats.Levels(s.groups, s.experiment, s.spec.Series) {
		if results.FormatLevel(path) != results.FormatLevel(s.spec.Baseline) && !results.IsFloor(path) {
			ask("", stats.PairUp(stats.Where(s.groups, asIs), results.Cell{s.spec.Series: s.spec.Baseline}, results.Cell{s.spec.Series: path}))
		}
	}
	for _, level := range levels[1:] {
		ask(LevelText(s.spec.X, level), stats.PairUp(s.groups, asIs, results.Cell{s.spec.X: level}))
	}
	for i, answer := range stats.Judge(questions) {
		if all[i].Comparison = answer; answer.Ratio == nil {
			continue
		}
		if all[i].Setting == "" {
			paths = append(paths, all[i])
		} else {
			settings = append(settings, all[i])
		}
	}
	return settings, paths
}

// tornadoRow is a setting with the moves of each path.
type tornadoRow struct {
	name  string
	moves []Move
}

const tornadoPitch = vg.Length(14)

func tornadoRows(settings, paths []Move) []tornadoRow {
	var rows []tornadoRow
	for _, m := range settings {
		i := slices.IndexFunc(rows, func(r tornadoRow) bool { return r.name == m.Setting })
		if i < 0 {
			i = len(rows)
			rows = append(rows, tornadoRow{name: m.Setting})
		}
		rows[i].moves = append(rows[i].moves, m)
	}
	furthest := func(r tornadoRow) (most float64) {
		for _, m := range r.moves {
			most = max(most, m.effect())
		}
		return most
	}
	slices.SortStableFunc(rows, func(a, b tornadoRow) int { return cmp.Compare(furthest(b), furthest(a)) })
	return slices.Concat([]tornadoRow{{name: "the path", moves: paths}}, rows)
}

// tornadoPlot draws the rows around the line of no effect.
func (s *selection) tornadoPlot(rows []tornadoRow) *plot.Plot {
	p := newPlot()
	x := tornadoScale(rows)
	x.apply(&p.X)
	p.Y.Min, p.Y.Max = -float64(len(rows))+.45, .55
	p.Y.Tick.Length = 0
	var ticks []plot.Tick
	for i, r := range rows {
		ticks = append(ticks, plot.Tick{Value: -float64(i), Label: printable(r.name)})
	}
	p.Y.Tick.Marker = plot.ConstantTicks(ticks)
	p.Add(verticalGrid(), &tornadoPlotter{rows, x, s.colours})
	return p
}

// tornadoScale is logarithmic, with 1 in it and room for numbers at both ends.
func tornadoScale(rows []tornadoRow) scale {
	low, high := .97, 1.03
	for _, r := range rows {
		for _, m := range r.moves {
			ratio := m.Comparison.Ratio
			low, high = min(low, ratio.Value), max(high, ratio.Value)
			low, high = min(low, max(ratio.Low, ratio.Value/1.5)), max(high, min(ratio.High, ratio.Value*1.5))
		}
	}
	from, to := math.Log(low), math.Log(high)
	room := (to - from) * .22
	s := scale{min: from, max: to + room, label: "Ratio to the result as it is", at: func(v float64) float64 { return min(max(math.Log(v), from), to+room) }}
	if low < .97 {
		s.min -= room
	}
	for _, v := range []float64{.01, .1, .2, .3, .5, .7, .8, .9, 1, 1.1, 1.2, 1.5, 2, 3, 5, 10, 100} {
		wide := to-from > math.Log(2.5)
		if narrow := v == .9 || v == .8 || v == 1.1 || v == 1.2; wide && narrow || math.Log(v) < from || math.Log(v) > to {
			continue
		}
		s.ticks = append(s.ticks, plot.Tick{Value: math.Log(v), Label: ratioLabel(v)})
	}
	s.thin(float64(singleColumn-2*axisAllows), func(text string) float64 { return float64(textStyle(tickSize, black).Width(text)) })
	return s
}

type tornadoPlotter struct {
	rows    []tornadoRow
	x       scale
	colours *palette
}

func (t *tornadoPlotter) Plot(canvas draw.Canvas, p *plot.Plot) {
	toX, toY := p.Transforms(&canvas)
	one := toX(0)
	for i, r := range t.rows {
		height := .8 / float64(len(r.moves))
		for k, m := range r.moves {
			top := -float64(i) + .4 - float64(k)*height
			t.paint(canvas, m, toX, one, toY(top), toY(top-height*.92))
		}
		if i == 0 && len(t.rows) > 1 {
			y := toY(-.5)
			canvas.StrokeLine2(draw.LineStyle{Color: grey, Width: .5, Dashes: []vg.Length{2, 2}}, canvas.Min.X, y, canvas.Max.X, y)
		}
	}
	canvas.StrokeLine2(draw.LineStyle{Color: black, Width: .8}, one, canvas.Min.Y, one, canvas.Max.Y)
}

// paint draws one bar from the line of no effect, its interval, and the number at its
// end. What could not be told from no effect is pale.
func (t *tornadoPlotter) paint(canvas draw.Canvas, m Move, toX func(float64) vg.Length, one, top, bottom vg.Length) {
	ratio, colour := *m.Comparison.Ratio, t.colours.of(m.Path).colour
	fill := filling{colour, noHatch}
	if !m.told() {
		fill = filling{paleGrey, noHatch}
	}
	at, low, high := toX(t.x.at(ratio.Value)), toX(t.x.at(ratio.Low)), toX(t.x.at(ratio.High))
	fillBox(canvas, fill, vg.Rectangle{Min: vg.Point{X: min(one, at), Y: bottom}, Max: vg.Point{X: max(one, at), Y: top}})
	middle := (top + bottom) / 2
	canvas.StrokeLine2(draw.LineStyle{Color: black, Width: .6}, low, middle, high, middle)
	words := textStyle(noteSize, black)
	text := timesText(ratio.Value)
	x := max(one, at, high) + 3
	if ratio.Value < 1 {
		x = min(one, at, low) - 3 - words.Width(text)
	}
	drawBeside(canvas, words, vg.Point{X: x, Y: middle}, text)
}

func timesText(v float64) string { return ThreeDigits(v) + "×" }

// tornadoFindings says which settings move a result more than the path does.
func tornadoFindings(settings, paths []Move, m results.Metric) []string {
	path := furthestTold(paths)
	var findings []string
	sorted := slices.SortedStableFunc(slices.Values(settings), func(a, b Move) int { return cmp.Compare(b.effect(), a.effect()) })
	for _, s := range sorted {
		if s.told() && s.effect() > path.effect() {
			findings = append(findings, fmt.Sprintf("%s moves %s of %s %s, more than %s.", s.Setting, m.Label, s.Path, s.by(), pathText(path)))
		}
	}
	if len(findings) > 0 {
		return findings
	}
	text := "No setting moves " + m.Label + " more than " + pathText(path)
	if most := furthestTold(sorted); most.told() {
		text += fmt.Sprintf("; the furthest is %s, %s for %s", most.Setting, most.by(), most.Path)
	}
	return []string{text + "."}
}

// furthestTold is the move with the largest effect that a test found, or none.
func furthestTold(moves []Move) (most Move) {
	for _, m := range moves {
		if m.told() && (!most.told() || m.effect() > most.effect()) {
			most = m
		}
	}
	return most
}

func pathText(path Move) string {
	if !path.told() {
		return "the path does, whose effect was not told from none"
	}
	return fmt.Sprintf("the path does (%s, %s)", path.Path, path.by())
}

func (m Move) by() string {
	r := *m.Comparison.Ratio
	return fmt.Sprintf("by %s× [%s, %s]", ThreeDigits(r.Value), ThreeDigits(r.Low), ThreeDigits(r.High))
}

func (s *selection) tornadoTable(moves []Move, m results.Metric) Table {
	t := Table{Header: []string{FactorName(s.spec.X), FactorName(s.spec.Series), "Moves " + m.Label + " by [95 %]", "Verdict", "n"}}
	for _, v := range moves {
		r := *v.Comparison.Ratio
		name := v.Setting
		if name == "" {
			name = "the path, against " + s.spec.Baseline
		}
		n := min(v.Comparison.Baseline.N, v.Comparison.Treatment.N)
		t.Rows = append(t.Rows, []string{name, v.Path, fmt.Sprintf("%s [%s, %s]", timesText(r.Value), ThreeDigits(r.Low), ThreeDigits(r.High)),
			string(v.Comparison.Verdict), fmt.Sprint(n)})
	}
	return t
}

// Outdone gives the settings that move a path's result more than the path itself does,
// of a figure of kind tornado: by path, the furthest first.
func (f *Figure) Outdone() map[string][]string {
	var paths, settings []Move
	for _, m := range f.Moves {
		if m.Setting == "" {
			paths = append(paths, m)
		} else {
			settings = append(settings, m)
		}
	}
	least := furthestTold(paths).effect()
	outdone := map[string][]string{}
	slices.SortStableFunc(settings, func(a, b Move) int { return cmp.Compare(b.effect(), a.effect()) })
	for _, m := range settings {
		if m.told() && m.effect() > least {
			outdone[m.Path] = append(outdone[m.Path], m.Setting)
		}
	}
	return outdone
}
