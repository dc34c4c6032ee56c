package claims

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"waggle/results"
	"waggle/stats"
)

// Verdict is what a run says about a claim.
type Verdict string

// The verdicts.
const (
	Reproduced    Verdict = "reproduced"
	NotReproduced Verdict = "not reproduced"
	NotTestable   Verdict = "not testable here"
	// Of claims that only a simulation can test.
	ReproducedInSimulation    Verdict = "reproduced in simulation"
	NotReproducedInSimulation Verdict = "not reproduced in simulation"
)

// Outcome is a claim with its verdict.
type Outcome struct {
	ID      string  `json:"id"`
	Claim   string  `json:"claim"`
	Source  string  `json:"source"`
	Verdict Verdict `json:"verdict"`
	// Reason says why the claim isn't testable here, or is empty.
	Reason string        `json:"reason,omitempty"`
	Tests  []TestOutcome `json:"tests"`
}

// TestOutcome is one test with what was measured.
type TestOutcome struct {
	// What says in words what was tested.
	What    string  `json:"what"`
	Note    string  `json:"note,omitempty"`
	Verdict Verdict `json:"verdict"`
	// Reason is one line with the numbers, or why there are none.
	Reason string `json:"reason"`
	// Authors is the authors' ratio, 0 if they give none.
	Authors float64 `json:"authors,omitempty"`
	// Pairs are the comparisons that the verdict rests on.
	Pairs []PairOutcome `json:"pairs,omitempty"`
}

// PairOutcome is the comparison of two cells.
type PairOutcome struct {
	// Cell is what both cells have in common.
	Cell string `json:"cell"`
	stats.Comparison
}

// Judge gives every claim its verdict from one run.
func (c *Catalogue) Judge(run *results.Run) []Outcome {
	j := judge{catalogue: c, run: run, inquiry: stats.NewInquiry(run), groups: map[string][]stats.Group{}}
	outcomes := make([]Outcome, len(c.Claims))
	for i, claim := range c.Claims {
		j.source = results.SourceMeasured
		if claim.Simulated {
			j.source = results.SourceSimulated
		}
		outcomes[i] = j.claim(claim)
		if claim.Simulated {
			outcomes[i].inSimulation()
		}
	}
	return outcomes
}

type judge struct {
	catalogue *Catalogue
	run       *results.Run
	inquiry   *stats.Inquiry
	groups    map[string][]stats.Group // by experiment and source
	source    string                   // of the records that the claim is judged by
}

// inSimulation says of verdicts that they rest on a simulation.
func (o *Outcome) inSimulation() {
	simulated := func(v Verdict) Verdict {
		switch v {
		case Reproduced:
			return ReproducedInSimulation
		case NotReproduced:
			return NotReproducedInSimulation
		}
		return v
	}
	o.Verdict = simulated(o.Verdict)
	for i := range o.Tests {
		o.Tests[i].Verdict = simulated(o.Tests[i].Verdict)
	}
}

func (j *judge) claim(c Claim) Outcome {
	o := Outcome{ID: c.ID, Claim: c.Claim, Source: c.Source, Verdict: Reproduced, Tests: []TestOutcome{}}
	if c.Untestable != "" {
		o.Verdict, o.Reason = NotTestable, c.Untestable
		return o
	}
	for _, t := range c.Tests {
		o.Tests = append(o.Tests, j.test(t))
	}
	// One test that came out otherwise refutes the claim, whatever the others
	// say; reproducing it takes them all.
	for _, t := range o.Tests {
		switch {
		case t.Verdict == NotReproduced:
			o.Verdict, o.Reason = NotReproduced, ""
			return o
		case t.Verdict == NotTestable && o.Verdict == Reproduced:
			o.Verdict, o.Reason = NotTestable, t.Reason
		}
	}
	return o
}

func (j *judge) test(t Test) TestOutcome {
	switch {
	case t.Share != nil:
		return j.share(t)
	case t.Winners != nil:
		return j.winners(t)
	}
	return j.comparison(t)
}

// measured gives the groups of an experiment that come from real trials, or of a
// simulation for claims that ask for one, or why there are none.
func (j *judge) measured(experiment string) (groups []stats.Group, missing string) {
	if _, ok := j.run.Experiment(experiment); !ok {
		return nil, "the run has no experiment " + experiment
	}
	key := experiment + " " + j.source
	if j.groups[key] == nil {
		j.groups[key] = slices.DeleteFunc(stats.GroupRecords(j.run, experiment), func(g stats.Group) bool {
			return g.Source != j.source
		})
	}
	return j.groups[key], ""
}

// pathFactors are the factors whose levels are data paths.
var pathFactors = []string{"lookup", "read", "write", "relay", "mount"}

// missingPath says which of the paths among some levels this machine or this
// version lacks, or "".
func (j *judge) missingPath(levels ...results.Cell) string {
	if j.source == results.SourceSimulated {
		return "" // a simulation needs no path that this machine has
	}
	for _, cell := range levels {
		for _, factor := range pathFactors {
			level, ok := cell[factor].(string)
			if !ok {
				continue
			}
			path := factor + "=" + level
			switch reason, known := j.run.Environment.Paths[path]; {
			case !known:
				return "the data path " + path + " doesn't exist yet"
			case reason != "":
				return "the data path " + path + " isn't supported here: " + reason
			}
		}
	}
	return ""
}

func (j *judge) comparison(t Test) TestOutcome {
	o := TestOutcome{Note: t.Note, Authors: t.Authors,
		What: fmt.Sprintf("%s: %s of %s against %s is %s", t.Experiment, t.Metric, t.Treatment, t.Baseline, t.Expect)}
	if len(t.Where) > 0 {
		o.What += fmt.Sprintf(", where %s", t.Where)
	}
	if missing := j.missingPath(t.Treatment, t.Baseline, t.Where); missing != "" {
		return o.decide(NotTestable, missing)
	}
	groups, missing := j.measured(t.Experiment)
	if missing != "" {
		return o.decide(NotTestable, missing)
	}
	pairs := stats.PairUp(stats.Where(groups, t.Where), t.Baseline, t.Treatment)
	if len(pairs) == 0 {
		return o.decide(NotTestable, "the run has no pair of cells that differ in this alone")
	}
	asked := slices.Sorted(maps.Keys(t.Treatment))
	o.Pairs = j.compare(pairs, t.Metric, slices.Concat(asked, slices.Sorted(maps.Keys(t.Baseline))))
	if t.Pairs == Best {
		return o.decideBest(t)
	}
	return o.decideEvery(t)
}

// compare judges all pairs of a test together; a pair whose answer depends on where
// the roles run, in each placement. Each claim is a question of its
// own, so they are not corrected for one another.
func (j *judge) compare(pairs []stats.Pair, metric string, differIn []string) []PairOutcome {
	m, err := results.MetricNamed(metric)
	if err != nil {
		panic(err) // Parse has checked it
	}
	questions := make([]stats.Question, len(pairs))
	for i, p := range pairs {
		questions[i] = j.inquiry.About(p, m)
	}
	var outcomes []PairOutcome
	for i, c := range stats.Judge(questions) {
		cell := pairs[i].Treatment.Cell.Without(differIn...).String()
		if c.Verdict != stats.Depends {
			outcomes = append(outcomes, PairOutcome{Cell: cell, Comparison: c})
			continue
		}
		placements, parts := questions[i].Within()
		for k, part := range stats.Judge(parts) {
			outcomes = append(outcomes, PairOutcome{Cell: strings.TrimSpace(cell + " roles=" + placements[k]), Comparison: part})
		}
	}
	return outcomes
}

// decideBest lets the pair with the largest effect in the expected direction
// speak for all.
func (o TestOutcome) decideBest(t Test) TestOutcome {
	var best, undecided *PairOutcome
	for i := range o.Pairs {
		p := &o.Pairs[i]
		switch {
		case p.Verdict == stats.Undecided:
			undecided = p
		case best == nil || p.towards(t.Expect) > best.towards(t.Expect):
			best = p
		}
	}
	switch {
	case best != nil && best.fulfils(t):
		return o.decide(Reproduced, best.sentence(t))
	case undecided != nil:
		// The pair that can't be told could be the one that the claim is about.
		return o.decide(NotTestable, undecided.sentence(t))
	}
	return o.decide(NotReproduced, best.sentence(t))
}

// decideEvery lets any pair refute the test; pairs about which nothing can be
// said are left out.
func (o TestOutcome) decideEvery(t Test) TestOutcome {
	fulfilled := 0
	for i := range o.Pairs {
		p := &o.Pairs[i]
		switch {
		case p.fulfils(t):
			fulfilled++
		case p.Verdict != stats.Undecided:
			return o.decide(NotReproduced, p.sentence(t))
		}
	}
	if fulfilled == 0 {
		return o.decide(NotTestable, o.Pairs[0].sentence(t))
	}
	if fulfilled == len(o.Pairs) {
		return o.decide(Reproduced, o.Pairs[0].sentence(t))
	}
	return o.decide(Reproduced, fmt.Sprintf("%s; %d of %d cells could not be told", o.Pairs[0].sentence(t), len(o.Pairs)-fulfilled, len(o.Pairs)))
}

func (o TestOutcome) decide(v Verdict, reason string) TestOutcome {
	o.Verdict, o.Reason = v, reason
	return o
}

// fulfils reports whether a pair came out as expected, by at least half of the
// authors' effect on a logarithmic scale: another machine has other constants.
func (p *PairOutcome) fulfils(t Test) bool {
	switch t.Expect {
	case NotBetter:
		return p.Verdict == stats.Worse || p.Verdict == stats.NoDifference
	case Better:
		if p.Verdict != stats.Better {
			return false
		}
	case Worse:
		if p.Verdict != stats.Worse {
			return false
		}
	}
	return t.Authors == 0 || p.Ratio == nil || math.Abs(math.Log(p.Ratio.Value)) >= math.Abs(math.Log(t.Authors))/2
}

// towards is how far a pair's ratio goes in the expected direction.
func (p *PairOutcome) towards(e Expectation) float64 {
	if p.Ratio == nil {
		return math.Inf(-1)
	}
	effect := math.Abs(math.Log(p.Ratio.Value))
	if (p.Verdict == stats.Better) == (e == Better) && p.Verdict != stats.NoDifference {
		return effect
	}
	return -effect
}

func (p *PairOutcome) sentence(t Test) string {
	s := p.Reason
	if p.Cell != "" {
		s = p.Cell + ": " + s
	}
	if t.Authors != 0 {
		s = fmt.Sprintf("authors %.3gx, here %s", t.Authors, s)
	}
	return s
}

func (j *judge) share(t Test) TestOutcome {
	s := t.Share
	o := TestOutcome{Note: t.Note, What: fmt.Sprintf("%s: %s is at least %.4g of %s", t.Experiment, s.Of, s.AtLeast, s.In)}
	if missing := j.missingPath(t.Where); missing != "" {
		return o.decide(NotTestable, missing)
	}
	groups, missing := j.measured(t.Experiment)
	if missing != "" {
		return o.decide(NotTestable, missing)
	}
	var of, in int64
	for _, g := range stats.Where(groups, t.Where) {
		for _, r := range g.Records {
			if _, counted := r.Proof[s.Of]; !counted {
				return o.decide(NotTestable, "the records don't count "+s.Of)
			}
			of += r.Proof[s.Of]
			in += r.Proof[s.In]
		}
	}
	if in == 0 {
		return o.decide(NotTestable, "no valid trial counted "+s.In)
	}
	share := float64(of) / float64(in)
	reason := fmt.Sprintf("%d of %d: %.4g, counted", of, in, share)
	if share < s.AtLeast {
		return o.decide(NotReproduced, reason)
	}
	return o.decide(Reproduced, reason)
}
