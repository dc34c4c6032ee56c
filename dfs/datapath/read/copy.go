package read

import (
	"io"
	"net"
	"sync/atomic"

	"waggle/dfs/datapath"
)

// Copy is the name of the read path that every machine can take. It is also how
// a chunk server answers a locked read, whatever path the connection chose.
const Copy = "copy"

func init() { Paths.Register(copyPath{}) }

// copyPath reads the range into a buffer and writes the buffer to the socket:
// one copy out of the page cache, one into the socket.
type copyPath struct{}

func (copyPath) About() datapath.Info {
	return datapath.Info{
		Operation: datapath.Read,
		Name:      Copy,
		Summary:   "pread into a buffer, write header and buffer to the socket with one writev",
		Supported: func() error { return nil },
		Proof:     []string{"read_copy_bytes"},
		Stages:    answered(server(7), datapath.Work{KernelToUser: 1, UserToKernel: 1, TCP: 1}, 12, 7),
	}
}

func (copyPath) NewSender(conn *net.TCPConn, server *Server) (Sender, error) {
	return &copySender{conn: conn, bytes: server.Counters.Counter("read_copy_bytes")}, nil
}

type copySender struct {
	conn  *net.TCPConn
	bytes *atomic.Int64
	buf   []byte // grows to the largest range that the connection asks for
	data  []byte // the prepared range, in buf
	parts [2][]byte
}

func (s *copySender) Prepare(r Range) error {
	if cap(s.buf) < r.Length {
		s.buf = make([]byte, r.Length)
	}
	s.data = s.buf[:r.Length]
	_, err := r.File.ReadAt(s.data, r.Offset)
	if err == io.EOF {
		return ErrShrank
	}
	return err
}

func (s *copySender) Send(header []byte) error {
	s.parts = [2][]byte{header, s.data}
	err := writeBuffers(s.conn, s.parts[:])
	s.bytes.Add(int64(len(s.data)))
	return err
}

func (s *copySender) Close() error {
	s.buf, s.data = nil, nil
	return nil
}
