package figure

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"gonum.org/v1/plot"

	"waggle/results"
	"waggle/stats"
)

// assumptions draws a tornado of how far a simulated conclusion hangs on each number
// that it was simulated from: the ratio of a series' rate to the baseline's, when a number is lower and
// higher. The number that matters most stands at the top; one that turns the
// conclusion round is marked.
func assumptions(s *selection) (*chart, error) {
	m := s.rateMetric()
	rates := map[string]map[string]float64{} // by series, by level of x
	for _, g := range s.groups {
		series, _ := g.Cell[s.spec.Series].(string)
		level, _ := g.Cell[s.spec.X].(string)
		if sum := stats.Summarize(g.Sample(m)); sum.N > 0 {
			if rates[series] == nil {
				rates[series] = map[string]float64{}
			}
			rates[series][level] = sum.Median
		}
	}
	var rows []barRow
	c := &chart{metrics: []results.Metric{m}}
	for _, level := range stats.Levels(s.groups, s.experiment, s.spec.Series) {
		name, _ := level.(string)
		if name == s.spec.Baseline || rates[name] == nil {
			continue
		}
		swings := swingsOf(rates[name], rates[s.spec.Baseline])
		if len(swings) == 0 {
			continue
		}
		rows = append(rows, barRow{heading: fmt.Sprintf("%s over %s", name, s.spec.Baseline)})
		for _, w := range swings {
			w.name = shorten(w.name, name)
			if w.flips() {
				c.findings = append(c.findings, fmt.Sprintf("Whether %s beats %s depends on %s: %.3g to %.3g times.", name, s.spec.Baseline, w.name, w.low, w.high))
				w.name += " (flips)"
			}
			total := stats.Summary{N: 2, Median: w.base, Low: w.low, High: w.high}
			rows = append(rows, barRow{name: w.name, total: &total, value: w.base})
			c.table.Rows = append(c.table.Rows, []string{name, w.name, ThreeDigits(w.base), ThreeDigits(w.low), ThreeDigits(w.high)})
		}
	}
	c.table.Header = []string{Capital(FactorName(s.spec.Series)), "Number varied", "As assumed", "Lowest", "Highest"}
	if len(rows) == 0 {
		return nil, ErrNoData
	}
	p, err := dotPlot(rows, quantity{"Times the " + m.Label + " of " + s.spec.Baseline, []unit{{"", 1}}}, singleColumn, 1)
	if err != nil {
		return nil, err
	}
	c.grid = grid{plots: [][]*plot.Plot{{p}}, rowHeight: rowsHeight(len(rows)), wide: true}
	c.alt = altText(s, "Ranges", c.metrics)
	return c, nil
}

// swing is what a ratio does when a number is varied.
type swing struct {
	name            string
	base, low, high float64
}

// flips says that the conclusion turns round, by more than simulations differ by chance.
func (w swing) flips() bool {
	const chance = 0.01
	return w.low < 1-chance && w.high > 1+chance
}

// shorten leaves out of a number's name what its row says already.
func shorten(name, path string) string {
	for _, prefix := range []string{"paths.read=" + path + ".", "paths.write=" + path + ".", "cards.", "disks.", "cost."} {
		if rest, ok := strings.CutPrefix(name, prefix); ok {
			if strings.HasPrefix(prefix, "paths.") {
				return "its own " + rest
			}
			return rest
		}
	}
	return name
}

// swingsOf gives the swings of each number that was varied, the widest first.
func swingsOf(rates, baseline map[string]float64) []swing {
	const asAssumed = "none"
	base := rates[asAssumed] / baseline[asAssumed]
	if !(base > 0) || math.IsInf(base, 0) {
		return nil
	}
	byName := map[string]*swing{}
	var order []*swing
	for level, rate := range rates {
		name, _, varied := strings.Cut(level, "*")
		if !varied || !(baseline[level] > 0) {
			continue
		}
		w := byName[name]
		if w == nil {
			w = &swing{name, base, base, base}
			byName[name] = w
			order = append(order, w)
		}
		ratio := rate / baseline[level]
		w.low, w.high = min(w.low, ratio), max(w.high, ratio)
	}
	slices.SortFunc(order, func(a, b *swing) int {
		return cmp.Or(cmp.Compare(b.high-b.low, a.high-a.low), cmp.Compare(a.name, b.name))
	})
	var swings []swing
	for _, w := range order {
		swings = append(swings, *w)
	}
	return swings
}
