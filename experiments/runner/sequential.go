package runner

import (
	"slices"
	"time"

	"waggle/experiments/spec"
	"waggle/results"
	"waggle/stats"
)

// With a budget, a run follows a group-sequential plan: repetitions go to comparisons
// that are still open, and those that are clear get none. When it is looked, and what a
// look may claim, is fixed before the first trial (package stats).

// openRepetitions is how many times the repetitions of an effort a comparison gets at
// most.
const openRepetitions = 3

// sequence makes the plan of an experiment sequential, if the experiment says what it
// has to decide; otherwise it returns nil.
func sequence(p *spec.Plan, placements []string, budget time.Duration) *results.Sequential {
	if len(p.Experiment.Questions) == 0 {
		return nil
	}
	turns := max(1, len(placements))
	if p.Places() {
		turns = 1
	}
	most := openRepetitions * p.Trial.Repetitions
	most = (most + turns - 1) / turns * turns
	looks := stats.PlanLooks(most, turns)
	p.Trial.Repetitions = most
	return &results.Sequential{Looks: looks, Spent: stats.Spend(looks), Questions: p.Experiment.Questions, BudgetSeconds: budget.Seconds()}
}

// looking decides, as a run goes on, which of the trials that were planned are still
// worth their time.
type looking struct {
	plan     results.Plan
	deadline time.Time
	records  []results.Record
	// open are the cells of each experiment that get more repetitions, by name; none
	// are named before the first look, when all do.
	open map[string]map[string]bool
	// looked is the last repetition that each experiment was looked at for.
	looked map[string]int
	spent  map[string]*spending
}

// spending is how long the trials of an experiment took.
type spending struct {
	trials int
	time   time.Duration
}

func newLooking(plan results.Plan, budget time.Duration) *looking {
	for _, e := range plan.Experiments {
		if budget == 0 && e.Sequential != nil { // of the run that is resumed
			budget = time.Duration(e.Sequential.BudgetSeconds * float64(time.Second))
		}
	}
	return &looking{plan: plan, deadline: time.Now().Add(budget), open: map[string]map[string]bool{}, looked: map[string]int{}, spent: map[string]*spending{}}
}

// add takes note of a trial that was run.
func (l *looking) add(r results.Record, took time.Duration) {
	l.records = append(l.records, r)
	if l.spent[r.Experiment] == nil {
		l.spent[r.Experiment] = &spending{}
	}
	l.spent[r.Experiment].trials++
	l.spent[r.Experiment].time += took
}

// wants says whether a trial is to be run.
func (l *looking) wants(t planned, left []planned) bool {
	name := t.plan.Experiment.Name
	e, _ := (&results.Run{Plan: l.plan}).Experiment(name)
	if e.Sequential == nil || t.counted {
		return true
	}
	if slices.Contains(e.Sequential.Looks, t.repetition) && l.looked[name] != t.repetition {
		l.looked[name] = t.repetition
		l.look(e, t.repetition, left)
	}
	open, looked := l.open[name]
	return !looked || open[t.cell.Levels.String()]
}

// look finds out what is open after so many repetitions, and gives it more if there is
// time until the next look: a look half done decides nothing.
func (l *looking) look(e results.PlannedExperiment, repetition int, left []planned) {
	before, looked := l.open[e.Name]
	open := stats.StillOpen(&results.Run{Plan: l.plan, Records: l.records}, e.Name)
	for cell := range open {
		if looked && !before[cell] {
			delete(open, cell) // it was given up for want of time
		}
	}
	next := e.Sequential.Looks[slices.Index(e.Sequential.Looks, repetition)+1]
	if time.Now().Add(l.time(e.Name, open, next, left)).After(l.deadline) {
		open = map[string]bool{}
	}
	l.open[e.Name] = open
}

// time is about how long it takes until the next look: that of the experiment's open
// cells, and of the trials of others that come between.
func (l *looking) time(name string, open map[string]bool, next int, left []planned) (total time.Duration) {
	for _, t := range left {
		if t.repetition >= next {
			break
		}
		other := t.plan.Experiment.Name
		cells, looked := l.open[other]
		if other == name {
			cells, looked = open, true
		}
		if looked && !cells[t.cell.Levels.String()] {
			continue
		}
		if s := l.spent[other]; s != nil {
			total += s.time / time.Duration(s.trials)
		}
	}
	return total
}
