package runner

import (
	"math/rand/v2"

	"waggle/experiments/spec"
)

// planned is one trial of a run, before it is run.
type planned struct {
	number     int // in the run, from 0
	repetition int
	plan       *spec.Plan
	cell       spec.Cell
	seed       uint64 // of the trial's random choices
}

// order interleaves the trials of all plans: each repetition runs every cell of
// every plan once, in a random order that only the seed decides. So whatever
// changes on the machine while the run lasts falls on all cells alike, and the
// trials of one repetition can be compared in pairs.
func order(plans []*spec.Plan, seed uint64) []planned {
	repetitions := 0
	for _, p := range plans {
		repetitions = max(repetitions, p.Trial.Repetitions)
	}
	var trials []planned
	random := rand.New(rand.NewPCG(seed, 0))
	for r := range repetitions {
		start := len(trials)
		for _, p := range plans {
			if r >= p.Trial.Repetitions {
				continue
			}
			for _, c := range p.Cells {
				trials = append(trials, planned{repetition: r, plan: p, cell: c})
			}
		}
		block := trials[start:]
		random.Shuffle(len(block), func(i, j int) { block[i], block[j] = block[j], block[i] })
	}
	for i := range trials {
		trials[i].number, trials[i].seed = i, random.Uint64()
	}
	return trials
}
