package main

import (
	"fmt"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/urfave/cli/v2"

	"waggle/dfs/chunk"
)

func chunkCommand() *cli.Command {
	return &cli.Command{
		Name:  "chunk",
		Usage: "run a chunk server",
		Flags: []cli.Flag{
			metaFlag(),
			&cli.PathFlag{Name: "dir", Required: true, Usage: "keep replicas in `DIRECTORY`"},
			&cli.StringFlag{Name: "data-address", Value: "127.0.0.1:0", Usage: "serve data on `ADDRESS`"},
			&cli.StringFlag{Name: "control-address", Value: "127.0.0.1:0", Usage: "serve control calls on `ADDRESS`"},
			&cli.StringFlag{Name: "advertise", Usage: "`IP` address that others reach this server at, if it listens on all", Action: checkIP("advertise")},
			&cli.IntFlag{Name: "max-connections", Value: 512, Usage: "refuse data connections above `N`"},
			&cli.IntFlag{Name: "open-files", Value: 512, Usage: "keep `N` replicas open; each takes two descriptors"},
			&cli.DurationFlag{Name: "idle-timeout", Value: 10 * time.Minute, Usage: "close data connections that are idle for `TIME`"},
			&cli.DurationFlag{Name: "peer-timeout", Value: 15 * time.Second, Usage: "give a peer `TIME` for the rest of a frame"},
			&cli.PathFlag{Name: "sockmap-cgroup", Usage: "redirect connections within the control group `DIRECTORY`, for read=sockmap+...; this process must be in it"},
			&cli.StringFlag{Name: "scrub-rate", Value: "4MiB", Usage: "look for damage at `BYTES` a second; 0 turns it off"},
			metricsFlag("metrics"),
		},
		Action: runChunk,
	}
}

func runChunk(c *cli.Context) error {
	if c.Args().Present() {
		return usagef("chunk takes no arguments, got %q", c.Args().First())
	}
	scrubRate, err := humanize.ParseBytes(c.String("scrub-rate"))
	if err != nil || scrubRate > 1<<40 {
		return usagef("--scrub-rate %q is no number of bytes up to 1 TiB", c.String("scrub-rate"))
	}
	return serveRole(c, func() (role, string, error) {
		server, err := chunk.New(chunk.Config{
			Directory: c.Path("dir"), Meta: c.String("meta"),
			DataAddress: c.String("data-address"), ControlAddress: c.String("control-address"), Advertise: c.String("advertise"),
			MaxConnections: c.Int("max-connections"), OpenFiles: c.Int("open-files"),
			IdleTimeout: c.Duration("idle-timeout"), PeerTimeout: c.Duration("peer-timeout"),
			SockmapCgroup: c.Path("sockmap-cgroup"), ScrubRate: int(scrubRate), Version: version(),
		})
		if err != nil {
			return nil, "", err
		}
		return server, fmt.Sprintf("chunk server: data on %s, control on %s", server.DataAddress(), server.ControlAddress()), nil
	})
}
