package main

import (
	"fmt"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"waggle/analysis/figure"
	"waggle/results"
)

func figuresCommand() *cli.Command {
	return &cli.Command{
		Name:        "figures",
		Usage:       "draw a run's figures again, from its records alone",
		Description: "Writes SVG, PDF and PNG into DIR/figures. The same records give the same bytes.",
		ArgsUsage:   "DIR",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "timeline", Usage: "draw when trials stood still instead, and say how often they did"},
		},
		Action: func(c *cli.Context) error {
			if c.NArg() != 1 {
				return usagef("give one run directory: waggle figures DIR")
			}
			run, err := results.Open(c.Args().First())
			if err != nil {
				return err
			}
			if c.Bool("timeline") {
				return drawTimelines(c, run)
			}
			figures, skipped := figure.DrawAll(run)
			undrawn := tellSkipped(c, skipped)
			if len(figures) == 0 {
				return fmt.Errorf("%s: no figure could be drawn from its %d records", c.Args().First(), len(run.Records))
			}
			dir := filepath.Join(c.Args().First(), results.FiguresDir)
			if err := figure.WriteAll(dir, figures); err != nil {
				return err
			}
			fmt.Fprintf(c.App.Writer, "figures drawn into %s: %d\n", dir, len(figures))
			return undrawn
		},
	}
}

func drawTimelines(c *cli.Context, run *results.Run) error {
	figures, err := figure.DrawTimelines(run)
	if err != nil {
		return err
	}
	dir := filepath.Join(c.Args().First(), results.FiguresDir)
	if err := figure.WriteAll(dir, figures); err != nil {
		return err
	}
	for _, s := range figure.CountStalls(run) {
		fmt.Fprintf(c.App.Writer, "%s: %s\n", s.Experiment, s.Text())
	}
	fmt.Fprintf(c.App.Writer, "time lines drawn into %s: %d\n", dir, len(figures))
	return nil
}
