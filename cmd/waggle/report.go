package main

import (
	"fmt"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"waggle/analysis/figure"
	"waggle/analysis/report"
	"waggle/results"
)

func reportCommand() *cli.Command {
	return &cli.Command{
		Name:        "report",
		Usage:       "write a run's report again, from its records alone",
		Description: "Writes report.html, one self-contained file, and summary.md into DIR.",
		ArgsUsage:   "DIR",
		Action: func(c *cli.Context) error {
			if c.NArg() != 1 {
				return usagef("give one run directory: waggle report DIR")
			}
			dir := c.Args().First()
			run, err := results.Open(dir)
			if err != nil {
				return err
			}
			figures, skipped := figure.DrawAll(run)
			undrawn := tellSkipped(c, skipped)
			r, err := report.Make(run, figures, skipped)
			if err != nil {
				return err
			}
			if err := r.Write(dir); err != nil {
				return err
			}
			fmt.Fprintf(c.App.Writer, "the report is %s\n", filepath.Join(dir, results.ReportFile))
			return undrawn
		},
	}
}
