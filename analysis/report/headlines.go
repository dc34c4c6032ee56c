package report

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"waggle/analysis/figure"
	"waggle/stats"
)

// headlinesOf makes the rows of the picture that the report opens on: each race at
// each place. If these are too many, each race has its first and last place, and if
// it is still too many, the clearest are kept.
func headlinesOf(races []race, moved []movedPaths) []figure.Headline {
	var all, ends []figure.Headline
	for _, r := range races {
		rows := r.headlines(moved)
		all = append(all, rows...)
		if len(rows) > 2 {
			rows = []figure.Headline{rows[0], rows[len(rows)-1]}
		}
		ends = append(ends, rows...)
	}
	if len(all) <= figure.MostHeadlines {
		return all
	}
	return ends[:min(len(ends), figure.MostHeadlines)]
}

func (r race) headlines(moved []movedPaths) []figure.Headline {
	c, factor := r.comparer, r.comparer.figure.Spec.Series
	var rows []figure.Headline
	for _, p := range r.contest.places {
		if p.comparison.Ratio == nil {
			continue
		}
		treatment, baseline := p.pair.Treatment.Cell[factor], p.pair.Baseline.Cell[factor]
		var where []string
		if p.x != nil {
			where = append(where, figure.PlaceText(c.figure.Spec.X, p.x))
		}
		if r.contest.surrounding != "" {
			where = append(where, r.contest.surrounding)
		}
		rows = append(rows, figure.Headline{
			Experiment: r.experiment, Metric: c.metric.Label, Place: strings.Join(where, ", "),
			Paths:      fmt.Sprintf("%s vs %s", figure.LevelText(factor, treatment), figure.LevelText(factor, baseline)),
			Comparison: p.comparison, HigherBetter: c.metric.HigherBetter,
			Marked: slices.ContainsFunc(moved, func(m movedPaths) bool { return m.concerns(factor, treatment, baseline) }),
		})
	}
	return rows
}

func drawHeadlines(headlines []figure.Headline) (wide, narrow *figure.Figure, err error) {
	wide, narrow, err = figure.DrawHeadlines(headlines)
	if errors.Is(err, figure.ErrNoData) {
		return nil, nil, nil
	}
	return wide, narrow, err
}

// summarise says in two sentences what the picture shows.
func summarise(headlines []figure.Headline) []Sentence {
	if len(headlines) == 0 {
		return nil
	}
	won, lost := of(headlines, stats.Better), of(headlines, stats.Worse)
	equal, depends, open := len(of(headlines, stats.NoDifference)), len(of(headlines, stats.Depends)), len(of(headlines, stats.Undecided))
	first := fmt.Sprintf("wins none of the %s", countOf(len(headlines), "comparison"))
	if len(won) > 0 {
		first = fmt.Sprintf("wins %d of %s, most clearly %s", len(won), countOf(len(headlines), "comparison"), headlineText(won[0]))
	}
	second := "in none"
	if len(lost) > 0 {
		second = fmt.Sprintf("in %d, most clearly %s", len(lost), headlineText(lost[0]))
	}
	var rest []string
	for _, r := range []struct {
		n    int
		text string
	}{{equal, "end equal"}, {depends, "depend on where the roles run"}, {open, "can't be told"}} {
		if r.n > 0 {
			rest = append(rest, fmt.Sprintf("%d %s", r.n, r.text))
		}
	}
	if len(rest) > 0 {
		second += "; " + strings.Join(rest, ", ")
	}
	if marked := countMarked(headlines); marked > 0 {
		second += fmt.Sprintf("; in %d (†), a setting of the machine moves the result more than the path does", marked)
	}
	return []Sentence{{"eBPF", first + "."}, {"Another path beats it", second + "."}}
}

// of keeps the headlines with a verdict, the clearest first.
func of(headlines []figure.Headline, verdict stats.Verdict) []figure.Headline {
	kept := slices.DeleteFunc(slices.Clone(headlines), func(h figure.Headline) bool { return h.Comparison.Verdict != verdict })
	slices.SortStableFunc(kept, func(a, b figure.Headline) int { return cmp.Compare(effect(b), effect(a)) })
	return kept
}

func effect(h figure.Headline) float64 {
	ratio, ok := h.Ratio()
	if !ok {
		return 0
	}
	return stats.Effect(ratio.Value)
}

func countMarked(headlines []figure.Headline) (n int) {
	for _, h := range headlines {
		if h.Marked {
			n++
		}
	}
	return n
}

func headlineText(h figure.Headline) string {
	ratio, _ := h.Ratio()
	where := h.Experiment
	if h.Place != "" {
		where += ", " + h.Place
	}
	return fmt.Sprintf("%s (%s), by %s", strings.Replace(h.Paths, " vs ", " against ", 1), where, times(aboveOne(ratio)))
}

func countOf(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
