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
waggle regress --history DIR --html FILE --commit-url ADDRESS
                                       the same as a web page, for a branch of pages

Exits with 1 if head is worse in any cell, if it did not measure all that base did, if
nothing could be compared, or if a trend of the history got worse, and names what it was.`,
		ArgsUsage: "[DIR]",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "base", Usage: "run `DIR`ectory of the revision to compare with"},
			&cli.StringFlag{Name: "head", Usage: "run `DIR`ectory of the revision in question"},
			&cli.StringFlag{Name: "history", Usage: "`DIR`ectory of run directories, one a commit"},
			&cli.StringFlag{Name: "graphs", Usage: "write the history's trends to `DIR` as SVG"},
			&cli.PathFlag{Name: "html", Usage: "write the history to `FILE` as one web page"},
			&cli.StringFlag{Name: "commit-url", Usage: "`ADDRESS` of commits, for the page's links; \"{commit}\" in it, or its end, is the place of the name"},
			&cli.PathFlag{Name: "commits", Usage: "`FILE` with all commits of the history, one a line, oldest first (git log --reverse --format=%H): those without a run are gaps in the page"},
			jsonFlag(),
			&cli.BoolFlag{Name: "markdown", Usage: "print Markdown for a comment on a change"},
		},
		Action: func(c *cli.Context) error {
			switch {
			case c.Bool("json") && c.Bool("markdown"):
				return usagef("give --json or --markdown, not both")
			case c.IsSet("history"):
				return followHistory(c)
			case c.IsSet("graphs"), c.IsSet("html"), c.IsSet("commit-url"), c.IsSet("commits"):
				return usagef("--graphs, --html, --commit-url and --commits go with --history")
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
	if !c.IsSet("html") && (c.IsSet("commit-url") || c.IsSet("commits")) {
		return usagef("--commit-url and --commits go with --html")
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
	if file := c.Path("html"); file != "" {
		if err := writeHistoryPage(c, history, file); err != nil {
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

func writeHistoryPage(c *cli.Context, history regress.History, file string) error {
	options := regress.PageOptions{CommitURL: c.String("commit-url")}
	if options.CommitURL != "" {
		if err := regress.CheckCommitURL(options.CommitURL); err != nil {
			return usagef("--commit-url: %v", err)
		}
	}
	if list := c.Path("commits"); list != "" {
		commits, err := regress.ReadCommits(list)
		if err != nil {
			return err
		}
		options.Commits = commits
	}
	page, err := history.Page(options)
	if err != nil {
		return err
	}
	return results.WriteFile(file, page)
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
