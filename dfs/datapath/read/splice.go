package read

import (
	"errors"
	"fmt"
	"net"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"waggle/dfs/datapath"
)

func init() { Paths.Register(splicePath{}) }

// pipeSize is what a sender's pipe should hold, in bytes: the most that an
// ordinary user may ask for by default (/proc/sys/fs/pipe-max-size).
const pipeSize = 1 << 20

// splicePath moves pages from the page cache through a pipe to the socket: no
// copy on the server.
type splicePath struct{}

func (splicePath) About() datapath.Info {
	return datapath.Info{
		Operation: datapath.Read, Name: "splice",
		Summary:   "splice(2) through a pipe: page cache to socket without a copy",
		Supported: func() error { return nil },
		Proof:     []string{"read_splice_bytes"},
		Stages:    answered(server(8), datapath.Work{TCP: 1}, 4.6, 1.8),
	}
}

func (splicePath) NewSender(conn *net.TCPConn, server *Server) (Sender, error) {
	s, err := newSocket(conn)
	if err != nil {
		return nil, err
	}
	var ends [2]int
	if err := unix.Pipe2(ends[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return nil, fmt.Errorf("make a pipe: %w", err)
	}
	size, err := unix.FcntlInt(uintptr(ends[1]), unix.F_SETPIPE_SZ, pipeSize)
	if err != nil {
		// Over the user's limit: the pipe keeps the size it has.
		if size, err = unix.FcntlInt(uintptr(ends[1]), unix.F_GETPIPE_SZ, 0); err != nil {
			return nil, errors.Join(fmt.Errorf("ask for a pipe's size: %w", err), unix.Close(ends[0]), unix.Close(ends[1]))
		}
	}
	return &spliceSender{socket: s, out: ends[0], in: ends[1], size: size, bytes: server.Counters.Counter("read_splice_bytes")}, nil
}

type spliceSender struct {
	socket
	r       Range
	out, in int // the pipe
	size    int // what the pipe holds, bytes
	bytes   *atomic.Int64
}

func (s *spliceSender) Prepare(r Range) error { s.r = r; return nil }

func (s *spliceSender) Send(header []byte) error {
	if err := s.sendHeader(header); err != nil {
		return err
	}
	file, offset, left := int(s.r.File.Fd()), s.r.Offset, s.r.Length
	for left > 0 {
		n, err := unix.Splice(file, &offset, s.in, nil, min(left, s.size), unix.SPLICE_F_MOVE)
		if err == unix.EINTR {
			continue
		}
		if err == nil && n == 0 {
			err = ErrShrank
		}
		if err != nil {
			return fmt.Errorf("splice %d bytes at %d into a pipe: %w", left, offset, err)
		}
		left -= int(n)
		if err := s.drain(int(n), left > 0); err != nil {
			return fmt.Errorf("splice %d bytes from a pipe: %w", n, err)
		}
	}
	return nil
}

// drain moves the n bytes in the pipe to the socket.
func (s *spliceSender) drain(n int, more bool) error {
	flags := unix.SPLICE_F_MOVE | unix.SPLICE_F_NONBLOCK
	if more {
		flags |= unix.SPLICE_F_MORE
	}
	left := n
	return s.sendAll(n, func(fd int) (int, error) {
		moved, err := unix.Splice(s.out, nil, fd, nil, left, flags)
		if moved > 0 {
			left -= int(moved)
			s.bytes.Add(moved)
		}
		return int(moved), err
	})
}

func (s *spliceSender) Close() error { return errors.Join(unix.Close(s.out), unix.Close(s.in)) }
