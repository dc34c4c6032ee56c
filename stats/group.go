package stats

import (
	"cmp"
	"slices"
	"strings"

	"waggle/results"
)

// Group is what a run has of one cell. The twin of a control cell is a group of
// its own.
type Group struct {
	Experiment string
	Cell       results.Cell
	Source     string
	Control    string
	// Records are the valid trials, by repetition.
	Records []results.Record
	// Rejected are the trials that were invalid or unsupported, by repetition.
	Rejected []results.Record
}

// GroupRecords gathers an experiment's records by cell. Groups are in the order
// in which the plan lists factors and levels, control twins right behind the
// cell they repeat. An experiment that isn't planned has no groups.
func GroupRecords(run *results.Run, experiment string) []Group {
	byName := map[string]*Group{}
	for _, r := range run.Records {
		if r.Experiment != experiment {
			continue
		}
		name := groupName(r.Cell, r.Source, r.Control)
		g := byName[name]
		if g == nil {
			g = &Group{Experiment: experiment, Cell: r.Cell, Source: r.Source, Control: r.Control}
			byName[name] = g
		}
		if r.Valid {
			g.Records = append(g.Records, r)
		} else {
			g.Rejected = append(g.Rejected, r)
		}
	}
	var groups []Group
	for _, g := range byName {
		byRepetition := func(a, b results.Record) int { return a.Repetition - b.Repetition }
		slices.SortFunc(g.Records, byRepetition)
		slices.SortFunc(g.Rejected, byRepetition)
		groups = append(groups, *g)
	}
	plan, _ := run.Experiment(experiment)
	sortGroups(groups, plan)
	return groups
}

func groupName(cell results.Cell, source, control string) string {
	return cell.String() + " " + source + " " + control
}

// sortGroups puts groups in the plan's order; what the plan doesn't list
// follows, by name.
func sortGroups(groups []Group, plan results.PlannedExperiment) {
	slices.SortFunc(groups, func(a, b Group) int {
		for _, f := range plan.Factors {
			if c := levelIndex(f, a.Cell[f.Name]) - levelIndex(f, b.Cell[f.Name]); c != 0 {
				return c
			}
		}
		return strings.Compare(groupName(a.Cell, a.Source, a.Control), groupName(b.Cell, b.Source, b.Control))
	})
}

func levelIndex(f results.Factor, level any) int {
	want := results.FormatLevel(level)
	for i, l := range f.Levels {
		if results.FormatLevel(l) == want {
			return i
		}
	}
	return len(f.Levels)
}

// Sample gives the group's values of a metric: one observation for each valid
// trial that measured it.
func (g Group) Sample(m results.Metric) Sample {
	var s Sample
	for i := range g.Records {
		if v, ok := m.Of(&g.Records[i]); ok {
			s = append(s, Observation{Repetition: g.Records[i].Repetition, Placement: g.Records[i].Placement, Value: v})
		}
	}
	return s
}

// Unsupported gives the reason why this machine can't run the cell, or false.
func (g Group) Unsupported() (reason string, ok bool) {
	for _, r := range g.Rejected {
		if r.Unsupported {
			return r.Reason, true
		}
	}
	return "", false
}

// Where keeps the groups whose cells have the given levels.
func Where(groups []Group, want results.Cell) []Group {
	var kept []Group
	for _, g := range groups {
		if g.Cell.Has(want) {
			kept = append(kept, g)
		}
	}
	return kept
}

// Main leaves out the twins of control cells.
func Main(groups []Group) []Group {
	return slices.DeleteFunc(slices.Clone(groups), func(g Group) bool { return g.Control != "" })
}

// Levels gives the levels of a factor that occur in the groups, in the plan's
// order; levels that the plan doesn't list follow, numbers before words.
func Levels(groups []Group, plan results.PlannedExperiment, factor string) []any {
	var planned results.Factor
	for _, f := range plan.Factors {
		if f.Name == factor {
			planned = f
		}
	}
	seen := map[string]bool{}
	var levels []any
	for _, g := range groups {
		level, ok := g.Cell[factor]
		if name := results.FormatLevel(level); ok && !seen[name] {
			seen[name] = true
			levels = append(levels, level)
		}
	}
	slices.SortFunc(levels, func(a, b any) int {
		return cmp.Or(levelIndex(planned, a)-levelIndex(planned, b), compareLevels(a, b))
	})
	return levels
}

// compareLevels orders numbers by size, before everything else by name.
func compareLevels(a, b any) int {
	x, xIsNumber := a.(float64)
	y, yIsNumber := b.(float64)
	switch {
	case xIsNumber && yIsNumber:
		return cmp.Compare(x, y)
	case xIsNumber:
		return -1
	case yIsNumber:
		return 1
	}
	return strings.Compare(results.FormatLevel(a), results.FormatLevel(b))
}

// Pair is two groups to compare: their cells differ in the asked levels only.
type Pair struct{ Baseline, Treatment Group }

// PairUp finds every pair of groups of which one has the baseline's levels, the
// other the treatment's, and everything else is equal. Control twins take no
// part. Pairs are in the order of their treatments.
func PairUp(groups []Group, baseline, treatment results.Cell) []Pair {
	asked := make([]string, 0, len(baseline)+len(treatment))
	for factor := range baseline {
		asked = append(asked, factor)
	}
	for factor := range treatment {
		asked = append(asked, factor)
	}
	rest := func(g Group) string { return groupName(g.Cell.Without(asked...), g.Source, "") }

	baselines := map[string]Group{}
	for _, g := range Where(Main(groups), baseline) {
		baselines[rest(g)] = g
	}
	var pairs []Pair
	for _, g := range Where(Main(groups), treatment) {
		if b, ok := baselines[rest(g)]; ok {
			pairs = append(pairs, Pair{Baseline: b, Treatment: g})
		}
	}
	return pairs
}
