// Package paper makes what the paper takes from records: its numbers, its
// verdict sentences, its tables and its figures.
//
// The paper's text holds no measured number and no comparison of its own. The
// declarations (paper/paper.yaml) name each number and each claim of the text,
// the experiment and the cells behind it; [Evaluate] asks the records of a run,
// and [Output.Write] puts LaTeX macros into a directory that the text inputs:
//
//   - a number is a macro that prints the value and links to a row of the
//     appendix with run, cell, interval and n;
//   - a claim is a macro that prints one of four sentences, chosen by the
//     judgement: it holds, holds in part, does not hold, or can't be told;
//   - a figure is a PDF, or a box that says "not measured".
//
// So a reader who builds the paper from a run of their own reads their own
// results. [Compare] then finds what differs from the reference run, which the
// text marks in its margin. [Lint] keeps the text honest: no bare number, no
// comparison of paths outside of a verdict, no figure that nobody refers to.
package paper

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"

	"go.yaml.in/yaml/v3"

	"waggle/results"
)

// Declarations is the contents of paper.yaml.
type Declarations struct {
	// Numbers are the values that the text shows, by the name of their macro.
	Numbers map[string]Number `yaml:"numbers"`
	// Claims are the comparisons that the text makes, by the name of their macro.
	Claims map[string]Claim `yaml:"claims"`
	// Figures are those that the text includes, by the name of their file, as
	// EXPERIMENT-KIND.
	Figures []string `yaml:"figures"`
	// Tables are those that the text inputs, by name.
	Tables map[string]Table `yaml:"tables"`
	// Constants are numbers that the text may hold: sizes, settings, hardware.
	Constants []string `yaml:"constants"`
	// Paths are the words that name a data path in the text.
	Paths []string `yaml:"paths"`
}

// Number is one measured value. It is a Value of one cell, a Ratio of two, a
// Sum of a counter, or a Fact about the run.
type Number struct {
	Experiment string       `yaml:"experiment"`
	Metric     string       `yaml:"metric"`
	Where      results.Cell `yaml:"where"`
	// Baseline and Treatment, if given, make the number the ratio of the metric's
	// medians, treatment over baseline.
	Baseline  results.Cell `yaml:"baseline"`
	Treatment results.Cell `yaml:"treatment"`
	// Fact names something that the run itself says: see facts.
	Fact string `yaml:"fact"`
}

// Claim is one comparison that the text makes.
type Claim struct {
	// About says in a few words what is compared, for the sentences that every
	// claim shares and for the list of what differs on a reader's machine.
	About      string       `yaml:"about"`
	Experiment string       `yaml:"experiment"`
	Metric     string       `yaml:"metric"`
	Where      results.Cell `yaml:"where"`
	Baseline   results.Cell `yaml:"baseline"`
	Treatment  results.Cell `yaml:"treatment"`
	// Expect is the direction: better, worse or equal.
	Expect Expectation `yaml:"expect"`
	// Least is the smallest ratio, or its inverse, that counts as an effect.
	Least float64 `yaml:"least"`
	// The sentences, of which the judgement chooses one. In each, {range} stands
	// for the ratios of the cells that were decided, {cells} for how many of how
	// many cells came out as expected, and {reason} for why nothing can be told.
	Holds string `yaml:"holds"`
	Part  string `yaml:"part"`
	Fails string `yaml:"fails"`
}

// Expectation is what a claim expects of the treatment.
type Expectation string

// The expectations.
const (
	Better Expectation = "better"
	Worse  Expectation = "worse"
	Equal  Expectation = "equal"
)

// Table is a table of one metric: a row a level of Rows, a column a level of
// Columns.
type Table struct {
	Experiment string       `yaml:"experiment"`
	Metric     string       `yaml:"metric"`
	Where      results.Cell `yaml:"where"`
	Rows       string       `yaml:"rows"`
	Columns    string       `yaml:"columns"`
}

// Limits of a declarations file.
const (
	maxDeclarations = 1 << 20 // bytes
	maxNames        = 1000    // of each kind
)

// macroName is what a LaTeX control sequence by name and a hyperlink can hold.
var macroName = regexp.MustCompile(`^[a-z][a-z0-9-]*$`)

// Parse reads a declarations file strictly. Its errors name the declaration
// and what is wrong with it.
func Parse(text []byte) (*Declarations, error) {
	if len(text) > maxDeclarations {
		return nil, fmt.Errorf("paper declarations: larger than %d bytes", maxDeclarations)
	}
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	decoder.KnownFields(true)
	var d Declarations
	if err := decoder.Decode(&d); err != nil {
		return nil, fmt.Errorf("paper declarations: %w", err)
	}
	if err := decoder.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, errors.New("paper declarations: the file holds more than one document")
	}
	if len(d.Numbers) > maxNames || len(d.Claims) > maxNames || len(d.Figures) > maxNames || len(d.Tables) > maxNames {
		return nil, fmt.Errorf("paper declarations: more than %d of one kind", maxNames)
	}
	if err := d.check(); err != nil {
		return nil, fmt.Errorf("paper declarations: %w", err)
	}
	return &d, nil
}

func (d *Declarations) check() error {
	if err := checkEach("number", d.Numbers, Number.check); err != nil {
		return err
	}
	if err := checkEach("claim", d.Claims, Claim.check); err != nil {
		return err
	}
	if err := checkEach("table", d.Tables, Table.check); err != nil {
		return err
	}
	for i, name := range d.Figures {
		if !macroName.MatchString(name) {
			return fmt.Errorf("figure %q: a name has small letters, digits and dashes", name)
		}
		if slices.Contains(d.Figures[:i], name) {
			return fmt.Errorf("figure %q is given twice", name)
		}
	}
	return nil
}

func checkEach[T any](kind string, all map[string]T, check func(T) error) error {
	for _, name := range sortedNames(all) {
		if !macroName.MatchString(name) {
			return fmt.Errorf("%s %q: a name has small letters, digits and dashes", kind, name)
		}
		if err := check(all[name]); err != nil {
			return fmt.Errorf("%s %q: %w", kind, name, err)
		}
	}
	return nil
}

func (n Number) check() error {
	if n.Fact != "" {
		if _, known := facts[n.Fact]; !known {
			return fmt.Errorf("there is no fact %q: use one of %v", n.Fact, sortedNames(facts))
		}
		if n.Experiment != "" || n.Metric != "" {
			return errors.New("a fact has no experiment and no metric")
		}
		return nil
	}
	if (len(n.Baseline) == 0) != (len(n.Treatment) == 0) {
		return errors.New("a ratio needs baseline and treatment")
	}
	return checkSource(n.Experiment, n.Metric)
}

func (c Claim) check() error {
	switch {
	case c.About == "" || c.Holds == "" || c.Part == "" || c.Fails == "":
		return errors.New("it needs about, and the sentences holds, part and fails")
	case len(c.Baseline) == 0 || len(c.Treatment) == 0:
		return errors.New("it needs baseline and treatment")
	case c.Expect != Better && c.Expect != Worse && c.Expect != Equal:
		return fmt.Errorf("expect is %q, not %q, %q or %q", c.Expect, Better, Worse, Equal)
	case c.Expect == Equal && c.Least != 0:
		return errors.New("least goes with better or worse")
	case c.Expect != Equal && !(c.Least >= 1):
		return fmt.Errorf("least is %v: give the smallest ratio that counts, 1 or more", c.Least)
	}
	return checkSource(c.Experiment, c.Metric)
}

func (t Table) check() error {
	if t.Rows == "" || t.Columns == "" {
		return errors.New("it needs rows and columns")
	}
	return checkSource(t.Experiment, t.Metric)
}

func checkSource(experiment, metric string) error {
	if experiment == "" {
		return errors.New("it needs an experiment")
	}
	_, err := results.MetricNamed(metric)
	return err
}
