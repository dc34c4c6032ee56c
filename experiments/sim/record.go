package sim

import (
	"slices"

	"waggle/experiments/sim/cluster"
	"waggle/experiments/sim/estimate"
	"waggle/results"
)

// describe writes what a simulation says into a record.
func (o *Options) describe(r *results.Record, t *task, s *cluster.Outcome) error {
	r.Valid = true
	operations, payload := s.Operations, int64(s.Payload*float64(s.Operations))
	rate, seconds, throughput := s.Rate.Value, s.Seconds, s.Rate.Value*s.Payload
	r.Operations, r.PayloadBytes, r.Seconds = &operations, &payload, &seconds
	r.OperationsPerSecond = &rate
	if throughput > 0 {
		r.ThroughputBytesPerSecond = &throughput
	}
	if offered := t.cell.Parameters.Rate; offered > 0 {
		r.OfferedOperationsPerSecond = &offered
	}
	at := func(q float64) float64 { return float64(s.Latency.ValueAtQuantile(q)) / 1e9 }
	r.Latency = &results.Latency{P50: at(50), P90: at(90), P99: at(99), P999: at(99.9), Max: float64(s.Latency.Max()) / 1e9, Mean: s.Mean.Value}
	r.Latency.Mean = min(r.Latency.Mean, r.Latency.Max)
	text, err := results.EncodeHistogram(s.Latency)
	if err != nil {
		return err
	}
	r.LatencyHistogram = text

	n := float64(operations)
	by := map[string]float64{}
	total := 0.0
	for i, role := range []string{"client", serverRole(r), "repair"} {
		if used := s.PerOperation[i].Value * n / 1e9; used > 0 {
			by[role] += used
			total += used
		}
	}
	soft := s.PerOperation[cluster.AmountSoftIRQ].Value * n / 1e9
	r.CPU = &results.CPU{Total: total, User: 0, System: max(0, total-soft), SoftIRQ: soft, ByRole: by}
	calls, switches := int64(s.Calls*n), int64(s.PerOperation[cluster.AmountWakes].Value*n)
	if calls > 0 {
		r.Syscalls = &calls
	}
	r.ContextSwitches = &switches

	slices.Sort(s.Beyond)
	r.Simulation = &results.Simulation{Machine: o.Machine.Name, Calibration: o.Calibration.Runs, Seed: t.seed, Events: int64(s.Events),
		WarmUpSeconds: s.WarmUp, Narrow: s.Narrow, Beyond: slices.Compact(s.Beyond), Lost: s.Lost,
		RepairedBytes: s.RepairedBytes, RepairedSeconds: s.RepairedSeconds,
		Intervals: map[string]results.SimulatedInterval{
			results.OperationRate: bounds(s.Rate, 1), results.LatencyMean: bounds(s.Mean, 1),
			results.LatencyP50: bounds(s.P50, 1), results.LatencyP99: bounds(s.P99, 1),
		}}
	if s.Payload > 0 {
		r.Simulation.Intervals[results.Throughput] = bounds(s.Rate, s.Payload)
	}
	return nil
}

// serverRole names the role that answers.
func serverRole(r *results.Record) string {
	if _, lookup := r.Cell["lookup"]; lookup {
		return "meta"
	}
	return "chunk"
}

func bounds(i estimate.Interval, unit float64) results.SimulatedInterval {
	return results.SimulatedInterval{Low: max(0, i.Low*unit), High: i.High * unit}
}
