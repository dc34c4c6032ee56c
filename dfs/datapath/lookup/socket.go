package lookup

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"waggle/dfs/wire"
)

// atOnceAgain is after how many answers in a row that nobody had to wait for a
// new socket takes the place of one that is with the network poller.
const atOnceAgain = 64

// socket is used by one lookup at a time.
//
// An answer can be there when the call that sent the request returns: where a
// driver answers and the way is short, the kernel does all of it in the sender's
// call. So a socket begins without Go's network poller, because a datagram that
// comes to one that is with it wakes the thread that waits for the poller's
// events, and that costs more than the rest of such a lookup. The first answer
// that has to be waited for brings the socket to the poller, for good.
type socket struct {
	fd     int // non-blocking
	lastID uint64
	out    []byte
	in     []byte
	// isAnswer says whether a datagram answers the last request.
	isAnswer func(datagram []byte) bool
	answer   wire.LookupAnswer // the last one; its inline bytes are those of in

	spins  bool    // instead of waiting with the poller
	polled *polled // nil: without the poller
	// spoiled: what ends a wait together with its context may still be about to
	// do it.
	spoiled bool
	witness *witness // nil: it does not matter who answers
}

// polled is a socket's side of the poller.
type polled struct {
	file     *os.File // owns the socket
	raw      syscall.RawConn
	deadline time.Time
	// receive takes a datagram if one is there: n bytes, or an error.
	receive func(fd uintptr) bool
	n       int
	err     error
	// waited: nothing was there at first. atOnce counts the answers in a row that
	// were.
	waited bool
	atOnce int
}

func dial(address string) (*socket, error) {
	s := &socket{lastID: rand.Uint64(), in: make([]byte, wire.MaxAnswerSize+1)}
	s.isAnswer = s.takeAnswer
	conn, err := net.Dial("udp", address)
	if err == nil {
		s.fd, err = duplicate(conn.(*net.UDPConn))
		err = errors.Join(err, conn.Close()) // which takes it from the poller
	}
	if err != nil {
		return nil, fmt.Errorf("open a socket for lookups: %w", err)
	}
	return s, nil
}

func duplicate(conn syscall.Conn) (fd int, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	var failed error
	err = raw.Control(func(old uintptr) { fd, failed = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0) })
	return fd, errors.Join(err, os.NewSyscallError("fcntl", failed))
}

func (s *socket) close() error {
	if s.polled != nil {
		return s.polled.file.Close()
	}
	return os.NewSyscallError("close", unix.Close(s.fd))
}

// isGood says whether more lookups should use the socket.
func (s *socket) isGood() bool {
	return !s.spoiled && (s.polled == nil || s.polled.atOnce < atOnceAgain)
}

// ask sends q, whose ID it chooses, until it is answered.
func (s *socket) ask(ctx context.Context, q *wire.LookupRequest) (wire.LookupAnswer, error) {
	s.lastID++
	q.ID = s.lastID
	s.out = q.Append(s.out[:0])
	if err := s.exchange(ctx); err != nil {
		return wire.LookupAnswer{}, err
	}
	a := s.answer
	a.Inline = append([]byte(nil), a.Inline...) // s.in belongs to the next lookup
	return a, nil
}

// takeAnswer takes the answer to the last request. Answers to earlier ones and
// malformed datagrams are passed over.
func (s *socket) takeAnswer(datagram []byte) bool {
	s.answer = wire.LookupAnswer{}
	return s.answer.Parse(datagram) == nil && s.answer.ID == s.lastID
}

// exchange sends what is in s.out until it is answered.
func (s *socket) exchange(ctx context.Context) error {
	var end time.Time
	for wait := firstWait; ; wait = min(2*wait, lastWait) {
		err := s.askOnce(ctx, wait)
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case !errors.Is(err, os.ErrDeadlineExceeded):
			// Such as a port that is closed while the server starts again.
			if err := sleep(ctx, wait); err != nil {
				return err
			}
		}
		// Only a lookup that was not answered at first looks at the clock.
		now := time.Now()
		if end.IsZero() {
			end = now.Add(giveUp - wait)
		}
		if !now.Before(end) {
			return fmt.Errorf("%w within %v: is the server up?", ErrNoAnswer, giveUp)
		}
	}
}

// askOnce sends the request and waits for its answer, for at least that long.
func (s *socket) askOnce(ctx context.Context, wait time.Duration) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := s.send(); err != nil {
		return err
	}
	if s.spins {
		return s.spin(ctx, wait)
	}
	if s.polled == nil {
		err := s.receiveAnswer(s.receive)
		if err != unix.EAGAIN {
			return err
		}
		if err := s.enterPoller(); err != nil {
			return err
		}
	}
	if err := s.polled.extendDeadline(wait); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, s.polled.interrupt)
	err := s.receiveAnswer(s.polled.wait)
	s.spoiled = !stop()
	s.polled.countAtOnce()
	return err
}

// spin asks for the answer over and over, at least that long. Other goroutines have
// their turn in between, but the thread does not sleep.
func (s *socket) spin(ctx context.Context, wait time.Duration) error {
	for end := (time.Time{}); ; runtime.Gosched() {
		if err := s.receiveAnswer(s.receive); err != unix.EAGAIN {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		now := time.Now()
		if end.IsZero() {
			end = now.Add(wait)
		}
		if !now.Before(end) {
			return os.ErrDeadlineExceeded
		}
	}
}

// receiveAnswer receives until the answer to the last request comes.
func (s *socket) receiveAnswer(receive func() (int, error)) error {
	for {
		n, err := receive()
		if err != nil {
			return err
		}
		if s.isAnswer(s.in[:n]) {
			return nil
		}
	}
}

// send sends the request. Like receive it never blocks, so Go's scheduler, which
// might look for other work meanwhile, is not told of the call.
func (s *socket) send() error {
	if s.witness != nil {
		s.witness.sent = time.Now()
	}
	_, _, err := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(s.fd), uintptr(unsafe.Pointer(&s.out[0])), uintptr(len(s.out)), 0, 0, 0)
	if err != 0 {
		return os.NewSyscallError("sendto", err)
	}
	return nil
}

// receive takes a datagram into s.in. It does not wait for one: then the error
// is EAGAIN.
func (s *socket) receive() (int, error) {
	if s.witness != nil {
		return s.witness.receive(s.fd, s.in)
	}
	n, _, err := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(s.fd), uintptr(unsafe.Pointer(&s.in[0])), uintptr(len(s.in)), 0, 0, 0)
	if err != 0 {
		return 0, err
	}
	return int(n), nil
}

// enterPoller gives the socket to the poller.
func (s *socket) enterPoller() error {
	p := &polled{file: os.NewFile(uintptr(s.fd), "lookup socket")}
	p.receive = func(uintptr) bool {
		p.n, p.err = s.receive()
		p.waited = p.waited || p.err == unix.EAGAIN
		return p.err != unix.EAGAIN
	}
	s.polled = p
	var err error
	p.raw, err = p.file.SyscallConn()
	return err
}

// wait waits for a datagram until the deadline.
func (p *polled) wait() (int, error) {
	if err := p.raw.Read(p.receive); err != nil {
		return 0, err
	}
	return p.n, p.err
}

// extendDeadline sees to it that the deadline is at least that far away, and no
// more than twice as far: moving it each time costs something.
func (p *polled) extendDeadline(wait time.Duration) error {
	now := time.Now()
	if left := p.deadline.Sub(now); left >= wait && left <= 2*wait {
		return nil
	}
	p.deadline = now.Add(2 * wait)
	return p.file.SetReadDeadline(p.deadline)
}

// interrupt ends a wait. The socket is of no use after that.
func (p *polled) interrupt() { _ = p.file.SetReadDeadline(time.Unix(1, 0)) }

func (p *polled) countAtOnce() {
	p.atOnce++
	if p.waited {
		p.waited, p.atOnce = false, 0
	}
}
