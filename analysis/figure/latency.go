package figure

import (
	"fmt"
	"slices"

	"waggle/results"
	"waggle/stats"
)

// offeredLoad is the rate that an open-loop trial was asked to keep.
var offeredLoad = results.Metric{
	Name: "offered_rate", Unit: "op/s", Label: "offered load",
	Of: func(r *results.Record) (float64, bool) {
		if r.OfferedOperationsPerSecond == nil {
			return 0, false
		}
		return *r.OfferedOperationsPerSecond, true
	},
}

// latency draws the median and the 99th percentile: over the load offered where
// the trials had a rate set, over a factor otherwise.
func latency(s *selection) (*chart, error) {
	sustained := metricNamed(results.SustainedRate)
	switch {
	case !s.drawable(offeredLoad) && s.drawable(sustained):
		s.spec.X = "" // there is nothing but what searches found
		return dots(s, results.SustainedRate)
	case !s.drawable(offeredLoad):
		return linesOf(results.LatencyP50, results.LatencyP99)(s)
	case s.spec.X == "":
		return nil, fmt.Errorf("it needs an x factor: the one that sets the offered load")
	case s.drawable(sustained):
		return latencyBesideKnees(s)
	}
	return latencyWithRings(s)
}

// latencyBesideKnees is for runs whose trials searched for the highest load that
// is sustained.
func latencyBesideKnees(s *selection) (*chart, error) {
	sustained := metricNamed(results.SustainedRate)
	axis := s.loadAxis(slices.Concat(s.values(offeredLoad), s.values(sustained)))
	axis.limits = map[string]float64{results.LatencyP99: results.SustainedP99.Seconds()}
	c, err := lineChart(s, axis, results.LatencyP50, results.LatencyP99)
	if err != nil {
		return nil, err
	}
	for row := range c.metrics {
		for i := range s.panels {
			s.addKnees(c.grid.panel(row, len(s.panels), i), i, axis)
		}
	}
	c.legend = append(c.legend, legendEntry{name: "highest load sustained", style: kneeStyle})
	c.caption = append(c.caption, fmt.Sprintf("Sustained: at least %.0f %% carried out and the 99th percentile within %s (dashed); searched for in every repetition.",
		100*results.SustainedShare, quantityOf(metricNamed(results.LatencyP99)).text(results.SustainedP99.Seconds())))
	c.findings = []string{"Highest load sustained: " + s.searchedText() + "."}
	c.table = s.table(append([]results.Metric{sustained, metricNamed(results.OperationRate)}, c.metrics...))
	c.metrics = append([]results.Metric{sustained}, c.metrics...)
	return c, nil
}

// latencyWithRings is for runs with a few loads, of which the highest that was
// sustained is ringed.
func latencyWithRings(s *selection) (*chart, error) {
	knees, saturated := s.knees()
	axis := s.loadAxis(s.values(offeredLoad))
	axis.ringed = func(g stats.Group) bool {
		knee, ok := knees[s.curveName(g)]
		offered, _ := offeredBy(g)
		return ok && offered == knee
	}
	c, err := lineChart(s, axis, results.LatencyP50, results.LatencyP99)
	if err != nil {
		return nil, err
	}
	c.caption = append(c.caption, fmt.Sprintf("Ringed: the highest load sustained (at least %.0f %% carried out, the 99th percentile within %s).",
		100*results.SustainedShare, quantityOf(metricNamed(results.LatencyP99)).text(results.SustainedP99.Seconds())))
	c.findings = []string{"Highest load sustained: " + s.kneeText(knees, saturated) + "."}
	c.table = s.table(append([]results.Metric{offeredLoad, metricNamed(results.OperationRate)}, c.metrics...))
	return c, nil
}

func offeredBy(g stats.Group) (float64, bool) {
	sum := stats.Summarize(g.Sample(offeredLoad))
	return sum.Median, sum.N > 0
}

func (s *selection) loadAxis(loads []float64) horizontal {
	smallest, largest := extremes(loads)
	q := quantity{"Offered load", quantityOf(offeredLoad).units}
	sc := linearScale(q, 0, largest)
	if largest > logAbove*smallest {
		sc = logScale(q, loads)
	}
	return horizontal{scale: sc, at: func(g stats.Group) (float64, bool) {
		offered, ok := offeredBy(g)
		return sc.at(offered), ok
	}}
}

// curveName tells apart the curves of all panels.
func (s *selection) curveName(g stats.Group) string {
	if s.spec.Panel == "" {
		return s.seriesName(g)
	}
	return FactorLevel(s.spec.Panel, g.Cell[s.spec.Panel]) + ": " + s.seriesName(g)
}
