package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/urfave/cli/v2"

	"waggle/experiments"
	"waggle/experiments/runner"
	"waggle/experiments/sim"
	"waggle/experiments/sim/machine"
	"waggle/experiments/spec"
	"waggle/results"
	"waggle/results/calibration"
	"waggle/results/reference"
)

func simCommand() *cli.Command {
	return &cli.Command{
		Name:      "sim",
		Usage:     "simulate experiments on a machine model",
		ArgsUsage: "EXPERIMENT...",
		Description: "Writes the records that `waggle run` would, with `source` simulated, and draws them hatched.\n" +
			"--list shows the experiments that need the simulator, and the machine models. What\n" +
			"operations cost comes from a calibration (`waggle calibrate`).",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "machine", Value: "two-core-vm", Usage: "machine `MODEL`: a name or a file"},
			&cli.PathFlag{Name: "calibration", Usage: "`FILE` with the costs of operations; default: what the machine model names"},
			&cli.StringFlag{Name: "effort", Value: string(spec.Quick), Usage: "how much to simulate: smoke, quick or full"},
			&cli.PathFlag{Name: "out", Usage: "write the run `DIRECTORY`; default " + localResults + "/TIME-sim"},
			&cli.BoolFlag{Name: "resume", Usage: "go on with the interrupted run in --out"},
			&cli.StringSliceFlag{Name: "set", Usage: "`FACTOR=LEVEL,...` takes the place of a factor's levels; may be given again"},
			&cli.Uint64Flag{Name: "seed", Usage: "`SEED` of the random numbers; default: a random one, which is recorded"},
			&cli.BoolFlag{Name: "list", Usage: "list experiments and machine models"},
		},
		Action: simulate,
	}
}

func simulate(c *cli.Context) error {
	if c.Bool("list") {
		return listSimulated(c)
	}
	o, err := simOptions(c)
	if err != nil {
		return err
	}
	progress := newProgress(c.App.ErrWriter)
	o.Begin, o.Each = progress.Begin, progress.Trial
	err = sim.Run(c.Context, o)
	progress.End()
	if errors.Is(err, sim.ErrInterrupted) {
		return fmt.Errorf("%w: what was done is in %s; to go on, run the same command with --resume --out %s", err, o.Out, o.Out)
	}
	if err != nil {
		return err
	}
	run, err := results.Open(o.Out)
	if err != nil {
		return err
	}
	undrawn, err := analyse(c, run, o.Out)
	if err != nil {
		return fmt.Errorf("the simulation is done, but could not be drawn: %w", err)
	}
	fmt.Fprintf(c.App.Writer, "%d records\nthe report is %s\n", len(run.Records), filepath.Join(o.Out, results.ReportFile))
	return undrawn
}

func simOptions(c *cli.Context) (o sim.Options, err error) {
	if o.Effort, err = spec.ParseEffort(c.String("effort")); err != nil {
		return o, usagef("%v", err)
	}
	if o.Machine, err = machine.Load(c.String("machine")); err != nil {
		return o, usagef("%v", err)
	}
	if o.Calibration, err = loadCalibration(c.Path("calibration"), c.String("machine"), o.Machine); err != nil {
		return o, err
	}
	known := sim.Known(runner.KnownPaths(), o.Machine)
	names := c.Args().Slice()
	if len(names) == 1 && names[0] == "all" {
		names = experiments.SimulatedNames()
	}
	if o.Experiments, err = loadExperiments(names, known); err != nil {
		return o, err
	}
	for _, text := range c.StringSlice("set") {
		override, err := spec.ParseOverride(text, known)
		if err != nil {
			return o, usagef("%v", err)
		}
		o.Overrides = append(o.Overrides, override)
	}
	if o.Seed = rand.Uint64(); c.IsSet("seed") {
		o.Seed = c.Uint64("seed")
	}
	o.Out, o.Resume = c.Path("out"), c.Bool("resume")
	if o.Out == "" {
		if o.Resume {
			return o, usagef("--resume needs --out DIRECTORY, the run to go on with")
		}
		o.Out = filepath.Join(localResults, time.Now().UTC().Format("20060102-150405")+"-sim")
	}
	o.Environment = runner.Describe(os.Args)
	return o, nil
}

// loadCalibration reads the costs that a simulation uses: those that are asked
// for, or those that the machine model names.
func loadCalibration(asked, machineFile string, m *machine.Machine) (*calibration.Calibration, error) {
	var c *calibration.Calibration
	var err error
	name := asked
	switch {
	case asked != "":
		c, err = calibration.Read(asked)
	case m.Calibration == "" || m.Calibration == "reference":
		// It may be older than a data path, which is then one that was never measured.
		return calibration.Parse(reference.Calibration)
	default:
		name = filepath.Join(filepath.Dir(machineFile), m.Calibration)
		c, err = calibration.Read(name)
	}
	if err != nil {
		return nil, err
	}
	if err := c.CheckPathSet(sim.PathSet()); err != nil {
		return nil, fmt.Errorf("%s:1: %w", name, err)
	}
	return c, nil
}

func listSimulated(c *cli.Context) error {
	for _, name := range machine.Names() {
		m, err := machine.Load(name)
		if err != nil {
			return err
		}
		fmt.Fprintf(c.App.Writer, "machine %-14s %s\n", m.Name, m.Summary)
	}
	m, err := machine.Load(slices.Min(machine.Names()))
	if err != nil {
		return err
	}
	list, err := loadExperiments(experiments.SimulatedNames(), sim.Known(runner.KnownPaths(), m))
	if err != nil {
		return err
	}
	for _, e := range list {
		fmt.Fprintf(c.App.Writer, "%-14s %s\n", e.Name, e.Question)
	}
	return nil
}
