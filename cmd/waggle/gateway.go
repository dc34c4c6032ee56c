package main

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/urfave/cli/v2"

	"waggle/dfs/client"
	"waggle/dfs/gateway"
)

func gatewayCommand() *cli.Command {
	return &cli.Command{
		Name:  "gateway",
		Usage: "serve the file system over HTTP and WebDAV, with pages for people",
		Description: "Files are at their own paths, the gateway's pages below /-/. A browser shows directories, uploads, tags\n" +
			"and a live panel; curl and WebDAV clients use the same addresses:\n\n" +
			"   curl -T FILE http://127.0.0.1:9440/DIRECTORY/       upload; the old file stays until the new one is whole\n" +
			"   curl -C - -O http://127.0.0.1:9440/FILE             download, going on where it was interrupted\n" +
			"   curl -H 'Accept: application/json' http://127.0.0.1:9440/DIRECTORY\n" +
			"   curl -X DELETE http://127.0.0.1:9440/FILE\n\n" +
			"Answers say in Waggle-Verified whether the gateway has verified their bodies; \"TE: trailers\" asks for the\n" +
			"chunk servers' checksum behind them. There is no authentication: who reaches the address has its rights.",
		Flags: clientFlags(
			&cli.StringFlag{Name: "address", Value: "127.0.0.1:9440", Usage: "serve HTTP on `ADDRESS`; there is no authentication"},
			&cli.StringFlag{Name: "control-address", Value: "127.0.0.1:0", Usage: "serve control calls on `ADDRESS`"},
			&cli.StringFlag{Name: "relay", Value: "copy", Usage: "pass bodies on by data path `NAME`; \"none\" reads and verifies them"},
			&cli.IntFlag{Name: "max-connections", Value: 1024, Usage: "refuse connections above `N`"},
			&cli.StringFlag{Name: "max-upload", Value: "1TiB", Usage: "refuse uploads above `BYTES`"},
			&cli.StringFlag{Name: "min-rate", Value: "4KiB", Usage: "close connections of clients slower than `BYTES` a second"},
			&cli.DurationFlag{Name: "header-timeout", Value: 10 * time.Second, Usage: "give a client `TIME` to send a request's header"},
			&cli.DurationFlag{Name: "idle-timeout", Value: time.Minute, Usage: "close connections that are idle for `TIME`"},
			metricsFlag("metrics"),
		),
		Action: runGateway,
	}
}

func runGateway(c *cli.Context) error {
	if c.Args().Present() {
		return usagef("gateway takes no arguments, got %q", c.Args().First())
	}
	sizes := map[string]int64{"max-upload": 0, "min-rate": 0}
	for name := range sizes {
		n, err := humanize.ParseBytes(c.String(name))
		if err != nil || n < 1 || n > 1<<60 {
			return usagef("--%s %q is no number of bytes such as 64KiB", name, c.String(name))
		}
		sizes[name] = int64(n)
	}
	return withClient(c, client.Options{}, func(cl *client.Client) error {
		return serveRole(c, func() (role, string, error) {
			g, err := gateway.New(gateway.Config{
				Client: cl, Address: c.String("address"), ControlAddress: c.String("control-address"), Relay: c.String("relay"), ReadPath: c.String("read"),
				Log: slog.New(slog.NewTextHandler(c.App.ErrWriter, nil)), Version: version(),
				MaxConnections: c.Int("max-connections"), MaxUpload: sizes["max-upload"], MinRate: sizes["min-rate"],
				HeaderTimeout: c.Duration("header-timeout"), IdleTimeout: c.Duration("idle-timeout"),
			})
			if err != nil {
				return nil, "", err
			}
			return g, fmt.Sprintf("gateway: http://%s, control on %s, relay=%s", g.Address(), g.ControlAddress(), c.String("relay")), nil
		})
	})
}
