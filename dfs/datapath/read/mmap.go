package read

import (
	"fmt"
	"net"
	"sync/atomic"

	"waggle/dfs/datapath"
)

func init() { Paths.Register(mmapPath{}) }

// mmapPath writes from the replica mapped into the server: one copy on the
// server, page cache to socket, instead of two.
type mmapPath struct{}

func (mmapPath) About() datapath.Info {
	return datapath.Info{
		Operation: datapath.Read, Name: "mmap",
		Summary:   "writev(2) from the mapped replica: page cache to socket with one copy",
		Supported: func() error { return nil },
		Proof:     []string{"read_mmap_bytes"},
		Stages:    answered(server(7), datapath.Work{UserToKernel: 1, Mapped: 1, TCP: 1}, 9.4, 6.6),
	}
}

func (mmapPath) NewSender(conn *net.TCPConn, server *Server) (Sender, error) {
	s, err := newSocket(conn)
	return &mmapSender{socket: s, bytes: server.Counters.Counter("read_mmap_bytes")}, err
}

type mmapSender struct {
	socket
	r     Range
	bytes *atomic.Int64
}

func (s *mmapSender) Prepare(r Range) error { s.r = r; return nil }

func (s *mmapSender) Send(header []byte) error {
	mapped, err := s.r.Mapping()
	if err != nil {
		return err
	}
	if err := s.writeAll(net.Buffers{header, mapped[s.r.Offset:][:s.r.Length]}); err != nil {
		return fmt.Errorf("write %d mapped bytes at %d: %w", s.r.Length, s.r.Offset, err)
	}
	s.bytes.Add(int64(s.r.Length))
	return nil
}

func (s *mmapSender) Close() error { return nil }
