package main

import (
	"path"

	"github.com/urfave/cli/v2"

	"waggle/dfs/client"
)

func mvCommand() *cli.Command {
	return &cli.Command{
		Name:        "mv",
		Usage:       "move or rename",
		ArgsUsage:   "FROM TO",
		Description: "If TO is a directory, FROM keeps its name in it; a file that has the name is replaced.",
		Flags:       clientFlags(),
		Action: func(c *cli.Context) error {
			args, err := arguments(c, 2, 2)
			if err != nil {
				return err
			}
			return withClient(c, client.Options{}, func(cl *client.Client) error {
				to := args[1]
				if info, err := cl.Stat(c.Context, to); err == nil && info.IsDir() {
					to = path.Join(to, path.Base(args[0]))
				}
				return cl.Rename(c.Context, args[0], to)
			})
		},
	}
}
