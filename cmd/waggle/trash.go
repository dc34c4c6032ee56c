package main

import (
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/urfave/cli/v2"

	"waggle/dfs/client"
)

func trashCommand() *cli.Command {
	return &cli.Command{
		Name:  "trash",
		Usage: "list removed files that can be undeleted",
		Flags: clientFlags(jsonFlag()),
		Action: func(c *cli.Context) error {
			if _, err := arguments(c, 0, 0); err != nil {
				return err
			}
			return withClient(c, client.Options{}, func(cl *client.Client) error { return listTrash(c, cl) })
		},
	}
}

func listTrash(c *cli.Context, cl *client.Client) error {
	all, err := cl.Trash(c.Context)
	if err != nil {
		return err
	}
	if c.Bool("json") {
		if all == nil {
			all = []client.Trashed{}
		}
		return printJSON(c.App.Writer, all)
	}
	table := tabwriter.NewWriter(c.App.Writer, 0, 0, 2, ' ', 0)
	for _, f := range all {
		fmt.Fprintf(table, "#%d\t%s\t%s\tuntil %s\t%q\n", f.Inode, humanize.IBytes(f.Size), f.Removed.Format(time.DateTime),
			f.Expires.Format(time.TimeOnly), f.Path)
	}
	return table.Flush()
}

func undeleteCommand() *cli.Command {
	return &cli.Command{
		Name:        "undelete",
		Usage:       "give removed files their names again",
		ArgsUsage:   "PATH...",
		Description: "Of several files that were removed by one path, the last one comes back; #INODE names another (see `waggle trash`).",
		Flags: clientFlags(
			&cli.PathFlag{Name: "to", Usage: "call the file `PATH` (with one file)"}),
		Action: func(c *cli.Context) error {
			names, err := arguments(c, 1, -1)
			if err != nil {
				return err
			}
			if c.IsSet("to") && len(names) > 1 {
				return usagef("undelete: --to names one file, got %d", len(names))
			}
			return withClient(c, client.Options{}, func(cl *client.Client) error {
				for _, name := range names {
					if err := undelete(c, cl, name); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
}

func undelete(c *cli.Context, cl *client.Client, name string) error {
	found, err := cl.FindTrashed(c.Context, name)
	if err != nil {
		return err
	}
	to := found.Path
	if c.IsSet("to") {
		to = c.Path("to")
	}
	return cl.Undelete(c.Context, found.Inode, to)
}
