package main

import (
	"fmt"
	"text/tabwriter"

	"github.com/dustin/go-humanize"
	"github.com/urfave/cli/v2"

	"waggle/dfs/client"
)

func dfCommand() *cli.Command {
	return &cli.Command{
		Name:  "df",
		Usage: "show the servers and what is stored",
		Flags: clientFlags(jsonFlag()),
		Action: func(c *cli.Context) error {
			if _, err := arguments(c, 0, 0); err != nil {
				return err
			}
			return withClient(c, client.Options{}, func(cl *client.Client) error { return showCluster(c, cl) })
		},
	}
}

type clusterState struct {
	Files           uint64        `json:"files"`
	Directories     uint64        `json:"directories"`
	Chunks          uint64        `json:"chunks"`
	LogicalBytes    uint64        `json:"logical_bytes"`
	UnderReplicated uint64        `json:"chunks_underreplicated"`
	Sessions        uint64        `json:"sessions"`
	TrashFiles      uint64        `json:"trash_files"`
	TrashBytes      uint64        `json:"trash_bytes"`
	Queues          []queueState  `json:"queues"`
	Servers         []serverState `json:"servers"`
}

// queueState is what waits to be repaired or deleted.
type queueState struct {
	Name     string `json:"name"`
	Waiting  uint64 `json:"waiting"`
	Retrying uint64 `json:"retrying"`
	Running  uint64 `json:"running"`
	Done     uint64 `json:"done"`
	Failed   uint64 `json:"failed"`
}

type serverState struct {
	Server   uint32  `json:"server"`
	Data     string  `json:"data_address"`
	Control  string  `json:"control_address"`
	Alive    bool    `json:"alive"`
	Capacity *uint64 `json:"capacity_bytes,omitempty"` // absent where the file system does not say
	Free     *uint64 `json:"free_bytes,omitempty"`
	Used     uint64  `json:"used_bytes"`
	Replicas uint64  `json:"replicas"`
	Draining bool    `json:"draining"`
	Counted  uint64  `json:"replicas_to_drain"`
}

// state is what a person should know of a server.
func (s *serverState) state() string {
	state := yesNo(s.Alive, "up", "DOWN")
	if s.Draining {
		state += fmt.Sprintf(", draining: %d left", s.Counted)
	}
	return state
}

func showCluster(c *cli.Context, cl *client.Client) error {
	reply, err := cl.Cluster(c.Context)
	if err != nil {
		return err
	}
	state := clusterState{reply.Files, reply.Directories, reply.Chunks, reply.LogicalBytes, reply.ChunksUnderreplicated,
		reply.Sessions, reply.TrashFiles, reply.TrashBytes, []queueState{}, []serverState{}}
	for _, q := range reply.Queues {
		state.Queues = append(state.Queues, queueState{q.Name, q.Waiting, q.Retrying, q.Running, q.Done, q.Failed})
	}
	for _, s := range reply.Servers {
		server := serverState{Server: s.Server, Data: s.DataAddress, Control: s.ControlAddress, Alive: s.Alive, Used: s.UsedBytes, Replicas: s.Replicas,
			Draining: s.Draining, Counted: s.CountedOn}
		if s.CapacityBytes > 0 {
			server.Capacity, server.Free = &s.CapacityBytes, &s.FreeBytes
		}
		state.Servers = append(state.Servers, server)
	}
	if c.Bool("json") {
		return printJSON(c.App.Writer, state)
	}
	fmt.Fprintf(c.App.Writer, "%s files, %s directories, %s in %s chunks; %d chunks lack replicas; %d sessions\n",
		humanize.Comma(int64(state.Files)), humanize.Comma(int64(state.Directories)), humanize.IBytes(state.LogicalBytes),
		humanize.Comma(int64(state.Chunks)), state.UnderReplicated, state.Sessions)
	showWaiting(c, &state)
	table := tabwriter.NewWriter(c.App.Writer, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "server\taddress\tstate\treplicas\tused\tfree\tcapacity")
	for _, s := range state.Servers {
		fmt.Fprintf(table, "%d\t%s\t%s\t%d\t%s\t%s\t%s\n", s.Server, s.Data, s.state(), s.Replicas,
			humanize.IBytes(s.Used), sizeIfKnown(s.Free), sizeIfKnown(s.Capacity))
	}
	return table.Flush()
}

// showWaiting says what is in the trash and in the queues, if anything is.
func showWaiting(c *cli.Context, state *clusterState) {
	if state.TrashFiles > 0 {
		fmt.Fprintf(c.App.Writer, "%s removed files, %s, can be undeleted\n", humanize.Comma(int64(state.TrashFiles)), humanize.IBytes(state.TrashBytes))
	}
	for _, q := range state.Queues {
		if q.Waiting+q.Running > 0 {
			fmt.Fprintf(c.App.Writer, "%s: %d wait, %d of them after a failure, %d under way\n", q.Name, q.Waiting, q.Retrying, q.Running)
		}
	}
}

func sizeIfKnown(bytes *uint64) string {
	if bytes == nil {
		return "unknown"
	}
	return humanize.IBytes(*bytes)
}
