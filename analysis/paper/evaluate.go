package paper

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"waggle/results"
	"waggle/stats"
)

// Judgement is what the records say about a claim of the text.
type Judgement string

// The judgements.
const (
	Holds   Judgement = "holds"
	Part    Judgement = "holds in part"
	Depends Judgement = "depends on placement"
	Fails   Judgement = "does not hold"
	Unknown Judgement = "can't be told"
)

// Verdict is a claim with its judgement.
type Verdict struct {
	Claim     Claim
	Judgement Judgement
	// Expected of Pairs came out as the claim says; Decided of them are known.
	Expected, Decided int
	// Depending of Pairs came out one way in one placement of the roles and the other
	// way, or open, in another.
	Depending int
	Pairs     []stats.Comparison
	// Reason says why nothing can be told, or is empty.
	Reason string
	Origin Origin
}

// Reading is a number of the text with what it was read from.
type Reading struct {
	// Text is the number as the text shows it, plain.
	Text string
	// Low and High are its 95 % interval, in the same form; "" where there is none.
	Low, High string
	N         int // repetitions
	// Missing says why there is no number, or is empty.
	Missing string
	Origin  Origin

	interval stats.Interval // of what was measured; zero for a fact
}

// Origin is where something comes from.
type Origin struct{ Run, Experiment, Cell, Metric string }

// Evaluation is every number and every claim of the text, asked of records.
type Evaluation struct {
	Numbers  map[string]Reading
	Verdicts map[string]Verdict
	runs     []*results.Run
}

// Evaluate asks runs for all that is declared. An experiment is looked up in the
// first run that has valid trials of it. What no run has is said to be missing;
// only a declaration that no run could answer is an error.
func Evaluate(d *Declarations, runs ...*results.Run) (*Evaluation, error) {
	e := &Evaluation{Numbers: map[string]Reading{}, Verdicts: map[string]Verdict{}, runs: runs}
	for _, name := range sortedNames(d.Numbers) {
		reading, err := e.read(d.Numbers[name])
		if err != nil {
			return nil, fmt.Errorf("number %q: %w", name, err)
		}
		e.Numbers[name] = reading
	}
	for _, name := range sortedNames(d.Claims) {
		e.Verdicts[name] = e.judge(d.Claims[name])
	}
	return e, nil
}

// runOf finds the first run with valid trials of an experiment.
func (e *Evaluation) runOf(experiment string) *results.Run {
	for _, run := range e.runs {
		if slices.ContainsFunc(run.Records, func(r results.Record) bool { return r.Experiment == experiment && r.Valid }) {
			return run
		}
	}
	return nil
}

// groups gives the main groups of an experiment at some levels.
func (e *Evaluation) groups(experiment string, where results.Cell) (*results.Run, []stats.Group) {
	run := e.runOf(experiment)
	if run == nil {
		return nil, nil
	}
	return run, stats.Where(stats.Main(stats.GroupRecords(run, experiment)), where)
}

// facts are what a run says about itself.
var facts = map[string]func(runs []*results.Run) string{
	"trials": func(runs []*results.Run) string {
		return fmt.Sprint(countRecords(runs, func(*results.Record) bool { return true }))
	},
	"valid-trials": func(runs []*results.Run) string {
		return fmt.Sprint(countRecords(runs, func(r *results.Record) bool { return r.Valid }))
	},
	"invalid-trials": func(runs []*results.Run) string {
		return fmt.Sprint(countRecords(runs, func(r *results.Record) bool { return !r.Valid && !r.Unsupported }))
	},
	"experiments": func(runs []*results.Run) string {
		names := map[string]bool{}
		for _, run := range runs {
			for _, x := range run.Plan.Experiments {
				names[x.Name] = true
			}
		}
		return fmt.Sprint(len(names))
	},
	"kernel": func(runs []*results.Run) string { return runs[0].Environment.Kernel },
	"cpu":    func(runs []*results.Run) string { return runs[0].Environment.CPU },
	"cpus":   func(runs []*results.Run) string { return fmt.Sprint(runs[0].Environment.CPUs) },
	"memory": func(runs []*results.Run) string { return fmt.Sprintf("%d GiB", runs[0].Environment.MemoryBytes>>30) },
	"go":     func(runs []*results.Run) string { return strings.TrimPrefix(runs[0].Environment.GoVersion, "go") },
	"commit": func(runs []*results.Run) string {
		return runs[0].Environment.Commit[:min(12, len(runs[0].Environment.Commit))]
	},
	"date":      func(runs []*results.Run) string { return runs[0].Plan.Start.UTC().Format("2 January 2006") },
	"run":       func(runs []*results.Run) string { return runs[0].Plan.Run },
	"supported": func(runs []*results.Run) string { return fmt.Sprint(countPaths(runs[0], true)) },
	"paths":     func(runs []*results.Run) string { return fmt.Sprint(countPaths(runs[0], false)) },
}

func countRecords(runs []*results.Run, counts func(*results.Record) bool) (n int) {
	for _, run := range runs {
		for i := range run.Records {
			if counts(&run.Records[i]) {
				n++
			}
		}
	}
	return n
}

func countPaths(run *results.Run, supportedOnly bool) (n int) {
	for _, refusal := range run.Environment.Paths {
		if !supportedOnly || refusal == "" {
			n++
		}
	}
	return n
}

// read asks the records for a number.
func (e *Evaluation) read(n Number) (Reading, error) {
	if n.Fact != "" {
		return Reading{Text: facts[n.Fact](e.runs), Origin: Origin{Run: e.runs[0].Plan.Run, Metric: n.Fact}}, nil
	}
	metric, err := results.MetricNamed(n.Metric)
	if err != nil {
		return Reading{}, err
	}
	origin := Origin{Experiment: n.Experiment, Cell: n.Where.String(), Metric: n.Metric}
	run, groups := e.groups(n.Experiment, n.Where)
	if run == nil {
		return Reading{Missing: "no run has experiment " + n.Experiment, Origin: origin}, nil
	}
	origin.Run = run.Plan.Run
	if len(n.Treatment) > 0 {
		return readRatio(n, metric, groups, origin)
	}
	switch len(groups) {
	case 0:
		return Reading{Missing: "no cell has " + n.Where.String(), Origin: origin}, nil
	case 1:
	default:
		return Reading{}, fmt.Errorf("%d cells of %s have %s, such as %s and %s: name more levels",
			len(groups), n.Experiment, n.Where, groups[0].Cell, groups[1].Cell)
	}
	s := stats.Summarize(groups[0].Sample(metric))
	if s.N == 0 {
		return Reading{Missing: "no valid trial measured it", Origin: origin}, nil
	}
	return Reading{
		Text: metric.Format(s.Median), Low: metric.Format(s.Low), High: metric.Format(s.High), N: s.N, Origin: origin,
		interval: stats.Interval{Value: s.Median, Low: s.Low, High: s.High},
	}, nil
}

func readRatio(n Number, metric results.Metric, groups []stats.Group, origin Origin) (Reading, error) {
	origin.Cell = strings.TrimSpace(fmt.Sprintf("%s: %s over %s", origin.Cell, n.Treatment, n.Baseline))
	pairs := stats.PairUp(groups, n.Baseline, n.Treatment)
	switch len(pairs) {
	case 0:
		return Reading{Missing: "no pair of cells differs in this alone", Origin: origin}, nil
	case 1:
	default:
		return Reading{}, fmt.Errorf("%d pairs of cells of %s differ in this alone: name more levels", len(pairs), n.Experiment)
	}
	c := stats.Judge([]stats.Question{{Metric: metric, Baseline: pairs[0].Baseline.Sample(metric),
		Treatment: pairs[0].Treatment.Sample(metric), Interleaved: true}})[0]
	if c.Ratio == nil {
		return Reading{Missing: c.Reason, Origin: origin}, nil
	}
	return Reading{
		Text: formatRatio(c.Ratio.Value), Low: formatRatio(c.Ratio.Low), High: formatRatio(c.Ratio.High),
		N: min(c.Baseline.N, c.Treatment.N), Origin: origin, interval: *c.Ratio,
	}, nil
}

// formatRatio writes a ratio with as many digits as its interval can carry.
func formatRatio(r float64) string {
	switch {
	case r >= 100:
		return fmt.Sprintf("%.0f", r)
	case r >= 10:
		return fmt.Sprintf("%.1f", r)
	}
	return fmt.Sprintf("%.2f", r)
}

// judge asks the records whether a claim holds.
func (e *Evaluation) judge(c Claim) Verdict {
	v := Verdict{Claim: c, Judgement: Unknown, Origin: Origin{Experiment: c.Experiment, Metric: c.Metric,
		Cell: strings.TrimSpace(fmt.Sprintf("%s: %s over %s", c.Where, c.Treatment, c.Baseline))}}
	run, groups := e.groups(c.Experiment, c.Where)
	if run == nil {
		v.Reason = "not measured"
		return v
	}
	v.Origin.Run = run.Plan.Run
	metric, err := results.MetricNamed(c.Metric)
	if err != nil {
		panic(err) // Parse has checked it
	}
	pairs := stats.PairUp(groups, c.Baseline, c.Treatment)
	if len(pairs) == 0 {
		v.Reason = "not measured"
		return v
	}
	questions := make([]stats.Question, len(pairs))
	noise, known := stats.NoiseOf(run, c.Experiment, metric)
	for i, p := range pairs {
		questions[i] = stats.Question{Metric: metric, Baseline: p.Baseline.Sample(metric), Treatment: p.Treatment.Sample(metric), Interleaved: true}
		if known {
			questions[i].Noise = &noise
		}
	}
	v.Pairs = stats.Judge(questions)
	for _, p := range v.Pairs {
		if p.Verdict == stats.Undecided {
			v.Reason = p.Reason
			continue
		}
		v.Decided++
		if p.Verdict == stats.Depends {
			v.Depending++
			continue
		}
		if c.metBy(p) {
			v.Expected++
		}
	}
	v.Judgement = v.choose()
	return v
}

// metBy reports whether a decided comparison came out as the claim says.
func (c Claim) metBy(p stats.Comparison) bool {
	switch c.Expect {
	case Equal:
		return p.Verdict == stats.NoDifference
	case Better:
		return p.Verdict == stats.Better && largeEnough(p.Ratio, c.Least)
	}
	return p.Verdict == stats.Worse && largeEnough(p.Ratio, c.Least)
}

// largeEnough reports whether an effect reaches the least that counts. A ratio
// that does not exist is that of something to nothing.
func largeEnough(ratio *stats.Interval, least float64) bool {
	return ratio == nil || math.Abs(math.Log(ratio.Value)) >= math.Log(least)
}

func (v *Verdict) choose() Judgement {
	switch {
	case v.Decided == 0:
		return Unknown
	case v.Expected == 0 && v.Depending > 0:
		return Depends
	case v.Expected == 0:
		return Fails
	case v.Expected == len(v.Pairs):
		return Holds
	}
	return Part
}

// ratios gives the smallest and the largest ratio of the decided comparisons,
// or false where none of them has one.
func (v *Verdict) ratios() (low, high stats.Interval, n int, ok bool) {
	n = math.MaxInt
	for _, p := range v.Pairs {
		if p.Verdict == stats.Undecided || p.Ratio == nil {
			continue
		}
		if !ok || p.Ratio.Value < low.Value {
			low = *p.Ratio
		}
		if !ok || p.Ratio.Value > high.Value {
			high = *p.Ratio
		}
		n, ok = min(n, p.Baseline.N, p.Treatment.N), true
	}
	return low, high, n, ok
}

func sortedNames[T any](all map[string]T) []string { return slices.Sorted(maps.Keys(all)) }
