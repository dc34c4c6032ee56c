package station

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"

	"waggle/experiments/sim/engine"
)

// simgridCase is a small network as testdata/small_networks.py reads it.
type simgridCase struct {
	Kind     string    `json:"kind"`
	Capacity int       `json:"capacity"`
	Links    []float64 `json:"links"`
	Jobs     [][3]any  `json:"jobs"` // arrival in ns, need, links
}

// The same jobs end at the same times here and in SimGrid, an established
// simulator whose model of sharing is the same and whose code is not.
func TestSimGridGivesTheSameTimes(t *testing.T) {
	const python = "/usr/bin/python3" // of the system: SimGrid's Debian package is for it alone
	if err := exec.Command(python, "-c", "import simgrid").Run(); err != nil {
		t.Skip("SimGrid is not installed: apt-get install python3-simgrid (66 MB)")
	}
	const jobs = 300
	for _, c := range []simgridCase{
		{Kind: "shared", Capacity: 1},
		{Kind: "shared", Capacity: 4},
		{Kind: "servers", Capacity: 1},
		{Kind: "servers", Capacity: 3},
		{Kind: "links", Links: []float64{1e9, 2e9, 5e8}},
	} {
		t.Run(fmt.Sprint(c.Kind, " ", c.Capacity), func(t *testing.T) {
			n := NewNetwork(42, jobs)
			for _, s := range build(t, n, &c, jobs) {
				s()
			}
			ends := make([]int64, jobs)
			n.Finished = func(_ int32, j Job) { ends[j.Key] = n.Engine.Now() }
			n.Engine.Run(engine.Never)
			require.NoError(t, n.CheckLittle())

			input, err := json.Marshal(c)
			require.NoError(t, err)
			command := exec.Command(python, "testdata/small_networks.py")
			var output, complaints bytes.Buffer
			command.Stdin, command.Stdout, command.Stderr = bytes.NewReader(input), &output, &complaints
			require.NoError(t, command.Run(), "%s", &complaints)
			var theirs []float64
			require.NoError(t, json.Unmarshal(output.Bytes(), &theirs))
			require.Len(t, theirs, jobs)
			for i := range ends {
				// Whole nanoseconds are rounded up at each departure.
				require.LessOrEqual(t, math.Abs(theirs[i]-float64(ends[i])), 1000.0, "job %d: SimGrid %.0f ns, here %d ns", i, theirs[i], ends[i])
			}
			require.Greater(t, ends[jobs-1], int64(500_000))
		})
	}
}

// build draws the jobs, and makes the network that they go through.
func build(t *testing.T, n *Network, c *simgridCase, jobs int) (starts []func()) {
	routes := [][]int32{{0}, {0, 1}, {1, 2}, {2}, {0, 1, 2}}
	gap := 8000.0 / max(1, float64(c.Capacity))
	var at ID
	switch c.Kind {
	case "shared":
		s, err := NewSharing(float64(c.Capacity))
		at = add(t, n, s, err)
	case "servers":
		s, err := NewServers(c.Capacity)
		at = add(t, n, s, err)
	case "links":
		gap = 20_000
		f, err := NewFabric(c.Links, func(client, _ int32) []int32 { return routes[client] })
		at = add(t, n, f, err)
	}
	arrival := int64(0)
	for i := range int32(jobs) {
		arrival += int64(n.Random.ExpFloat64() * gap)
		need := 1 + int64(n.Random.ExpFloat64()*7000)
		client := n.Random.Int32N(int32(len(routes)))
		pause := n.Add(&Delay{})
		id := program(t, n, Step{At: pause, Amount: arrival}, Step{At: at, Amount: need})
		starts = append(starts, func() { n.Start(id, client, 0, i) })
		c.Jobs = append(c.Jobs, [3]any{arrival, need, routes[client]})
	}
	return starts
}
