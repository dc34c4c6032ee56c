package main

import (
	"fmt"
	"strconv"

	"github.com/urfave/cli/v2"

	"waggle/dfs/client"
)

func decommissionCommand() *cli.Command {
	return &cli.Command{
		Name:      "decommission",
		Usage:     "take a chunk server from the cluster, after its replicas were made elsewhere",
		ArgsUsage: "SERVER",
		Description: "SERVER is the number that `waggle df` shows. The server is drained whether this command waits or not.\n" +
			"How fast is `waggle meta --moves-per-second`.",
		Flags: clientFlags(jsonFlag(),
			&cli.BoolFlag{Name: "cancel", Usage: "go on with a server that is being drained"}),
		Action: func(c *cli.Context) error {
			args, err := arguments(c, 1, 1)
			if err != nil {
				return err
			}
			server, err := strconv.ParseUint(args[0], 10, 32)
			if err != nil || server == 0 {
				return usagef("decommission: %q is no number of a chunk server: `waggle df` lists them", args[0])
			}
			return withClient(c, client.Options{}, func(cl *client.Client) error { return decommission(c, cl, uint32(server)) })
		},
	}
}

// drainState is one line of --json.
type drainState struct {
	Server  uint32 `json:"server"`
	Left    uint64 `json:"replicas_left"`
	Removed bool   `json:"removed"`
}

func decommission(c *cli.Context, cl *client.Client, server uint32) error {
	if c.Bool("cancel") {
		return cl.KeepServer(c.Context, server)
	}
	shown, last := false, uint64(0)
	err := cl.Decommission(c.Context, server, func(left uint64) {
		switch {
		case shown && left == last:
		case c.Bool("json"):
			printJSON(c.App.Writer, drainState{Server: server, Left: left})
		default:
			fmt.Fprintf(c.App.Writer, "%d replicas left on server %d\n", left, server)
		}
		shown, last = true, left
	})
	if err != nil {
		return err
	}
	if c.Bool("json") {
		return printJSON(c.App.Writer, drainState{Server: server, Removed: true})
	}
	fmt.Fprintf(c.App.Writer, "server %d was removed: its process can be stopped and its directory deleted\n", server)
	return nil
}

func rebalanceCommand() *cli.Command {
	return &cli.Command{
		Name:  "rebalance",
		Usage: "move replicas from full chunk servers to empty ones",
		Description: "It is done by itself when a server is added. `waggle df` shows how many chunks still wait; how fast they are\n" +
			"moved is `waggle meta --moves-per-second`.",
		Flags: clientFlags(jsonFlag()),
		Action: func(c *cli.Context) error {
			if _, err := arguments(c, 0, 0); err != nil {
				return err
			}
			return withClient(c, client.Options{}, func(cl *client.Client) error {
				moves, err := cl.Rebalance(c.Context)
				if err != nil {
					return err
				}
				if c.Bool("json") {
					return printJSON(c.App.Writer, map[string]uint64{"moves": moves})
				}
				fmt.Fprintf(c.App.Writer, "%d chunks will be moved\n", moves)
				return nil
			})
		},
	}
}
