package results

import (
	"fmt"
	"maps"
	"slices"
	"time"
)

// Names of the files in a run directory.
const (
	RecordsFile     = "records.jsonl"
	PlanFile        = "plan.json"
	EnvironmentFile = "environment.json"
	BenchFile       = "bench.txt"
	FiguresDir      = "figures"
	ReportFile      = "report.html"
	SummaryFile     = "summary.md"
)

// Plan is what a run set out to do, written before its first trial: enough for
// analysis to know each experiment's question and figures without reading the
// experiment files again, and for an interrupted run to be resumed in the same
// order.
type Plan struct {
	Schema int       `json:"schema"`
	Run    string    `json:"run"`
	Start  time.Time `json:"start"`
	// OrderSeed is the seed of the interleaving.
	OrderSeed   uint64              `json:"order_seed"`
	Experiments []PlannedExperiment `json:"experiments"`
}

// PlannedExperiment is one experiment of a plan, its levels already those of
// the chosen effort.
type PlannedExperiment struct {
	Name        string `json:"name"`
	Question    string `json:"question"`
	Effort      string `json:"effort"`
	Repetitions int    `json:"repetitions"`
	// Trial says how each trial is run, and Metrics what is measured around it
	// beside throughput and latency. Plans of older programs have neither.
	Trial   *PlannedTrial `json:"trial,omitempty"`
	Metrics []string      `json:"metrics,omitempty"`
	Factors []Factor      `json:"factors"`
	// Fixed holds the parameters that the experiment sets for all its cells.
	Fixed Cell `json:"fixed,omitempty"`
	// Sequential is the plan by which comparisons get more repetitions, absent where
	// every cell gets the same number. Repetitions is then the most that a cell gets.
	Sequential *Sequential `json:"sequential,omitempty"`
	// Exclude holds partial cells that no cell of the experiment has, Control the
	// cell that is run twice, as A/A.
	Exclude  []Cell `json:"exclude,omitempty"`
	Controls []Cell `json:"controls,omitempty"`
	// Figures are drawn from this experiment's records, in this order.
	Figures []FigureSpec `json:"figures"`
}

// PlannedTrial says how trials are run: for so many seconds or so many
// operations, after a warm-up.
type PlannedTrial struct {
	WarmUpSeconds float64 `json:"warm_up_seconds"`
	Seconds       float64 `json:"seconds,omitempty"`
	Operations    int64   `json:"operations,omitempty"`
	// Counts is how many repetitions more there are in which copies are counted, and
	// no time is taken.
	Counts int `json:"counts,omitempty"`
}

// Factor is one thing an experiment varies, with its levels in the order they
// are to be shown.
type Factor struct {
	Name   string `json:"name"`
	Levels []any  `json:"levels"`
}

// FigureSpec asks for one figure.
type FigureSpec struct {
	// Kind is the figure function to use, such as "throughput" or "latency".
	Kind  string `json:"kind" yaml:"kind"`
	Title string `json:"title" yaml:"title"`
	// X is the factor along the horizontal axis; Series the factor whose levels
	// are the lines or bars; Panel, if set, the factor with a panel a level.
	X      string `json:"x" yaml:"x"`
	Series string `json:"series" yaml:"series"`
	Panel  string `json:"panel,omitempty" yaml:"panel,omitempty"`
	// Baseline is the level of Series that ratios are taken against.
	Baseline string `json:"baseline,omitempty" yaml:"baseline,omitempty"`
	// Where keeps only the records whose cell has these levels.
	Where Cell `json:"where,omitempty" yaml:"where,omitempty"`
}

// Environment is where a run took place. It names no private path of the
// machine.
type Environment struct {
	Schema      int      `json:"schema"`
	Kernel      string   `json:"kernel"`
	CPU         string   `json:"cpu"`
	CPUs        int      `json:"cpus"`
	MemoryBytes int64    `json:"memory_bytes"`
	GoVersion   string   `json:"go_version"`
	Commit      string   `json:"commit"`
	Dirty       bool     `json:"dirty"`
	CommandLine []string `json:"command_line"`
	// Revisions gives the commit of each level of the factor "revision", in a run
	// that compares revisions of the code.
	Revisions map[string]string `json:"revisions,omitempty"`
	// Paths says for each data path, as "read=copy", whether this machine
	// supports it: "" if so, else the reason.
	Paths map[string]string `json:"paths"`
	// Congestion is the congestion control that TCP connections were given where a
	// cell does not name one; "" where it was left to the machine.
	Congestion string `json:"congestion,omitempty"`
	// Settings are those of the machine that are known to move results, by name, as
	// the kernel writes them; one that it does not tell is not there.
	Settings map[string]string `json:"settings,omitempty"`
	// Warnings say what of it is unusual, and what to do about it, one line each.
	Warnings []string `json:"warnings,omitempty"`
	// LedgerCost is what counting copies cost on this machine just before the run,
	// empty if none were counted.
	LedgerCost []LedgerCost `json:"ledger_cost,omitempty"`
	// Versions are those of the modules the numbers depend on.
	Versions map[string]string `json:"versions"`
}

// LedgerCost is what counting cost a read from the page cache of one size, in
// nanoseconds of CPU time: medians over rounds that took turns.
type LedgerCost struct {
	SizeBytes       int     `json:"size_bytes"`
	CountedBy       string  `json:"counted_by"` // nothing, bystander, boundary, sites
	Nanoseconds     float64 `json:"nanoseconds"`
	MoreNanoseconds float64 `json:"more_nanoseconds"` // than with nothing
}

// RevisionFactor is the factor whose levels are revisions of the code, in a run
// that compares them.
const RevisionFactor = "revision"

// MaxRepetitions is the most repetitions an experiment may plan for a cell.
const MaxRepetitions = 10_000

func (p *Plan) check() error {
	if p.Schema != Schema {
		return fmt.Errorf("schema is %d, this program reads %d", p.Schema, Schema)
	}
	if err := checkName("run", p.Run); err != nil {
		return err
	}
	seen := map[string]bool{}
	for _, e := range p.Experiments {
		if seen[e.Name] {
			return fmt.Errorf("experiment %s is planned twice", e.Name)
		}
		seen[e.Name] = true
		if err := e.check(); err != nil {
			return fmt.Errorf("experiment %s: %w", e.Name, err)
		}
	}
	return nil
}

func (p *Plan) experiment(name string) (PlannedExperiment, bool) {
	for _, e := range p.Experiments {
		if e.Name == name {
			return e, true
		}
	}
	return PlannedExperiment{}, false
}

// holds reports why a record is none of this plan's.
func (p *Plan) holds(r *Record) error {
	if r.Run != p.Run {
		return fmt.Errorf("the record is of run %q, the plan of run %q", r.Run, p.Run)
	}
	if _, ok := p.experiment(r.Experiment); !ok {
		return fmt.Errorf("experiment %q is not in the plan", r.Experiment)
	}
	return nil
}

func (e *PlannedExperiment) check() error {
	if err := checkName("name", e.Name); err != nil {
		return err
	}
	if e.Repetitions < 1 || e.Repetitions > MaxRepetitions {
		return fmt.Errorf("%d repetitions: from 1 to %d are possible", e.Repetitions, MaxRepetitions)
	}
	if len(e.Factors) > MaxFactors {
		return fmt.Errorf("%d factors, more than %d", len(e.Factors), MaxFactors)
	}
	if err := e.Sequential.check(e.Repetitions); err != nil {
		return fmt.Errorf("sequential: %w", err)
	}
	seen := map[string]bool{}
	for _, f := range e.Factors {
		if err := checkName("factor", f.Name); err != nil {
			return err
		}
		if seen[f.Name] {
			return fmt.Errorf("factor %s is given twice", f.Name)
		}
		seen[f.Name] = true
		for _, level := range f.Levels {
			if err := checkLevel(level); err != nil {
				return fmt.Errorf("factor %s: %w", f.Name, err)
			}
		}
	}
	return nil
}

func (e *Environment) check() error {
	if e.Schema != Schema {
		return fmt.Errorf("schema is %d, this program reads %d", e.Schema, Schema)
	}
	if e.CPUs < 1 || e.MemoryBytes < 1 {
		return fmt.Errorf("a machine with %d CPUs and %d bytes of memory can't have run this", e.CPUs, e.MemoryBytes)
	}
	return nil
}

// differs says in what two environments differ so much that trials in one can't
// be compared with trials in the other, or "".
func (e *Environment) differs(other Environment) string {
	switch {
	case e.Commit != other.Commit:
		return fmt.Sprintf("at commit %s, this is %s", e.Commit, other.Commit)
	case !maps.Equal(e.Revisions, other.Revisions):
		return fmt.Sprintf("with revisions %v, these are %v", e.Revisions, other.Revisions)
	case e.GoVersion != other.GoVersion:
		return fmt.Sprintf("by a program of %s, this is of %s", e.GoVersion, other.GoVersion)
	case e.Dirty != other.Dirty:
		return "before or after the code had uncommitted changes"
	case e.Kernel != other.Kernel:
		return fmt.Sprintf("on kernel %s, this is %s", e.Kernel, other.Kernel)
	case e.CPU != other.CPU || e.CPUs != other.CPUs:
		return fmt.Sprintf("on %d CPUs %s, these are %d %s", e.CPUs, e.CPU, other.CPUs, other.CPU)
	}
	for _, path := range slices.Sorted(maps.Keys(e.Paths)) {
		if was, is := e.Paths[path], other.Paths[path]; (was == "") != (is == "") {
			return fmt.Sprintf("where %s was %s, and now is %s", path, supported(was), supported(is))
		}
	}
	return ""
}

func supported(reason string) string {
	if reason == "" {
		return "supported"
	}
	return "not supported: " + reason
}
