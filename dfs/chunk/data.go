package chunk

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"waggle/dfs/chunk/replica"
	"waggle/dfs/datapath"
	"waggle/dfs/datapath/read"
	"waggle/dfs/datapath/write"
	"waggle/dfs/tcp"
	"waggle/dfs/weaken"
	"waggle/dfs/wire"
)

// receiveBuffer holds a frame's header and Extra, or several small frames. Data
// behind them that does not fit is read to where it is needed, past the buffer.
const receiveBuffer = 8 << 10

// acceptData serves each data connection in a goroutine.
func (s *Server) acceptData() error {
	for {
		conn, err := tcp.Accept(s.data)
		switch {
		case s.stopping.Load():
			return nil
		case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE), errors.Is(err, unix.ECONNABORTED):
			s.warn("data connection refused", "error", err)
			time.Sleep(10 * time.Millisecond)
			continue
		case err != nil:
			return fmt.Errorf("accept data connection: %w", err)
		}
		if !s.enter(conn) {
			s.warn("data connection refused: there are as many as allowed", "limit", s.config.MaxConnections, "peer", conn.RemoteAddr())
			s.Counters().Counter("chunk_refused_connections").Add(1)
			conn.Close()
			continue
		}
		go func() {
			defer s.leave(conn)
			s.serveData(conn)
		}()
	}
}

func (s *Server) enter(conn *net.TCPConn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.connections) >= s.config.MaxConnections || s.stopping.Load() {
		return false
	}
	s.connections[conn] = true
	s.serving.Add(1)
	return true
}

func (s *Server) leave(conn *net.TCPConn) {
	s.mu.Lock()
	delete(s.connections, conn)
	s.mu.Unlock()
	conn.Close()
	s.serving.Done()
}

// warn logs what a peer can cause, so not too often.
func (s *Server) warn(message string, args ...any) {
	if s.complain.Allow() {
		s.log.Warn(message, args...)
	}
}

// connection is a data connection. One goroutine serves it; while writes wait
// for replicas behind this one, a second one sends their answers.
type connection struct {
	server *Server
	conn   *net.TCPConn
	in     *bufio.Reader

	frame wire.Frame // the request
	extra []byte     // room for its Extra
	began time.Time  // when its header was to come
	data  []byte     // room for its data
	head  []byte     // room for the answer's header
	sums  []byte     // room for the answer's checksums

	sender read.Sender // of the chosen path
	locked read.Sender // for locked reads

	writes *writes
}

// serveData answers the frames of one connection until it ends.
func (s *Server) serveData(conn *net.TCPConn) {
	c := &connection{server: s, conn: conn, in: bufio.NewReaderSize(conn, receiveBuffer), extra: make([]byte, wire.MaxExtra)}
	err := c.open()
	for err == nil {
		if err = c.receive(); err == nil {
			err = c.answer()
		}
	}
	c.close()
	if err != io.EOF && !s.stopping.Load() {
		s.Counters().Counter("chunk_broken_connections").Add(1)
		s.warn("data connection closed", "peer", conn.RemoteAddr(), "reason", err)
	}
}

func (c *connection) open() (err error) {
	if c.locked, err = c.server.defaultRead.NewSender(c.conn, &c.server.senders); err != nil {
		return err
	}
	c.sender = c.locked
	c.writes = newWrites(c, c.server.defaultWrite)
	return nil
}

func (c *connection) close() {
	if c.writes != nil {
		c.writes.close()
	}
	if c.sender != nil && c.sender != c.locked {
		c.sender.Close()
	}
	if c.locked != nil {
		c.locked.Close()
	}
}

// receive waits for the next request and receives its header. It returns io.EOF
// when the peer is done, or has nothing to say for too long.
func (c *connection) receive() error {
	c.conn.SetReadDeadline(time.Now().Add(c.server.config.IdleTimeout))
	if c.server.stopping.Load() {
		return io.EOF
	}
	if _, err := c.in.Peek(1); err != nil {
		return io.EOF
	}
	c.began = time.Now()
	c.conn.SetReadDeadline(c.began.Add(c.server.config.PeerTimeout))
	if err := c.frame.Receive(c.in, c.extra); err != nil {
		return fmt.Errorf("receive frame: %w", err)
	}
	if c.frame.Flags&wire.FlagAnswer != 0 {
		return fmt.Errorf("receive frame: %w: it is an answer", wire.ErrMalformed)
	}
	return nil
}

func (c *connection) answer() error {
	switch c.frame.Type {
	case wire.FrameWrite, wire.FrameSync:
		return c.writes.take()
	case wire.FrameSelect:
		c.writes.drain()
		path := string(c.frame.Extra)
		answer := c.answerFor(replica.State{}, c.choose(path))
		if answer.Status == wire.StatusOK {
			answer.Extra = c.greeting(path)
		}
		return c.send(answer)
	default:
		c.writes.drain()
		return c.read()
	}
}

// greeting is what the chosen path needs to say to the client.
func (c *connection) greeting(path string) []byte {
	if path == "read="+read.ShortCircuit {
		return []byte(c.server.lender.Name())
	}
	if greeter, ok := c.sender.(read.Greeter); ok {
		return greeter.Greeting()
	}
	return nil
}

// choose takes a data path for the connection, "read=NAME" or "write=NAME", with
// a parameter behind a space if it needs one.
func (c *connection) choose(path string) error {
	path, parameter, parameterized := strings.Cut(path, " ")
	operation, name, _ := strings.Cut(path, "=")
	switch datapath.Operation(operation) {
	case datapath.Read:
		p, err := read.Paths.Use(name)
		if special, ok := p.(read.Parameterized); ok && err == nil && parameterized {
			p, err = special.With(parameter)
		}
		if err != nil {
			return err
		}
		return c.chooseRead(p)
	case datapath.Write:
		p, err := write.Paths.Use(name)
		if err != nil {
			return err
		}
		c.writes.choose(p)
		return nil
	}
	return fmt.Errorf("%w %q: a chunk server has paths for read and write", datapath.ErrUnknown, path)
}

func (c *connection) chooseRead(p read.Path) error {
	sender := c.locked
	if p.About().Name != read.Copy {
		var err error
		if sender, err = p.NewSender(c.conn, &c.server.senders); err != nil {
			return fmt.Errorf("%s: %w: %w", p.About(), datapath.ErrUnsupported, err)
		}
	}
	if c.sender != c.locked {
		c.sender.Close()
	}
	c.sender = sender
	return nil
}

// read answers a read.
func (c *connection) read() error {
	sender := c.sender
	if c.frame.Flags&wire.FlagLocked != 0 {
		sender = c.locked
	}
	view, err := c.view(sender)
	defer view.Release()
	answer := c.answerFor(view.State, err)
	if err != nil || view.Length == 0 {
		return c.send(answer)
	}
	c.sums = view.Sums
	answer.Offset, answer.Length, answer.Extra = view.Offset, uint32(view.Length), view.Sums
	c.head = answer.Append(c.head[:0])
	c.conn.SetWriteDeadline(time.Now().Add(c.server.config.PeerTimeout))
	if err := sender.Send(c.head); err != nil {
		c.server.reportFailing(c.frame.Chunk, err)
		return fmt.Errorf("send %d bytes of chunk %d: %w", view.Length, c.frame.Chunk, err)
	}
	c.server.measures.sent.Add(int64(view.Length))
	c.server.measures.took(c.server.measures.read, c.began)
	return nil
}

func (c *connection) view(sender read.Sender) (replica.View, error) {
	r, err := c.server.store.Get(c.frame.Chunk)
	if err != nil {
		return replica.View{}, err
	}
	if err := c.server.mayRead(&c.frame, r.State()); err != nil {
		return replica.View{State: r.State()}, fmt.Errorf("read of chunk %d: %w", c.frame.Chunk, err)
	}
	if c.frame.Flags&wire.FlagDoubtful != 0 {
		return r.ViewDoubtful(c.frame.Offset, c.frame.Length, c.sums, sender.Prepare)
	}
	return r.View(c.frame.Offset, c.frame.Length, c.sums, sender.Prepare)
}

// errTooShort says that a replica lacks what a reader knows to be there.
var errTooShort = errors.New("the replica is too short")

// mayRead says whether a read may be answered from a replica in this state.
func (s *Server) mayRead(asked *wire.Frame, state replica.State) error {
	if asked.Epoch == 0 {
		return nil // a copy, which the metadata server has asked for
	}
	if err := s.lease.admits(state); err != nil {
		return err
	}
	if asked.Epoch > state.Epoch {
		return fmt.Errorf("%w: asked %d, the replica has %d", replica.ErrStaleEpoch, asked.Epoch, state.Epoch)
	}
	if wire.TooShort(asked.Offset, uint64(asked.Length), state.Length, asked.Sequence) && !weaken.On(weaken.ExpectLength) {
		return fmt.Errorf("%w: it has %d bytes, expected %d", errTooShort, state.Length, asked.Sequence)
	}
	return nil
}

// answerFor makes the answer to the request, without data, from how it ended
// and the state of its replica.
func (c *connection) answerFor(state replica.State, err error) wire.Frame {
	a := wire.Frame{Type: c.frame.Type, Flags: wire.FlagAnswer, ID: c.frame.ID, Chunk: c.frame.Chunk,
		Epoch: state.Epoch, Offset: c.frame.Offset, Sequence: state.Sequence}
	if err != nil {
		c.server.explain(&a, err)
	}
	return a
}

// explain puts the reason of a failure into an answer.
func (s *Server) explain(a *wire.Frame, err error) {
	a.Status = statusOf(err)
	a.Extra = []byte(oneLine(err))
	var corrupt *replica.CorruptError
	if errors.As(err, &corrupt) {
		a.Offset = corrupt.Offset
		s.reportCorrupt(corrupt.Chunk, corrupt.Offset)
	}
	s.reportFailing(a.Chunk, err)
	if a.Status == wire.StatusIO || a.Status == wire.StatusNoSpace {
		s.warn("request failed", "chunk", a.Chunk, "error", err)
	}
}

// maxReason is the longest text in an answer, in bytes.
const maxReason = 1 << 10

// oneLine is an error's text as it fits into an answer.
func oneLine(err error) string {
	text := strings.ReplaceAll(err.Error(), "\n", "; ")
	return text[:min(len(text), maxReason)]
}

func statusOf(err error) wire.Status {
	var corrupt *replica.CorruptError
	switch {
	case errors.Is(err, replica.ErrNotFound):
		return wire.StatusNotFound
	case errors.Is(err, replica.ErrStaleEpoch):
		return wire.StatusStaleEpoch
	case errors.Is(err, replica.ErrOutOfOrder):
		return wire.StatusOutOfOrder
	case errors.Is(err, errNotServing):
		return wire.StatusNotServing
	case errors.Is(err, errTooShort):
		return wire.StatusTooShort
	case errors.As(err, &corrupt):
		return wire.StatusCorrupt
	case errors.Is(err, replica.ErrInvalid), errors.Is(err, wire.ErrMalformed):
		return wire.StatusInvalid
	case noSpace(err):
		return wire.StatusNoSpace
	case errors.Is(err, datapath.ErrUnsupported), errors.Is(err, datapath.ErrUnknown):
		return wire.StatusUnsupported
	}
	return wire.StatusIO
}

func noSpace(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) || errors.Is(err, unix.EFBIG)
}

// send sends an answer without data.
func (c *connection) send(a wire.Frame) error {
	c.head = a.Append(c.head[:0])
	return c.sendHead(c.head)
}

func (c *connection) sendHead(head []byte) error {
	c.conn.SetWriteDeadline(time.Now().Add(c.server.config.PeerTimeout))
	if _, err := c.conn.Write(head); err != nil {
		return fmt.Errorf("send answer: %w", err)
	}
	return nil
}

// receiveData receives the request's data.
func (c *connection) receiveData(copied *atomic.Int64) error {
	length := int(c.frame.Length)
	if cap(c.data) < length {
		c.data = make([]byte, length)
	}
	c.data = c.data[:length]
	copied.Add(int64(min(c.in.Buffered(), length)))
	if _, err := io.ReadFull(c.in, c.data); err != nil {
		return fmt.Errorf("receive the %d bytes of a write: %w", length, err)
	}
	return nil
}
