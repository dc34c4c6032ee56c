package main

import (
	"errors"
	"fmt"
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"

	"waggle/dfs/client"
)

func rmCommand() *cli.Command {
	return &cli.Command{
		Name:      "rm",
		Usage:     "remove files, links and empty directories",
		ArgsUsage: "PATH...",
		Flags:     clientFlags(&cli.BoolFlag{Name: "recursive", Aliases: []string{"r"}, Usage: "with everything below"}),
		Action: func(c *cli.Context) error {
			paths, err := arguments(c, 1, -1)
			if err != nil {
				return err
			}
			return withClient(c, client.Options{}, func(cl *client.Client) error {
				for _, path := range paths {
					if strings.Trim(path, "/.") == "" {
						return usagef("rm: the root can't be removed")
					}
					if err := removePath(c, cl, path); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
}

func removePath(c *cli.Context, cl *client.Client, path string) error {
	if !c.Bool("recursive") {
		err := cl.Remove(c.Context, path)
		if errors.Is(err, syscall.ENOTEMPTY) {
			err = fmt.Errorf("%w: --recursive removes it with everything below", err)
		}
		return err
	}
	if _, err := cl.Lstat(c.Context, path); err != nil {
		return err
	}
	return cl.RemoveAll(c.Context, path)
}
