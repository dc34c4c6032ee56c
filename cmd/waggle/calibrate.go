package main

import (
	"fmt"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"waggle/analysis/calibrate"
	"waggle/experiments/sim"
	"waggle/results"
	"waggle/results/calibration"
)

func calibrateCommand() *cli.Command {
	return &cli.Command{
		Name:  "calibrate",
		Usage: "find what a copy, a system call, a switch costs, from the records of runs",
		Description: "Fits the trials at low load, and writes calibration.json, which `waggle sim` takes, and\n" +
			"calibration.md, which says what each path's cost is made of and how well it is explained.\n" +
			"With --validate, cells that the fit never sees are simulated and compared with what was\n" +
			"measured: validation.md is the table.",
		ArgsUsage: "RUN...",
		Flags: []cli.Flag{
			&cli.PathFlag{Name: "out", Usage: "write into `DIRECTORY`; default: the first run's"},
			&cli.BoolFlag{Name: "validate", Usage: "simulate held-out cells, too, and say how far off they are"},
		},
		Action: calibrateRuns,
	}
}

func calibrateRuns(c *cli.Context) error {
	if c.NArg() == 0 {
		return usagef("give one run directory or more: waggle calibrate RUN...")
	}
	var runs []*results.Run
	for _, dir := range c.Args().Slice() {
		run, err := results.Open(dir)
		if err != nil {
			return err
		}
		runs = append(runs, run)
	}
	out := c.Path("out")
	if out == "" {
		out = c.Args().First()
	}
	fitted, err := calibrate.Fit(runs, calibrate.Options{Demands: sim.Demands()})
	if err != nil {
		return err
	}
	if err := fitted.Write(filepath.Join(out, calibration.FileName)); err != nil {
		return err
	}
	if err := calibrate.WritePage(out, fitted, sim.Demands()); err != nil {
		return err
	}
	if err := calibrate.Draw(out, fitted); err != nil {
		return err
	}
	fmt.Fprint(c.App.Writer, calibrate.Text(fitted))
	if c.Bool("validate") {
		return validateRuns(c, runs, out)
	}
	return nil
}

// validateRuns predicts the cells that are held out, each from a calibration that
// never saw it.
func validateRuns(c *cli.Context, runs []*results.Run, out string) error {
	table, err := calibrate.Validate(c.Context, runs, sim.Demands(), sim.Predict)
	if err != nil {
		return err
	}
	if err := table.Write(out); err != nil {
		return err
	}
	fmt.Fprint(c.App.Writer, table.Text())
	return table.Draw(out)
}
