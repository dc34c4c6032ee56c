// Package regress says whether one revision of the code is worse than another.
//
// [Compare] sets a base run beside a head run; [CompareRevisions] compares two
// revisions that ran interleaved as levels of the factor "revision" in one run.
// Counts (copies, system calls, bytes) are compared exactly either way. Timings
// are compared only where both sides ran interleaved: two runs at different
// times differ in more than the code.
//
// [Follow] draws the trend of every metric through the runs of many commits and
// finds the commits where it changed.
//
// A comparison that came to no answer fails, too: what base measured and head did
// not, and two sides that have nothing in common.
package regress

import (
	"fmt"
	"slices"
	"strings"

	"waggle/results"
	"waggle/stats"
)

// The levels of results.RevisionFactor that are compared.
const (
	BaseRevision = "base"
	HeadRevision = "head"
)

// watched are the metrics that are compared: every count, and those timings
// that between them cover speed, tail and cost. More would ask the same again.
var watched = []string{
	results.OperationRate, results.SustainedRate, results.Throughput, results.LatencyP50, results.LatencyP99, results.CPUPerOperation,
	results.CopiesPerByte, results.UserToKernelPerByte, results.KernelToUserPerByte, results.InKernelPerByte,
	results.InUserPerByte, results.SyscallsPerOperation, results.PayloadPerOperation,
}

func watchedMetrics() []results.Metric {
	list := make([]results.Metric, len(watched))
	for i, name := range watched {
		m, err := results.MetricNamed(name)
		if err != nil {
			panic(err) // watched names only metrics there are
		}
		list[i] = m
	}
	return list
}

// Report is the outcome of a comparison.
type Report struct {
	Base Side `json:"base"`
	Head Side `json:"head"`
	// Interleaved says that timings were compared.
	Interleaved bool `json:"interleaved"`
	// Findings are all comparisons, in the order of the plan.
	Findings []Finding `json:"findings"`
	// Broken is what base measured and head did not: an experiment, a cell, or
	// metrics of a cell. They count as regressions.
	Broken []Broken `json:"broken"`
	// Warnings are to be shown with the outcome.
	Warnings []string `json:"warnings"`
}

// Side says what was compared.
type Side struct {
	Run    string `json:"run"`
	Commit string `json:"commit"`
	Dirty  bool   `json:"dirty"`
}

// Finding is one metric of one cell.
type Finding struct {
	Experiment string `json:"experiment"`
	Cell       string `json:"cell"`
	stats.Comparison
}

// Broken is what no longer gives a valid trial, or one with all that it measured.
type Broken struct {
	Experiment string `json:"experiment"`
	Cell       string `json:"cell"` // empty: all of the experiment's
	Reason     string `json:"reason"`
}

// Regressions gives the findings that got worse.
func (r Report) Regressions() []Finding { return r.with(stats.Worse) }

// Improvements gives the findings that got better.
func (r Report) Improvements() []Finding { return r.with(stats.Better) }

// Decided is how many comparisons came to an answer.
func (r Report) Decided() int { return len(r.Findings) - len(r.with(stats.Undecided)) }

// Failed reports whether head must not be merged: it got worse, or nobody knows.
func (r Report) Failed() bool {
	return len(r.Regressions()) > 0 || len(r.Broken) > 0 || r.Decided() == 0
}

func (r Report) with(v stats.Verdict) []Finding {
	var list []Finding
	for _, f := range r.Findings {
		if f.Verdict == v {
			list = append(list, f)
		}
	}
	return list
}

// Compare sets two runs beside each other. Their timings are compared only if
// both are parts of one run, which they say by carrying the same name.
func Compare(base, head *results.Run) (Report, error) {
	r := Report{
		Base:        side(base),
		Head:        side(head),
		Interleaved: base.Plan.Run == head.Plan.Run,
		Warnings:    environmentWarnings(base, head),
	}
	if !r.Interleaved {
		r.Warnings = append(r.Warnings, "base and head are two runs: only counts are compared; run both revisions interleaved to compare timings")
	}
	in := inquiry{report: r}
	for _, e := range base.Plan.Experiments {
		noise := noiseOf(base, e.Name)
		heads, bases := stats.GroupRecords(head, e.Name), stats.Main(stats.GroupRecords(base, e.Name))
		switch {
		case len(bases) == 0:
			in.warn("%s: base has no trial", e.Name)
		case len(heads) == 0:
			in.breaks(e.Name, "", "head has no trial of it")
			continue
		}
		for _, b := range bases {
			h, _ := find(heads, b)
			in.ask(stats.Pair{Baseline: b, Treatment: h}, noise)
		}
	}
	for _, e := range head.Plan.Experiments {
		if _, ok := base.Experiment(e.Name); !ok {
			in.warn("%s: base has no such experiment", e.Name)
		}
	}
	return in.answer()
}

// CompareRevisions compares the levels "base" and "head" of the factor
// "revision" within one run.
func CompareRevisions(run *results.Run) (Report, error) {
	in := inquiry{report: Report{Base: side(run), Head: side(run), Interleaved: true, Warnings: environmentWarnings(run, run)}}
	in.report.Base.Commit = run.Environment.Revisions[BaseRevision]
	in.report.Head.Commit = run.Environment.Revisions[HeadRevision]
	compared := false
	for _, e := range run.Plan.Experiments {
		noise := noiseOf(run, e.Name)
		groups := stats.Main(stats.GroupRecords(run, e.Name))
		heads := stats.Where(groups, revision(HeadRevision))
		for _, b := range stats.Where(groups, revision(BaseRevision)) {
			compared = true
			h, _ := find(heads, b)
			in.ask(stats.Pair{Baseline: b, Treatment: h}, noise)
		}
	}
	if !compared {
		return in.report, fmt.Errorf(`run %s compares no revisions: none of its trials is of %s=%s. `+
			`Run it with --revision %[3]s=PROGRAM --revision %[4]s=PROGRAM, or compare two runs by --base DIR --head DIR`,
			run.Plan.Run, results.RevisionFactor, BaseRevision, HeadRevision)
	}
	return in.answer()
}

func revision(name string) results.Cell { return results.Cell{results.RevisionFactor: name} }

func side(run *results.Run) Side {
	return Side{Run: run.Plan.Run, Commit: run.Environment.Commit, Dirty: run.Environment.Dirty}
}

// find looks for the same cell of another run or revision.
func find(groups []stats.Group, like stats.Group) (stats.Group, bool) {
	name := like.Cell.Without(results.RevisionFactor).String()
	for _, g := range stats.Main(groups) {
		if g.Cell.Without(results.RevisionFactor).String() == name && g.Source == like.Source {
			return g, true
		}
	}
	return stats.Group{}, false
}

func environmentWarnings(base, head *results.Run) []string {
	warnings := []string{}
	if base.Environment.Dirty || head.Environment.Dirty {
		warnings = append(warnings, "the code had uncommitted changes: a commit's name doesn't say what ran")
	}
	if d := machineDiffers(base.Environment, head.Environment); d != "" {
		warnings = append(warnings, "base and head ran on different machines: "+d)
	}
	return warnings
}

// machineDiffers says how two environments' machines differ, or "".
func machineDiffers(a, b results.Environment) string {
	switch {
	case a.Kernel != b.Kernel:
		return fmt.Sprintf("kernel %s, then %s", a.Kernel, b.Kernel)
	case a.CPU != b.CPU || a.CPUs != b.CPUs:
		return fmt.Sprintf("%d CPUs %s, then %d %s", a.CPUs, a.CPU, b.CPUs, b.CPU)
	}
	return ""
}

// inquiry gathers questions, so that all of a comparison are judged together.
type inquiry struct {
	report    Report
	questions []stats.Question // of the report's findings, in the same order
}

// noiseOf gives the noise of an experiment by metric; what isn't known is nil.
func noiseOf(run *results.Run, experiment string) map[string]*stats.Noise {
	noise := map[string]*stats.Noise{}
	for _, m := range watchedMetrics() {
		if n, ok := stats.NoiseOf(run, experiment, m); ok {
			noise[m.Name] = &n
		}
	}
	return noise
}

func (in *inquiry) warn(format string, args ...any) {
	in.report.Warnings = append(in.report.Warnings, fmt.Sprintf(format, args...))
}

// ask adds all questions about a pair, or notes that head can't be asked.
func (in *inquiry) ask(p stats.Pair, noise map[string]*stats.Noise) {
	experiment, cell := p.Baseline.Experiment, p.Baseline.Cell.Without(results.RevisionFactor).String()
	if len(p.Baseline.Records) == 0 {
		in.warn("%s, %s: base has no valid trial: %s", experiment, cell, whyRejected(p.Baseline))
		return
	}
	if len(p.Treatment.Records) == 0 {
		in.breaks(experiment, cell, whyRejected(p.Treatment))
		return
	}
	var missing []string
	for _, m := range watchedMetrics() {
		q := stats.Question{Metric: m, Baseline: p.Baseline.Sample(m), Treatment: p.Treatment.Sample(m),
			Interleaved: in.report.Interleaved, Noise: noise[m.Name]}
		if len(q.Baseline) == 0 && len(q.Treatment) == 0 {
			continue
		}
		if len(q.Treatment) == 0 {
			missing = append(missing, m.Name)
			continue
		}
		if len(q.Baseline) == 0 {
			in.warn("%s, %s: base did not measure %s", experiment, cell, m.Name)
			continue
		}
		in.report.Findings = append(in.report.Findings, Finding{Experiment: experiment, Cell: cell})
		in.questions = append(in.questions, q)
	}
	if len(missing) > 0 {
		in.breaks(experiment, cell, "head did not measure "+strings.Join(missing, ", "))
	}
}

func (in *inquiry) breaks(experiment, cell, reason string) {
	in.report.Broken = append(in.report.Broken, Broken{experiment, cell, reason})
}

func (in *inquiry) answer() (Report, error) {
	r := in.report
	if len(r.Findings) == 0 && len(r.Broken) == 0 {
		return r, fmt.Errorf("compare run %s with run %s: they have no cell in common that base could run", r.Base.Run, r.Head.Run)
	}
	for i, c := range stats.Judge(in.questions) {
		r.Findings[i].Comparison = c
	}
	r.Warnings = append(r.Warnings, sharedWarnings(r.Findings)...)
	return r, nil
}

// sharedWarnings gives each warning of the findings once.
func sharedWarnings(findings []Finding) []string {
	var all []string
	for _, f := range findings {
		for _, w := range f.Warnings {
			if !slices.Contains(all, w) {
				all = append(all, w)
			}
		}
	}
	return all
}

func whyRejected(g stats.Group) string {
	if len(g.Rejected) == 0 {
		return "it has no trial"
	}
	return g.Rejected[0].Reason
}
