package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/urfave/cli/v2"

	"waggle/dfs/cluster"
)

func upCommand() *cli.Command {
	return &cli.Command{
		Name:  "up",
		Usage: "run a whole cluster on this machine until Ctrl-C",
		Description: "One metadata server and some chunk servers, each a process of its own that ends with this one.\n" +
			"--meta 0.0.0.0:9430 serves other machines, too; clients are trusted.\n" +
			"Run it again with the same directory and everything that was stored is there.",
		Flags: []cli.Flag{
			metaFlag(),
			&cli.StringFlag{Name: "advertise", Action: checkIP("advertise"),
				Usage: "`IP` address that others reach this machine at, where --meta is 0.0.0.0 or [::] (default: that of its route to others)"},
			&cli.PathFlag{Name: "dir", Usage: "keep everything in `DIRECTORY` (default: waggle in the user's data directory)"},
			&cli.IntFlag{Name: "chunk-servers", Value: 3, Usage: "run `N` chunk servers"},
			metricsFlag("metrics of the metadata server, and on the ports behind of each chunk server,"),
		},
		Action: func(c *cli.Context) error {
			if _, err := arguments(c, 0, 0); err != nil {
				return err
			}
			if n := c.Int("chunk-servers"); n < 1 || n > 64 {
				return usagef("--chunk-servers %d must be 1 to 64", n)
			}
			return up(c)
		},
	}
}

func up(c *cli.Context) error {
	program, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program, to start the roles with: %w", err)
	}
	dir := c.Path("dir")
	if dir == "" {
		if dir, err = dataDirectory(); err != nil {
			return err
		}
	}
	start := time.Now()
	return cluster.Run(c.Context, cluster.Config{
		Program: program, Directory: dir, Meta: c.String("meta"), Advertise: c.String("advertise"), ChunkServers: c.Int("chunk-servers"), Metrics: c.String("metrics-address"), Output: c.App.ErrWriter,
		Ready: func() {
			fmt.Fprintf(c.App.Writer, "ready after %.1f s: 1 metadata server at %s, %d chunk servers, data in %s\n",
				time.Since(start).Seconds(), c.String("meta"), c.Int("chunk-servers"), dir)
		},
	})
}

// dataDirectory is where programs of this user keep their data (XDG Base
// Directory Specification).
func dataDirectory() (string, error) {
	if data := os.Getenv("XDG_DATA_HOME"); filepath.IsAbs(data) {
		return filepath.Join(data, "waggle"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", errors.Join(errors.New("there is no home directory to keep data in: name one with --dir"), err)
	}
	return filepath.Join(home, ".local", "share", "waggle"), nil
}
