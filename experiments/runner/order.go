package runner

import (
	"math/rand/v2"

	"waggle/experiments/spec"
	"waggle/results"
)

// planned is one trial of a run, before it is run.
type planned struct {
	number     int // in the run, from 0
	repetition int
	plan       *spec.Plan
	cell       spec.Cell
	seed       uint64 // of the trial's random choices
	// counted trials are run under the copy ledger, which costs the more the more
	// system calls a path makes: they count copies, and no time. All others are run
	// without it, and time alone is taken of them.
	counted bool
	// placement is the repetition's, or "" if the cell has one of its own, or the
	// machine a single processor.
	placement string
}

// order interleaves the trials of all plans: each repetition runs every cell of
// every plan once, in a random order that only the seed decides. So whatever
// changes on the machine while the run lasts falls on all cells alike, and the
// trials of one repetition can be compared in pairs. The trials that count copies
// come first; their repetitions are numbered behind the others.
//
// Placements are those that repetitions take turns among, in rounds in which each
// comes once, in an order that the seed decides; none are for a machine that has no
// choice.
func order(plans []*spec.Plan, seed uint64, placements []string) []planned {
	random := rand.New(rand.NewPCG(seed, 0))
	var trials []planned
	add := func(block []planned) {
		random.Shuffle(len(block), func(i, j int) { block[i], block[j] = block[j], block[i] })
		trials = append(trials, block...)
	}
	counts, repetitions := 0, 0
	for _, p := range plans {
		counts, repetitions = max(counts, p.Trial.Counts), max(repetitions, p.Trial.Repetitions)
	}
	for r := range counts {
		add(countedBlock(plans, r))
	}
	var round []string
	for r := range repetitions {
		if len(round) == 0 {
			round = append(round, placements...)
			random.Shuffle(len(round), func(i, j int) { round[i], round[j] = round[j], round[i] })
		}
		placement := ""
		if len(round) > 0 {
			placement, round = round[0], round[1:]
		}
		add(timedBlock(plans, r, placement))
	}
	for i := range trials {
		trials[i].number, trials[i].seed = i, random.Uint64()
	}
	return trials
}

// countedBlock is one trial under the ledger of each cell whose copies are counted.
func countedBlock(plans []*spec.Plan, r int) (block []planned) {
	for _, p := range plans {
		if r >= p.Trial.Counts || !p.Experiment.Measures(spec.Copies) {
			continue
		}
		for _, c := range p.Cells {
			if !c.Parameters.SearchRate { // a mixture of rates, about which nothing is counted
				block = append(block, planned{repetition: p.Trial.Repetitions + r, plan: p, cell: c, counted: true})
			}
		}
	}
	return block
}

// timedBlock is one repetition.
func timedBlock(plans []*spec.Plan, r int, placement string) (block []planned) {
	for _, p := range plans {
		if r >= p.Trial.Repetitions {
			continue
		}
		own := placement
		if p.Places() {
			own = ""
		}
		for _, c := range p.Cells {
			block = append(block, planned{repetition: r, plan: p, cell: c, placement: own})
		}
	}
	return block
}

// placements are those that repetitions take turns among on this machine.
func placements() ([]string, error) {
	processors, err := ownProcessors()
	if err != nil || len(processors) < 2 {
		return nil, err
	}
	return results.Placements(), nil
}

// pinOf is where a trial's roles run: its cell's own placement, or the repetition's.
func (t planned) pinOf() string {
	switch t.placement {
	case results.PlacementApart:
		return spec.PinApart
	case results.PlacementTogether:
		return spec.PinTogether
	case results.PlacementFree:
		return spec.PinNone
	}
	return t.cell.Parameters.Pin
}
