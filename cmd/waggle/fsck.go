package main

import (
	"fmt"

	"github.com/urfave/cli/v2"

	"waggle/dfs/client"
	"waggle/dfs/wire/control"
)

func fsckCommand() *cli.Command {
	return &cli.Command{
		Name:        "fsck",
		Usage:       "look for inconsistencies",
		Description: "Exits with 1 if there are problems that were not repaired.",
		Flags: clientFlags(jsonFlag(),
			&cli.BoolFlag{Name: "replicas", Usage: "ask the chunk servers for every replica, too"},
			&cli.BoolFlag{Name: "data", Usage: "have every block read and compared with its checksum, too"},
			&cli.BoolFlag{Name: "repair", Usage: "mend what can be mended"}),
		Action: func(c *cli.Context) error {
			if _, err := arguments(c, 0, 0); err != nil {
				return err
			}
			return withClient(c, client.Options{}, func(cl *client.Client) error { return check(c, cl) })
		},
	}
}

// verdict is what fsck found.
type verdict struct {
	Checked  uint64    `json:"checked"` // inodes and chunks
	Problems []problem `json:"problems"`
}

type problem struct {
	Text     string `json:"problem"`
	Repaired bool   `json:"repaired"`
}

func check(c *cli.Context, cl *client.Client) error {
	v := verdict{Problems: []problem{}}
	open := 0
	request := &control.CheckRequest{Replicas: c.Bool("replicas") || c.Bool("data"), Data: c.Bool("data"), Repair: c.Bool("repair")}
	err := cl.Check(c.Context, request, func(p *control.CheckProgress) {
		v.Checked = p.Checked
		if p.Problem == "" {
			return
		}
		v.Problems = append(v.Problems, problem{p.Problem, p.Repaired})
		if !p.Repaired {
			open++
		}
		if !c.Bool("json") {
			fmt.Fprintf(c.App.Writer, "%s%s\n", p.Problem, yesNo(p.Repaired, " (repaired)", ""))
		}
	})
	if err != nil {
		return err
	}
	if c.Bool("json") {
		if err := printJSON(c.App.Writer, v); err != nil {
			return err
		}
	} else {
		fmt.Fprintf(c.App.Writer, "%d inodes and chunks checked: %s\n", v.Checked, yesNo(len(v.Problems) == 0, "clean", fmt.Sprintf("%d problems", len(v.Problems))))
	}
	if open > 0 {
		return fmt.Errorf("the file system has %d problems that were not repaired", open)
	}
	return nil
}
