package spec

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"waggle/results"
)

// Override is one `--set factor=level,...`: it takes the place of a factor's
// levels, or makes a factor of a fixed parameter.
type Override struct {
	Name   string
	Levels []any
}

// ParseOverride reads "factor=level,level".
func ParseOverride(text string, paths Paths) (Override, error) {
	name, list, ok := strings.Cut(text, "=")
	if !ok || list == "" {
		return Override{}, fmt.Errorf("--set %q: write factor=level,level", text)
	}
	q, err := parameterNamed(name)
	if err != nil {
		return Override{}, fmt.Errorf("--set %q: %w", text, err)
	}
	o := Override{Name: name}
	for _, s := range strings.Split(list, ",") {
		level, err := q.parse(rawLevel(s), paths)
		if err != nil {
			return Override{}, fmt.Errorf("--set %q: %w", text, err)
		}
		if slices.Contains(o.Levels, level) {
			return Override{}, fmt.Errorf("--set %q: %s is given twice", text, s)
		}
		if o.Levels = append(o.Levels, level); len(o.Levels) > MaxLevels {
			return Override{}, fmt.Errorf("--set %s: more than %d levels", name, MaxLevels)
		}
	}
	return o, nil
}

// AppliesTo says whether the experiment has the override's parameter, as a
// factor or fixed.
func (o Override) AppliesTo(e *Experiment) bool {
	if o.Name == results.RevisionFactor || simulationOnly(o.Name) {
		return true // every cell has roles, and a machine
	}
	_, fixed := e.Fixed[o.Name]
	return fixed || e.varies(o.Name)
}

// Plan is an experiment at one effort, with overrides applied.
type Plan struct {
	Experiment *Experiment
	Effort     Effort
	Trial      Trial
	Factors    []results.Factor
	// Cells holds every cell, in the order of the levels, and behind them the
	// control cells' twins.
	Cells []Cell
}

// Places says whether the experiment chooses where roles run itself.
func (p *Plan) Places() bool {
	_, fixed := p.Experiment.Fixed["pin"]
	return fixed || slices.ContainsFunc(p.Factors, setsPlacement)
}

// Cell is one combination of factor levels.
type Cell struct {
	Levels     results.Cell
	Parameters Parameters
	// Control is results.ControlAA for the twin of the control cell.
	Control string
}

// Plan expands the experiment at an effort. Overrides whose parameter the
// experiment does not have are left out.
func (e *Experiment) Plan(effort Effort, overrides []Override) (*Plan, error) {
	p := &Plan{Experiment: e, Effort: effort, Trial: e.Trials[effort]}
	for _, f := range e.Factors {
		p.Factors = append(p.Factors, results.Factor{Name: f.Name, Levels: f.Levels[effort]})
	}
	for _, o := range overrides {
		if o.AppliesTo(e) {
			p.override(o)
		}
	}
	if err := p.expand(); err != nil {
		return nil, fmt.Errorf("%s at effort %s: %w", e.Name, effort, err)
	}
	return p, p.addControls(len(overrides) > 0)
}

func (p *Plan) override(o Override) {
	factor := results.Factor{Name: o.Name, Levels: o.Levels}
	for i := range p.Factors {
		if p.Factors[i].Name == o.Name {
			p.Factors[i] = factor
			return
		}
	}
	p.Factors = append(p.Factors, factor)
}

// expand makes the cells: every combination of levels but the excluded ones.
func (p *Plan) expand() error {
	combinations := 1
	for _, f := range p.Factors {
		if combinations *= len(f.Levels); combinations > MaxCells {
			return fmt.Errorf("more than %d combinations of factor levels", MaxCells)
		}
	}
	for i := range combinations {
		levels := results.Cell{}
		for f := len(p.Factors) - 1; f >= 0; f-- {
			n := len(p.Factors[f].Levels)
			levels[p.Factors[f].Name] = p.Factors[f].Levels[i%n]
			i /= n
		}
		if slices.ContainsFunc(p.Experiment.Exclude, func(x results.Cell) bool { return levels.Has(x) }) {
			continue
		}
		parameters, err := resolve(levels, p.Experiment.Fixed)
		if err != nil {
			return fmt.Errorf("cell %s: %w", describe(p.Factors, levels), err)
		}
		if parameters.SearchRate && p.Trial.Duration == 0 {
			return fmt.Errorf("cell %s: a search needs trials of so many seconds, not of so many operations", describe(p.Factors, levels))
		}
		p.Cells = append(p.Cells, Cell{Levels: levels, Parameters: parameters})
	}
	if len(p.Cells) == 0 {
		return fmt.Errorf("no cell is left: exclude removes all %d", combinations)
	}
	return nil
}

// addControls adds the control cells' twins, each once.
func (p *Plan) addControls(overridden bool) error {
	whole := len(p.Cells)
	for _, control := range p.Experiment.Controls {
		c, err := p.control(control, p.Cells[:whole], overridden)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(p.Cells[whole:], func(twin Cell) bool { return twin.Levels.String() == c.Levels.String() }) {
			p.Cells = append(p.Cells, Cell{c.Levels, c.Parameters, results.ControlAA})
		}
	}
	return nil
}

// control finds the cell that a control names. Where an override took away a level
// that it names, the factor's first level is the control's.
func (p *Plan) control(named results.Cell, cells []Cell, overridden bool) (Cell, error) {
	control := results.Cell{}
	for _, f := range p.Factors {
		want, given := named[f.Name]
		switch {
		case given && slices.Contains(f.Levels, want):
			control[f.Name] = want
		case given && !overridden:
			return Cell{}, fmt.Errorf("control: %s=%v is no level of effort %s", f.Name, want, p.Effort)
		default:
			control[f.Name] = f.Levels[0]
		}
	}
	for name := range named {
		if !p.Experiment.varies(name) {
			return Cell{}, fmt.Errorf("control: %s is no factor of this experiment", name)
		}
	}
	for _, c := range cells {
		if c.Levels.Has(control) {
			return c, nil
		}
	}
	if overridden {
		return cells[0], nil
	}
	return Cell{}, fmt.Errorf("control: the cell %s is excluded", describe(p.Factors, control))
}

// String names the cell by its levels, in the order of the plan's factors.
func (p *Plan) String(c Cell) string {
	s := describe(p.Factors, c.Levels)
	if c.Control != "" {
		s += " (" + c.Control + ")"
	}
	return s
}

func describe(factors []results.Factor, levels results.Cell) string {
	var parts []string
	for _, f := range factors {
		parts = append(parts, f.Name+"="+results.FormatLevel(levels[f.Name]))
	}
	return strings.Join(parts, " ")
}

// fixed holds the parameters that the experiment sets and no override varies.
func (p *Plan) fixed() results.Cell {
	fixed := maps.Clone(p.Experiment.Fixed)
	for _, f := range p.Factors {
		delete(fixed, f.Name)
	}
	return fixed
}
