package report

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"waggle/analysis/figure"
	"waggle/results"
	"waggle/results/stockkernel"
	"waggle/stats"
)

// copiesSentence says how often each read path copies a byte, where most paths were
// counted side by side; nothing if copies were not counted.
func copiesSentence(run *results.Run) []Sentence {
	counted, err := results.MetricNamed(results.CopiesPerByte)
	if err != nil {
		panic(err) // there is such a metric
	}
	complete := stockkernel.Complete(counted)
	groups := mostReadPaths(run, counted)
	if len(groups) < 2 {
		return nil
	}
	type path struct {
		name     string
		copies   float64
		inKernel bool // some were counted on the stock kernel only
	}
	var paths []path
	borrowed := false
	for _, g := range groups {
		all, own := stats.Summarize(g.Sample(complete)).Median, stats.Summarize(g.Sample(counted)).Median
		p := path{figure.LevelText("read", g.Cell["read"]), all, all-own >= leastCopies}
		borrowed = borrowed || p.inKernel
		if p.inKernel {
			p.name += "*"
		}
		paths = append(paths, p)
	}
	slices.SortStableFunc(paths, func(a, b path) int { return cmp.Compare(rounded(a.copies), rounded(b.copies)) })
	var parts []string
	for len(paths) > 0 {
		same := slices.IndexFunc(paths, func(p path) bool { return rounded(p.copies) != rounded(paths[0].copies) })
		if same < 0 {
			same = len(paths)
		}
		var names []string
		for _, p := range paths[:same] {
			names = append(names, p.name)
		}
		parts = append(parts, fmt.Sprintf("%s by %s", timesCopied(paths[0].copies), strings.Join(names, ", ")))
		paths = paths[same:]
	}
	text := "is copied " + strings.Join(parts, "; ") + "."
	if borrowed {
		text += " (* Some of them inside the kernel, where this one can't count: as counted on " + stockkernel.Source() + ", in a virtual machine.)"
	}
	return []Sentence{{"A byte read", text}}
}

// leastCopies a byte are what is worth a word: less are packet headers and messages.
const leastCopies = 0.05

func rounded(copies float64) float64 { return math.Round(10*copies) / 10 }

func timesCopied(copies float64) string {
	if c := rounded(copies); c == 1 {
		return "once"
	} else if c == 2 {
		return "twice"
	} else {
		return fmt.Sprintf("%g times", c)
	}
}

// mostReadPaths are the groups of the setting in which most read paths were counted.
// The floor is no path.
func mostReadPaths(run *results.Run, counted results.Metric) (most []stats.Group) {
	for _, e := range run.Plan.Experiments {
		settings := map[string][]stats.Group{}
		for _, g := range stats.Main(stats.GroupRecords(run, e.Name)) {
			level, ok := g.Cell["read"]
			if !ok || results.IsFloor(level) || g.Source != results.SourceMeasured || len(g.Sample(counted)) == 0 {
				continue
			}
			setting := g.Cell.Without("read").String()
			settings[setting] = append(settings[setting], g)
			if len(settings[setting]) > len(most) {
				most = settings[setting]
			}
		}
	}
	return most
}
