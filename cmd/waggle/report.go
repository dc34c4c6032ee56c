package main

import (
	"fmt"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"waggle/analysis/course"
	"waggle/analysis/figure"
	"waggle/analysis/report"
	"waggle/results"
)

func reportCommand() *cli.Command {
	return &cli.Command{
		Name:  "report",
		Usage: "write a run's report again, from its records alone",
		Description: "Writes report.html, one self-contained file, and summary.md into DIR. With --course, writes the skeleton of a course\n" +
			"report instead, with generated tables and figures and marked places for its author's own words.",
		ArgsUsage: "DIR",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "course", Usage: "write the skeleton of a course report into `OUT`: report.md, report.tex, figures"},
			&cli.StringFlag{Name: "lang", Value: string(figure.English), Usage: "the course report's `LANGUAGE`: en or zh"},
		},
		Action: func(c *cli.Context) error {
			if c.NArg() != 1 {
				return usagef("give one run directory: waggle report DIR")
			}
			dir := c.Args().First()
			run, err := results.Open(dir)
			if err != nil {
				return err
			}
			if c.IsSet("course") {
				return courseReport(c, run)
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

func courseReport(c *cli.Context, run *results.Run) error {
	language := figure.Language(c.String("lang"))
	if language != figure.English && language != figure.Chinese {
		return usagef("--lang is %q: course reports are written in %s or %s", language, figure.English, figure.Chinese)
	}
	r, err := course.Make(run, language)
	if err != nil {
		return err
	}
	out := c.String("course")
	if err := r.Write(out); err != nil {
		return err
	}
	fmt.Fprintf(c.App.Writer, "the course report is %s (and %s): fill in what is marked\n", filepath.Join(out, course.MarkdownFile), course.LaTeXFile)
	return nil
}
