package read

import (
	"fmt"
	"net"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"waggle/dfs/datapath"
)

func init() { Paths.Register(zerocopyPath{}) }

// zerocopyPath sends the mapped replica's pages with MSG_ZEROCOPY. The kernel
// says of each send whether it had to copy after all, as it has to where the
// receiver is on this machine. Source: Documentation/networking/msg_zerocopy.rst.
type zerocopyPath struct{}

func (zerocopyPath) About() datapath.Info {
	return datapath.Info{
		Operation: datapath.Read, Name: "zerocopy",
		Summary:   "MSG_ZEROCOPY from the mapped replica; copied after all on one machine",
		Supported: func() error { return nil },
		Stages:    answered(server(11), datapath.Work{UserToKernel: 1, Mapped: 1, TCP: 1}, 13, 5.1),
		Proof:     []string{"read_zerocopy_sent_bytes"},
		Watched:   []string{"read_zerocopy_completed_bytes", "read_zerocopy_copied_bytes"},
	}
}

func (zerocopyPath) NewSender(conn *net.TCPConn, server *Server) (Sender, error) {
	s, err := newSocket(conn)
	if err != nil {
		return nil, err
	}
	var failed error
	if err := s.raw.Control(func(fd uintptr) { failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ZEROCOPY, 1) }); err != nil {
		return nil, err
	}
	if failed != nil {
		return nil, fmt.Errorf("set SO_ZEROCOPY: %w", failed)
	}
	return &zerocopySender{
		socket: s, sizes: make(map[uint32]int),
		sent:      server.Counters.Counter("read_zerocopy_sent_bytes"),
		completed: server.Counters.Counter("read_zerocopy_completed_bytes"),
		copied:    server.Counters.Counter("read_zerocopy_copied_bytes"),
	}, nil
}

type zerocopySender struct {
	socket
	r Range
	// sizes are those of the sends that are not completed, by the number that the
	// kernel gives each.
	sizes             map[uint32]int
	next              uint32
	completed, copied *atomic.Int64
	sent              *atomic.Int64 // with MSG_ZEROCOPY, completed or not
}

func (s *zerocopySender) Prepare(r Range) error { s.r = r; return nil }

func (s *zerocopySender) Send(header []byte) error {
	mapped, err := s.r.Mapping()
	if err != nil {
		return err
	}
	if err := s.sendHeader(header); err != nil {
		return err
	}
	data := mapped[s.r.Offset:][:s.r.Length]
	err = s.sendAll(len(data), func(fd int) (int, error) {
		n, err := unix.SendmsgN(fd, data, nil, nil, unix.MSG_ZEROCOPY|unix.MSG_NOSIGNAL)
		if err == unix.ENOBUFS {
			// Too many completions wait to be taken (net.core.optmem_max).
			if s.reap(fd) {
				return 0, unix.EINTR
			}
			return 0, unix.EAGAIN
		}
		if n > 0 {
			s.sizes[s.next] = n
			s.next++
			s.sent.Add(int64(n))
			data = data[n:]
		}
		s.reap(fd)
		return n, err
	})
	if err != nil {
		return fmt.Errorf("send %d bytes at %d with MSG_ZEROCOPY: %w", s.r.Length, s.r.Offset, err)
	}
	return nil
}

// reap takes the completions that are there and counts them. The pages are the
// page cache's, which is never reused under a send: so nobody has to wait.
func (s *zerocopySender) reap(fd int) (any bool) {
	control := make([]byte, 128)
	for {
		_, n, _, _, err := unix.Recvmsg(fd, nil, control, unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT)
		if err != nil {
			return any
		}
		messages, err := unix.ParseSocketControlMessage(control[:n])
		if err != nil {
			return any
		}
		for _, m := range messages {
			if len(m.Data) < int(unsafe.Sizeof(unix.SockExtendedErr{})) {
				continue
			}
			e := (*unix.SockExtendedErr)(unsafe.Pointer(&m.Data[0]))
			if e.Origin != unix.SO_EE_ORIGIN_ZEROCOPY {
				continue
			}
			any = true
			s.complete(e.Info, e.Data, e.Code&unix.SO_EE_CODE_ZEROCOPY_COPIED != 0)
		}
	}
}

// complete counts the sends numbered first to last.
func (s *zerocopySender) complete(first, last uint32, copied bool) {
	for number := first; number-first <= last-first; number++ {
		size := int64(s.sizes[number])
		delete(s.sizes, number)
		s.completed.Add(size)
		if copied {
			s.copied.Add(size)
		}
	}
}

func (s *zerocopySender) Close() error {
	return s.raw.Control(func(fd uintptr) { s.reap(int(fd)) })
}
