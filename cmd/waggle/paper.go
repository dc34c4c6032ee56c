package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"waggle/analysis/paper"
	"waggle/results"
)

func paperCommand() *cli.Command {
	return &cli.Command{
		Name:  "paper",
		Usage: "write the numbers, verdicts, tables and figures of the paper from runs",
		Description: "Writes LaTeX macros and PDF figures that the text in paper/ inputs. An experiment is taken from the first DIR that has it;\n" +
			"what none has is said to be not measured. With --reference, what came out otherwise than there is marked. `./run.sh paper` builds the PDF.",
		ArgsUsage: "DIR...",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "text", Value: "paper", Usage: "`DIR` of the text, with its paper.yaml"},
			&cli.StringFlag{Name: "out", Value: filepath.Join("paper", "generated"), Usage: "`DIR` to write into"},
			&cli.StringFlag{Name: "reference", Usage: "`DIR` of the run to compare with"},
			&cli.BoolFlag{Name: "check", Usage: "check the text alone: no bare number, no comparison that is no verdict, no figure without a reference"},
		},
		Action: func(c *cli.Context) error {
			declarations, err := readDeclarations(c.String("text"))
			if err != nil {
				return err
			}
			if c.Bool("check") {
				return checkText(c, declarations)
			}
			if c.NArg() == 0 {
				return usagef("give at least one run directory: waggle paper DIR...")
			}
			out := paper.Output{Declarations: declarations}
			if out.Evaluation, err = evaluate(declarations, c.Args().Slice()...); err != nil {
				return err
			}
			if reference := c.String("reference"); reference != "" {
				other, err := evaluate(declarations, reference)
				if err != nil {
					return err
				}
				out.Differences = paper.Compare(out.Evaluation, other)
			}
			if err := out.Write(c.String("out")); err != nil {
				return err
			}
			fmt.Fprintf(c.App.Writer, "%s holds what the paper takes from the records: %s\n", c.String("out"), out.Summary())
			return nil
		},
	}
}

func readDeclarations(dir string) (*paper.Declarations, error) {
	name := filepath.Join(dir, "paper.yaml")
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("read the paper's declarations: %w: name the directory of the text with --text", err)
	}
	declarations, err := paper.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return declarations, nil
}

func evaluate(d *paper.Declarations, dirs ...string) (*paper.Evaluation, error) {
	var runs []*results.Run
	for _, dir := range dirs {
		run, err := results.Open(dir)
		if err != nil {
			return nil, err
		}
		runs = append(runs, run)
	}
	return paper.Evaluate(d, runs...)
}

func checkText(c *cli.Context, d *paper.Declarations) error {
	faults, err := paper.Lint(d, c.String("text"))
	if err != nil {
		return err
	}
	for _, f := range faults {
		fmt.Fprintln(c.App.Writer, f)
	}
	if len(faults) > 0 {
		return errors.New("the text says what no record stands behind")
	}
	return nil
}
