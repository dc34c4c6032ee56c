package claims

import (
	"cmp"
	"fmt"
	"slices"

	"waggle/results"
	"waggle/stats"
)

// winners asks in how many cells the best eBPF path is no better than the best
// other path. Cells that can't be told are left out of the share.
func (j *judge) winners(t Test) TestOutcome {
	w := t.Winners
	o := TestOutcome{Note: t.Note,
		What: fmt.Sprintf("%s: in at least %.3g of the cells, no eBPF path is better than the best other path", w.Metric, w.AtLeast)}
	m, err := results.MetricNamed(w.Metric)
	if err != nil {
		panic(err) // Parse has checked it
	}
	var pairs []stats.Pair
	for _, experiment := range w.Experiments {
		groups, _ := j.measured(experiment)
		for _, factor := range pathFactors {
			pairs = append(pairs, j.catalogue.BestOfBoth(groups, factor, m)...)
		}
	}
	if len(pairs) == 0 {
		return o.decide(NotTestable, "the run has no cell with both an eBPF path and another one")
	}
	o.Pairs = j.compare(pairs, w.Metric, nil)
	told, notBetter := 0, 0
	for _, p := range o.Pairs {
		if p.Verdict == stats.Undecided {
			continue
		}
		told++
		if p.Verdict != stats.Better {
			notBetter++
		}
	}
	if told == 0 {
		return o.decide(NotTestable, o.Pairs[0].Reason)
	}
	reason := fmt.Sprintf("no eBPF path is better in %d of %d cells; %d more could not be told", notBetter, told, len(o.Pairs)-told)
	if float64(notBetter) < w.AtLeast*float64(told) {
		return o.decide(NotReproduced, reason)
	}
	return o.decide(Reproduced, reason)
}

// PathFactors gives the factors whose levels are data paths.
func PathFactors() []string { return pathFactors }

// BestOfBoth pairs, for each setting of all other factors, the eBPF path with
// the best median with the best of the other paths. Controls are no paths.
func (c *Catalogue) BestOfBoth(groups []stats.Group, factor string, m results.Metric) []stats.Pair {
	var order []string
	rivals := map[string]*stats.Pair{}
	for _, g := range stats.Main(groups) {
		level, ok := g.Cell[factor].(string)
		if !ok || slices.Contains(c.Controls, level) || len(g.Sample(m)) == 0 {
			continue
		}
		setting := g.Cell.Without(factor).String()
		if rivals[setting] == nil {
			rivals[setting] = &stats.Pair{}
			order = append(order, setting)
		}
		side := &rivals[setting].Baseline
		if slices.Contains(c.EBPF[factor], level) {
			side = &rivals[setting].Treatment
		}
		if side.Records == nil || beats(m, g, *side) {
			*side = g
		}
	}
	var pairs []stats.Pair
	for _, setting := range order {
		if p := rivals[setting]; p.Baseline.Records != nil && p.Treatment.Records != nil {
			pairs = append(pairs, *p)
		}
	}
	return pairs
}

func beats(m results.Metric, a, b stats.Group) bool {
	order := cmp.Compare(stats.Summarize(a.Sample(m)).Median, stats.Summarize(b.Sample(m)).Median)
	return (order > 0) == m.HigherBetter && order != 0
}
