package results

import "fmt"

// Simulation says how a simulated record came about, and how far to trust it.
type Simulation struct {
	// Machine is the machine model's name, Calibration the runs whose costs it used.
	Machine     string   `json:"machine"`
	Calibration []string `json:"calibration"`
	Seed        uint64   `json:"seed"`
	Events      int64    `json:"events"`
	// WarmUpSeconds of simulated time were cut off.
	WarmUpSeconds float64 `json:"warm_up_seconds"`
	// Intervals are the simulation's own, with 95 % confidence, by metric: what
	// more simulated time would narrow. They say nothing about the model.
	Intervals map[string]SimulatedInterval `json:"intervals"`
	// Narrow says that the intervals became as narrow as was asked for.
	Narrow bool `json:"narrow"`
	// Beyond says what lies outside of what was measured: such a record is an
	// extrapolation, and figures show it as one.
	Beyond []string `json:"beyond,omitempty"`
	// Lost counts bursts of packets that found no room in a queue.
	Lost int64 `json:"lost,omitzero"`
	// RepairedBytes were copied after servers had failed, by RepairedSeconds after
	// the start.
	RepairedBytes   int64   `json:"repaired_bytes,omitzero"`
	RepairedSeconds float64 `json:"repaired_seconds,omitzero"`
}

// SimulatedInterval bounds a metric.
type SimulatedInterval struct {
	Low  float64 `json:"low"`
	High float64 `json:"high"`
}

// Extrapolated says whether a record predicts beyond what was measured.
func (r *Record) Extrapolated() bool { return r.Simulation != nil && len(r.Simulation.Beyond) > 0 }

// checkSimulation refuses records that say of neither or of both that they are
// simulated.
func (r *Record) checkSimulation() error {
	switch {
	case r.Source == SourceMeasured && r.Simulation != nil:
		return fmt.Errorf("source is %q, and simulation says how it was simulated", r.Source)
	case r.Source == SourceSimulated && r.Valid && r.Simulation == nil:
		return fmt.Errorf("source is %q, and simulation is missing", r.Source)
	}
	return nil
}
