package figure

import (
	"gonum.org/v1/plot"

	"waggle/stats"
)

// StackedBar is a bar of a stacked chart, under a heading where one begins.
type StackedBar struct {
	Heading, Name string
	// Parts are the bar's, in the order of the chart's names.
	Parts []float64
	// Mark is where a marker stands, Value what is written behind the bar.
	Mark, Value float64
}

// fillings tell the parts of stacked bars apart, without colours, too.
var fillings = []filling{{skyBlue, noHatch}, {orange, risingHatch}, {green, fallingHatch}, {yellow, crossHatch}, {faintGrey, levelHatch}}

// Stacked draws bars that are made of parts, for numbers that come from no
// experiment's records, such as a calibration's. Label names the axis and unit.
func Stacked(name, label string, parts []string, bars []StackedBar, notes ...string) (*Figure, error) {
	var rows []barRow
	for _, bar := range bars {
		if bar.Heading != "" {
			rows = append(rows, barRow{heading: bar.Heading})
		}
		row := barRow{name: bar.Name, value: bar.Value, total: &stats.Summary{N: 1, Median: bar.Mark, Low: bar.Mark, High: bar.Mark}}
		for i, v := range bar.Parts {
			row.segments = append(row.segments, segment{fillings[i%len(fillings)], v})
		}
		rows = append(rows, row)
	}
	plots, height, err := barPlots([][]barRow{rows}, quantity{label, []unit{{"", 1}}})
	if err != nil {
		return nil, err
	}
	c := &chart{grid: grid{plots: [][]*plot.Plot{plots}, rowHeight: height, wide: true}}
	for i, part := range parts {
		c.legend = append(c.legend, legendEntry{name: part, fill: &fillings[i%len(fillings)]})
	}
	f := &Figure{Name: name}
	f.width, f.height, f.paint = lay(c, notes)
	return f, nil
}
