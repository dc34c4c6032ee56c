package audit

import (
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"slices"

	"waggle/results"
	"waggle/stats"
)

// Rerun compares a random sample of a run's cells with trials made again.
type Rerun struct {
	// SameMachine says whether kernel, processor and number of processors are those
	// of the run: otherwise only counts can be expected to agree.
	SameMachine bool        `json:"same_machine"`
	Cells       []RerunCell `json:"cells"`
}

// RerunCell is one cell that was run again.
type RerunCell struct {
	Experiment string        `json:"experiment"`
	Cell       string        `json:"cell"`
	Metrics    []RerunMetric `json:"metrics"`
	// Failed says why the cell could not be run again, or is empty.
	Failed string `json:"failed,omitempty"`
}

// RerunMetric is one metric of a cell, before and again.
type RerunMetric struct {
	Metric string  `json:"metric"`
	Before float64 `json:"before"`
	Again  float64 `json:"again"`
	Agrees bool    `json:"agrees"`
}

// Chosen is a cell to run again.
type Chosen struct {
	Experiment string
	Effort     string
	Cell       results.Cell
}

// maxChosen is the most cells that a rerun takes.
const maxChosen = 100

// Choose draws a share of a run's cells at random, at least one. The same seed
// draws the same cells. Cells without valid measured trials take no part.
func Choose(run *results.Run, share float64, seed uint64) []Chosen {
	var all []Chosen
	for _, e := range run.Plan.Experiments {
		for _, g := range stats.Main(stats.GroupRecords(run, e.Name)) {
			if len(g.Records) > 0 && g.Source == results.SourceMeasured {
				all = append(all, Chosen{e.Name, e.Effort, g.Cell})
			}
		}
	}
	hash := fnv.New64a()
	hash.Write([]byte(run.Plan.Run))
	random := rand.New(rand.NewPCG(seed, hash.Sum64()))
	random.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	n := min(max(1, int(math.Round(share*float64(len(all))))), len(all), maxChosen)
	return all[:n]
}

// SameMachine reports whether two runs took place on machines that look alike.
func SameMachine(a, b results.Environment) bool {
	return a.Kernel == b.Kernel && a.CPU == b.CPU && a.CPUs == b.CPUs
}

// compared are the metrics that a rerun looks at.
var compared = []string{results.Throughput, results.OperationRate, results.LatencyP50, results.CopiesPerByte, results.SyscallsPerOperation}

// CompareCell compares a cell of a run with the same cell run again.
func CompareCell(c Chosen, before, again *results.Run) RerunCell {
	r := RerunCell{Experiment: c.Experiment, Cell: c.Cell.String()}
	for _, name := range compared {
		metric, err := results.MetricNamed(name)
		if err != nil {
			panic(err) // compared names metrics of this version
		}
		a, b := stats.Summarize(sampleOf(before, c, metric)), stats.Summarize(sampleOf(again, c, metric))
		if a.N == 0 || b.N == 0 {
			continue
		}
		r.Metrics = append(r.Metrics, RerunMetric{name, a.Median, b.Median, agrees(metric, a, b, noiseOf(before, c.Experiment, metric))})
	}
	if len(r.Metrics) == 0 {
		r.Failed = "the trials made again measured nothing that the run has"
	}
	return r
}

func sampleOf(run *results.Run, c Chosen, m results.Metric) stats.Sample {
	for _, g := range stats.Main(stats.GroupRecords(run, c.Experiment)) {
		if g.Cell.String() == c.Cell.String() && g.Source == results.SourceMeasured {
			return g.Sample(m)
		}
	}
	return nil
}

func noiseOf(run *results.Run, experiment string, m results.Metric) float64 {
	noise, ok := stats.NoiseOf(run, experiment, m)
	if !ok {
		return stats.MostMargin
	}
	return noise.Spread
}

// drift is how far a machine's speed may move between two runs, beyond the noise
// within one: nothing was interleaved.
const drift = 1.25

// agrees reports whether two medians can be of the same thing. Counts must be
// the same; the ranges of timings must meet, after both are widened by the noise
// of the run and by the machine's drift.
func agrees(m results.Metric, a, b stats.Summary, noise float64) bool {
	if m.Exact {
		return stats.SameCount(a.Median, b.Median) || near(a.Median, b.Median, 0.02)
	}
	widen := (1 + noise) * drift
	return a.Max*widen >= b.Min/widen && b.Max*widen >= a.Min/widen
}

// AddRerun puts a rerun into the report: on the same machine, cells that do not
// agree are faults once there are too many for chance.
func (r *Report) AddRerun(rerun Rerun) {
	r.Rerun = &rerun
	differing, compared := 0, 0
	for _, c := range rerun.Cells {
		if c.Failed != "" {
			continue
		}
		compared++
		if slices.ContainsFunc(c.Metrics, func(m RerunMetric) bool { return !m.Agrees }) {
			differing++
		}
	}
	what := fmt.Sprintf("%d of %d cells that were run again do not agree", differing, compared)
	switch {
	case compared == 0:
		r.add(Finding{Plausibility, Remark, "rerun", "no cell could be run again"})
	case differing == 0:
	case !rerun.SameMachine:
		r.add(Finding{Plausibility, Remark, "rerun", what + "; this is another machine than the run's"})
	case differing*4 > compared:
		r.add(Finding{Plausibility, Fault, "rerun", what})
	default:
		r.add(Finding{Plausibility, Weakness, "rerun", what})
	}
	r.score()
}
