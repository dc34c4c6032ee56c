package main

import (
	"fmt"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/urfave/cli/v2"

	"waggle/dfs/meta"
	"waggle/dfs/wire"
)

func metaCommand() *cli.Command {
	return &cli.Command{
		Name:  "meta",
		Usage: "run the metadata server",
		Flags: []cli.Flag{
			&cli.PathFlag{Name: "dir", Required: true, Usage: "keep the metadata in `DIRECTORY`"},
			&cli.StringFlag{Name: "address", Value: DefaultMeta, Usage: "serve control calls on `ADDRESS`"},
			&cli.StringFlag{Name: "lookup-address", Usage: "answer lookups on UDP `ADDRESS` (default: that of control calls)"},
			&cli.StringFlag{Name: "lookup", Value: "udp", Usage: "answer lookups by data path `NAME`"},
			&cli.IntFlag{Name: "lookup-workers", Usage: "answer lookups on `N` sockets (default: one for each processor)"},
			&cli.DurationFlag{Name: "heartbeat", Value: time.Second, Usage: "have chunk servers report every `TIME`; without five of them in a row one is dead"},
			&cli.DurationFlag{Name: "repair-delay", Value: 15 * time.Second, Usage: "give a dead chunk server `TIME` to come back before its replicas are made anew"},
			&cli.Float64Flag{Name: "repairs-per-second", Value: 20, Usage: "mend at most `N` chunks a second"},
			&cli.IntFlag{Name: "min-replicas", Value: 1, Usage: "acknowledge a write when at least `N` replicas have it (a file of a lower replication: all of its own)"},
			&cli.Float64Flag{Name: "moves-per-second", Value: 2, Usage: "move at most `N` chunks a second off servers that are drained or full"},
			&cli.DurationFlag{Name: "trash-time", Value: 10 * time.Minute, Usage: "keep removed files for `TIME`, unless disks are nearly full; 0 keeps none",
				Action: func(_ *cli.Context, t time.Duration) error {
					return checkRange("trash-time", t, t >= 0 && t <= maxTime, true)
				}},
			&cli.IntFlag{Name: "trash-files", Value: 100_000, Usage: "keep at most `N` removed files"},
			&cli.DurationFlag{Name: "session-time", Value: 20 * time.Second, Usage: "end a session that was not kept alive for `TIME`"},
			&cli.StringFlag{Name: "chunk-size", Value: "16MiB", Usage: "cut files into chunks of `BYTES` unless their maker says otherwise"},
			&cli.StringFlag{Name: "cache", Value: "256MiB", Usage: "use `BYTES` for caches"},
			metricsFlag("metrics"),
		},
		Action: runMeta,
	}
}

func runMeta(c *cli.Context) error {
	if c.Args().Present() {
		return usagef("meta takes no arguments, got %q", c.Args().First())
	}
	if n := c.Int("min-replicas"); n < 1 || n > wire.MaxReplicas {
		return usagef("--min-replicas %d: from 1 to %d are possible", n, wire.MaxReplicas)
	}
	sizes := make(map[string]uint64)
	for name, limit := range map[string]uint64{"chunk-size": 1 << 31, "cache": 1 << 40} {
		bytes, err := humanize.ParseBytes(c.String(name))
		if err != nil || bytes == 0 || bytes > limit {
			return usagef("--%s %q is no number of bytes up to %s", name, c.String(name), humanize.IBytes(limit))
		}
		sizes[name] = bytes
	}
	return serveRole(c, func() (role, string, error) {
		server, err := meta.Open(c.Context, meta.Config{
			Directory: c.Path("dir"), Control: c.String("address"), Lookup: c.String("lookup-address"),
			LookupPath: c.String("lookup"), LookupWorkers: c.Int("lookup-workers"),
			Heartbeat: c.Duration("heartbeat"), RepairDelay: c.Duration("repair-delay"), RepairsPerSecond: c.Float64("repairs-per-second"),
			MinReplicas:    c.Int("min-replicas"),
			MovesPerSecond: c.Float64("moves-per-second"), TrashTime: c.Duration("trash-time"), TrashFiles: c.Int("trash-files"),
			SessionTime: c.Duration("session-time"), ChunkSize: uint32(sizes["chunk-size"]), CacheBytes: int64(sizes["cache"]),
			Version: version(),
		})
		if err != nil {
			return nil, "", err
		}
		return server, fmt.Sprintf("metadata server: control on %s, lookups on %s", server.Address(), server.LookupAddress()), nil
	})
}
