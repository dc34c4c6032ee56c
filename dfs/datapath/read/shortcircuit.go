package read

import (
	"waggle/dfs/datapath"
)

// ShortCircuit is the name of the read path on which the client reads the
// replica's files itself (package shortcircuit).
const ShortCircuit = "shortcircuit"

func init() { Paths.Register(shortCircuitPath{}) }

// shortCircuitPath leaves only the locked reads to its connections: those copy.
type shortCircuitPath struct{ copyPath }

func (shortCircuitPath) About() datapath.Info {
	return datapath.Info{
		Operation: datapath.Read, Name: ShortCircuit,
		Summary:   "the server lends the replica's files to a client on its machine, which preads them",
		Supported: func() error { return nil },
		Proof:     []string{"read_shortcircuit_bytes"},
		Stages:    lent(),
	}
}

// lent gives the stages of a read from a lent file: the client reads it itself.
func lent() []datapath.Stage {
	return []datapath.Stage{{Role: "client", Does: "reads data and checksums from the page cache and verifies",
		Operation: datapath.Work{Calls: 2, KernelToUser: 4},
		Byte:      datapath.Work{KernelToUser: 1, Checked: 1}}}
}
