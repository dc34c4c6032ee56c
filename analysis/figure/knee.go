package figure

import (
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"

	"waggle/results"
	"waggle/stats"
)

// kneeStyle explains the marks of knees, which have the colour of their curve.
var kneeStyle = style{colour: black, marker: draw.PyramidGlyph{}, dashes: []vg.Length{1, 1}}

// knee is the highest load that a curve sustains.
type knee struct {
	name  string
	style style
	load  stats.Summary
}

// searched are the knees that the trials of a panel's series searched for.
func (s *selection) searched(p panel) []knee {
	var knees []knee
	m := metricNamed(results.SustainedRate)
	for _, line := range p.series {
		for _, g := range line.groups {
			if sum := stats.Summarize(g.Sample(m)); sum.N > 0 {
				knees = append(knees, knee{s.curveName(g), line.style, sum})
			}
		}
	}
	return knees
}

func (s *selection) searchedText() string {
	var each []string
	q := quantityOf(offeredLoad)
	for _, p := range s.panels {
		for _, k := range s.searched(p) {
			each = append(each, k.name+" "+q.interval(k.load.Median, k.load.Low, k.load.High))
		}
	}
	return strings.Join(each, ", ")
}

// kneeMarks draws knees above the curves: each in a row of its own, with its
// interval, and a thin line down to the axis.
type kneeMarks struct {
	knees []knee
	x     scale
}

const kneeRow = vg.Length(6)

// addKnees makes room at the top of a panel's plot and marks the knees there.
func (s *selection) addKnees(p *plot.Plot, panel int, axis horizontal) {
	knees := s.searched(s.panels[panel])
	share := float64(kneeRow * vg.Length(len(knees)) / linesHeight)
	p.Y.Max += (p.Y.Max - p.Y.Min) * share / (1 - share)
	p.Add(&kneeMarks{knees, axis.scale})
}

func (k *kneeMarks) Plot(canvas draw.Canvas, p *plot.Plot) {
	toX, _ := p.Transforms(&canvas)
	for i, mark := range k.knees {
		y := canvas.Max.Y - kneeRow*(vg.Length(i)+0.5)
		low, at, high := toX(k.x.at(mark.load.Low)), toX(k.x.at(mark.load.Median)), toX(k.x.at(mark.load.High))
		canvas.StrokeLine2(draw.LineStyle{Color: mark.style.colour, Width: 0.5, Dashes: kneeStyle.dashes}, at, canvas.Min.Y, at, y)
		bar := draw.LineStyle{Color: mark.style.colour, Width: 0.9}
		if high > low {
			canvas.StrokeLine2(bar, low, y, high, y)
			canvas.StrokeLine2(bar, low, y-1.5, low, y+1.5)
			canvas.StrokeLine2(bar, high, y-1.5, high, y+1.5)
		}
		canvas.DrawGlyphNoClip(draw.GlyphStyle{Color: mark.style.colour, Radius: 2.5, Shape: kneeStyle.marker}, vg.Point{X: at, Y: y})
	}
}

// knees finds for each curve the highest load that it sustained, and below
// which it sustained every load: one lucky trial beyond the knee isn't it. A
// curve that isn't saturated sustained all that was offered.
func (s *selection) knees() (knees map[string]float64, saturated map[string]bool) {
	knees, saturated = map[string]float64{}, map[string]bool{}
	failed := map[string]float64{}
	for _, g := range s.groups {
		offered, ok := offeredBy(g)
		if !ok || sustains(g, offered) {
			continue
		}
		if lowest, ok := failed[s.curveName(g)]; !ok || offered < lowest {
			failed[s.curveName(g)] = offered
			saturated[s.curveName(g)] = true
		}
	}
	for _, g := range s.groups {
		name := s.curveName(g)
		offered, ok := offeredBy(g)
		if ok && (!saturated[name] || offered < failed[name]) {
			knees[name] = max(knees[name], offered)
		}
	}
	return knees, saturated
}

// sustains reports whether a group's trials sustained the load, by their
// medians.
func sustains(g stats.Group, offered float64) bool {
	achieved := stats.Summarize(g.Sample(metricNamed(results.OperationRate)))
	p99 := stats.Summarize(g.Sample(metricNamed(results.LatencyP99)))
	return achieved.N > 0 && results.Sustained(offered, achieved.Median, p99.Median)
}

func (s *selection) kneeText(knees map[string]float64, saturated map[string]bool) string {
	var each []string
	for _, p := range s.panels {
		for _, line := range p.series {
			name := s.curveName(line.groups[0])
			text := "none"
			if knee, ok := knees[name]; ok {
				text = quantityOf(offeredLoad).tickText(knee)
				if !saturated[name] {
					text = "at least " + text
				}
			}
			each = append(each, name+" "+text)
		}
	}
	return strings.Join(each, ", ")
}
