package spec

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"waggle/results"
)

// file is an experiment file as it is written.
type file struct {
	Name     string           `yaml:"name"`
	Question string           `yaml:"question"`
	Metrics  []Metric         `yaml:"metrics"`
	Fixed    yaml.Node        `yaml:"fixed"`
	Factors  yaml.Node        `yaml:"factors"`
	Exclude  []yaml.Node      `yaml:"exclude"`
	Control  yaml.Node        `yaml:"control"`
	Trials   map[Effort]trial `yaml:"trials"`
	Figures  []figure         `yaml:"figures"`

	Questions []question `yaml:"questions"`
}

// question is a results.SequentialQuestion.
type question struct {
	Metric   string `yaml:"metric"`
	Factor   string `yaml:"factor"`
	Baseline string `yaml:"baseline"`
}

type trial struct {
	Repetitions   int     `yaml:"repetitions"`
	Counts        int     `yaml:"counts"`
	WarmUpSeconds float64 `yaml:"warm_up_seconds"`
	Seconds       float64 `yaml:"seconds"`
	Operations    int64   `yaml:"operations"`
}

// figure is a results.FigureSpec whose `where` may be written as a factor's
// levels are.
type figure struct {
	Kind     string    `yaml:"kind"`
	Title    string    `yaml:"title"`
	X        string    `yaml:"x"`
	Series   string    `yaml:"series"`
	Panel    string    `yaml:"panel"`
	Baseline string    `yaml:"baseline"`
	Where    yaml.Node `yaml:"where"`
}

// parser turns one file into an Experiment.
type parser struct{ paths Paths }

// Parse reads an experiment file. Name is the file's, for errors; paths are
// the data paths that it may ask for. An error is one line that names the file,
// the line where that is known, the field, and what is allowed.
func Parse(name string, data []byte, paths Paths) (*Experiment, error) {
	p := parser{paths}
	e, err := p.parse(data)
	if err != nil {
		return nil, fmt.Errorf("experiment file %s: %w", name, err)
	}
	return e, nil
}

func (p parser) parse(data []byte) (*Experiment, error) {
	if len(data) > MaxFileBytes {
		return nil, fmt.Errorf("has %d bytes, at most %d are allowed", len(data), MaxFileBytes)
	}
	var f file
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	decoder.KnownFields(true)
	if err := decoder.Decode(&f); err != nil {
		if err == io.EOF {
			return nil, errors.New("is empty")
		}
		return nil, oneLine(err)
	}
	if decoder.Decode(new(yaml.Node)) != io.EOF {
		return nil, errors.New("holds more than one document: put each experiment in a file of its own")
	}
	return p.experiment(&f)
}

// What yaml says about a field or a type, with the Go type that it names.
var goType = regexp.MustCompile(` (in|into) type [^ ]*|into [][*a-zA-Z0-9.]+$`)

// oneLine makes one line without Go types of the several that yaml gives.
func oneLine(err error) error {
	var types *yaml.TypeError
	if !errors.As(err, &types) || len(types.Errors) == 0 {
		return errors.New(strings.Join(strings.Fields(strings.TrimPrefix(err.Error(), "yaml: ")), " "))
	}
	text := types.Errors[0]
	allowed := ""
	switch {
	case strings.Contains(text, "type spec.file"):
		allowed = ": allowed are name, question, metrics, fixed, factors, exclude, control, trials, figures, questions"
	case strings.Contains(text, "type spec.trial"):
		allowed = ": allowed are repetitions, counts, warm_up_seconds, seconds, operations"
	case strings.Contains(text, "type spec.figure"):
		allowed = ": allowed are kind, title, x, series, panel, baseline, where"
	}
	text = strings.Join(strings.Fields(goType.ReplaceAllString(text, "")), " ")
	return errors.New(strings.Replace(text, "not found", "is unknown", 1) + allowed)
}

var validName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,63}$`)

func (p parser) experiment(f *file) (*Experiment, error) {
	if !validName.MatchString(f.Name) {
		return nil, fmt.Errorf("name %q: must be lower-case letters, digits and dashes, at most 64", f.Name)
	}
	if !strings.HasSuffix(f.Question, "?") || strings.ContainsAny(f.Question, "\n\r") || len(f.Question) > 300 {
		return nil, errors.New("question: must be one line that ends in a question mark, at most 300 bytes")
	}
	e := &Experiment{Name: f.Name, Question: f.Question, Metrics: f.Metrics}
	for _, m := range f.Metrics {
		if !slices.Contains(metrics, m) {
			return nil, fmt.Errorf("metrics: %q is unknown: choose from throughput, latency, cpu, copies", m)
		}
	}
	for _, step := range []func(*file, *Experiment) error{p.fixed, p.factors, p.exclude, p.control, p.trials, p.figures, p.questions, checkEfforts} {
		if err := step(f, e); err != nil {
			return nil, err
		}
	}
	return e, nil
}

// at puts the line of a node in front of an error.
func at(n *yaml.Node, format string, args ...any) error {
	return fmt.Errorf("line %d: "+format, append([]any{n.Line}, args...)...)
}

// pairs calls each for every key and value of a mapping, in the file's order.
func pairs(n *yaml.Node, field string, each func(key, value *yaml.Node) error) error {
	if n.IsZero() {
		return nil
	}
	if n.Kind != yaml.MappingNode {
		return at(n, "%s: must be a mapping of names to levels", field)
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		if seen[key.Value] {
			return at(key, "%s: %q is given twice", field, key.Value)
		}
		seen[key.Value] = true
		if err := each(key, n.Content[i+1]); err != nil {
			return err
		}
	}
	return nil
}

// level reads one level of a parameter.
func (p parser) level(field string, q parameter, n *yaml.Node) (any, error) {
	if n.Kind != yaml.ScalarNode {
		return nil, at(n, "%s: %s must be one value (%s)", field, q.name, q.what)
	}
	var raw any
	if err := n.Decode(&raw); err != nil {
		return nil, at(n, "%s: %s: %w", field, q.name, oneLine(err))
	}
	level, err := q.parse(raw, p.paths)
	if err != nil {
		return nil, at(n, "%s: %w", field, err)
	}
	return level, nil
}

// cell reads a mapping of parameters to one level each.
func (p parser) cell(field string, n *yaml.Node) (results.Cell, error) {
	cell := results.Cell{}
	err := pairs(n, field, func(key, value *yaml.Node) error {
		q, err := parameterNamed(key.Value)
		if err != nil {
			return at(key, "%s: %w", field, err)
		}
		cell[q.name], err = p.level(field, q, value)
		return err
	})
	return cell, err
}

func (p parser) fixed(f *file, e *Experiment) (err error) {
	e.Fixed, err = p.cell("fixed", &f.Fixed)
	return err
}

func (p parser) factors(f *file, e *Experiment) error {
	err := pairs(&f.Factors, "factors", func(key, value *yaml.Node) error {
		q, err := parameterNamed(key.Value)
		if err != nil {
			return at(key, "factors: %w", err)
		}
		if _, ok := e.Fixed[q.name]; ok {
			return at(key, "factors: %s is also in fixed: it can be only one of them", q.name)
		}
		levels, err := p.byEffort(q, value)
		e.Factors = append(e.Factors, Factor{q.name, levels})
		return err
	})
	if err == nil && len(e.Factors) == 0 {
		return errors.New("factors: at least one is needed")
	}
	return err
}

// byEffort reads a factor's levels: one list for all efforts, or a mapping of
// every effort to a list or to the name of another effort whose list it shares.
func (p parser) byEffort(q parameter, n *yaml.Node) (map[Effort][]any, error) {
	levels := map[Effort][]any{}
	if n.Kind == yaml.SequenceNode {
		all, err := p.levels(q, n)
		for _, effort := range Efforts {
			levels[effort] = all
		}
		return levels, err
	}
	same := map[Effort]*yaml.Node{}
	err := pairs(n, "factors: "+q.name, func(key, value *yaml.Node) error {
		effort, err := ParseEffort(key.Value)
		if err != nil {
			return at(key, "factors: %s: %w", q.name, err)
		}
		if value.Kind == yaml.ScalarNode {
			same[effort] = value
			return nil
		}
		levels[effort], err = p.levels(q, value)
		return err
	})
	if err != nil {
		return nil, err
	}
	return levels, shareLevels(q, n, levels, same)
}

func shareLevels(q parameter, n *yaml.Node, levels map[Effort][]any, same map[Effort]*yaml.Node) error {
	for effort, value := range same {
		if _, shared := same[Effort(value.Value)]; shared || levels[Effort(value.Value)] == nil {
			return at(value, "factors: %s: %s is %q: must be a list of levels, or the name of an effort that has one", q.name, effort, value.Value)
		}
	}
	for effort, value := range same {
		levels[effort] = levels[Effort(value.Value)]
	}
	for _, effort := range Efforts {
		if levels[effort] == nil {
			return at(n, "factors: %s has no levels for effort %s: give a list, or the name of the effort whose list it shares", q.name, effort)
		}
	}
	return nil
}

func (p parser) levels(q parameter, n *yaml.Node) ([]any, error) {
	if n.Kind != yaml.SequenceNode || len(n.Content) == 0 || len(n.Content) > MaxLevels {
		return nil, at(n, "factors: %s: must be a list of 1 to %d levels (%s)", q.name, MaxLevels, q.what)
	}
	var levels []any
	for _, item := range n.Content {
		level, err := p.level("factors", q, item)
		if err != nil {
			return nil, err
		}
		if slices.Contains(levels, level) {
			return nil, at(item, "factors: %s has the level %v twice", q.name, item.Value)
		}
		levels = append(levels, level)
	}
	return levels, nil
}

func (p parser) exclude(f *file, e *Experiment) error {
	for i := range f.Exclude {
		cell, err := p.cell("exclude", &f.Exclude[i])
		if err != nil {
			return err
		}
		for name := range cell {
			if !e.varies(name) {
				return at(&f.Exclude[i], "exclude: %s is no factor of this experiment", name)
			}
		}
		e.Exclude = append(e.Exclude, cell)
	}
	return nil
}

func (e *Experiment) varies(name string) bool {
	return slices.ContainsFunc(e.Factors, func(f Factor) bool { return f.Name == name })
}

// control reads one cell, or a list of them.
func (p parser) control(f *file, e *Experiment) error {
	nodes := []*yaml.Node{&f.Control}
	if f.Control.Kind == yaml.SequenceNode {
		nodes = f.Control.Content
	}
	if f.Control.IsZero() || len(nodes) == 0 {
		return errors.New("control: name the cell that is run twice as A/A, as {read: copy}, or a list of such cells")
	}
	for _, n := range nodes {
		cell, err := p.cell("control", n)
		if err != nil {
			return err
		}
		e.Controls = append(e.Controls, cell)
	}
	return nil
}

func (p parser) questions(f *file, e *Experiment) error {
	for _, q := range f.Questions {
		if _, err := results.MetricNamed(q.Metric); err != nil {
			return fmt.Errorf("questions: %w", err)
		}
		if !e.varies(q.Factor) {
			return fmt.Errorf("questions: %s is no factor of this experiment", q.Factor)
		}
		e.Questions = append(e.Questions, results.SequentialQuestion(q))
	}
	return nil
}

func (p parser) trials(f *file, e *Experiment) error {
	e.Trials = map[Effort]Trial{}
	for effort := range f.Trials {
		if _, err := ParseEffort(string(effort)); err != nil {
			return fmt.Errorf("trials: %w", err)
		}
	}
	for _, effort := range Efforts {
		t, ok := f.Trials[effort]
		if !ok {
			return fmt.Errorf("trials: effort %s is missing", effort)
		}
		trial, err := t.check()
		if err != nil {
			return fmt.Errorf("trials: %s: %w", effort, err)
		}
		e.Trials[effort] = trial
	}
	return nil
}

func (t trial) check() (Trial, error) {
	most := MaxTrialTime.Seconds()
	switch {
	case t.Repetitions < 1 || t.Repetitions > MaxRepetitions:
		return Trial{}, fmt.Errorf("repetitions=%d: must be from 1 to %d", t.Repetitions, MaxRepetitions)
	case t.Counts < 0 || t.Counts > MaxRepetitions:
		return Trial{}, fmt.Errorf("counts=%d: must be from 1 to %d", t.Counts, MaxRepetitions)
	case !(t.WarmUpSeconds >= 0 && t.WarmUpSeconds <= most):
		return Trial{}, fmt.Errorf("warm_up_seconds=%v: must be from 0 to %v", t.WarmUpSeconds, most)
	case (t.Seconds != 0) == (t.Operations != 0):
		return Trial{}, errors.New("one of seconds and operations must be set, and not both")
	case !(t.Seconds >= 0 && t.Seconds <= most):
		return Trial{}, fmt.Errorf("seconds=%v: must be above 0 and at most %v", t.Seconds, most)
	case t.Operations < 0 || t.Operations > 1e9:
		return Trial{}, fmt.Errorf("operations=%d: must be from 1 to 1000000000", t.Operations)
	}
	return Trial{t.Repetitions, max(1, t.Counts), seconds(t.WarmUpSeconds), seconds(t.Seconds), t.Operations}, nil
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

func (p parser) figures(f *file, e *Experiment) error {
	for i := range f.Figures {
		g := &f.Figures[i]
		if !validName.MatchString(g.Kind) || g.Title == "" {
			return fmt.Errorf("figures: figure %d needs a kind and a title", i+1)
		}
		where, err := p.cell("figures: where", &g.Where)
		if err != nil {
			return err
		}
		for _, name := range []string{g.X, g.Series, g.Panel} {
			if name != "" && !e.varies(name) {
				return fmt.Errorf("figures: %q: %s is no factor of this experiment", g.Title, name)
			}
		}
		spec := results.FigureSpec{Kind: g.Kind, Title: g.Title, X: g.X, Series: g.Series, Panel: g.Panel, Baseline: g.Baseline}
		if len(where) > 0 {
			spec.Where = where
		}
		e.Figures = append(e.Figures, spec)
	}
	return nil
}

// checkEfforts plans every effort once, so that a file is right at all of them.
func checkEfforts(_ *file, e *Experiment) error {
	for _, effort := range Efforts {
		if _, err := e.Plan(effort, nil); err != nil {
			return err
		}
	}
	return nil
}
