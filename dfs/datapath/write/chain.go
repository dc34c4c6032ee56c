package write

import (
	"net"
	"sync/atomic"

	"waggle/dfs/datapath"
)

// Chain is the name of the write path that every machine can take.
const Chain = "chain"

func init() { Paths.Register(chainPath{}) }

// chainPath has each server pass the frame on to the next, from the buffer that
// it received it in.
type chainPath struct{}

func (chainPath) About() datapath.Info {
	return datapath.Info{
		Operation: datapath.Write,
		Name:      Chain,
		Summary:   "each server receives the frame into a buffer and writes it to the next server's socket",
		Supported: func() error { return nil },
		Proof:     []string{"write_chain_bytes"},
		Stages:    chained(),
	}
}

func (chainPath) NewForwarder(conn *net.TCPConn, counters *datapath.Counters) (Forwarder, error) {
	return &chainForwarder{conn: conn, bytes: counters.Counter("write_chain_forwarded_bytes")}, nil
}

type chainForwarder struct {
	conn  *net.TCPConn
	bytes *atomic.Int64
	parts [2][]byte
}

func (f *chainForwarder) Forward(header, data []byte) error {
	f.parts = [2][]byte{header, data}
	buffers := net.Buffers(f.parts[:])
	_, err := buffers.WriteTo(f.conn)
	f.bytes.Add(int64(len(data)))
	return err
}

func (f *chainForwarder) Close() error { return nil }

// chained gives the stages of a write: each server takes the frame in and writes
// it into its page cache, and all but the last pass it on. Every server behind
// the first does both once more.
func chained() []datapath.Stage {
	const mib = 1 << 20
	return []datapath.Stage{
		{Role: "client", Does: "computes checksums and sends the frame",
			Operation: datapath.Work{Calls: 5, Switches: 0.5, UserToKernel: 132},
			Byte:      datapath.Work{UserToKernel: 1, Checked: 1, TCP: 1, Calls: 10.0 / mib, Switches: 4.0 / mib}},
		{Role: "chunk", Does: "takes the frame in, verifies it and writes it into the page cache",
			Operation: datapath.Work{Calls: 8, Switches: 2, KernelToUser: 132, SoftIRQ: 1},
			Byte:      datapath.Work{KernelToUser: 1, UserToKernel: 1, Checked: 1, Calls: 30.0 / mib, Switches: 9.0 / mib}},
		{Role: "chunk", Does: "passes the frame on, for the next server to take in and write", Replicas: true,
			Operation: datapath.Work{Calls: 17, Switches: 4, UserToKernel: 132, KernelToUser: 132, SoftIRQ: 1},
			Byte:      datapath.Work{UserToKernel: 2, KernelToUser: 1, Checked: 1, TCP: 1, Calls: 51.0 / mib, Switches: 19.0 / mib}},
		{Role: "client", Does: "takes the acknowledgement", Operation: datapath.Work{Calls: 3, Switches: 1.5, KernelToUser: 64}},
	}
}
