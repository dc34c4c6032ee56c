// Package spec reads experiment files: YAML that asks one question, names the
// factors that are varied to answer it, and says how long to try.
//
// Everything a cell needs is a parameter (parameters.go): a factor varies one,
// `fixed` sets one, and the rest have documented defaults. So one table says
// what can be written in a file, on the command line, and found in a record's
// cell. Every combination is checked before anything is started.
package spec

import (
	"fmt"
	"time"

	"waggle/results"
)

// Effort is how much of an experiment to run.
type Effort string

// The efforts: seconds, minutes, an hour.
const (
	Smoke Effort = "smoke"
	Quick Effort = "quick"
	Full  Effort = "full"
)

// Efforts lists all efforts, the smallest first.
var Efforts = []Effort{Smoke, Quick, Full}

// ParseEffort returns the effort of that name.
func ParseEffort(name string) (Effort, error) {
	for _, e := range Efforts {
		if string(e) == name {
			return e, nil
		}
	}
	return "", fmt.Errorf("effort %q is unknown: choose one of smoke, quick, full", name)
}

// Limits on what one file can ask for.
const (
	MaxFileBytes   = 64 << 10
	MaxLevels      = 64
	MaxCells       = 4096
	MaxRepetitions = 1000
	MaxTrialTime   = time.Hour
)

// Metric is something that the runner measures around each trial. Throughput
// and latency come with every trial; the others cost something and are asked for.
type Metric string

// What can be measured.
const (
	Throughput Metric = "throughput"
	Latency    Metric = "latency"
	CPU        Metric = "cpu"
	Copies     Metric = "copies" // with system calls and context switches
)

var metrics = []Metric{Throughput, Latency, CPU, Copies}

// Experiment is one experiment file.
type Experiment struct {
	Name     string
	Question string
	Metrics  []Metric
	// Fixed holds the parameters that the experiment sets and does not vary.
	Fixed   results.Cell
	Factors []Factor
	// Exclude holds partial cells; a combination that has all levels of one of
	// them is no cell of the experiment.
	Exclude []results.Cell
	// Controls are the cells that are run twice, as A/A: at least that of the baseline,
	// and better that of a treatment, too, whose noise may be another. Each names
	// levels; the first level of every factor that it leaves out is meant.
	Controls []results.Cell
	Trials   map[Effort]Trial
	Figures  []results.FigureSpec
	// Questions are what a run with a budget has to decide.
	Questions []results.SequentialQuestion
}

// Factor is a parameter that an experiment varies.
type Factor struct {
	Name   string
	Levels map[Effort][]any
}

// Trial says how an experiment's trials are run. Either Duration or Operations
// is set.
type Trial struct {
	Repetitions int
	// Counts is how many repetitions there are besides, in which copies are counted
	// and no time is taken, where the experiment measures copies.
	Counts     int
	WarmUp     time.Duration
	Duration   time.Duration
	Operations int64
}

// Measures says whether the experiment asks for m.
func (e *Experiment) Measures(m Metric) bool {
	for _, have := range e.Metrics {
		if have == m {
			return true
		}
	}
	return false
}
