package relay

import "waggle/dfs/datapath"

// through gives the stages of a download: the client asks the gateway over HTTP,
// which asks the metadata server and then a chunk server, and passes the body on.
// What the gateway does with each byte of the body is the path's.
func through(perByte datapath.Work) []datapath.Stage {
	return []datapath.Stage{
		{Role: "client", Does: "sends a request", Operation: datapath.Work{Calls: 3, UserToKernel: 200, TCP: 200}},
		{Role: "gateway", Does: "reads the request and looks the file up",
			Operation: datapath.Work{Calls: 10, Switches: 4, KernelToUser: 500, UserToKernel: 300, Datagrams: 1, SoftIRQ: 2}},
		{Role: "meta", Does: "answers the lookup", Operation: datapath.Work{Calls: 5, Switches: 1.4, KernelToUser: 84, UserToKernel: 212, Datagrams: 1, SoftIRQ: 1}},
		{Role: "chunk", Does: "reads the request and answers",
			Operation: datapath.Work{Calls: 7, Switches: 2, KernelToUser: 132, UserToKernel: 68, TCP: 68, SoftIRQ: 1},
			Byte:      datapath.Work{KernelToUser: 1, UserToKernel: 1, TCP: 1, Calls: 6.0 / (1 << 20), Switches: 3.5 / (1 << 20)}},
		{Role: "gateway", Does: "passes header and body on", Operation: datapath.Work{Calls: 8, Switches: 3, UserToKernel: 300, KernelToUser: 300, SoftIRQ: 2}, Byte: perByte},
		{Role: "client", Does: "takes the body in",
			Operation: datapath.Work{Calls: 4, Switches: 2, KernelToUser: 300, SoftIRQ: 1},
			Byte:      datapath.Work{KernelToUser: 1, Calls: 12.0 / (1 << 20), Switches: 6.0 / (1 << 20)}},
	}
}
