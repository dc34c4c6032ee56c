package main

import (
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
				return each(c, paths, func(path string) error { return printFile(c, cl, path) })
			})
		},
	}
}

func printFile(c *cli.Context, cl *client.Client, path string) error {
	f, err := cl.Open(c.Context, path)
	if err != nil {
		return err
	}
	defer f.Close() // nothing was written
	_, err = f.WriteTo(outputWriter{c.App.Writer})
	return err
}
