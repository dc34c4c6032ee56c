// Package audit asks whether a run directory can be believed.
//
// It reads what a run has left behind and nothing else. Each check looks for one
// way in which records can be wrong, by accident or on purpose, and gives a
// [Finding] that names the records. Checks stand in categories; a category's
// score falls with what was found in it. [Run] makes all checks; an honest run
// has no finding that is a fault, only remarks about what can't be known.
//
// The hash chain of the records tells of any edit. All other checks do without
// the chain, since whoever edits records may make the chain anew: numbers that
// belong together must fit one another, and noise must look like noise.
package audit

import (
	"errors"
	"fmt"
	"slices"

	"waggle/results"
)

// Category groups checks by what they protect.
type Category string

// The categories, in the order of a report.
const (
	Integrity    Category = "integrity"    // nobody changed what was written
	Completeness Category = "completeness" // nothing planned is missing
	Design       Category = "design"       // repetitions, interleaving, controls
	Validity     Category = "validity"     // how many trials had to be left out
	Provenance   Category = "provenance"   // which code, which machine
	Confounders  Category = "confounders"  // what else could have moved the result
	Arithmetic   Category = "arithmetic"   // numbers of one record fit one another
	Plausibility Category = "plausibility" // numbers of several records look measured
)

// Categories lists all categories.
func Categories() []Category {
	return []Category{Integrity, Completeness, Design, Validity, Provenance, Confounders, Arithmetic, Plausibility}
}

// Severity says what a finding means.
type Severity string

// The severities. A fault means that something was changed or can't be true; a
// weakness that less may be concluded; a remark that something can't be checked.
const (
	Fault    Severity = "fault"
	Weakness Severity = "weakness"
	Remark   Severity = "remark"
)

// points is what one finding takes from its category's score.
func (s Severity) points() int {
	return map[Severity]int{Fault: 60, Weakness: 15, Remark: 3}[s]
}

// Finding is one thing that a check found.
type Finding struct {
	Category Category `json:"category"`
	Severity Severity `json:"severity"`
	// Check names the check; What says in one line what it found, and where.
	Check string `json:"check"`
	What  string `json:"what"`
}

// Score is a category's score, from 0 to 100.
type Score struct {
	Category Category `json:"category"`
	Score    int      `json:"score"`
	Checks   int      `json:"checks"`
}

// Report is what an audit found.
type Report struct {
	Run      string    `json:"run"`
	Records  int       `json:"records"`
	Scores   []Score   `json:"scores"`
	Findings []Finding `json:"findings"`
	// Rerun is what running a sample of cells again has shown, nil if that was not
	// asked for.
	Rerun *Rerun `json:"rerun,omitempty"`
}

// Believable reports whether nothing was found that can't be true.
func (r *Report) Believable() bool {
	return !slices.ContainsFunc(r.Findings, func(f Finding) bool { return f.Severity == Fault })
}

// mostOfOneCheck is how many findings of one check are listed; the rest are
// counted.
const mostOfOneCheck = 5

// check is one check: it reports through found.
type check struct {
	category Category
	name     string
	look     func(run *results.Run, found func(Severity, string, ...any))
}

// checks are all checks that need the records alone.
var checks = slices.Concat(completeness, design, validity, provenance, confounders, arithmetic, plausibility)

// Run audits a run directory. An error means that the directory can't be read as
// a run at all.
func Run(dir string) (*Report, error) {
	run, err := results.Open(dir)
	if err != nil {
		return nil, err
	}
	r := Records(run)
	switch err := results.CheckChain(dir); {
	case errors.Is(err, results.ErrNoChain):
		r.add(Finding{Integrity, Weakness, "hash chain", err.Error() + ": edits can't be told from it"})
	case err != nil:
		r.add(Finding{Integrity, Fault, "hash chain", err.Error()})
	}
	r.score()
	return r, nil
}

// Records audits the records of a run without its files.
func Records(run *results.Run) *Report {
	r := &Report{Run: run.Plan.Run, Records: len(run.Records), Findings: []Finding{}}
	for _, c := range checks {
		n := 0
		c.look(run, func(s Severity, format string, arguments ...any) {
			if n++; n <= mostOfOneCheck {
				r.add(Finding{c.category, s, c.name, fmt.Sprintf(format, arguments...)})
			}
		})
		if n > mostOfOneCheck {
			last := &r.Findings[len(r.Findings)-1]
			last.What += fmt.Sprintf(" (and %d more)", n-mostOfOneCheck)
		}
	}
	r.score()
	return r
}

func (r *Report) add(f Finding) { r.Findings = append(r.Findings, f) }

// score gives each category what its findings leave of 100.
func (r *Report) score() {
	r.Scores = nil
	for _, category := range Categories() {
		s := Score{Category: category, Score: 100}
		for _, c := range checks {
			if c.category == category {
				s.Checks++
			}
		}
		if category == Integrity {
			s.Checks++ // the chain
		}
		for _, f := range r.Findings {
			if f.Category == category {
				s.Score = max(0, s.Score-f.Severity.points())
			}
		}
		r.Scores = append(r.Scores, s)
	}
}

// place names a record for people.
func place(r *results.Record) string {
	return fmt.Sprintf("trial %d (%s, %s, repetition %d)", r.Trial, r.Experiment, r.Cell, r.Repetition)
}

// measured calls f for each valid record that a machine has measured.
func measured(run *results.Run, f func(*results.Record)) {
	for i := range run.Records {
		if r := &run.Records[i]; r.Valid && r.Source == results.SourceMeasured {
			f(r)
		}
	}
}
