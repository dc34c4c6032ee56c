package stats

import (
	"fmt"
	"math"
	"slices"

	"waggle/results"
)

// A group-sequential plan gives more repetitions to the comparisons that are
// still open, and none to those that are clear. Looking at the data several times
// and stopping when they please would make one in five runs without any difference
// claim one. So the error rate is shared out between the looks before the run
// (results.Sequential): the k-th look may be wrong with a chance of Alpha times its
// share, and because the shares add up to 1, a claim at any look is wrong with a
// chance of at most Alpha, whatever made the run stop there. That bound needs nothing of
// the test, of the noise or of what was looked at before: it holds for the metrics that
// nobody looked at, too. Group-sequential bounds that use how looks depend on each
// other would be a little sharper, but need a normal distribution.

// Look is a look of a sequential plan.
type Look struct {
	Number int `json:"number"` // from 1; 0 if none is complete
	Of     int `json:"of"`
	// Repetitions are what was looked at.
	Repetitions int `json:"repetitions"`
	// Share of the error rate that the look may spend.
	Share float64 `json:"share"`
}

func (l *Look) text() string {
	if l == nil {
		return ""
	}
	return fmt.Sprintf(" at look %d of %d", l.Number, l.Of)
}

// Spend shares the error rate out between looks after so many repetitions. It
// follows O'Brien and Fleming (1979) in the form of Lan and DeMets (1983): early
// looks, from few repetitions, may claim only what is very clear, so that nearly
// all of the error rate is left for the last.
func Spend(looks []int) []float64 {
	shares := make([]float64, len(looks))
	spent := 0.0
	for i, look := range looks {
		fraction := float64(look) / float64(looks[len(looks)-1])
		soFar := math.Erfc(math.Erfcinv(Alpha) / math.Sqrt(fraction)) // 2 - 2*Phi(z/sqrt(fraction))
		shares[i] = min(1, (soFar-spent)/Alpha)                       // rounding can exceed it where there is one look
		spent = soFar
	}
	return shares
}

// PlanLooks chooses after how many repetitions to look, of at most so many, which
// take turns among a number of placements (1 for none): at about a third, half, two
// thirds and five sixths of them, in whole rounds, where the plan could decide something
// by then; and at the end.
func PlanLooks(most, placements int) []int {
	looks := []int{most}
	for _, sixths := range []int{5, 4, 3, 2} {
		look := most * sixths / 6 / placements * placements
		if look < 1 || look >= looks[0] {
			continue
		}
		if longer := append([]int{look}, looks...); couldDecide(look, placements, Spend(longer)[0]) {
			looks = longer
		}
	}
	return looks
}

// couldDecide reports whether two samples of so many repetitions, as different as can
// be, are told apart with a share of the error rate.
func couldDecide(repetitions, placements int, share float64) bool {
	ordered := make(Sample, repetitions)
	for i := range ordered {
		ordered[i] = Observation{Repetition: i, Placement: results.Placements()[i%placements], Value: 1}
	}
	return repetitions >= MinRepetitions && smallestP(ordered, ordered) <= Alpha*share
}

// lookAt gives the last look of a plan that so many repetitions complete.
func lookAt(plan *results.Sequential, repetitions int) *Look {
	l := &Look{Of: len(plan.Looks), Share: plan.Spent[0]}
	for i, need := range plan.Looks {
		if need <= repetitions {
			l.Number, l.Repetitions, l.Share = i+1, need, plan.Spent[i]
		}
	}
	return l
}

// Inquiry asks questions about the records of one run.
type Inquiry struct {
	run    *results.Run
	groups map[string][]Group
	noise  map[string]*Noise
}

// NewInquiry begins an inquiry into a run.
func NewInquiry(run *results.Run) *Inquiry {
	return &Inquiry{run: run, groups: map[string][]Group{}, noise: map[string]*Noise{}}
}

// About asks how a pair of cells compares in a metric. Where the experiment
// follows a sequential plan, it is asked of the repetitions that both cells have had up
// to the last look that both completed: what one of them went on with later, beside
// others, ran at another time.
func (in *Inquiry) About(p Pair, m results.Metric) Question {
	q := Question{Metric: m, Baseline: p.Baseline.Sample(m), Treatment: p.Treatment.Sample(m), Interleaved: true}
	plan, _ := in.run.Experiment(p.Treatment.Experiment)
	if plan.Sequential != nil && p.Treatment.Source == results.SourceMeasured {
		q.Look = lookAt(plan.Sequential, min(p.Baseline.repetitions(plan.Repetitions), p.Treatment.repetitions(plan.Repetitions)))
		if !m.Exact && q.Look.Number > 0 {
			q.Baseline, q.Treatment = common(q.Baseline, q.Treatment, q.Look.Repetitions)
		}
	}
	q.Noise = in.noiseAt(p.Treatment.Experiment, m, q.Look)
	return q
}

// common keeps the repetitions that both samples have, of the first so many.
func common(a, b Sample, first int) (Sample, Sample) {
	keep := func(s, other Sample) Sample {
		var kept Sample
		for _, o := range s {
			if o.Repetition < first && slices.ContainsFunc(other, func(x Observation) bool { return x.Repetition == o.Repetition }) {
				kept = append(kept, o)
			}
		}
		return kept
	}
	return keep(a, b), keep(b, a)
}

// repetitions is how many of the planned ones a cell has had, whatever came of them.
// Trials that count copies have numbers behind these.
func (g Group) repetitions(planned int) int {
	most := 0
	for _, list := range [][]results.Record{g.Records, g.Rejected} {
		for i := range list {
			if n := list[i].Repetition + 1; n <= planned {
				most = max(most, n)
			}
		}
	}
	return most
}

// noiseAt is the noise of an experiment as it was known at a look.
func (in *Inquiry) noiseAt(experiment string, m results.Metric, look *Look) *Noise {
	first := math.MaxInt
	if look != nil && !m.Exact {
		first = look.Repetitions
	}
	key := fmt.Sprintf("%d %s %s", first, m.Name, experiment)
	noise, known := in.noise[key]
	if !known {
		if n, ok := noiseOf(in.run, in.groupsOf, experiment, m, first); ok {
			noise = &n
		}
		in.noise[key] = noise
	}
	return noise
}

func (in *Inquiry) groupsOf(experiment string) []Group {
	groups, known := in.groups[experiment]
	if !known {
		groups = GroupRecords(in.run, experiment)
		in.groups[experiment] = groups
	}
	return groups
}

// StillOpen names the cells of an experiment (results.Cell.String) that its
// sequential plan gives more repetitions: both sides of each question of the plan
// that is undecided at the last complete look, and the control cells as long as there are any
// others. It is empty when everything is decided, at the last look, and where there is no
// plan. All questions of the plan are judged together.
func StillOpen(run *results.Run, experiment string) map[string]bool {
	plan, _ := run.Experiment(experiment)
	open := map[string]bool{}
	if plan.Sequential == nil {
		return open
	}
	in := NewInquiry(run)
	groups := in.groupsOf(experiment)
	var pairs []Pair
	var questions []Question
	for _, asked := range plan.Sequential.Questions {
		m, err := results.MetricNamed(asked.Metric)
		if err != nil {
			continue // results checks plans
		}
		for _, p := range pairsAgainst(groups, asked) {
			pairs, questions = append(pairs, p), append(questions, in.About(p, m))
		}
	}
	for i, answer := range Judge(questions) {
		look := questions[i].Look
		if answer.Verdict == Undecided && look != nil && look.Number < look.Of && pairs[i].measurable() {
			open[pairs[i].Baseline.Cell.String()], open[pairs[i].Treatment.Cell.String()] = true, true
		}
	}
	if len(open) > 0 {
		for _, g := range groups {
			if g.Control != "" {
				open[g.Cell.String()] = true
			}
		}
	}
	return open
}

// pairsAgainst finds the pairs that a question of a plan asks about.
func pairsAgainst(groups []Group, asked results.SequentialQuestion) []Pair {
	var pairs []Pair
	for _, level := range Levels(groups, results.PlannedExperiment{}, asked.Factor) {
		if results.FormatLevel(level) != results.FormatLevel(asked.Baseline) {
			pairs = append(pairs, PairUp(groups, results.Cell{asked.Factor: asked.Baseline}, results.Cell{asked.Factor: level})...)
		}
	}
	return pairs
}

// measurable reports that both sides have had a valid trial: what this machine
// can't run gets no clearer by being tried again.
func (p Pair) measurable() bool { return len(p.Baseline.Records) > 0 && len(p.Treatment.Records) > 0 }
