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

// A trial's average hides when it stood still. The time lines of an experiment show
// the trials that did so the longest, and the table says how often each cell did.

// mostTimelines is the most trials that are drawn of an experiment.
const mostTimelines = 8

// Stalls is how often the trials of an experiment stood still.
type Stalls struct {
	Experiment string
	// Trials have a time line; Stalled of them stood still at least once.
	Trials, Stalled, Stalls int
	// Longest is the longest stall, in seconds, and Cell where it was.
	Longest float64
	Cell    string
}

// Text says it in a sentence.
func (s Stalls) Text() string {
	if s.Stalled == 0 {
		return fmt.Sprintf("None of %d trials stalled.", s.Trials)
	}
	stalls := "1 stall"
	if s.Stalls > 1 {
		stalls = fmt.Sprintf("%d stalls", s.Stalls)
	}
	return fmt.Sprintf("%d of %d trials stalled (%s of at least %s and %d times the median latency), for up to %s (%s).", s.Stalled, s.Trials, stalls,
		timeText(results.StallLatency.Seconds()), results.StallFactor, timeText(s.Longest), s.Cell)
}

func timeText(seconds float64) string {
	return quantityOf(metricNamed(results.LatencyMax)).text(seconds)
}

// timed is a group's trial with a time line.
type timed struct {
	group  stats.Group
	name   string
	record *results.Record
	stalls []results.Stall
}

func (t timed) stalled() (seconds float64) {
	for _, s := range t.stalls {
		seconds += s.Seconds()
	}
	return seconds
}

// timedTrials are an experiment's valid trials that have a time line.
func timedTrials(run *results.Run, experiment results.PlannedExperiment) []timed {
	var list []timed
	groups := stats.Main(stats.GroupRecords(run, experiment.Name))
	varying := slices.DeleteFunc(slices.Clone(experiment.Factors), func(f results.Factor) bool { return len(stats.Levels(groups, experiment, f.Name)) < 2 })
	for _, g := range groups {
		var parts []string
		for _, f := range varying {
			if level, ok := g.Cell[f.Name]; ok {
				parts = append(parts, seriesLevel(f.Name, level))
			}
		}
		for i := range g.Records {
			if r := &g.Records[i]; r.Timeline != nil {
				list = append(list, timed{g, cmp.Or(strings.Join(parts, ", "), experiment.Name), r, r.Stalls()})
			}
		}
	}
	return list
}

// CountStalls counts the stalls of each experiment that has time lines.
func CountStalls(run *results.Run) []Stalls {
	var list []Stalls
	for _, e := range run.Plan.Experiments {
		trials := timedTrials(run, e)
		if len(trials) == 0 {
			continue
		}
		list = append(list, countStalls(e.Name, trials))
	}
	return list
}

func countStalls(experiment string, trials []timed) Stalls {
	s := Stalls{Experiment: experiment, Trials: len(trials)}
	for _, t := range trials {
		if len(t.stalls) > 0 {
			s.Stalled++
		}
		for _, stall := range t.stalls {
			s.Stalls++
			if stall.Seconds() > s.Longest {
				s.Longest, s.Cell = stall.Seconds(), t.name
			}
		}
	}
	return s
}

// DrawTimelines draws, for each experiment that has them, the time lines of the trials
// that stood still the longest; without any stall, of the first trials.
func DrawTimelines(run *results.Run) ([]*Figure, error) {
	var figures []*Figure
	for _, e := range run.Plan.Experiments {
		trials := timedTrials(run, e)
		if len(trials) > 0 {
			figures = append(figures, drawTimelines(e, trials))
		}
	}
	if len(figures) == 0 {
		return nil, fmt.Errorf("draw time lines: no trial of the run has one: %w", ErrNoData)
	}
	return figures, nil
}

func drawTimelines(e results.PlannedExperiment, trials []timed) *Figure {
	shown := slices.SortedStableFunc(slices.Values(trials), func(a, b timed) int { return cmp.Compare(b.stalled(), a.stalled()) })
	shown = shown[:min(len(shown), mostTimelines)]
	const columns = 2
	c := &chart{grid: grid{rowHeight: 1.05 * vg.Inch, wide: true}}
	for row := range slices.Chunk(shown, columns) {
		plots := make([]*plot.Plot, columns)
		for i, t := range row {
			plots[i] = timelinePlot(t)
		}
		c.grid.plots = append(c.grid.plots, plots)
	}
	for i, row := range c.grid.plots {
		if i < len(c.grid.plots)-1 {
			for _, p := range row {
				if p != nil {
					p.X.Label.Text = ""
				}
			}
		}
		if row[1] != nil {
			row[1].Y.Label.Text = ""
		}
	}
	stall := filling{stallColour, noHatch}
	c.legend = []legendEntry{{name: "operations per slice", style: style{colour: blue, marker: noMarker{}}}, {name: "stall", fill: &stall}}
	counted := countStalls(e.Name, trials)
	which := "trials that stood still the longest"
	if counted.Stalled == 0 {
		which = "first trials"
	}
	c.caption = []string{counted.Text(), fmt.Sprintf("Shown: the %d %s.", len(shown), which)}
	f := &Figure{
		Name: slug(e.Name + "-timeline"), Experiment: e, Spec: results.FigureSpec{Kind: "timeline", Title: "When trials of " + e.Name + " stood still"},
		Metrics: []results.Metric{metricNamed(results.LatencyMax)}, Findings: []string{counted.Text()}, Table: stallTable(trials),
		Alt: "Operations by time within trials, with stalls marked. " + counted.Text(),
	}
	f.width, f.height, f.paint = lay(c, c.caption)
	return f
}

var stallColour = color.RGBA{R: 0xF2, G: 0xB3, B: 0x8A, A: 255} // pale vermillion: the line is seen over it

func timelinePlot(t timed) *plot.Plot {
	line := t.record.Timeline
	p := newPlot()
	p.Title.Text = limited(fmt.Sprintf("%s, repetition %d", t.name, t.record.Repetition+1), 52)
	length := float64(len(line.Operations)) * line.SliceSeconds
	x := linearScale(quantity{"Time", []unit{{"ms", 1e-3}, {"s", 1}}}, 0, length)
	x.max = x.at(length)
	x.ticks = roundTicks(0, x.max)
	most := slices.Max(line.Operations)
	y := linearScale(quantity{"Operations", []unit{{"", 1}}}, 0, float64(max(1, most)))
	x.apply(&p.X)
	y.apply(&p.Y)
	p.Add(gridLines(), &timelinePlotter{t, x, y})
	return p
}

// timelinePlotter draws a step for each slice, over the stalls.
type timelinePlotter struct {
	timed
	x, y scale
}

func (t *timelinePlotter) Plot(canvas draw.Canvas, p *plot.Plot) {
	toX, toY := p.Transforms(&canvas)
	for _, s := range t.stalls {
		from, to := toX(t.x.at(s.From)), toX(t.x.at(s.To))
		canvas.SetColor(stallColour)
		canvas.Fill(vg.Rectangle{Min: vg.Point{X: from, Y: canvas.Min.Y}, Max: vg.Point{X: max(to, from+1), Y: canvas.Max.Y}}.Path())
	}
	var steps []vg.Point
	for i, n := range t.record.Timeline.Operations {
		slice := t.record.Timeline.SliceSeconds
		height := toY(t.y.at(float64(n)))
		steps = append(steps, vg.Point{X: toX(t.x.at(float64(i) * slice)), Y: height}, vg.Point{X: toX(t.x.at(float64(i+1) * slice)), Y: height})
	}
	canvas.StrokeLines(draw.LineStyle{Color: blue, Width: .8}, steps)
}

func stallTable(trials []timed) Table {
	t := Table{Header: []string{"Cell", "Trials", "Stalled", "Stalls", "Longest", "Share of the time"}}
	for len(trials) > 0 {
		n := slices.IndexFunc(trials, func(x timed) bool { return x.name != trials[0].name })
		if n < 0 {
			n = len(trials)
		}
		s := countStalls("", trials[:n])
		stood, all := 0.0, 0.0
		for _, x := range trials[:n] {
			stood += x.stalled()
			all += float64(len(x.record.Timeline.Operations)) * x.record.Timeline.SliceSeconds
		}
		longest := "–"
		if s.Longest > 0 {
			longest = timeText(s.Longest)
		}
		t.Rows = append(t.Rows, []string{trials[0].name, fmt.Sprint(s.Trials), fmt.Sprint(s.Stalled), fmt.Sprint(s.Stalls), longest, percent(stood / all)})
		trials = trials[n:]
	}
	return t
}
