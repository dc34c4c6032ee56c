package main

import (
	"errors"
	"fmt"

	"github.com/urfave/cli/v2"

	"waggle/dfs/client"
	"waggle/dfs/mount"
)

func mountCommand() *cli.Command {
	return &cli.Command{
		Name:  "mount",
		Usage: "mount the file system on a directory, so that any program can use it",
		Description: "Runs until it is interrupted, or until `waggle umount DIRECTORY`. What a mount that was killed has left there is cleared first.\n" +
			"DIRECTORY/.waggle shows the paths in use and what was counted. With --patience, operations wait for that long while servers\n" +
			"are away, then fail with EIO.",
		ArgsUsage: "DIRECTORY",
		Flags: clientFlags(
			&cli.StringFlag{Name: "mount", Value: "fuse", Usage: "mount by data path `NAME`"},
			&cli.BoolFlag{Name: "allow-other", Usage: "let other users in, as far as permissions let them"},
			&cli.BoolFlag{Name: "debug", Usage: "log every request of the kernel"},
		),
		Action: func(c *cli.Context) error {
			args, err := arguments(c, 1, 1)
			if err != nil {
				return err
			}
			return withClient(c, client.Options{}, func(cl *client.Client) error {
				m, err := mount.New(mount.Config{Client: cl, Directory: args[0], Path: c.String("mount"), Others: c.Bool("allow-other"),
					Cluster: c.String("meta"), Debug: c.Bool("debug")})
				if err != nil {
					return err
				}
				fmt.Fprintf(c.App.Writer, "mounted on %s, mount=%s (Ctrl-C or `waggle umount %s` ends it)\n", args[0], c.String("mount"), args[0])
				return m.Serve(c.Context)
			})
		},
	}
}

func umountCommand() *cli.Command {
	return &cli.Command{
		Name:      "umount",
		Usage:     "end the mount on a directory, also one whose process is gone",
		ArgsUsage: "DIRECTORY...",
		Flags:     []cli.Flag{&cli.BoolFlag{Name: "force", Usage: "end it although it is in use, or its process does not answer: its users get errors"}},
		Action: func(c *cli.Context) error {
			args, err := arguments(c, 1, -1)
			if err != nil {
				return err
			}
			var failed error
			for _, directory := range args {
				failed = errors.Join(failed, mount.Unmount(directory, c.Bool("force")))
			}
			return failed
		},
	}
}
