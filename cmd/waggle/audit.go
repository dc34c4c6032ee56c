package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"waggle/analysis/audit"
	"waggle/results"
)

func auditCommand() *cli.Command {
	return &cli.Command{
		Name:  "audit",
		Usage: "ask whether a run directory can be believed",
		Description: "Checks what the records say of themselves: nothing missing, nothing edited, numbers that fit one another, noise that looks\n" +
			"like noise. --rerun runs a random sample of the cells again and says whether they agree. Exit code 1: something can't be true.",
		ArgsUsage: "DIR",
		Flags: []cli.Flag{
			jsonFlag(),
			&cli.StringFlag{Name: "rerun", Usage: "run this `SHARE` of the cells again, such as 5%"},
			&cli.Uint64Flag{Name: "seed", Value: 1, Usage: "`SEED` of the sample"},
		},
		Action: func(c *cli.Context) error {
			if c.NArg() != 1 {
				return usagef("give one run directory: waggle audit DIR")
			}
			report, err := audit.Run(c.Args().First())
			if err != nil {
				return err
			}
			if c.IsSet("rerun") {
				if err := rerun(c, report); err != nil {
					return err
				}
			}
			if c.Bool("json") {
				err = printJSON(c.App.Writer, report)
			} else {
				_, err = fmt.Fprint(c.App.Writer, report.Text())
			}
			if err == nil && !report.Believable() {
				err = cli.Exit("", exitFailed)
			}
			return err
		},
	}
}

// rerun runs a sample of the run's cells again and adds how they compare.
func rerun(c *cli.Context, report *audit.Report) error {
	text, _ := strings.CutSuffix(c.String("rerun"), "%")
	share, err := strconv.ParseFloat(text, 64)
	if err != nil || !(share > 0 && share <= 100) {
		return usagef("--rerun is %q: give a share of the cells, such as 5%%", c.String("rerun"))
	}
	before, err := results.Open(c.Args().First())
	if err != nil {
		return err
	}
	program, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find the waggle program to run cells again with: %w", err)
	}
	scratch, err := os.MkdirTemp("", "waggle-audit-")
	if err != nil {
		return fmt.Errorf("make a directory for the cells that are run again: %w", err)
	}
	defer os.RemoveAll(scratch)
	result := audit.Rerun{SameMachine: true}
	for i, chosen := range audit.Choose(before, share/100, c.Uint64("seed")) {
		fmt.Fprintf(c.App.ErrWriter, "run again: %s, %s\n", chosen.Experiment, chosen.Cell)
		again, err := runCell(c.Context, program, chosen, filepath.Join(scratch, strconv.Itoa(i)))
		switch {
		case c.Context.Err() != nil:
			return c.Context.Err()
		case err != nil:
			result.Cells = append(result.Cells, audit.RerunCell{Experiment: chosen.Experiment, Cell: chosen.Cell.String(), Failed: err.Error()})
		default:
			result.SameMachine = result.SameMachine && audit.SameMachine(before.Environment, again.Environment)
			result.Cells = append(result.Cells, audit.CompareCell(chosen, before, again))
		}
	}
	report.AddRerun(result)
	return nil
}

// runCell runs one cell of an experiment into a directory. It is a process of its
// own, as the run was.
func runCell(ctx context.Context, program string, chosen audit.Chosen, out string) (*results.Run, error) {
	arguments := []string{"run", chosen.Experiment, "--effort", chosen.Effort, "--out", out}
	for _, factor := range slices.Sorted(maps.Keys(chosen.Cell)) {
		arguments = append(arguments, "--set", factor+"="+results.FormatLevel(chosen.Cell[factor]))
	}
	command := exec.CommandContext(ctx, program, arguments...)
	command.Cancel = func() error { return command.Process.Signal(os.Interrupt) } // it cleans up behind itself
	output, err := command.CombinedOutput()
	var ended *exec.ExitError
	if err != nil && !(errors.As(err, &ended) && ended.ExitCode() == exitInvalid) {
		return nil, fmt.Errorf("%w: %s", err, lastLine(string(output)))
	}
	return results.Open(out)
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[len(lines)-1]
}
