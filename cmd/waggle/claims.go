package main

import (
	"fmt"

	"github.com/urfave/cli/v2"

	"waggle/analysis/claims"
	"waggle/results"
)

func claimsCommand() *cli.Command {
	return &cli.Command{
		Name:      "claims",
		Usage:     "say which published claims a run reproduces on this machine",
		ArgsUsage: "DIR",
		Flags:     []cli.Flag{jsonFlag()},
		Action: func(c *cli.Context) error {
			if c.NArg() != 1 {
				return usagef("claims takes one run directory, got %d arguments", c.NArg())
			}
			run, err := results.Open(c.Args().First())
			if err != nil {
				return err
			}
			catalogue, err := claims.Published()
			if err != nil {
				return err
			}
			outcomes := catalogue.Judge(run)
			if c.Bool("json") {
				return printJSON(c.App.Writer, outcomes)
			}
			_, err = fmt.Fprint(c.App.Writer, claims.Text(outcomes))
			return err
		},
	}
}
