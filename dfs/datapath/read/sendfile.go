package read

import (
	"fmt"
	"net"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"waggle/dfs/datapath"
)

func init() { Paths.Register(sendfilePath{}) }

// sendfilePath hands the page cache to the socket: no copy on the server.
type sendfilePath struct{}

func (sendfilePath) About() datapath.Info {
	return datapath.Info{
		Operation: datapath.Read, Name: "sendfile",
		Summary:   "sendfile(2): page cache to socket without a copy",
		Supported: func() error { return nil },
		Proof:     []string{"read_sendfile_bytes"},
		Stages:    answered(server(8), datapath.Work{TCP: 1}, 4.6, 2.6),
	}
}

func (sendfilePath) NewSender(conn *net.TCPConn, server *Server) (Sender, error) {
	s, err := newSocket(conn)
	return &sendfileSender{socket: s, bytes: server.Counters.Counter("read_sendfile_bytes")}, err
}

type sendfileSender struct {
	socket
	r     Range
	bytes *atomic.Int64
}

func (s *sendfileSender) Prepare(r Range) error { s.r = r; return nil }

func (s *sendfileSender) Send(header []byte) error {
	if err := s.sendHeader(header); err != nil {
		return err
	}
	offset, left := s.r.Offset, s.r.Length
	file := int(s.r.File.Fd())
	err := s.sendAll(left, func(fd int) (int, error) {
		n, err := unix.Sendfile(fd, file, &offset, left)
		if n > 0 {
			left -= n
			s.bytes.Add(int64(n))
		}
		return n, err
	})
	if err != nil {
		return fmt.Errorf("sendfile %d bytes at %d: %w", s.r.Length, s.r.Offset, err)
	}
	return nil
}

func (s *sendfileSender) Close() error { return nil }
