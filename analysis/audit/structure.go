package audit

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"waggle/results"
	"waggle/stats"
)

// Checks of how a run was made: nothing is missing, the design lets something be
// concluded, and the machine and code are known.

var completeness = []check{
	{Completeness, "repetitions of each cell", wholeCells},
	{Completeness, "levels of each factor", wholeFactors},
	{Completeness, "trial numbers", wholeTrials},
}

// cellRecords gathers an experiment's records by cell and control.
func cellRecords(run *results.Run, experiment string) map[string][]*results.Record {
	cells := map[string][]*results.Record{}
	for i := range run.Records {
		if r := &run.Records[i]; r.Experiment == experiment {
			name := strings.TrimSpace(r.Cell.String() + " " + r.Control)
			cells[name] = append(cells[name], r)
		}
	}
	return cells
}

// counting reports whether a trial was made for its counts alone, with the ledger
// open. Such trials have repetitions of their own, numbered behind the timed ones,
// which is how to tell one that failed.
func counting(e results.PlannedExperiment, r *results.Record) bool {
	if !r.Valid {
		return r.Repetition >= e.Repetitions
	}
	return r.Copies != nil && r.OperationsPerSecond == nil && r.Latency == nil
}

// wholeCells finds cells that lack repetitions. With a sequential plan a cell may
// end at any look; without one all have the planned number.
func wholeCells(run *results.Run, found func(Severity, string, ...any)) {
	for _, e := range run.Plan.Experiments {
		cells := cellRecords(run, e.Name)
		for _, name := range slices.Sorted(maps.Keys(cells)) {
			timed, counted := map[int]bool{}, map[int]bool{}
			for _, r := range cells[name] {
				if counting(e, r) {
					counted[r.Repetition] = true
				} else {
					timed[r.Repetition] = true
				}
			}
			if len(timed) > 0 && !timed[0] {
				found(Fault, "%s, %s: repetition 0 is missing", e.Name, name)
			}
			for _, have := range []map[int]bool{timed, counted} {
				if missing := missingWithin(have); missing >= 0 {
					found(Fault, "%s, %s: repetition %d is missing between others", e.Name, name, missing)
				}
			}
			if e.Sequential == nil && len(timed)+len(counted) < e.Repetitions && !unsupported(cells[name]) {
				found(Weakness, "%s, %s: %d of %d planned repetitions", e.Name, name, len(timed)+len(counted), e.Repetitions)
			}
		}
	}
}

// missingWithin gives the smallest number that a set lacks between others, or -1.
func missingWithin(have map[int]bool) int {
	numbers := slices.Sorted(maps.Keys(have))
	for i, n := range numbers {
		if want := numbers[0] + i; n != want {
			return want
		}
	}
	return -1
}

func unsupported(records []*results.Record) bool {
	return slices.ContainsFunc(records, func(r *results.Record) bool { return r.Unsupported })
}

func wholeFactors(run *results.Run, found func(Severity, string, ...any)) {
	for _, e := range run.Plan.Experiments {
		cells := cellRecords(run, e.Name)
		if len(cells) == 0 {
			found(Weakness, "%s: planned, and no trial of it is there", e.Name)
			continue
		}
		for _, f := range e.Factors {
			for _, level := range f.Levels {
				if !slices.ContainsFunc(run.Records, func(r results.Record) bool {
					return r.Experiment == e.Name && r.Cell.Has(results.Cell{f.Name: level})
				}) {
					found(Weakness, "%s: no trial has %s=%s, which is planned", e.Name, f.Name, results.FormatLevel(level))
				}
			}
		}
	}
}

func wholeTrials(run *results.Run, found func(Severity, string, ...any)) {
	for i, r := range run.Records {
		if r.Trial != i {
			found(Fault, "trial %d is missing: records of trials that were run are not there", i)
			return
		}
	}
}

var design = []check{
	{Design, "enough repetitions", enoughRepetitions},
	{Design, "interleaving", interleaving},
	{Design, "A/A control", control},
}

func enoughRepetitions(run *results.Run, found func(Severity, string, ...any)) {
	for _, e := range run.Plan.Experiments {
		fewest := 0
		for _, records := range cellRecords(run, e.Name) {
			n := 0
			for _, r := range records {
				if !counting(e, r) {
					n++
				}
			}
			if n > 0 && !unsupported(records) && (fewest == 0 || n < fewest) { // counts need no interval
				fewest = n
			}
		}
		if fewest > 0 && fewest < stats.EnoughRepetitions {
			found(Weakness, "%s: a cell has %d repetitions; a 95 %% interval of a median needs %d", e.Name, fewest, stats.EnoughRepetitions)
		}
	}
}

// interleaving finds experiments whose cells ran one after another, or in the
// same order in each repetition.
func interleaving(run *results.Run, found func(Severity, string, ...any)) {
	for _, e := range run.Plan.Experiments {
		orders := map[int][]string{}
		for i := range run.Records {
			if r := &run.Records[i]; r.Experiment == e.Name && !counting(e, r) {
				orders[r.Repetition] = append(orders[r.Repetition], r.Cell.String()+r.Control)
			}
		}
		if len(orders) < 3 || len(orders[0]) < 3 {
			continue
		}
		if !blocksFollow(run, e) {
			found(Fault, "%s: its trials are not in blocks of one repetition each, so its cells were not interleaved", e.Name)
		}
		different := map[string]bool{}
		for _, order := range orders {
			different[strings.Join(order, "\n")] = true
		}
		if len(different) < 2 {
			found(Fault, "%s: all repetitions have the same order of cells, which no random order gives", e.Name)
		}
	}
}

// blocksFollow reports whether repetitions of an experiment follow one another.
// A trial that was repeated because of what disturbed it may come late: a few
// may stand out of order.
func blocksFollow(run *results.Run, e results.PlannedExperiment) bool {
	highest, late, n := 0, 0, 0
	for _, r := range run.Records {
		if r.Experiment != e.Name || counting(e, &r) {
			continue
		}
		n++
		if r.Repetition < highest {
			late++
		}
		highest = max(highest, r.Repetition)
	}
	return late*10 <= n
}

func control(run *results.Run, found func(Severity, string, ...any)) {
	if !slices.ContainsFunc(run.Records, func(r results.Record) bool { return r.Control == results.ControlAA && r.Valid }) {
		found(Weakness, "no control cell was run twice under two names: the noise of the run is not known")
	}
}

var validity = []check{
	{Validity, "trials left out", leftOut},
}

// mostInvalid is the share of trials that may be invalid before the rest look
// like a selection.
const mostInvalid = 0.1

func leftOut(run *results.Run, found func(Severity, string, ...any)) {
	for _, e := range run.Plan.Experiments {
		invalid, supported := 0, 0
		for _, r := range run.Records {
			if r.Experiment != e.Name || r.Unsupported {
				continue
			}
			supported++
			if !r.Valid {
				invalid++
			}
		}
		if supported > 0 && float64(invalid) > mostInvalid*float64(supported) {
			found(Weakness, "%s: %d of %d trials are invalid: what is left may be a selection", e.Name, invalid, supported)
		}
	}
}

var provenance = []check{
	{Provenance, "commit", func(run *results.Run, found func(Severity, string, ...any)) {
		switch e := run.Environment; {
		case len(e.Revisions) > 0:
		case e.Commit == "" || e.Commit == "unknown":
			found(Weakness, "the program's commit is not known: nobody can build it again")
		case e.Dirty:
			found(Weakness, "commit %s had uncommitted changes: nobody can build that program again", e.Commit)
		}
	}},
	{Provenance, "machine", func(run *results.Run, found func(Severity, string, ...any)) {
		if e := run.Environment; e.Kernel == "" || e.CPU == "" || e.GoVersion == "" {
			found(Weakness, "kernel, processor or Go version is not named")
		}
	}},
}

var confounders = []check{
	{Confounders, "one congestion control", oneCongestion},
}

// oneCongestion finds experiments whose trials ran under several congestion
// controls without one of them being a factor.
func oneCongestion(run *results.Run, found func(Severity, string, ...any)) {
	known := false
	for _, e := range run.Plan.Experiments {
		seen := map[string]bool{}
		for i := range run.Records {
			r := &run.Records[i]
			if r.Experiment != e.Name || r.Connections == nil {
				continue
			}
			known = true
			for _, name := range slices.Sorted(maps.Keys(r.Connections.Congestion)) {
				seen[name] = true
			}
		}
		if len(seen) > 1 && !variesCongestion(e) {
			found(Weakness, "%s: connections ran under %s, and the experiment does not vary that", e.Name, strings.Join(slices.Sorted(maps.Keys(seen)), " and "))
		}
	}
	if !known {
		found(Remark, "which congestion control the connections had is not recorded")
	}
}

func variesCongestion(e results.PlannedExperiment) bool {
	return slices.ContainsFunc(e.Factors, func(f results.Factor) bool {
		return strings.Contains(f.Name, "congestion") || slices.ContainsFunc(f.Levels, func(level any) bool {
			return strings.Contains(fmt.Sprint(level), "congestion")
		})
	})
}
