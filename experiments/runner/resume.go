package runner

import (
	"encoding/json"
	"fmt"
	"slices"

	"waggle/experiments/spec"
	"waggle/results"
)

// Begun takes from a run directory what the run was begun with: experiments,
// effort and, as factors of these, what was set. Revisions stay to be named,
// because a plan names no programs.
func (o *Options) Begun(plan results.Plan) error {
	o.Experiments, o.Overrides, o.begun = nil, nil, map[string]*results.Sequential{}
	for _, planned := range plan.Experiments {
		e, effort, err := spec.FromPlanned(planned, KnownPaths())
		if err != nil {
			return err
		}
		o.begun[planned.Name] = planned.Sequential
		o.Effort, o.Experiments = effort, append(o.Experiments, e)
		if len(o.Revisions) == 0 && hasFactor(planned, results.RevisionFactor) {
			return fmt.Errorf("experiment %s compares revisions: name each again with --revision NAME=PROGRAM", planned.Name)
		}
	}
	return nil
}

func hasFactor(e results.PlannedExperiment, name string) bool {
	return slices.ContainsFunc(e.Factors, func(f results.Factor) bool { return f.Name == name })
}

// planDifference says in what two plans differ so much that one can't go on
// where the other stopped, or "".
func planDifference(begun, wanted results.Plan) string {
	if len(begun.Experiments) != len(wanted.Experiments) {
		return fmt.Sprintf("it has %d experiments and not %d", len(begun.Experiments), len(wanted.Experiments))
	}
	for i, was := range begun.Experiments {
		is := wanted.Experiments[i]
		if was.Name != is.Name {
			return fmt.Sprintf("its experiment %d is %s and not %s", i+1, was.Name, is.Name)
		}
		if what, a, b := experimentDifference(was, is); what != "" {
			return fmt.Sprintf("%s was begun with %s %s and not %s", was.Name, what, a, b)
		}
	}
	return ""
}

// experimentDifference says in what two plans of one experiment differ, and how
// each has it.
func experimentDifference(was, is results.PlannedExperiment) (what, a, b string) {
	type part struct {
		name    string
		was, is any
	}
	parts := []part{
		{"effort", was.Effort, is.Effort}, {"repetitions", was.Repetitions, is.Repetitions},
		{"sequential plan", was.Sequential, is.Sequential}, {"trials of", was.Trial, is.Trial}, {"metrics", was.Metrics, is.Metrics},
	}
	for _, f := range was.Factors {
		parts = append(parts, part{"levels of " + f.Name, f.Levels, levelsOf(is, f.Name)})
	}
	parts = append(parts,
		part{"factors", factorNames(was), factorNames(is)}, // in this order, too, which is that of the trials
		part{"fixed", was.Fixed, is.Fixed}, part{"exclude", was.Exclude, is.Exclude}, part{"controls", was.Controls, is.Controls})
	for _, p := range parts {
		if a, b := asWritten(p.was), asWritten(p.is); a != b {
			return p.name, a, b
		}
	}
	return "", "", ""
}

func levelsOf(e results.PlannedExperiment, factor string) []any {
	for _, f := range e.Factors {
		if f.Name == factor {
			return f.Levels
		}
	}
	return nil
}

func factorNames(e results.PlannedExperiment) []string {
	var names []string
	for _, f := range e.Factors {
		names = append(names, f.Name)
	}
	return names
}

// asWritten is a part of a plan as the run directory holds it. What is empty and
// what is left out are the same.
func asWritten(part any) string {
	text, err := json.Marshal(part)
	if err != nil {
		return fmt.Sprintf("%v", part)
	}
	switch s := string(text); s {
	case "null", "{}", "[]":
		return "none"
	default:
		return s
	}
}
