package calibrate

import (
	"fmt"
	"path/filepath"
	"slices"

	"waggle/analysis/figure"
	"waggle/results/calibration"
)

// Draw writes the picture of what each path's cost is made of into a directory.
func Draw(dir string, c *calibration.Calibration) error {
	parts := Parts(c)
	slices.SortStableFunc(parts, func(a, b Part) int { return int(a.SizeBytes - b.SizeBytes) })
	var bars []figure.StackedBar
	size := -1.0
	for _, p := range parts {
		bar := figure.StackedBar{Name: p.Label(), Mark: p.All * micro, Value: p.All * micro,
			Parts: []float64{p.Copies * micro, p.Calls * micro, p.Switches * micro, p.Packets * micro, p.Other * micro}}
		if p.SizeBytes != size {
			size = p.SizeBytes
			bar.Heading = figure.Capital(figure.FactorLevel("size_bytes", size))
		}
		bars = append(bars, bar)
	}
	// Small operations would not be seen beside large ones.
	for name, keep := range map[string]func(Part) bool{
		"path-costs-small": func(p Part) bool { return p.All < small },
		"path-costs-large": func(p Part) bool { return p.All >= small },
	} {
		var chosen []figure.StackedBar
		heading := ""
		for i, p := range parts {
			if bars[i].Heading != "" {
				heading = bars[i].Heading
			}
			if !keep(p) {
				continue
			}
			bar := bars[i]
			bar.Heading, heading = heading, ""
			chosen = append(chosen, bar)
		}
		if len(chosen) == 0 {
			continue
		}
		f, err := figure.Stacked(name, "Processor time of an operation (µs)", []string{"copies", "system calls", "switches", "TCP and packets", "checksums, pages, rest"}, chosen,
			fmt.Sprintf("Bars: what the fitted costs explain; +: what was measured. Median error %s.", percent(c.MedianErrorProcessor)))
		if err != nil {
			return fmt.Errorf("draw what paths cost: %w", err)
		}
		if err := figure.WriteAll(filepath.Join(dir, PicturesDir), []*figure.Figure{f}); err != nil {
			return err
		}
	}
	return nil
}

// small is up to how many seconds of an operation are drawn together.
const small = 200e-6

// Draw writes the picture of how far off predictions are into a directory.
func (t *Table) Draw(dir string) error {
	var bars []figure.StackedBar
	kind := ""
	for _, r := range t.Rows() {
		bar := figure.StackedBar{Name: r.Metric, Parts: []float64{100 * r.Error}}
		if r.Kind != kind {
			kind = r.Kind
			bar.Heading = "held out: " + kind
		}
		if !r.Met {
			bar.Name += " (missed)"
		}
		bar.Mark, bar.Value = 100*r.Aim, 100*r.Error
		bars = append(bars, bar)
	}
	f, err := figure.Stacked("validation-errors", "Median error on cells that the fit never saw (%)", []string{"error"}, bars, "Bars and numbers: the median error; +: the aim. A table beside it has null models and noise.")
	if err != nil {
		return fmt.Errorf("draw errors of predictions: %w", err)
	}
	return figure.WriteAll(filepath.Join(dir, PicturesDir), []*figure.Figure{f})
}
