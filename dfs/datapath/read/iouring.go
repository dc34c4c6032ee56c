package read

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"waggle/dfs/datapath"
	"waggle/dfs/datapath/uring"
	"waggle/dfs/wire"
)

func init() {
	Paths.Register(iouringPath{name: "iouring", summary: "io_uring: a read into a registered buffer linked to a send, one system call"})
	Paths.Register(iouringPath{name: "iouring-zc", zeroCopy: true, summary: "io_uring with SEND_ZC from the registered buffer; copied after all on one machine"})
}

// settlePoll is how often a wait for the peer to take zero-copy data looks
// whether the connection's write deadline has passed.
const settlePoll = 50 * time.Millisecond

// A sender's registered buffer in bytes: room for a header, and behind it for
// the data that one pair of read and send moves.
const (
	ringHeader = wire.HeaderSize + wire.MaxExtra
	ringData   = 1 << 20
)

// iouringPath reads and sends through io_uring.
type iouringPath struct {
	name, summary string
	zeroCopy      bool
}

func (p iouringPath) About() datapath.Info {
	return datapath.Info{
		Operation: datapath.Read, Name: p.name, Summary: p.summary,
		Supported: p.supported,
		Proof:     []string{p.counter("sent_bytes")},
		Stages:    p.stages(),
	}
}

// stages counts one system call a pair of read and send. Zero-copy sends are
// copied by a soft interrupt on one machine, and waited for.
func (p iouringPath) stages() []datapath.Stage {
	if p.zeroCopy {
		return answered(server(10), datapath.Work{KernelToUser: 1, UserToKernel: 1, TCP: 1}, 21, 12)
	}
	return answered(server(8), datapath.Work{KernelToUser: 1, UserToKernel: 1, TCP: 1}, 15, 5.7)
}

func (p iouringPath) counter(what string) string {
	if p.zeroCopy {
		return "read_iouring_zc_" + what
	}
	return "read_iouring_" + what
}

func (p iouringPath) supported() error {
	r, err := uring.New(8)
	if err != nil {
		return err
	}
	defer r.Close()
	if p.zeroCopy {
		return r.SupportsZeroCopy()
	}
	return nil
}

func (p iouringPath) NewSender(conn *net.TCPConn, server *Server) (Sender, error) {
	s, err := newSocket(conn)
	if err != nil {
		return nil, err
	}
	ring, err := uring.New(8)
	if err != nil {
		return nil, err
	}
	u := &iouringSender{
		socket: s, ring: ring, zeroCopy: p.zeroCopy,
		bytes: server.Counters.Counter(p.counter("sent_bytes")), copied: server.Counters.Counter(p.counter("copied_sends")),
		headers: server.Counters.Counter(datapath.CopiedInUser),
	}
	if err := u.register(); err != nil {
		return nil, errors.Join(err, u.Close())
	}
	return u, nil
}

type iouringSender struct {
	socket
	r        Range
	ring     *uring.Ring
	zeroCopy bool
	buffer   []byte
	// unsettled is how many notifications of zero-copy sends are to come: the
	// buffer belongs to the kernel until then.
	unsettled int
	done      []uring.Completion
	// bytes counts data, copied the zero-copy sends that were none, headers the
	// bytes copied inside this process.
	bytes, copied, headers *atomic.Int64
}

func (s *iouringSender) register() (err error) {
	s.buffer, err = unix.Mmap(-1, 0, ringHeader+ringData, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return fmt.Errorf("map a buffer for io_uring: %w", err)
	}
	if err := s.ring.RegisterBuffer(s.buffer); err != nil {
		return err
	}
	var failed error
	if err := s.raw.Control(func(fd uintptr) { failed = s.ring.RegisterFile(int(fd)) }); err != nil {
		return err
	}
	return failed
}

func (s *iouringSender) Prepare(r Range) error { s.r = r; return nil }

// Send puts the header before the first piece in the buffer: what was sent by
// another call and still waits for company can't share a segment with a
// zero-copy send from a registered buffer (EOPNOTSUPP).
func (s *iouringSender) Send(header []byte) error {
	for at := 0; at < s.r.Length; at += ringData {
		if err := s.settle(); err != nil {
			return err
		}
		if len(header) > ringHeader {
			return fmt.Errorf("header of %d bytes: at most %d fit", len(header), ringHeader)
		}
		start := ringHeader - len(header)
		s.headers.Add(int64(copy(s.buffer[start:], header)))
		length := min(ringData, s.r.Length-at)
		if err := s.sendPiece(start, length, s.r.Offset+int64(at)); err != nil {
			return fmt.Errorf("send %d bytes at %d through io_uring: %w", length, s.r.Offset+int64(at), err)
		}
		header = nil
	}
	return nil
}

// What a completion belongs to.
const (
	userRead = iota + 1
	userSend
)

// sendPiece reads length bytes at offset behind what stands in the buffer from
// start on, and sends as much of it all as there is room for, in one system
// call; then the rest as room comes.
func (s *iouringSender) sendPiece(start, length int, offset int64) error {
	s.ring.ReadFixed(userRead, s.r.File, s.buffer[ringHeader:][:length], offset, true)
	piece := s.buffer[start : ringHeader+length]
	wait := 2
	err := s.sendAll(len(piece), func(int) (int, error) {
		s.queueSend(piece)
		n, err := s.enter(wait)
		wait = 1 // the read is done
		piece = piece[n:]
		return n, err
	})
	if err == nil {
		s.bytes.Add(int64(length))
	}
	return err
}

func (s *iouringSender) queueSend(piece []byte) {
	if s.zeroCopy {
		s.ring.SendZeroCopy(userSend, piece)
	} else {
		s.ring.Send(userSend, piece)
	}
}

// enter submits and waits for that many completions, beside notifications. It
// returns how many bytes were sent.
func (s *iouringSender) enter(wait int) (sent int, err error) {
	for wait > 0 {
		s.done, err = s.ring.Enter(wait, s.done[:0])
		if err != nil {
			return sent, err
		}
		for _, c := range s.done {
			if c.Notification {
				s.notified(c)
				continue
			}
			wait--
			if c.More {
				s.unsettled++
			}
			switch {
			case err != nil:
			case c.Err == unix.ECANCELED:
				err = ErrShrank // the read came short and took the send with it
			case c.Err != nil:
				err = c.Err
			case c.User == userSend:
				sent += c.N
			}
		}
	}
	return sent, err
}

func (s *iouringSender) notified(c uring.Completion) {
	s.unsettled--
	if c.Copied {
		s.copied.Add(1)
	}
}

// settle waits until the kernel has given the buffer back, or until the
// connection's write deadline.
func (s *iouringSender) settle() error {
	for s.unsettled > 0 {
		waited := s.ring.WaitReady(settlePoll)
		if errors.Is(waited, os.ErrDeadlineExceeded) {
			waited = s.raw.Write(func(uintptr) bool { return true })
		}
		if waited != nil {
			return fmt.Errorf("wait for the peer to take %d zero-copy sends: %w", s.unsettled, waited)
		}
		var err error
		if s.done, err = s.ring.Enter(0, s.done[:0]); err != nil {
			return err
		}
		for _, c := range s.done {
			s.notified(c)
		}
	}
	return nil
}

// Close closes the ring, which waits for no peer: what the kernel still sends
// from it holds pages of its own. The socket is unregistered first, since the
// ring's own end comes later and would hold the connection open.
func (s *iouringSender) Close() error {
	err := errors.Join(s.ring.UnregisterFile(), s.ring.Close())
	if s.buffer != nil {
		err = errors.Join(err, unix.Munmap(s.buffer))
	}
	return err
}
