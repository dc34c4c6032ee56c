package regress

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"waggle/results"
	"waggle/stats"
)

// MaxRuns is the most runs whose history is followed at once.
const MaxRuns = 500

// History is how every metric of every cell went through the runs of many
// commits.
type History struct {
	// Runs are all that were looked at, oldest first.
	Runs   []RunOfHistory `json:"runs"`
	Trends []Trend        `json:"trends"`
	// Warnings are to be shown with the trends.
	Warnings []string `json:"warnings"`
}

// RunOfHistory is a run, with the commit that it ran.
type RunOfHistory struct {
	Run    string    `json:"run"`
	Commit string    `json:"commit"`
	Start  time.Time `json:"start"`
}

// Trend is one metric of one cell through time.
type Trend struct {
	Experiment string   `json:"experiment"`
	Cell       string   `json:"cell"`
	Metric     string   `json:"metric"`
	Points     []Point  `json:"points"`
	Changes    []Change `json:"changes"`
}

// Point is one run's median.
type Point struct {
	Run    string    `json:"run"`
	Commit string    `json:"commit"`
	Start  time.Time `json:"start"`
	stats.Summary

	environment results.Environment
}

// Change is a place where a trend took a new level.
type Change struct {
	// At is the index of the first point of the new level, Commit its commit.
	At     int    `json:"at"`
	Commit string `json:"commit"`
	// Before and After are the medians of the levels on both sides.
	Before  float64       `json:"before"`
	After   float64       `json:"after"`
	Verdict stats.Verdict `json:"verdict"`
	// Machine says how the machine changed at the same point, if it did: then
	// the code need not be the reason.
	Machine string `json:"machine,omitempty"`
}

// OpenHistory reads all run directories in a directory, oldest first. A run
// that can't be read is an error.
func OpenHistory(dir string) ([]*results.Run, error) {
	plans, err := filepath.Glob(filepath.Join(dir, "*", results.PlanFile))
	if err != nil {
		return nil, fmt.Errorf("read history: %w", err)
	}
	if len(plans) == 0 {
		if _, err := os.Stat(dir); err != nil {
			return nil, fmt.Errorf("read history: %w", err)
		}
		return nil, fmt.Errorf("read history: %s holds no run directory", dir)
	}
	if len(plans) > MaxRuns {
		return nil, fmt.Errorf("read history: %s holds %d runs, more than %d: move the oldest elsewhere", dir, len(plans), MaxRuns)
	}
	runs := make([]*results.Run, len(plans))
	for i, plan := range plans {
		if runs[i], err = results.Open(filepath.Dir(plan)); err != nil {
			return nil, err
		}
	}
	return runs, nil
}

// Follow finds the trend of every metric and the commits where it changed. The
// order of the runs doesn't matter: they are sorted by their start.
func Follow(runs []*results.Run) History {
	runs = slices.SortedStableFunc(slices.Values(runs), func(a, b *results.Run) int {
		return a.Plan.Start.Compare(b.Plan.Start)
	})
	h := History{Trends: gather(runs), Warnings: []string{}}
	for i := range h.Trends {
		h.Trends[i].findChanges()
	}
	for _, run := range runs {
		h.Runs = append(h.Runs, RunOfHistory{run.Plan.Run, run.Environment.Commit, run.Plan.Start})
	}
	if len(runs) < 2*fewestPoints {
		h.Warnings = append(h.Warnings, fmt.Sprintf("%d runs: a change of a timing is only found among %d or more", len(runs), 2*fewestPoints))
	}
	for i := 1; i < len(runs); i++ {
		if d := machineDiffers(runs[i-1].Environment, runs[i].Environment); d != "" {
			h.Warnings = append(h.Warnings, fmt.Sprintf("run %s is on another machine than the one before: %s", runs[i].Plan.Run, d))
		}
	}
	return h
}

// gather collects the points of each trend. Trends are in the order in which
// their cells first appear.
func gather(runs []*results.Run) []Trend {
	var trends []Trend
	index := map[string]int{}
	for _, run := range runs {
		for _, e := range run.Plan.Experiments {
			for _, g := range stats.Main(stats.GroupRecords(run, e.Name)) {
				for _, m := range watchedMetrics() {
					s := g.Sample(m)
					if len(s) == 0 {
						continue
					}
					key := fmt.Sprintf("%q %q %q", e.Name, g.Cell, m.Name)
					i, ok := index[key]
					if !ok {
						i = len(trends)
						index[key] = i
						trends = append(trends, Trend{Experiment: e.Name, Cell: g.Cell.String(), Metric: m.Name, Changes: []Change{}})
					}
					trends[i].Points = append(trends[i].Points, point(run, s))
				}
			}
		}
	}
	return trends
}

func point(run *results.Run, s stats.Sample) Point {
	return Point{
		Run: run.Plan.Run, Commit: run.Environment.Commit, Start: run.Plan.Start,
		Summary: stats.Summarize(s), environment: run.Environment,
	}
}

func (t *Trend) findChanges() {
	m, err := results.MetricNamed(t.Metric)
	if err != nil {
		panic(err) // gather used the same name
	}
	medians := make([]float64, len(t.Points))
	for i, p := range t.Points {
		medians[i] = p.Median
	}
	at := changePoints(medians)
	if m.Exact {
		at = t.steps(at)
	}
	bounds := slices.Concat([]int{0}, at, []int{len(medians)})
	for i, k := range at {
		t.Changes = append(t.Changes, t.change(m, k,
			stats.Median(medians[bounds[i]:k]), stats.Median(medians[k:bounds[i+2]])))
	}
}

func (t *Trend) change(m results.Metric, at int, before, after float64) Change {
	verdict := stats.Worse
	if (after > before) == m.HigherBetter {
		verdict = stats.Better
	}
	return Change{
		At: at, Commit: t.Points[at].Commit, Before: before, After: after, Verdict: verdict,
		Machine: machineDiffers(t.Points[at-1].environment, t.Points[at].environment),
	}
}

// steps finds where a count changes: each time, since counts don't scatter. One
// that scatters within any of the runs, as system calls do, changes where the
// runs on both sides are far apart, and at the change points that there are.
func (t *Trend) steps(changePoints []int) []int {
	scatters := slices.ContainsFunc(t.Points, func(p Point) bool { return !p.IsCount() })
	var at []int
	for i := 1; i < len(t.Points); i++ {
		before, after := t.Points[i-1].Summary, t.Points[i].Summary
		if scatters && (slices.Contains(changePoints, i) || stats.FarApart(before, after)) ||
			!scatters && !stats.SameCount(before.Median, after.Median) {
			at = append(at, i)
		}
	}
	return at
}

// Failed reports whether any trend got worse anywhere.
func (h History) Failed() bool {
	return slices.ContainsFunc(h.Trends, func(t Trend) bool {
		return slices.ContainsFunc(t.Changes, func(c Change) bool { return c.Verdict == stats.Worse })
	})
}

// Changed gives the trends that changed somewhere.
func (h History) Changed() []Trend {
	var changed []Trend
	for _, t := range h.Trends {
		if len(t.Changes) > 0 {
			changed = append(changed, t)
		}
	}
	return changed
}
