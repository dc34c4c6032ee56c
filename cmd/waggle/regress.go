package main

import (
	"fmt"

	"github.com/urfave/cli/v2"

	"waggle/analysis/regress"
	"waggle/results"
)

func regressCommand() *cli.Command {
	return &cli.Command{
		Name:  "regress",
		Usage: "say whether one revision of the code is worse than another",
		Description: `waggle regress --base DIR --head DIR   compares the counts of two runs
waggle regress DIR                     compares the levels base and head of the factor
                                       "revision" in one run, timings too
waggle regress --history DIR           follows the runs in DIR through time

Exits with 1 if head is worse in any cell, if it did not measure all that base did, if
nothing could be compared, or if a trend of the history got worse, and names what it was.`,
		ArgsUsage: "[DIR]",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "base", Usage: "run `DIR`ectory of the revision to compare with"},
			&cli.StringFlag{Name: "head", Usage: "run `DIR`ectory of the revision in question"},
			&cli.StringFlag{Name: "history", Usage: "`DIR`ectory of run directories, one a commit"},
			&cli.StringFlag{Name: "graphs", Usage: "write the history's trends to `DIR` as SVG"},
			jsonFlag(),
			&cli.BoolFlag{Name: "markdown", Usage: "print Markdown for a comment on a change"},
		},
		Action: func(c *cli.Context) error {
			switch {
			case c.Bool("json") && c.Bool("markdown"):
				return usagef("give --json or --markdown, not both")
			case c.IsSet("history"):
				return followHistory(c)
			case c.IsSet("graphs"):
				return usagef("--graphs goes with --history")
			}
			return compareRevisions(c)
		},
	}
}

func compareRevisions(c *cli.Context) error {
	report, err := compare(c)
	if err != nil {
		return err
	}
	if err := printReport(c, report); err != nil {
		return err
	}
	if report.Failed() {
		return cli.Exit("", exitFailed)
	}
	return nil
}

func compare(c *cli.Context) (regress.Report, error) {
	if c.NArg() == 1 && !c.IsSet("base") && !c.IsSet("head") {
		run, err := results.Open(c.Args().First())
		if err != nil {
			return regress.Report{}, err
		}
		return regress.CompareRevisions(run)
	}
	if c.NArg() > 0 || c.String("base") == "" || c.String("head") == "" {
		return regress.Report{}, usagef("give --base DIR and --head DIR, or one run directory, or --history DIR")
	}
	base, err := results.Open(c.String("base"))
	if err != nil {
		return regress.Report{}, err
	}
	head, err := results.Open(c.String("head"))
	if err != nil {
		return regress.Report{}, err
	}
	return regress.Compare(base, head)
}

func followHistory(c *cli.Context) error {
	if c.NArg() > 0 || c.IsSet("base") || c.IsSet("head") {
		return usagef("--history takes one directory and nothing else")
	}
	runs, err := regress.OpenHistory(c.String("history"))
	if err != nil {
		return err
	}
	history := regress.Follow(runs)
	if dir := c.String("graphs"); dir != "" {
		if _, err := history.Draw(dir); err != nil {
			return err
		}
	}
	if err := printReport(c, history); err != nil {
		return err
	}
	if history.Failed() {
		return cli.Exit("", exitFailed)
	}
	return nil
}

// printReport writes a report in the form that was asked for.
func printReport(c *cli.Context, report interface {
	Text() string
	Markdown() string
}) error {
	text := report.Text
	switch {
	case c.Bool("json"):
		return printJSON(c.App.Writer, report)
	case c.Bool("markdown"):
		text = report.Markdown
	}
	_, err := fmt.Fprint(c.App.Writer, text())
	return err
}
