package spec

import (
	"errors"
	"fmt"
	"slices"

	"waggle/results"
)

// Planned is the plan as it is written into a run directory: everything that
// decides what a record of it means.
func (p *Plan) Planned() results.PlannedExperiment {
	e := results.PlannedExperiment{
		Name: p.Experiment.Name, Question: p.Experiment.Question, Effort: string(p.Effort),
		Repetitions: p.Trial.Repetitions, Factors: p.Factors, Fixed: p.fixed(), Figures: p.Experiment.Figures,
		Trial: &results.PlannedTrial{
			WarmUpSeconds: p.Trial.WarmUp.Seconds(), Seconds: p.Trial.Duration.Seconds(), Operations: p.Trial.Operations,
			Counts: p.Trial.Counts},
		Exclude: p.Experiment.Exclude,
	}
	for _, c := range p.Cells {
		if c.Control != "" {
			e.Controls = append(e.Controls, c.Levels)
		}
	}
	for _, m := range p.Experiment.Metrics {
		e.Metrics = append(e.Metrics, string(m))
	}
	return e
}

// FromPlanned makes the experiment again that a run directory's plan describes,
// at the one effort that was planned: its file need not be there any more.
func FromPlanned(planned results.PlannedExperiment, paths Paths) (*Experiment, Effort, error) {
	fail := func(err error) (*Experiment, Effort, error) {
		return nil, "", fmt.Errorf("experiment %s of the plan: %w", planned.Name, err)
	}
	effort, err := ParseEffort(planned.Effort)
	if err != nil {
		return fail(err)
	}
	if planned.Trial == nil {
		return fail(errors.New("it does not say how long a trial is, as plans of older programs: name the experiment, too"))
	}
	trial := trial{planned.Repetitions, planned.Trial.Counts, planned.Trial.WarmUpSeconds, planned.Trial.Seconds, planned.Trial.Operations}
	checked, err := trial.check()
	if err != nil {
		return fail(err)
	}
	e := &Experiment{Name: planned.Name, Question: planned.Question, Figures: planned.Figures, Trials: map[Effort]Trial{effort: checked}}
	for _, name := range planned.Metrics {
		if !slices.Contains(metrics, Metric(name)) {
			return fail(fmt.Errorf("metric %q is unknown", name))
		}
		e.Metrics = append(e.Metrics, Metric(name))
	}
	for _, f := range planned.Factors {
		levels, err := plannedLevels(f.Name, f.Levels, paths)
		if err != nil {
			return fail(err)
		}
		e.Factors = append(e.Factors, Factor{f.Name, map[Effort][]any{effort: levels}})
	}
	if e.Fixed, err = plannedCell(planned.Fixed, paths); err != nil {
		return fail(err)
	}
	for _, cell := range planned.Controls {
		control, err := plannedCell(cell, paths)
		if err != nil {
			return fail(err)
		}
		e.Controls = append(e.Controls, control)
	}
	for _, cell := range planned.Exclude {
		excluded, err := plannedCell(cell, paths)
		if err != nil {
			return fail(err)
		}
		e.Exclude = append(e.Exclude, excluded)
	}
	return e, effort, nil
}

// plannedLevels reads levels as a file's are read.
func plannedLevels(name string, raw []any, paths Paths) ([]any, error) {
	if name == results.RevisionFactor { // names that the command line has given
		return raw, nil
	}
	q, err := parameterNamed(name)
	if err != nil {
		return nil, err
	}
	levels := make([]any, len(raw))
	for i, level := range raw {
		if levels[i], err = q.parse(level, paths); err != nil {
			return nil, err
		}
	}
	return levels, nil
}

func plannedCell(raw results.Cell, paths Paths) (results.Cell, error) {
	cell := results.Cell{}
	for name, level := range raw {
		levels, err := plannedLevels(name, []any{level}, paths)
		if err != nil {
			return nil, err
		}
		cell[name] = levels[0]
	}
	return cell, nil
}
