package figure

import (
	"fmt"
	"math"
	"slices"
	"strconv"

	"github.com/HdrHistogram/hdrhistogram-go"
	"gonum.org/v1/plot"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"

	"waggle/results"
	"waggle/stats"
)

// marked are the percentiles that get a tick, a marker, an error bar and a
// column of the table.
var marked = []float64{50, 90, 99, 99.9, 99.99, 99.999}

// fewestBeyond is how many latencies have to lie beyond a percentile for it to
// be shown: fewer would draw single events as if they were a distribution.
const fewestBeyond = 5

// histogramMetric is measured where there is a histogram. Its value is the
// median, which is what noise is judged by.
var histogramMetric = results.Metric{
	Name: results.LatencyP50, Unit: "s", Label: "latency",
	Of: func(r *results.Record) (float64, bool) {
		if r.LatencyHistogram == "" || r.Latency == nil {
			return 0, false
		}
		return r.Latency.P50, true
	},
}

// spread is the distribution of one series' latencies.
type spread struct {
	name  string
	style style
	cells []string // of the table, before the numbers
	// all holds the latencies of all repetitions, in nanoseconds.
	all         *hdrhistogram.Histogram
	repetitions []*hdrhistogram.PackedHistogram
}

// distribution draws latency by percentile, from the histograms of all valid
// repetitions together; error bars are over the repetitions.
func distribution(s *selection) (*chart, error) {
	panels, err := s.spreads()
	if err != nil {
		return nil, err
	}
	var latencies []float64
	deepest := 0.0
	drawn := map[string]bool{}
	for _, d := range slices.Concat(panels...) {
		drawn[d.name] = true
		latencies = append(latencies, d.at(0))
		for _, percentile := range append(d.shown(), percentileAt(d.deepest())) {
			sum := d.over(percentile)
			latencies = append(latencies, d.at(percentile), sum.Low, sum.High)
		}
		deepest = max(deepest, d.deepest())
	}
	if len(latencies) == 0 {
		return nil, ErrNoData
	}
	c := &chart{metrics: []results.Metric{histogramMetric}, grid: grid{rowHeight: linesHeight}}
	x := percentileScale(deepest)
	y := logScale(quantity{"Latency", quantityOf(histogramMetric).units}, latencies)
	var row []*plot.Plot
	for i, spreads := range panels {
		p := newPlot()
		p.Title.Text = printable(s.panels[i].title)
		x.apply(&p.X)
		y.apply(&p.Y)
		p.Add(gridLines())
		for _, d := range spreads {
			p.Add(&spreadPlotter{d, y})
		}
		row = append(row, p)
	}
	c.grid.plots = [][]*plot.Plot{row}
	foldPanels(c, s, horizontal{scale: x})
	c.legend = s.legend(drawn)
	c.table = spreadTable(s, panels)
	c.alt = altText(s, "Latency by percentile", c.metrics)
	return c, nil
}

// spreads reads the histograms of each panel's series.
func (s *selection) spreads() ([][]spread, error) {
	panels := make([][]spread, len(s.panels))
	for i, p := range s.panels {
		for _, line := range p.series {
			for _, g := range line.groups {
				d, err := readSpread(g)
				if err != nil {
					return nil, err
				}
				d.name, d.style, d.cells = line.name, line.style, s.factorCells(p, line, g)
				if d.all.TotalCount() > 0 {
					panels[i] = append(panels[i], d)
				}
			}
		}
	}
	return panels, nil
}

func readSpread(g stats.Group) (spread, error) {
	const hour = 3600e9 // nanoseconds: no operation is waited for as long
	d := spread{all: hdrhistogram.New(1, hour, 3)}
	for _, r := range g.Records {
		if r.LatencyHistogram == "" {
			continue
		}
		h, err := results.DecodeHistogram(r.LatencyHistogram)
		if err != nil {
			return d, fmt.Errorf("trial %d: %w", r.Trial, err)
		}
		h.MergeInto(d.all)
		d.repetitions = append(d.repetitions, h)
	}
	return d, nil
}

// at gives the latency at a percentile in seconds.
func (d spread) at(percentile float64) float64 {
	return float64(d.all.ValueAtPercentile(percentile)) / 1e9
}

// over gives the latency at a percentile with its interval over repetitions.
func (d spread) over(percentile float64) stats.Summary {
	var sample stats.Sample
	for i, h := range d.repetitions {
		sample = append(sample, stats.Observation{Repetition: i, Value: float64(h.ValueAtPercentile(percentile)) / 1e9})
	}
	return stats.Summarize(sample)
}

// deepest is the place on the axis of the highest percentile with enough
// latencies beyond it.
func (d spread) deepest() float64 {
	return max(0, math.Log10(float64(d.all.TotalCount())/fewestBeyond))
}

// shown are the marked percentiles that have enough latencies beyond them.
func (d spread) shown() []float64 {
	n := 0
	for n < len(marked) && percentilePlace(marked[n]) <= d.deepest() {
		n++
	}
	return slices.Clone(marked[:n])
}

// The axis gives every further nine the same room.
func percentilePlace(percentile float64) float64 { return -math.Log10(1 - percentile/100) }
func percentileAt(place float64) float64         { return 100 * (1 - math.Pow(10, -place)) }

func percentileScale(deepest float64) scale {
	s := scale{at: percentilePlace, min: 0, max: max(deepest, percentilePlace(90)) * 1.03, label: "Percentile"}
	for _, p := range marked {
		if percentilePlace(p) <= s.max {
			s.ticks = append(s.ticks, plot.Tick{Value: percentilePlace(p), Label: strconv.FormatFloat(p, 'f', -1, 64)})
		}
	}
	return s
}

// spreadPlotter draws a distribution.
type spreadPlotter struct {
	spread
	y scale
}

func (d *spreadPlotter) Plot(canvas draw.Canvas, p *plot.Plot) {
	toX, toY := p.Transforms(&canvas)
	const step = 0.02 // of a nine
	var line []vg.Point
	for place := 0.0; place <= d.deepest(); place += step {
		line = append(line, vg.Point{X: toX(place), Y: toY(d.y.at(d.at(percentileAt(place))))})
	}
	canvas.StrokeLines(d.style.line(), line)
	for _, percentile := range d.shown() {
		sum := d.over(percentile)
		at := vg.Point{X: toX(percentilePlace(percentile)), Y: toY(d.y.at(d.at(percentile)))}
		drawErrorBar(canvas, d.style, at.X, toY(d.y.at(sum.Low)), toY(d.y.at(sum.High)))
		canvas.DrawGlyphNoClip(d.style.glyph(), at)
	}
}

func spreadTable(s *selection, panels [][]spread) Table {
	t := Table{Header: append(s.factorHeader(), "Operations")}
	for _, percentile := range marked {
		t.Header = append(t.Header, "p"+strconv.FormatFloat(percentile, 'f', -1, 64))
	}
	t.Header = append(t.Header, "n")
	q := quantityOf(histogramMetric)
	for _, d := range slices.Concat(panels...) {
		row := append(slices.Clone(d.cells), fmt.Sprint(d.all.TotalCount()))
		for _, percentile := range marked {
			text := "–"
			if slices.Contains(d.shown(), percentile) {
				text = q.text(d.at(percentile))
			}
			row = append(row, text)
		}
		t.Rows = append(t.Rows, append(row, fmt.Sprint(len(d.repetitions))))
	}
	return t
}
