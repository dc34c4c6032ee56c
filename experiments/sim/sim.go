// Package sim simulates experiments: the same files, the same records, with
// `source` simulated.
//
//   - engine: the clock. station: what a system is made of. estimate: numbers with
//     intervals. machine: machine models. cluster: a cell as a network of stations.
//   - demands.go: what the data paths declare. trace.go: request sizes from a file.
//   - record.go: what a simulation yields. This file: carrying a plan out.
//
// A cell is simulated once a repetition, each from its own seed, and as many cells
// at once as there are processors. How a simulation is verified is in the tests of
// station; how far its predictions can be trusted is what `waggle calibrate` finds
// out on cells that the calibration never saw.
package sim

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"waggle/experiments/sim/cluster"
	"waggle/experiments/sim/machine"
	"waggle/experiments/spec"
	"waggle/results"
	"waggle/results/calibration"
)

// Options of a simulated run.
type Options struct {
	Experiments []*spec.Experiment
	Effort      spec.Effort
	Overrides   []spec.Override
	Machine     *machine.Machine
	Calibration *calibration.Calibration
	Out         string
	Resume      bool
	Seed        uint64
	// Environment is that of the simulating machine.
	Environment results.Environment
	// Each is told of every record, from one goroutine at a time.
	Each func(cell string, r results.Record)
	// Begin is told how many records there will be.
	Begin func(trials int)
}

// ErrInterrupted is wrapped by the error of a run that its context ended. What
// was done by then is in the run directory.
var ErrInterrupted = errors.New("interrupted")

// Known gives the names that experiment files may use: the program's data paths,
// and the machine model's own paths and hardware.
func Known(paths spec.Paths, m *machine.Machine) spec.Paths {
	paths.Read = append(slices.Clone(paths.Read), m.PathNames("read")...)
	paths.Write = append(slices.Clone(paths.Write), m.PathNames("write")...)
	paths.Lookup = append(slices.Clone(paths.Lookup), m.PathNames("lookup")...)
	paths.NICs, paths.Disks = m.Cards(), m.Disks()
	return paths
}

// Of efforts, how narrow intervals become and how long is simulated at most.
var limits = map[spec.Effort]cluster.Limits{
	spec.Smoke: {Width: 0.05, Events: 2_000_000, Seconds: 2},
	spec.Quick: {Width: 0.02, Events: 10_000_000, Seconds: 5},
	spec.Full:  {Width: 0.01, Events: 200_000_000, Seconds: 20},
}

// task is one repetition of one cell.
type task struct {
	trial, repetition int
	plan              *spec.Plan
	cell              spec.Cell
	seed              uint64
}

// name shows a task to people.
func (t *task) name() string { return t.plan.String(t.cell) }

// Run simulates the experiments and writes a run directory.
func Run(ctx context.Context, o Options) error {
	tasks, planned, err := o.plan()
	if err != nil {
		return err
	}
	writer, done, err := o.open(planned)
	if err != nil {
		return err
	}
	defer writer.Close()
	tasks = slices.DeleteFunc(tasks, func(t task) bool { return done[t.trial] })
	if o.Begin != nil {
		o.Begin(len(tasks))
	}
	err = o.carryOut(ctx, tasks, writer)
	if ctx.Err() != nil {
		return fmt.Errorf("simulation %w", ErrInterrupted)
	}
	return err
}

func (o *Options) plan() (tasks []task, planned []results.PlannedExperiment, err error) {
	for _, override := range o.Overrides {
		if !slices.ContainsFunc(o.Experiments, override.AppliesTo) {
			return nil, nil, fmt.Errorf("--set %s: none of the chosen experiments has it as a factor or fixed", override.Name)
		}
	}
	for _, e := range o.Experiments {
		p, err := e.Plan(o.Effort, o.Overrides)
		if err != nil {
			return nil, nil, err
		}
		planned = append(planned, p.Planned())
		for repetition := range p.Trial.Repetitions {
			for _, c := range p.Cells {
				t := task{trial: len(tasks), repetition: repetition, plan: p, cell: c}
				t.seed = o.Seed + uint64(t.trial)*0x9e3779b97f4a7c15
				tasks = append(tasks, t)
			}
		}
	}
	return tasks, planned, nil
}

func (o *Options) open(planned []results.PlannedExperiment) (*results.Writer, map[int]bool, error) {
	for _, path := range o.Machine.PathSet() {
		o.Environment.Paths[path] = ""
	}
	for path := range Demands() {
		o.Environment.Paths[path] = ""
	}
	done := map[int]bool{}
	if o.Resume {
		writer, run, err := results.Resume(o.Out, o.Environment)
		if err != nil {
			return nil, nil, err
		}
		if run.Plan.OrderSeed != o.Seed && len(run.Records) > 0 {
			o.Seed = run.Plan.OrderSeed
		}
		for _, r := range run.Records {
			done[r.Trial] = true
		}
		return writer, done, nil
	}
	now := time.Now().UTC()
	plan := results.Plan{Run: fmt.Sprintf("%s-%s-simulated-%04x", now.Format("20060102-150405"), o.Effort, o.Seed&0xffff),
		Start: now, OrderSeed: o.Seed, Experiments: planned}
	writer, err := results.Create(o.Out, plan, o.Environment)
	if errors.Is(err, os.ErrExist) {
		err = fmt.Errorf("%w, or go on with it by --resume", err)
	}
	return writer, done, err
}

// carryOut simulates tasks on all processors, and writes their records in the
// order in which they end.
func (o *Options) carryOut(ctx context.Context, tasks []task, writer *results.Writer) error {
	group, ctx := errgroup.WithContext(ctx)
	work := make(chan task)
	type outcome struct {
		task   task
		record results.Record
	}
	ended := make(chan outcome)
	group.Go(func() error {
		defer close(work)
		for _, t := range tasks {
			select {
			case work <- t:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	workers, _ := errgroup.WithContext(ctx)
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() error {
			for t := range work {
				r, err := o.simulate(ctx, &t)
				if err != nil {
					return err
				}
				select {
				case ended <- outcome{t, r}:
				case <-ctx.Done():
					return ctx.Err()
				}
			}
			return nil
		})
	}
	group.Go(func() error {
		defer close(ended)
		return workers.Wait()
	})
	group.Go(func() error {
		for e := range ended {
			if err := writer.Append(e.record); err != nil {
				return err
			}
			if o.Each != nil {
				o.Each(e.task.name(), e.record)
			}
		}
		return nil
	})
	return group.Wait()
}

// simulate gives the record of a task. A cell that can't be simulated is one that
// is unsupported; only an interruption is an error.
func (o *Options) simulate(ctx context.Context, t *task) (results.Record, error) {
	r := results.Record{Experiment: t.plan.Experiment.Name, Trial: t.trial, Repetition: t.repetition, Source: results.SourceSimulated,
		Cell: t.cell.Levels, Control: t.cell.Control}
	model := cluster.Model{Machine: o.Machine, Calibration: o.Calibration, Demands: Demands()}
	parameters := t.cell.Parameters
	var err error
	if parameters.Simulation.Trace != "" {
		model.Sizes, err = ReadTrace(parameters.Simulation.Trace)
	}
	if err == nil && parameters.SearchRate {
		err = errors.New("rate=search is not simulated: give rates, or a closed loop")
	}
	var outcome *cluster.Outcome
	if err == nil {
		outcome, err = model.Run(ctx, &parameters, t.seed, limits[t.plan.Effort])
	}
	if ctx.Err() != nil {
		return r, ctx.Err()
	}
	if err != nil {
		r.Unsupported, r.Reason = true, strings.Join(strings.Fields(err.Error()), " ")
		return r, nil
	}
	return r, o.describe(&r, t, outcome)
}
