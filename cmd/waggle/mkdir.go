package main

import (
	"io/fs"
	"strconv"

	"github.com/urfave/cli/v2"

	"waggle/dfs/client"
)

func mkdirCommand() *cli.Command {
	return &cli.Command{
		Name:      "mkdir",
		Usage:     "make directories",
		ArgsUsage: "PATH...",
		Flags: clientFlags(
			&cli.BoolFlag{Name: "parents", Aliases: []string{"p"}, Usage: "make what is missing above them, and don't mind if they exist"},
			&cli.StringFlag{Name: "mode", Value: "755", Usage: "permissions, in `OCTAL`"}),
		Action: func(c *cli.Context) error {
			paths, err := arguments(c, 1, -1)
			if err != nil {
				return err
			}
			mode, err := strconv.ParseUint(c.String("mode"), 8, 9)
			if err != nil {
				return usagef("--mode %q is no octal number up to 777", c.String("mode"))
			}
			return withClient(c, client.Options{}, func(cl *client.Client) error {
				make := cl.Mkdir
				if c.Bool("parents") {
					make = cl.MkdirAll
				}
				return each(c, paths, func(path string) error { return make(c.Context, path, fs.FileMode(mode)) })
			})
		},
	}
}
