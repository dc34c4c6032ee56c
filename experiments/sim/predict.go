package sim

import (
	"context"

	"waggle/experiments/sim/cluster"
	"waggle/experiments/sim/machine"
	"waggle/experiments/spec"
	"waggle/results"
	"waggle/results/calibration"
)

// predictionSeed is the same for every prediction, so that a table of them is.
const predictionSeed = 1

// Predict simulates one measured cell, whose levels hold every parameter that the
// experiment sets, on the machine that the calibration is of.
func Predict(ctx context.Context, c *calibration.Calibration, levels results.Cell) (results.Record, error) {
	m, err := machine.Load("two-core-vm")
	if err != nil {
		return results.Record{}, err
	}
	parameters, err := spec.Resolve(levels)
	if err != nil {
		return results.Record{}, err
	}
	parameters.Simulation.Cores = c.CPUs
	model := cluster.Model{Machine: m, Calibration: c, Demands: Demands()}
	outcome, err := model.Run(ctx, &parameters, predictionSeed, limits[spec.Quick])
	if err != nil {
		return results.Record{}, err
	}
	o := Options{Machine: m, Calibration: c}
	r := results.Record{Schema: results.Schema, Run: "prediction", Experiment: "prediction", Source: results.SourceSimulated, Cell: levels}
	return r, o.describe(&r, &task{cell: spec.Cell{Parameters: parameters}, seed: predictionSeed}, outcome)
}
