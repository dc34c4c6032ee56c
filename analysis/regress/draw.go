package regress

import (
	"bytes"
	"fmt"
	"image/color"
	"os"
	"path/filepath"
	"slices"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"

	"waggle/results"
	"waggle/stats"
)

const (
	pictureWidth = 7 * vg.Inch
	panelHeight  = 1.4 * vg.Inch
	// panelsPerPicture keeps a picture on one page.
	panelsPerPicture = 6
	ticksPerPanel    = 8
	commitLetters    = 8
)

// Blue and vermillion of Okabe and Ito's palette, which people with any kind of
// colour vision tell apart. Changes are dashed as well.
var (
	levelColour  = color.RGBA{G: 0x72, B: 0xB2, A: 0xFF}
	changeColour = color.RGBA{R: 0xD5, G: 0x5E, A: 0xFF}
)

// Draw writes the trends as SVG files into a directory, one panel a cell, and
// returns the files' names. Equal histories give equal bytes.
func (h History) Draw(dir string) ([]string, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("draw trends: %w", err)
	}
	var names []string
	for _, family := range families(h.Trends) {
		pages := slices.Collect(slices.Chunk(family, panelsPerPicture))
		for i, page := range pages {
			name := fmt.Sprintf("trend-%s-%s.svg", family[0].Experiment, family[0].Metric)
			if len(pages) > 1 {
				name = fmt.Sprintf("trend-%s-%s-%d.svg", family[0].Experiment, family[0].Metric, i+1)
			}
			picture, err := drawPage(page)
			if err != nil {
				return names, fmt.Errorf("draw %s: %w", name, err)
			}
			if err := results.WriteFile(filepath.Join(dir, name), picture); err != nil {
				return names, fmt.Errorf("draw trends: %w", err)
			}
			names = append(names, name)
		}
	}
	return names, nil
}

// families puts together the trends of one metric of one experiment.
func families(trends []Trend) [][]Trend {
	type key struct{ experiment, metric string }
	var order []key
	byKey := map[key][]Trend{}
	for _, t := range trends {
		k := key{t.Experiment, t.Metric}
		if byKey[k] == nil {
			order = append(order, k)
		}
		byKey[k] = append(byKey[k], t)
	}
	list := make([][]Trend, len(order))
	for i, k := range order {
		list[i] = byKey[k]
	}
	return list
}

func drawPage(page []Trend) ([]byte, error) {
	panels := make([][]*plot.Plot, len(page))
	for i, t := range page {
		panel, err := t.panel()
		if err != nil {
			return nil, err
		}
		panels[i] = []*plot.Plot{panel}
	}
	canvas := vgsvg.New(pictureWidth, panelHeight*vg.Length(len(page)))
	tiles := draw.Tiles{Rows: len(page), Cols: 1, PadTop: 4, PadLeft: 4, PadY: 6, PadRight: 6}
	for i, row := range plot.Align(panels, tiles, draw.New(canvas)) {
		panels[i][0].Draw(row[0])
	}
	var svg bytes.Buffer
	if _, err := canvas.WriteTo(&svg); err != nil {
		return nil, err
	}
	return svg.Bytes(), nil
}

// panel draws one trend: medians with their intervals, the level between
// changes, and a dashed line at each change.
func (t Trend) panel() (*plot.Plot, error) {
	m, err := results.MetricNamed(t.Metric)
	if err != nil {
		return nil, err
	}
	p := plot.New()
	p.Title.Text = t.Cell
	p.Title.Padding = 3
	p.X.Tick.Marker = plot.ConstantTicks(t.ticks())
	p.Y.Tick.Marker = withUnits(m)
	for _, style := range []*draw.TextStyle{&p.Title.TextStyle, &p.X.Tick.Label, &p.Y.Tick.Label} {
		style.Font.Variant = "Sans"
		style.Font.Size = 7
	}
	for _, add := range []func(*plot.Plot) error{t.addPoints, t.addLevels, t.addChanges} {
		if err := add(p); err != nil {
			return nil, err
		}
	}
	p.Y.Min = min(0, p.Y.Min)
	if p.Y.Max <= p.Y.Min {
		p.Y.Max = 1 // nothing but zeros
	}
	p.X.Min, p.X.Max = -0.5, float64(len(t.Points))-0.5
	return p, nil
}

// ticks names commits along the axis, as many as can be read.
func (t Trend) ticks() []plot.Tick {
	every := max(1, (len(t.Points)+ticksPerPanel-1)/ticksPerPanel)
	var ticks []plot.Tick
	for i, p := range t.Points {
		tick := plot.Tick{Value: float64(i)}
		if i%every == 0 {
			tick.Label = p.Commit[:min(commitLetters, len(p.Commit))]
		}
		ticks = append(ticks, tick)
	}
	return ticks
}

// withUnits labels the ticks of a vertical axis with the metric's unit.
func withUnits(m results.Metric) plot.Ticker {
	return plot.TickerFunc(func(low, high float64) []plot.Tick {
		ticks := plot.DefaultTicks{}.Ticks(low, high)
		for i := range ticks {
			if !ticks[i].IsMinor() {
				ticks[i].Label = m.Format(ticks[i].Value)
			}
		}
		return ticks
	})
}

// medians are a trend's points with the bounds of their intervals.
type medians []Point

func (m medians) Len() int                { return len(m) }
func (m medians) XY(i int) (x, y float64) { return float64(i), m[i].Median }
func (m medians) YError(i int) (low, high float64) {
	return m[i].Median - m[i].Low, m[i].High - m[i].Median
}

func (t Trend) addPoints(p *plot.Plot) error {
	bars, err := plotter.NewYErrorBars(medians(t.Points))
	if err != nil {
		return err
	}
	bars.Width = 0.5
	dots, err := plotter.NewScatter(medians(t.Points))
	if err != nil {
		return err
	}
	dots.GlyphStyle = draw.GlyphStyle{Color: color.Black, Radius: 1.5, Shape: draw.CircleGlyph{}}
	p.Add(bars, dots)
	return nil
}

func (t Trend) addLevels(p *plot.Plot) error {
	from := 0
	for i := range len(t.Changes) + 1 {
		to := len(t.Points)
		if i < len(t.Changes) {
			to = t.Changes[i].At
		}
		level := make([]float64, to-from)
		for k := range level {
			level[k] = t.Points[from+k].Median
		}
		y := stats.Median(level)
		line, err := plotter.NewLine(plotter.XYs{{X: float64(from) - 0.5, Y: y}, {X: float64(to) - 0.5, Y: y}})
		if err != nil {
			return err
		}
		line.LineStyle = draw.LineStyle{Color: levelColour, Width: 1.2}
		p.Add(line)
		from = to
	}
	return nil
}

func (t Trend) addChanges(p *plot.Plot) error {
	for _, c := range t.Changes {
		x := float64(c.At) - 0.5
		line, err := plotter.NewLine(plotter.XYs{{X: x, Y: min(0, p.Y.Min)}, {X: x, Y: p.Y.Max}})
		if err != nil {
			return err
		}
		line.LineStyle = draw.LineStyle{Color: changeColour, Width: 1, Dashes: []vg.Length{3, 2}}
		p.Add(line)
	}
	return nil
}
