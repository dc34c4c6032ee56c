// Package report writes a run's report from its records: report.html, one file
// that needs no network and nothing beside it, and summary.md with the same
// answer.
//
// Both open on the answer in words. What may be said is decided by package
// stats; conclude.go puts it into sentences. Records are input from anywhere:
// the HTML is made by html/template, which escapes them, and forbids itself
// scripts and the network.
//
// The same records give the same bytes, whatever their order.
package report

import (
	"cmp"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"waggle/analysis/figure"
	"waggle/results"
	"waggle/stats"
)

// Report is a run's report, as it stands in both files.
type Report struct {
	Run         string
	Start       string
	OrderSeed   uint64
	Environment results.Environment
	// Trials counts the records; Invalid and Unsupported are among them.
	Trials, Invalid, Unsupported int
	// Opening says where eBPF pays on this machine and where it doesn't.
	Opening     opening
	Experiments []Experiment
	// Rejected are the cells that gave no numbers in some or all trials.
	Rejected []Rejected
	Warnings []Warning
}

// Warning is something to know before believing a report.
type Warning struct {
	Text    string
	Figures []string
}

func (w Warning) String() string {
	if len(w.Figures) == 0 {
		return w.Text + "."
	}
	const named = 3
	if more := len(w.Figures) - named; more > 0 {
		return fmt.Sprintf("%s: %s; and %d more figures.", w.Text, strings.Join(w.Figures[:named], "; "), more)
	}
	return w.Text + ": " + strings.Join(w.Figures, "; ") + "."
}

// Experiment is an experiment's part of a report.
type Experiment struct {
	Name, Question, Effort string
	Answers                []Answer
	Figures                []Figure
	// Stalls says how often trials stood still, "" if they have no time lines.
	Stalls string
	// Missing are the figures that couldn't be drawn, with the reason.
	Missing []string
}

// Figure is a figure in a report.
type Figure struct {
	*figure.Figure
	// Conclusions compare the series with the baseline, which Against names.
	Against     string
	Conclusions []Sentence
	// strength is the largest factor by which anything was won or lost, or 0.
	strength float64
	// Repeated says that the report's opening has the conclusions.
	Repeated bool
	// Method says how the numbers were come by.
	Method string
}

// Rejected is a cell with trials that don't count.
type Rejected struct {
	Experiment, Cell, State, Reason string
	Trials                          int
}

// Make makes the report of a run whose figures are drawn.
func Make(run *results.Run, figures []*figure.Figure, skipped []figure.Skipped) (*Report, error) {
	r := &Report{
		Run: run.Plan.Run, Start: run.Plan.Start.UTC().Format("2 January 2006, 15:04 UTC"),
		OrderSeed: run.Plan.OrderSeed, Environment: run.Environment, Trials: len(run.Records),
	}
	stalls := figure.CountStalls(run)
	for _, planned := range run.Plan.Experiments {
		e := Experiment{Name: planned.Name, Question: planned.Question, Effort: planned.Effort}
		for _, f := range figures {
			if f.Experiment.Name == planned.Name {
				e.Figures = append(e.Figures, r.addFigure(run, f))
			}
		}
		for _, s := range skipped {
			if s.Experiment == planned.Name {
				e.Missing = append(e.Missing, fmt.Sprintf("%s: %v", s.Spec.Title, s.Reason))
			}
		}
		e.Answers = answers(e.Figures)
		for _, s := range stalls {
			if s.Experiment == planned.Name {
				e.Stalls = s.Text()
			}
		}
		r.Experiments = append(r.Experiments, e)
		r.addRejected(run, planned.Name)
	}
	var err error
	if r.Opening, err = makeOpening(run, r.Experiments); err != nil {
		return nil, err
	}
	if run.Environment.Dirty {
		r.warn("The program was built from a changed working tree: its commit doesn't say what ran")
	}
	if len(run.Records) == 0 {
		return nil, fmt.Errorf("make report: the run has no records: run or resume it first")
	}
	return r, nil
}

// ByStrength gives the experiments, those with the clearest outcome first.
func (r *Report) ByStrength() []Experiment {
	strength := func(e Experiment) (most float64) {
		for _, f := range e.Figures {
			most = max(most, f.strength)
		}
		return most
	}
	return slices.SortedStableFunc(slices.Values(r.Experiments), func(a, b Experiment) int { return cmp.Compare(strength(b), strength(a)) })
}

// Write writes a report's files into the run directory.
func (r *Report) Write(dir string) error {
	html, err := r.HTML()
	if err != nil {
		return err
	}
	if err := results.WriteFile(filepath.Join(dir, results.ReportFile), html); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	if err := results.WriteFile(filepath.Join(dir, results.SummaryFile), r.Markdown()); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}

func (r *Report) addFigure(run *results.Run, f *figure.Figure) Figure {
	drawn := Figure{Figure: f, Method: method(run, f)}
	warnings := drawn.conclude(run)
	for _, w := range append(warnings, f.Warnings...) {
		r.warn(w, f.Spec.Title)
	}
	return drawn
}

// warn adds a warning, and the figure it is about if it is about one.
func (r *Report) warn(text string, figures ...string) {
	text = figure.Capital(strings.TrimSuffix(text, "."))
	i := slices.IndexFunc(r.Warnings, func(w Warning) bool { return w.Text == text })
	if i < 0 {
		i = len(r.Warnings)
		r.Warnings = append(r.Warnings, Warning{Text: text})
	}
	for _, f := range figures {
		if !slices.Contains(r.Warnings[i].Figures, f) {
			r.Warnings[i].Figures = append(r.Warnings[i].Figures, f)
		}
	}
}

// method is a figure's method line.
func method(run *results.Run, f *figure.Figure) string {
	n := fmt.Sprint(f.MinRepetitions)
	if f.MaxRepetitions > f.MinRepetitions {
		n = fmt.Sprintf("%d to %d", f.MinRepetitions, f.MaxRepetitions)
	}
	parts := []string{
		"n = " + n + " repetitions a cell, medians with 95 % intervals",
		fmt.Sprintf("cells interleaved in random order, seed %d", run.Plan.OrderSeed),
	}
	m := f.Metrics[0]
	noise, ok := stats.NoiseOf(run, f.Experiment.Name, m)
	switch {
	case m.Exact:
		parts = append(parts, "counted, not timed: compared exactly")
	case !ok:
		parts = append(parts, "no A/A control: the noise is not known")
	default:
		parts = append(parts, fmt.Sprintf("A/A noise of %s %.1f %%, smallest detectable difference %.1f %%",
			m.Label, 100*noise.Spread, 100*noise.Detectable))
	}
	return strings.Join(parts, "; ") + "."
}

// addRejected lists what an experiment's records don't say, and why.
func (r *Report) addRejected(run *results.Run, experiment string) {
	for _, g := range stats.GroupRecords(run, experiment) {
		seen := map[string]int{}
		for _, record := range g.Rejected {
			state := "invalid"
			if record.Unsupported {
				state = "unsupported"
				r.Unsupported++
			} else {
				r.Invalid++
			}
			key := state + ": " + record.Reason
			if i, ok := seen[key]; ok {
				r.Rejected[i].Trials++
				continue
			}
			seen[key] = len(r.Rejected)
			r.Rejected = append(r.Rejected, Rejected{Experiment: experiment, Cell: g.Cell.String(), State: state, Reason: record.Reason, Trials: 1})
		}
	}
	if r.Invalid > 0 {
		r.warn("Some trials are invalid and took no part in any number: see what was left out")
	}
}
