// Package workload is the load generator: it prepares data sets, carries out
// operations in a closed or open loop, measures their latency and verifies
// every byte.
//
// It runs in a process of its own, the role `client`, as `waggle load`: one
// process, in which each client of a cell is a goroutine that does one operation
// at a time. All of them use one client library, as the goroutines of a real
// program would. The runner starts the process in the client's namespace and
// talks to it over its standard input and output (protocol.go).
//
//   - pattern.go: what files contain, and the comparison with it.
//   - loop.go: closed and open loops, and what they measure.
//   - timeline.go, processors.go: how a loop went, and what it cost the machine.
//   - search.go: the highest rate that an open loop can keep.
//   - blocks.go, small.go: the operations of each kind of workload.
//   - system.go: what they are carried out on: the DFS (dfs.go), a gateway
//     (http.go) or the floor control (floor.go).
//   - trial.go: a trial from its data set to its result.
//
// Bytes that are read are compared with the pattern where they arrive, after the
// operation's latency was taken. A closed loop's throughput includes the
// comparison, of the floor control too; BenchmarkCheck1MiB says what it costs,
// on the machine that this was written on 18 us a MiB. Bytes that are written
// are read back and compared when the measurement is over.
package workload

import (
	"errors"
	"time"

	"waggle/experiments/spec"
	"waggle/results"
)

// Job is one trial, or the data set of one.
type Job struct {
	Parameters spec.Parameters
	// Seed decides every random choice of the trial.
	Seed uint64
	// Trial names what the trial writes, so that trials don't meet.
	Trial      int
	WarmUp     time.Duration
	Duration   time.Duration // or
	Operations int64

	// Meta is the metadata server's address; FloorTCP and FloorUDP are the floor
	// control's, for cells that run it.
	Meta               string
	FloorTCP, FloorUDP string
	// Gateway is where downloads come from; Origin is where nginx has them from,
	// and "" for any other gateway.
	Gateway, Origin string
}

// Result is what a trial measured.
type Result struct {
	Operations int64
	Bytes      int64 // of payload
	Seconds    float64
	// Histogram of latencies in nanoseconds, as results.EncodeHistogram gives it.
	Histogram string
	// Timeline shows how it went; nil of a search.
	Timeline *results.Timeline
	// Processors is what the machine's processors did meanwhile.
	Processors Processors
	// Verified is how many bytes were compared with what they must be.
	Verified int64
	// Counters are those of the client library, the measured part alone.
	Counters map[string]int64
	// Search is what a search for the highest sustainable rate found; the rest is
	// then about all of its steps together.
	Search *results.Search
}

var errWrongContent = errors.New("wrong content")
