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
				return each(c, paths, func(path string) error { return removePath(c, cl, path) })
			})
		},
	}
}

func removePath(c *cli.Context, cl *client.Client, path string) error {
	if path != "" && strings.Trim(path, "/.") == "" {
		return usagef("rm: the root can't be removed")
	}
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
	failed := 0
	var last error
	cl.RemoveTree(c.Context, path, func(err error) {
		failed, last = failed+1, err
		complain(c, err)
	})
	switch {
	case failed == 0:
		return c.Context.Err()
	case endsAll(c.Context, last):
		return fmt.Errorf("remove %s: %w", path, last)
	}
	return fmt.Errorf("remove %s: %d entries below it could not be removed", path, failed)
}
