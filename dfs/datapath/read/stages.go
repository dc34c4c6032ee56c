package read

import (
	"slices"

	"waggle/dfs/datapath"
)

// answered gives the stages of a read over a connection: the client asks, the
// chunk server answers, the client takes the answer in and verifies it. Of the
// server it says what its path does, once an operation and once a byte. Long
// answers come in pieces, for which both ends wait: so many more system calls and
// switches a MiB, as the ledger counted them on loopback at low load.
func answered(operation, perByte datapath.Work, callsPerMiB, switchesPerMiB float64) []datapath.Stage {
	const mib = 1 << 20
	perByte.Calls += callsPerMiB / 2 / mib
	perByte.Switches += switchesPerMiB / 2 / mib
	return []datapath.Stage{
		{Role: "client", Does: "asks for a range", Operation: datapath.Work{Calls: 2, UserToKernel: 64, TCP: 64}},
		{Role: "chunk", Does: "reads the request and the checksums, answers",
			Operation: operation, Byte: perByte},
		{Role: "client", Does: "takes the answer in and verifies it",
			Operation: datapath.Work{Calls: 5, Switches: 1.9, KernelToUser: 64},
			Byte:      datapath.Work{KernelToUser: 1, Checked: 1, Calls: callsPerMiB / 2 / mib, Switches: switchesPerMiB / 2 / mib}},
	}
}

// server is what every path's server does for a request beside moving the data.
func server(calls float64) datapath.Work {
	return datapath.Work{Calls: calls, Switches: 1.8, KernelToUser: 132, UserToKernel: 68, TCP: 68, SoftIRQ: 2}
}

// redirected gives the stages of a path whose bytes go from socket to socket past
// TCP. What sendfile hands over is copied into a message of the kernel's first.
func redirected(plain datapath.Info) []datapath.Stage {
	stages := slices.Clone(plain.Stages)
	for i := range stages {
		for _, w := range []*datapath.Work{&stages[i].Operation, &stages[i].Byte} {
			w.Sockmap, w.TCP = w.TCP, 0
			w.SoftIRQ = 0
		}
		// Larger pieces are handed over at once: less than half as many waits.
		stages[i].Byte.Calls *= 0.4
		stages[i].Byte.Switches *= 0.4
		if stages[i].Role == "chunk" && plain.Name == "sendfile" {
			stages[i].Byte.InKernel = 1
		}
	}
	return stages
}
