package main

import (
	"errors"

	"github.com/urfave/cli/v2"

	"waggle/dfs/client"
)

func catCommand() *cli.Command {
	return &cli.Command{
		Name:      "cat",
		Usage:     "print files",
		ArgsUsage: "PATH...",
		Flags:     clientFlags(),
		Action: func(c *cli.Context) error {
			paths, err := arguments(c, 1, -1)
			if err != nil {
				return err
			}
			return withClient(c, client.Options{}, func(cl *client.Client) error {
				for _, path := range paths {
					f, err := cl.Open(c.Context, path)
					if err != nil {
						return err
					}
					_, err = f.WriteTo(c.App.Writer)
					if err := errors.Join(err, f.Close()); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
}
