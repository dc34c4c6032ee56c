package figure

import (
	"fmt"
	"strings"

	"waggle/analysis/stats"
	"waggle/results"
)

// sustained is the share of an offered load that has to be carried out for the
// load to count as sustainable; the rest is how exactly a short trial can tell.
const sustained = 0.97

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
	if !s.drawable(offeredLoad) {
		return linesOf(results.LatencyP50, results.LatencyP99)(s)
	}
	if s.spec.X == "" {
		return nil, fmt.Errorf("it needs an x factor: the one that sets the offered load")
	}
	knees, saturated := s.knees()
	axis := s.loadAxis()
	axis.ringed = func(g stats.Group) bool {
		knee, ok := knees[s.curveName(g)]
		offered, _ := offeredBy(g)
		return ok && offered == knee
	}
	c, err := lineChart(s, axis, results.LatencyP50, results.LatencyP99)
	if err != nil {
		return nil, err
	}
	c.caption = append(c.caption, fmt.Sprintf("Ringed: the highest load sustained (%.0f %% carried out).", 100*sustained))
	c.findings = []string{"Highest load sustained: " + s.kneeText(knees, saturated) + "."}
	c.table = s.table(append([]results.Metric{offeredLoad, metricNamed(results.OperationRate)}, c.metrics...))
	return c, nil
}

func offeredBy(g stats.Group) (float64, bool) {
	sum := stats.Summarize(g.Sample(offeredLoad))
	return sum.Median, sum.N > 0
}

func (s *selection) loadAxis() horizontal {
	loads := s.values(offeredLoad)
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

// knees finds for each curve the highest load that it sustained, and below
// which it sustained every load: one lucky trial beyond the knee isn't it. A
// curve that isn't saturated sustained all that was offered.
func (s *selection) knees() (knees map[string]float64, saturated map[string]bool) {
	knees, saturated = map[string]float64{}, map[string]bool{}
	failed := map[string]float64{}
	rate := metricNamed(results.OperationRate)
	for _, g := range s.groups {
		offered, ok := offeredBy(g)
		achieved := stats.Summarize(g.Sample(rate))
		if !ok || achieved.N == 0 || achieved.Median >= sustained*offered {
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
