package main

import (
	"fmt"
	"net/netip"

	"github.com/urfave/cli/v2"

	"waggle/experiments/floor"
	"waggle/experiments/workload"
)

// loadCommand is the load generator that `waggle run` starts.
func loadCommand() *cli.Command {
	return &cli.Command{
		Name:   "load",
		Usage:  "generate load as asked for on standard input (started by run)",
		Hidden: true,
		Action: func(c *cli.Context) error {
			return workload.Serve(c.Context, c.App.Reader, c.App.Writer)
		},
	}
}

// floorCommand is the floor control that `waggle run` starts.
func floorCommand() *cli.Command {
	return &cli.Command{
		Name:   "floor",
		Usage:  "serve the floor control of experiments (started by run)",
		Hidden: true,
		Flags: []cli.Flag{
			&cli.PathFlag{Name: "dir", Required: true, Usage: "keep files in `DIRECTORY`"},
			&cli.StringFlag{Name: "address", Value: "127.0.0.1", Usage: "serve on free ports of `IP`"},
		},
		Action: func(c *cli.Context) error {
			ip, err := netip.ParseAddr(c.String("address"))
			if err != nil {
				return usagef("--address: %v", err)
			}
			server, err := floor.Listen(c.Context, ip, c.Path("dir"))
			if err != nil {
				return err
			}
			fmt.Fprintf(c.App.Writer, "floor control: tcp on %s, udp on %s\n", server.TCPAddress(), server.UDPAddress())
			return server.Serve(c.Context)
		},
	}
}
