package report

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"waggle/analysis/figure"
	"waggle/results"
	"waggle/results/stockkernel"
	"waggle/stats"
)

// Sentence is a conclusion: who it is about, if anybody in particular, and what.
type Sentence struct{ Subject, Text string }

// contest is one series against the baseline, in one surrounding: everything
// but x is the same throughout.
type contest struct {
	treatment   any
	surrounding string
	places      []place
}

// place is one comparison at one level of x.
type place struct {
	x          any // nil where the figure has no x
	pair       stats.Pair
	comparison stats.Comparison
}

// conclude compares the series of a figure with its baseline, all comparisons
// of the figure judged together. It returns what to know before believing it.
func (f *Figure) conclude(run *results.Run) (warnings []string) {
	if slices.Contains([]string{"crossover", "floor-ratio", "tornado"}, f.Spec.Kind) {
		return nil // these find their own words
	}
	c := comparer{run: run, figure: f.Figure, metric: stockkernel.Complete(f.Metrics[0])}
	contests := c.contests()
	for _, contest := range contests {
		f.strength = max(f.strength, contest.largest(stats.Better), contest.largest(stats.Worse))
		for _, p := range contest.places {
			if p.comparison.Baseline.N == 0 || p.comparison.Treatment.N == 0 {
				continue // said where the cell is listed as left out
			}
			said := slices.Concat(p.comparison.Baseline.Warnings, p.comparison.Treatment.Warnings) // with the figure
			for _, w := range p.comparison.Warnings {
				if !slices.Contains(warnings, w) && !slices.Contains(said, w) {
					warnings = append(warnings, w)
				}
			}
		}
	}
	if len(contests) == 0 {
		return nil
	}
	baseline := figure.LevelText(f.Spec.Series, c.baseline)
	if c.baseline == results.Floor {
		baseline = "the floor (the same transfer without a file system)"
	}
	f.Against = fmt.Sprintf("On this machine, against %s, by %s:", baseline, c.metric.Label)
	f.Conclusions = c.sentences(contests)
	return warnings
}

type comparer struct {
	run      *results.Run
	figure   *figure.Figure
	metric   results.Metric
	groups   []stats.Group
	baseline any
}

func (c *comparer) contests() []contest {
	spec, experiment := c.figure.Spec, c.figure.Experiment
	c.groups = stats.Where(stats.GroupRecords(c.run, experiment.Name), spec.Where)
	levels := stats.Levels(stats.Main(c.groups), experiment, spec.Series)
	c.baseline = chooseBaseline(spec, levels)
	if c.baseline == nil {
		return nil
	}
	var contests []contest
	for _, level := range levels {
		// A floor isn't a path that one could choose, so it neither wins nor loses.
		if results.IsFloor(level) || level == c.baseline {
			continue
		}
		contests = append(contests, c.against(level)...)
	}
	c.judge(contests)
	return contests
}

// chooseBaseline is the level that the spec names, or else the first that is a
// path.
func chooseBaseline(spec results.FigureSpec, levels []any) any {
	for _, level := range levels {
		if spec.Baseline == "" && !results.IsFloor(level) || spec.Baseline == figure.LevelText(spec.Series, level) {
			return level
		}
	}
	return nil
}

// against finds the contests of one level with the baseline.
func (c *comparer) against(level any) []contest {
	series := c.figure.Spec.Series
	pairs := stats.PairUp(c.groups, results.Cell{series: c.baseline}, results.Cell{series: level})
	contests := c.gather(slices.DeleteFunc(pairs, c.elsewhere))
	for i := range contests {
		contests[i].treatment = level
	}
	return contests
}

// gather makes a contest of the pairs in each surrounding.
func (c *comparer) gather(pairs []stats.Pair) []contest {
	varying := c.varying()
	var contests []contest
	index := map[string]int{}
	for _, pair := range pairs {
		surrounding := describe(pair.Treatment, varying)
		i, ok := index[surrounding]
		if !ok {
			i = len(contests)
			index[surrounding] = i
			contests = append(contests, contest{surrounding: surrounding})
		}
		contests[i].places = append(contests[i].places, place{x: c.placeOf(pair), pair: pair})
	}
	return contests
}

// elsewhere reports that neither side measures the metric in any of its trials:
// others of the figure's cells do.
func (c *comparer) elsewhere(pair stats.Pair) bool {
	silent := func(g stats.Group) bool { return len(g.Records) > 0 && len(g.Sample(c.metric)) == 0 }
	return silent(pair.Baseline) && silent(pair.Treatment)
}

// placeOf is where on the figure's x axis a pair is. What a search found is
// nowhere: it is a place on that axis itself.
func (c *comparer) placeOf(pair stats.Pair) any {
	if c.metric.Name == results.SustainedRate {
		return nil
	}
	return pair.Treatment.Cell[c.figure.Spec.X]
}

// varying are the factors, besides series and x, that have several levels.
func (c *comparer) varying() []string {
	var varying []string
	for _, f := range c.figure.Experiment.Factors {
		if f.Name == c.figure.Spec.Series || f.Name == c.figure.Spec.X {
			continue
		}
		if len(stats.Levels(c.groups, c.figure.Experiment, f.Name)) > 1 {
			varying = append(varying, f.Name)
		}
	}
	return varying
}

func describe(g stats.Group, factors []string) string {
	var parts []string
	for _, f := range factors {
		if level, ok := g.Cell[f]; ok {
			parts = append(parts, figure.FactorLevel(f, level))
		}
	}
	if g.Source == results.SourceSimulated {
		parts = append(parts, "simulated")
	}
	return strings.Join(parts, ", ")
}

func (c *comparer) judge(contests []contest) {
	in := stats.NewInquiry(c.run)
	var questions []stats.Question
	for _, contest := range contests {
		for _, p := range contest.places {
			questions = append(questions, in.About(p.pair, c.metric))
		}
	}
	answers := stats.Judge(questions)
	for i := range contests {
		for j := range contests[i].places {
			contests[i].places[j].comparison, answers = answers[0], answers[1:]
		}
	}
}

func (c *comparer) sentences(contests []contest) []Sentence {
	if reason, ok := allUndecided(contests); ok {
		return []Sentence{{Subject: "Nothing", Text: fmt.Sprintf("can be claimed about %s: %s.", c.metric.Label, reason)}}
	}
	decided, open := c.byStrength(contests)
	var sentences []Sentence
	for _, contest := range decided {
		sentences = append(sentences, Sentence{Subject: c.subject(contest), Text: c.text(contest, false)})
	}
	return append(sentences, c.together(open)...)
}

// byStrength separates the contests that were won or lost somewhere, the highest
// win first and the highest loss last, from those that were not.
func (c *comparer) byStrength(contests []contest) (decided, open []contest) {
	for _, contest := range contests {
		if contest.largest(stats.Better) > 0 || contest.largest(stats.Worse) > 0 || contest.largest(stats.Depends) > 0 {
			decided = append(decided, contest)
		} else {
			open = append(open, contest)
		}
	}
	slices.SortStableFunc(decided, func(a, b contest) int {
		if d := cmp.Compare(b.largest(stats.Better), a.largest(stats.Better)); d != 0 {
			return d
		}
		return cmp.Compare(a.largest(stats.Worse), b.largest(stats.Worse))
	})
	return decided, open
}

// largest is the largest factor, above 1, among the places with a verdict; 1 if
// none of them has a ratio, 0 if there is none.
func (c contest) largest(verdict stats.Verdict) (factor float64) {
	for _, p := range c.places {
		if p.comparison.Verdict != verdict || unsupported(p) {
			continue
		}
		factor = max(factor, 1)
		if p.comparison.Ratio != nil {
			factor = max(factor, aboveOne(*p.comparison.Ratio).Value)
		}
	}
	return factor
}

// together says once what is to be said of several contests.
func (c *comparer) together(contests []contest) (sentences []Sentence) {
	alike := map[string][]contest{}
	var order []string
	for _, contest := range contests {
		text := c.text(contest, true)
		if alike[text] == nil {
			order = append(order, text)
		}
		alike[text] = append(alike[text], contest)
	}
	for _, text := range order {
		var subjects []string
		for _, contest := range alike[text] {
			subjects = append(subjects, c.subject(contest))
		}
		if len(subjects) == 1 {
			text = c.text(alike[text][0], false)
		}
		sentences = append(sentences, Sentence{Subject: strings.Join(subjects, ", "), Text: text})
	}
	return sentences
}

func (c *comparer) subject(contest contest) string {
	subject := figure.LevelText(c.figure.Spec.Series, contest.treatment)
	if contest.surrounding != "" {
		subject += " (" + contest.surrounding + ")"
	}
	return subject
}

// allUndecided reports that no question has an answer and that all have the
// same reason.
func allUndecided(contests []contest) (reason string, ok bool) {
	for _, contest := range contests {
		for _, p := range contest.places {
			why, _, _ := strings.Cut(p.comparison.Reason, ":")
			if p.comparison.Verdict != stats.Undecided || reason != "" && why != reason {
				return "", false
			}
			reason = why
		}
	}
	return reason, reason != ""
}

// text says where a contest was won, lost and open. It is about several such
// contests if many.
func (c *comparer) text(contest contest, many bool) string {
	is, makes := "is", "makes"
	if many {
		is, makes = "are", "make"
	}
	var parts []string
	add := func(verdict stats.Verdict, say func([]place) string) {
		var chosen []place
		for _, p := range contest.places {
			if p.comparison.Verdict == verdict && !unsupported(p) {
				chosen = append(chosen, p)
			}
		}
		if len(chosen) > 0 {
			parts = append(parts, say(chosen))
		}
	}
	where := func(chosen []place) string { return c.where(contest.places, chosen) }
	add(stats.Better, func(p []place) string { return "wins" + where(p) + ", " + c.by(p) })
	add(stats.Worse, func(p []place) string { return "loses" + where(p) + ", " + c.by(p) })
	add(stats.Depends, func(p []place) string {
		return "depends on where the roles run" + where(p) + ": " + c.byPlacement(p)
	})
	add(stats.NoDifference, func(p []place) string { return makes + " " + noDifference(p[0]) + where(p) })
	add(stats.Undecided, func(p []place) string { return is + " undecided" + where(p) + " (" + reasons(p) + ")" })
	if reason, ok := anyUnsupported(contest.places); ok {
		parts = append(parts, is+" not supported on this machine ("+reason+")")
	}
	return strings.Join(parts, "; ") + "."
}

// byPlacement gives the ratio of each placement, at each place.
func (c *comparer) byPlacement(places []place) string {
	var parts []string
	for _, p := range places {
		var placements []string
		for _, in := range p.comparison.ByPlacement {
			placements = append(placements, in.Placement+" "+times(c.towards(in.Ratio)))
		}
		text := strings.Join(placements, ", ")
		if len(places) > 1 && p.x != nil {
			text += " at " + figure.PlaceText(c.figure.Spec.X, p.x)
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, "; ")
}

// towards turns a ratio so that above 1 is better.
func (c *comparer) towards(r stats.Interval) stats.Interval {
	if c.metric.HigherBetter {
		return r
	}
	return stats.Interval{Value: 1 / r.Value, Low: 1 / r.High, High: 1 / r.Low}
}

func noDifference(p place) string {
	if p.comparison.Exact {
		return "no difference"
	}
	what, _, _ := strings.Cut(p.comparison.Reason, ":")
	return what
}

func unsupported(p place) bool {
	_, not := p.pair.Treatment.Unsupported()
	return not && len(p.pair.Treatment.Records) == 0
}

func anyUnsupported(places []place) (reason string, ok bool) {
	for _, p := range places {
		if unsupported(p) {
			return p.pair.Treatment.Unsupported()
		}
	}
	return "", false
}

func reasons(places []place) string {
	var all []string
	for _, p := range places {
		why, _, _ := strings.Cut(p.comparison.Reason, ":")
		if !slices.Contains(all, why) {
			all = append(all, why)
		}
	}
	return strings.Join(all, "; ")
}

// where names the places that were chosen among all: as a range if they are
// one.
func (c *comparer) where(all, chosen []place) string {
	factor := c.figure.Spec.X
	if factor == "" || chosen[0].x == nil {
		return ""
	}
	text := func(p place) string { return figure.PlaceText(factor, p.x) }
	first, last := indexOf(all, chosen[0]), indexOf(all, chosen[len(chosen)-1])
	_, numbers := chosen[0].x.(float64)
	switch {
	case len(chosen) == len(all) && len(all) > 1:
		return " at every " + singular(figure.FactorName(factor))
	case len(chosen) == 1:
		return " at " + text(chosen[0])
	case numbers && last-first == len(chosen)-1 && last == len(all)-1:
		return " from " + text(chosen[0]) + " up"
	case numbers && last-first == len(chosen)-1 && first == 0:
		return " up to " + text(chosen[len(chosen)-1])
	case numbers && last-first == len(chosen)-1:
		return " from " + text(chosen[0]) + " to " + text(chosen[len(chosen)-1])
	}
	var names []string
	for _, p := range chosen {
		names = append(names, text(p))
	}
	return " at " + strings.Join(names, ", ")
}

// singular makes "every number of clients" of a factor that counts.
func singular(factor string) string {
	factor = strings.ToLower(factor)
	if strings.HasSuffix(factor, "s") {
		return "number of " + factor
	}
	return factor
}

func indexOf(all []place, p place) int {
	return slices.IndexFunc(all, func(q place) bool { return results.FormatLevel(q.x) == results.FormatLevel(p.x) })
}

// by says by how much, as a factor above 1: the smallest and the largest among
// the places.
func (c *comparer) by(places []place) string {
	type win struct {
		place
		ratio stats.Interval
	}
	var wins []win
	for _, p := range places {
		if p.comparison.Ratio != nil {
			wins = append(wins, win{p, aboveOne(*p.comparison.Ratio)})
		}
	}
	if len(wins) == 0 {
		return "(" + places[0].comparison.Reason + ")"
	}
	slices.SortStableFunc(wins, func(a, b win) int { return cmp.Compare(a.ratio.Value, b.ratio.Value) })
	low, high := wins[0], wins[len(wins)-1]
	at := func(w win) string {
		if w.x == nil {
			return ""
		}
		return " at " + figure.PlaceText(c.figure.Spec.X, w.x)
	}
	if c := high.comparison; c.Exact && len(wins) == 1 {
		return fmt.Sprintf("by %s (%s instead of %s)", times(high.ratio), figure.ThreeDigits(c.Treatment.Median), figure.ThreeDigits(c.Baseline.Median))
	}
	if len(wins) == 1 || times(low.ratio) == times(high.ratio) {
		if len(wins) == 1 && len(high.comparison.ByPlacement) > 0 {
			return "by " + times(high.ratio) + " (" + c.byPlacement([]place{high.place}) + ")"
		}
		return "by " + times(high.ratio)
	}
	return "by " + times(low.ratio) + at(low) + " to " + times(high.ratio) + at(high)
}

// aboveOne turns a ratio round if it is below 1, so that "by 1.5x" reads the
// same for a win and a loss.
func aboveOne(r stats.Interval) stats.Interval {
	if r.Value >= 1 {
		return r
	}
	return stats.Interval{Value: 1 / r.Value, Low: 1 / r.High, High: 1 / r.Low}
}

func times(r stats.Interval) string {
	if r.Low == r.High {
		return figure.ThreeDigits(r.Value) + "×"
	}
	return fmt.Sprintf("%s× [%s, %s]", figure.ThreeDigits(r.Value), figure.ThreeDigits(r.Low), figure.ThreeDigits(r.High))
}

// Answer is what one figure adds to the opening of a report.
type Answer struct {
	Lead   string
	Points []Sentence
	// Left counts the points that stand with the figure only.
	Left int
}

// These keep the opening short: how many conclusions of an experiment it has at
// most, and how many findings of a figure.
const (
	mostConclusions = 6
	mostFindings    = 3
)

// answers puts an experiment's main conclusions together: those of its first
// figure that compares something, and what its figures found themselves. What
// the opening says in full isn't said again beside the figure.
func answers(figures []Figure) []Answer {
	var all []Answer
	for i, f := range figures {
		if len(f.Conclusions) > 0 {
			a := newAnswer(f.Against, f.Conclusions, mostConclusions)
			all = append(all, a)
			figures[i].Repeated = a.Left == 0
			break
		}
	}
	for _, f := range figures {
		var points []Sentence
		for _, finding := range f.Findings {
			points = append(points, Sentence{Text: finding})
		}
		if len(points) > 0 {
			all = append(all, newAnswer(f.Spec.Title+":", points, mostFindings))
		}
	}
	return all
}

func newAnswer(lead string, points []Sentence, most int) Answer {
	shown := min(len(points), most)
	return Answer{Lead: lead, Points: points[:shown], Left: len(points) - shown}
}
