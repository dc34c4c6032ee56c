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
