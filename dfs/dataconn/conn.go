// Package dataconn is the asking end of a connection that carries data frames:
// it dials, has the other side select a data path, asks and receives answers by
// number, and turns what is answered instead of data into errors. [Idle] keeps
// connections that nobody uses, and [Avoided] remembers which servers failed.
//
// The client library, the gateway, the links of a write chain and the copying of
// replicas use it; what each does with data is its own. Time-outs that mean the
// same for all of them stand here. When data frames carry credentials one day,
// [Dial] is the place.
package dataconn

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"waggle/dfs/datapath"
	"waggle/dfs/tcp"
	"waggle/dfs/wire"
)

// Time-outs.
const (
	DialTimeout  = 3 * time.Second  // to connect and select a path
	ReadTimeout  = 10 * time.Second // for an answer to a read to begin
	WriteTimeout = 60 * time.Second // for one to a write, of which a chain's servers have some time each
	IdleTimeout  = 30 * time.Second // after which a connection that nobody uses is closed
	AvoidTime    = 5 * time.Second  // for which a server that failed is asked last
)

// Options say how to dial. The zero value is good for most.
type Options struct {
	// Dialer makes the connection; by default one that follows the process's policy
	// for sockets (package tcp).
	Dialer *net.Dialer
	// Timeout bounds connecting and selecting a path, DialTimeout by default.
	Timeout time.Duration
	// ExtraBytes is how much of a frame's Extra is received without making memory
	// for it, wire.MaxExtra by default.
	ExtraBytes int
}

// Conn is a connection that carries data frames. One goroutine uses it at a time,
// but for a sender and a receiver who agree on the numbers of frames.
type Conn struct {
	*net.TCPConn
	// Reader is what answers are received from: the connection itself, unless who
	// uses it puts something in between.
	Reader io.Reader
	// Reused says that the connection was idle before: an error may only mean that
	// the server has closed it meanwhile.
	Reused bool
	// Greeting is what the server said when the path was selected.
	Greeting string

	lastID uint64
	out    []byte
	extra  []byte
}

// Dial connects to a server's data port, "host:port". With a path, such as
// "read=copy", the server selects it; without one a path is selected later.
func Dial(ctx context.Context, address, path string, o Options) (*Conn, error) {
	if o.Timeout == 0 {
		o.Timeout = DialTimeout
	}
	if o.ExtraBytes == 0 {
		o.ExtraBytes = wire.MaxExtra
	}
	if o.Dialer == nil {
		o.Dialer = &net.Dialer{Control: tcp.ControlData}
	}
	ctx, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	conn, err := o.Dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("connect to chunk server %s: %w", address, err)
	}
	tcp.Established(conn.(*net.TCPConn))
	c := &Conn{TCPConn: conn.(*net.TCPConn), Reader: conn, lastID: rand.Uint64(), extra: make([]byte, o.ExtraBytes)}
	if path == "" {
		return c, nil
	}
	if err := c.selectWithin(ctx, path); err != nil {
		c.Close()
		return nil, fmt.Errorf("select %s at chunk server %s: %w", path, address, err)
	}
	return c, nil
}

// selectWithin is Select that ends with ctx.
func (c *Conn) selectWithin(ctx context.Context, path string) error {
	stop := context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })
	err := c.Select(path)
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	return err
}

// Select has the server take a data path for this connection. An error wraps
// datapath.ErrUnsupported if the server can't.
func (c *Conn) Select(path string) error {
	ask := wire.Frame{Type: wire.FrameSelect, Extra: []byte(path)}
	if err := c.Ask(&ask); err != nil {
		return err
	}
	var answer wire.Frame
	if err := c.Answer(&ask, &answer); err != nil {
		return err
	}
	if answer.Status == wire.StatusUnsupported {
		return fmt.Errorf("%w: %s", datapath.ErrUnsupported, answer.Extra)
	}
	c.Greeting = string(answer.Extra)
	return AnswerError(&answer)
}

// Ask sends a frame, whose number it chooses, and data behind it.
func (c *Conn) Ask(f *wire.Frame, data ...[]byte) error {
	c.Number(f)
	return c.Send(f, data...)
}

// Number gives a frame the connection's next number.
func (c *Conn) Number(f *wire.Frame) {
	c.lastID++
	f.ID = c.lastID
}

// Send sends a frame that has its number, and data behind it.
func (c *Conn) Send(f *wire.Frame, data ...[]byte) error {
	c.out = f.Append(c.out[:0])
	if len(data) == 0 {
		_, err := c.Write(c.out)
		return err
	}
	buffers := append(net.Buffers{c.out}, data...)
	_, err := buffers.WriteTo(c.TCPConn)
	return err
}

// Answer receives the header of the answer to the frame asked. What the answer
// refuses is no error of Answer: see AnswerError.
func (c *Conn) Answer(asked, answer *wire.Frame) error {
	if err := answer.Receive(c.Reader, c.extra); err != nil {
		return notFileEnd(err)
	}
	if answer.ID != asked.ID || answer.Type != asked.Type || answer.Flags&wire.FlagAnswer == 0 {
		return fmt.Errorf("%w: answer %d of type %d to frame %d of type %d", wire.ErrMalformed, answer.ID, answer.Type, asked.ID, asked.Type)
	}
	return nil
}

// Receive fills p with data.
func (c *Conn) Receive(p []byte) error {
	_, err := io.ReadFull(c.Reader, p)
	return notFileEnd(err)
}

// notFileEnd tells the end of a connection from that of a file.
func notFileEnd(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// Extend gives the server time for the next bytes. It fails if a context that is
// watched has ended.
func (c *Conn) Extend(ctx context.Context, d time.Duration) error {
	if err := c.SetDeadline(time.Now().Add(d)); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}

// Quiet reports whether the server has said nothing, not even that it is gone:
// what can be asked of a connection that was idle, before something is sent that
// can't be sent again.
func (c *Conn) Quiet() bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return false
	}
	quiet := false
	err = raw.Control(func(fd uintptr) {
		_, _, err := unix.Recvfrom(int(fd), make([]byte, 1), unix.MSG_PEEK|unix.MSG_DONTWAIT)
		quiet = errors.Is(err, unix.EAGAIN)
	})
	return err == nil && quiet
}

// StatusError is what a chunk server answered instead of StatusOK. It unwraps to
// ENOSPC, EIO or datapath.ErrUnsupported where the status says that.
type StatusError struct {
	Status   wire.Status
	Text     string // in the server's words; may be empty
	Epoch    uint64 // of the replica
	Offset   uint64 // of a corrupt block
	Sequence uint64 // of the replica's last write; in a broken chain the position
}

var statusTexts = map[wire.Status]string{
	wire.StatusNotFound:    "no replica here",
	wire.StatusStaleEpoch:  "wrong epoch",
	wire.StatusOutOfOrder:  "write out of order",
	wire.StatusCorrupt:     "corrupt block",
	wire.StatusInvalid:     "invalid request",
	wire.StatusNoSpace:     "disk is full",
	wire.StatusIO:          "disk failed",
	wire.StatusUnsupported: "data path not supported",
	wire.StatusChainBroken: "a replica down the chain failed",
	wire.StatusTooShort:    "replica is too short",
	wire.StatusNotServing:  "replica is not served now",
}

func (e *StatusError) Error() string {
	text, known := statusTexts[e.Status]
	if !known {
		text = fmt.Sprintf("answered with status %d", e.Status)
	}
	if e.Text == "" {
		return text
	}
	return text + ": " + e.Text
}

func (e *StatusError) Unwrap() error {
	switch e.Status {
	case wire.StatusNoSpace:
		return syscall.ENOSPC
	case wire.StatusIO:
		return syscall.EIO
	case wire.StatusUnsupported:
		return datapath.ErrUnsupported
	}
	return nil
}

// AnswerError returns a *StatusError for an answer that is not StatusOK.
func AnswerError(f *wire.Frame) error {
	if f.Status == wire.StatusOK {
		return nil
	}
	return &StatusError{f.Status, string(f.Extra), f.Epoch, f.Offset, f.Sequence}
}

// StatusOf returns what a chunk server answered, or StatusOK if err is no answer.
func StatusOf(err error) wire.Status {
	var answered *StatusError
	if errors.As(err, &answered) {
		return answered.Status
	}
	return wire.StatusOK
}
