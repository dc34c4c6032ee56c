package runner

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"waggle/dfs/datapath"
	"waggle/experiments/spec"
	"waggle/results"
)

// provenShare is how much of a trial must have gone the way that its cell names. What
// is missing to all of it is what the counters, which are read a moment before the
// timed part and a moment after it, can't tell exactly.
const provenShare = 0.98

// proof is what a trial's counters say about its timed paths.
type proof struct {
	cell    spec.Parameters
	grown   map[string]map[string]int64 // by role, then by name
	now     map[string]map[string]int64 // what they have grown to
	payload float64                     // bytes
	count   float64                     // of operations
}

// fillProof checks that nearly all of a trial went by the cell's timed paths.
func (r *run) fillProof(record *results.Record, p proof) error {
	var missing []string
	for _, name := range p.cell.Timed() {
		info := r.support.infos[name]
		for _, counter := range slices.Concat(info.Proof, info.Watched) {
			if record.Proof == nil {
				record.Proof = map[string]int64{}
			}
			record.Proof[counter] = sum(p.grown, counter)
		}
		for _, counter := range info.Proof {
			got, needed, of := float64(record.Proof[counter]), p.needed(info, counter), p.of(counter)
			if got < needed || got <= 0 {
				missing = append(missing, fmt.Sprintf("%s grew by %.0f, which is %.1f %% of %s", counter, got, 100*got/max(1, of), p.unit(counter)))
			}
		}
		for _, counter := range info.Lesser {
			if p.cell.Topology == spec.Hosts && sum(p.now, counter) > 0 {
				missing = append(missing, counter+" says that it runs in a mode that is not meant")
			}
		}
	}
	missing = append(missing, r.faultsProven(record, p)...)
	if len(missing) > 0 {
		return fmt.Errorf("no proof that %s was taken: %s", strings.Join(p.cell.Timed(), ", "), strings.Join(missing, ", "))
	}
	return nil
}

// faultsProven says what shows that packets of a cell with faults did not meet any.
func (r *run) faultsProven(record *results.Record, p proof) (missing []string) {
	if !p.cell.HasFaults() {
		return nil
	}
	if record.Proof == nil {
		record.Proof = map[string]int64{}
	}
	for _, counter := range []string{faultPackets, faultDropped, faultDuplicated, faultHeld} {
		record.Proof[counter] = sum(p.grown, counter)
	}
	if record.Proof[faultPackets] <= 0 {
		missing = append(missing, faultPackets+" did not grow")
	}
	return missing
}

func sum(counted map[string]map[string]int64, counter string) (n int64) {
	for _, role := range counted {
		n += role[counter]
	}
	return n
}

func inBytes(counter string) bool { return strings.HasSuffix(counter, "_bytes") }

// of is what a counter would have grown by if everything had gone its way.
func (p proof) of(counter string) float64 {
	if inBytes(counter) {
		return p.payload
	}
	return p.count
}

func (p proof) unit(counter string) string {
	if inBytes(counter) {
		return fmt.Sprintf("%.0f bytes of payload", p.payload)
	}
	return fmt.Sprintf("%.0f operations", p.count)
}

// needed is the least by which a counter must have grown. Which lookups are of names
// that are known is chosen at random, so their number is within four standard
// deviations of what is expected.
func (p proof) needed(info datapath.Info, counter string) float64 {
	all := p.of(counter)
	if !info.HitsOnly || p.cell.HitPercent == 100 {
		// A client has its last answer before the server counts it.
		last := all / max(1, p.count) * float64(p.cell.Clients)
		return min(provenShare*all, all-last)
	}
	hits := float64(p.cell.HitPercent) / 100
	return provenShare*hits*all - 4*math.Sqrt(all*hits*(1-hits))
}
