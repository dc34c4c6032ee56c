package report

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"waggle/analysis/claims"
	"waggle/analysis/figure"
	"waggle/results"
	"waggle/results/stockkernel"
	"waggle/stats"
)

// race is what an experiment says about eBPF: the best eBPF path against the best
// of the others, in each surrounding.
type race struct {
	experiment string
	comparer   comparer
	contest    contest
}

// opening is what a report opens on.
type opening struct {
	// Wide and Narrow are the picture of all races; nil without any.
	Wide, Narrow *figure.Figure
	// Sentences say what it shows.
	Sentences []Sentence
	// Details say where an eBPF path wins and where another path beats it, by how much,
	// the clearest first; and at the end, at once, where nothing can be said.
	Details []Sentence
}

// makeOpening finds what a report opens on.
func makeOpening(run *results.Run, experiments []Experiment) (o opening, err error) {
	catalogue, err := claims.Published()
	if err != nil {
		return o, err
	}
	var races []race
	for _, e := range experiments {
		if len(e.Figures) > 0 {
			races = append(races, racesOf(run, catalogue, e.Figures[0].Figure)...)
		}
	}
	headlines := headlinesOf(races, movedBySettings(experiments))
	if o.Wide, o.Narrow, err = drawHeadlines(headlines); err != nil {
		return o, err
	}
	o.Sentences = append(summarise(headlines), copiesSentence(run)...)
	o.Details = details(races)
	return o, nil
}

// details says how each race ended, the clearest first.
func details(races []race) []Sentence {
	races = slices.SortedStableFunc(slices.Values(races), func(a, b race) int { return cmp.Compare(b.strength(), a.strength()) })
	var sentences []Sentence
	var equal, undecided []string
	for _, r := range races {
		name := r.experiment + r.surrounding()
		switch {
		case r.strength() >= leastShown || r.contest.largest(stats.Depends) > 0:
			sentences = append(sentences, Sentence{Subject: r.experiment + ":", Text: r.text()})
		case r.open():
			undecided = append(undecided, name)
		default:
			equal = append(equal, name)
		}
	}
	sentences = appendList(sentences, "No difference:", equal)
	return appendList(sentences, "Can't be told:", undecided)
}

func appendList(sentences []Sentence, subject string, names []string) []Sentence {
	if len(names) == 0 {
		return sentences
	}
	return append(sentences, Sentence{Subject: subject, Text: strings.Join(names, ", ") + "."})
}

// open reports that the data leave open how a race ended in some place.
func (r race) open() bool {
	return slices.ContainsFunc(r.contest.places, func(p place) bool { return p.comparison.Verdict == stats.Undecided })
}

// leastShown is the smallest factor that is worth a line: below it, a factor of
// two decimals reads as none.
const leastShown = 1.005

// strength is the largest factor by which it was won or lost, 0 where neither was
// found.
func (r race) strength() float64 {
	return max(r.contest.largest(stats.Better), r.contest.largest(stats.Worse))
}

func (r race) surrounding() string {
	if r.contest.surrounding == "" {
		return ""
	}
	return " (" + r.contest.surrounding + ")"
}

// asItIs narrows a figure of settings to the machine as it is: that a path wins
// under a setting which nobody would choose is no headline.
func asItIs(f *figure.Figure) results.FigureSpec {
	spec := f.Spec
	if spec.Kind != "tornado" {
		return spec
	}
	for _, factor := range f.Experiment.Factors {
		if factor.Name == spec.X && len(factor.Levels) > 0 {
			spec.Where = maps.Clone(spec.Where)
			if spec.Where == nil {
				spec.Where = results.Cell{}
			}
			spec.Where[spec.X] = factor.Levels[0]
			spec.X = ""
		}
	}
	return spec
}

// racesOf finds the races of an experiment, by the main metric of a figure.
func racesOf(run *results.Run, catalogue *claims.Catalogue, f *figure.Figure) []race {
	var races []race
	spec := asItIs(f)
	for _, factor := range claims.PathFactors() {
		asked := *f
		asked.Spec = spec
		asked.Spec.Series = factor
		c := comparer{run: run, figure: &asked, metric: stockkernel.Complete(f.Metrics[0])}
		c.groups = stats.Where(stats.GroupRecords(run, f.Experiment.Name), spec.Where)
		c.groups = slices.DeleteFunc(c.groups, func(g stats.Group) bool { return g.Source != results.SourceMeasured })
		contests := c.gather(catalogue.BestOfBoth(c.groups, factor, c.metric))
		c.judge(contests)
		for _, contest := range contests {
			races = append(races, race{f.Experiment.Name, c, contest})
		}
	}
	return races
}

// text says how a race ended where, and who ran.
func (r race) text() string {
	c, factor := r.comparer, r.comparer.figure.Spec.Series
	var fast, slow []string
	for _, p := range r.contest.places {
		fast = appendNew(fast, figure.LevelText(factor, p.pair.Treatment.Cell[factor]))
		slow = appendNew(slow, figure.LevelText(factor, p.pair.Baseline.Cell[factor]))
	}
	return fmt.Sprintf("%s=%s against %s%s, by %s: %s", factor, strings.Join(fast, " or "), strings.Join(slow, " or "),
		r.surrounding(), c.metric.Label, c.text(r.contest, false))
}

func appendNew(list []string, s string) []string {
	if slices.Contains(list, s) {
		return list
	}
	return append(list, s)
}
