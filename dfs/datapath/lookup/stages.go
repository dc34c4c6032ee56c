package lookup

import "waggle/dfs/datapath"

// Bytes of a request and of an answer for a path of three names, as they cross a
// process's boundary.
const (
	typicalRequest = 84
	typicalAnswer  = 212
)

// A small file's bytes come with the answer; requests are as long as answers may
// become, so that nobody is made to send more than was sent to them.

// inUserSpace gives the stages of a lookup that the metadata server's process
// answers.
func inUserSpace(calls float64) []datapath.Stage {
	return []datapath.Stage{
		{Role: "client", Does: "sends a datagram and waits", Operation: datapath.Work{Calls: 2, UserToKernel: typicalRequest, Datagrams: 1}},
		{Role: "meta", Does: "walks the names in its tables and answers",
			Operation: datapath.Work{Calls: calls, Switches: 1.4, KernelToUser: typicalRequest, UserToKernel: typicalAnswer, Datagrams: 1, SoftIRQ: 1},
			Byte:      datapath.Work{UserToKernel: 2}},
		{Role: "client", Does: "takes the answer in", Operation: datapath.Work{Calls: 3, Switches: 1.4, KernelToUser: typicalAnswer, SoftIRQ: 1},
			Byte: datapath.Work{KernelToUser: 2}},
	}
}

// inDriver gives the stages of a lookup that is answered before the server's
// network stack: nobody is woken, since the answer is there when the client looks.
func inDriver() []datapath.Stage {
	return []datapath.Stage{
		{Role: "client", Does: "sends a datagram", Operation: datapath.Work{Calls: 1, UserToKernel: typicalRequest, Datagrams: 1}},
		{Role: "meta", Does: "walks the names in maps of the kernel, within a soft interrupt", Operation: datapath.Work{Datagrams: 1, SoftIRQ: 1},
			Byte: datapath.Work{UserToKernel: 1}},
		{Role: "client", Does: "takes the answer in", Operation: datapath.Work{Calls: 1, KernelToUser: typicalAnswer, SoftIRQ: 1},
			Byte: datapath.Work{KernelToUser: 1}},
	}
}
