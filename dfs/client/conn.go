package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"waggle/dfs/datapath"
	"waggle/dfs/datapath/read"
	"waggle/dfs/datapath/read/afxdp"
	"waggle/dfs/datapath/read/shortcircuit"
	"waggle/dfs/tcp"
	"waggle/dfs/wire"
)

const (
	dialTime   = 3 * time.Second
	readTime   = 10 * time.Second // for an answer to a read
	writeTime  = 60 * time.Second // for one to a write, of which a chain's servers have some time each
	idleTime   = 30 * time.Second // after which a connection is closed
	avoidTime  = 5 * time.Second  // for which a server that failed is asked last
	maxServers = 4096             // whose connections are remembered
)

// servers keeps the connections to chunk servers, and knows which have failed.
type servers struct {
	client *Client

	mu      sync.Mutex
	pools   map[poolKey]*pool
	avoided map[netip.AddrPort]time.Time // until when
	closed  bool

	borrowing sync.Mutex
	borrowers map[netip.AddrPort]*shortcircuit.Client // by the server's address

	receiving sync.Mutex
	receivers map[int]*afxdp.Receiver // by the interface's index
}

// poolKey names the connections to a server on which one data path was chosen.
type poolKey struct {
	address netip.AddrPort
	path    string
}

type pool struct {
	servers *servers
	key     poolKey
	slots   chan struct{} // one for each connection in use

	// Under servers.mu:
	users int         // connections in use, and those who wait for one
	idle  []*dataConn // the last is the one used last
}

// dataConn is a connection that carries data frames. It is used by one
// goroutine at a time.
type dataConn struct {
	*net.TCPConn
	raw      syscall.RawConn
	pool     *pool
	reused   bool // it has answered before, so an error may only mean that it was idle for too long
	idleFrom time.Time
	stop     func() bool // ends the watch over the context
	greeting string      // what the server said when the path was chosen: see shortcircuit.go, afxdp.go
	blocks   blocks      // of read=afxdp

	lastID  uint64
	out     []byte
	extra   []byte
	scratch [2 * wire.BlockSize]byte
}

func (s *servers) init(c *Client) {
	s.client = c
	s.pools = make(map[poolKey]*pool)
	s.avoided = make(map[netip.AddrPort]time.Time)
	s.borrowers = make(map[netip.AddrPort]*shortcircuit.Client)
	s.receivers = make(map[int]*afxdp.Receiver)
}

// take returns a connection to address on which path was chosen, such as
// "read=copy". Ctx is watched until the connection is given back.
func (s *servers) take(ctx context.Context, address netip.AddrPort, path string) (*dataConn, error) {
	p, err := s.enter(poolKey{address, path})
	if err != nil {
		return nil, err
	}
	conn, err := p.take(ctx)
	if err != nil {
		s.leave(p)
		return nil, err
	}
	conn.stop = context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	return conn, nil
}

// takeAlive is take for who can send only once: of connections that were used
// before, it leaves out those that their server has closed since.
func (s *servers) takeAlive(ctx context.Context, address netip.AddrPort, path string) (*dataConn, error) {
	for {
		conn, err := s.take(ctx, address, path)
		if err != nil || !conn.reused || conn.quiet() {
			return conn, err
		}
		conn.give(false)
	}
}

// quiet says whether the server has said nothing, not even that it is gone.
func (c *dataConn) quiet() bool {
	quiet := false
	err := c.raw.Control(func(fd uintptr) {
		_, _, err := unix.Recvfrom(int(fd), make([]byte, 1), unix.MSG_PEEK|unix.MSG_DONTWAIT)
		quiet = errors.Is(err, unix.EAGAIN)
	})
	return err == nil && quiet
}

// enter returns a pool, which stays until leave is called.
func (s *servers) enter(key poolKey) (*pool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, errClosed
	}
	p := s.pools[key]
	if p == nil {
		if len(s.pools) >= maxServers {
			return nil, fmt.Errorf("connect to chunk server %s: connections to %d servers are known, no more are allowed", key.address, maxServers)
		}
		p = &pool{servers: s, key: key, slots: make(chan struct{}, s.client.options.MaxConnections)}
		s.pools[key] = p
	}
	p.users++
	return p, nil
}

func (s *servers) leave(p *pool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p.users--
}

func (p *pool) take(ctx context.Context) (*dataConn, error) {
	if err := p.takeSlot(ctx); err != nil {
		return nil, err
	}
	if conn := p.takeIdle(); conn != nil {
		return conn, nil
	}
	conn, err := p.dial(ctx)
	if err != nil {
		<-p.slots
	}
	return conn, err
}

func (p *pool) takeSlot(ctx context.Context) error {
	select {
	case p.slots <- struct{}{}:
		return nil
	default:
	}
	options := &p.servers.client.options
	patience := time.NewTimer(options.Patience)
	defer patience.Stop()
	select {
	case p.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-patience.C:
		return fmt.Errorf("connect to chunk server %s: %d connections have been in use for %v: close files, or raise MaxConnections",
			p.key.address, options.MaxConnections, options.Patience)
	}
}

func (p *pool) takeIdle() *dataConn {
	p.servers.mu.Lock()
	defer p.servers.mu.Unlock()
	last := len(p.idle) - 1
	if last < 0 {
		return nil
	}
	conn := p.idle[last]
	p.idle = p.idle[:last]
	conn.reused = true
	return conn
}

// dial connects and chooses the data path.
func (p *pool) dial(ctx context.Context) (*dataConn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	dialer := p.dialer()
	c, err := dialer.DialContext(ctx, "tcp", p.key.address.String())
	if err != nil {
		return nil, fmt.Errorf("connect to chunk server %s: %w", p.key.address, err)
	}
	conn := &dataConn{TCPConn: c.(*net.TCPConn), pool: p, lastID: rand.Uint64(), extra: make([]byte, wire.MaxExtra)}
	if conn.raw, err = conn.SyscallConn(); err == nil {
		stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
		if p.key.path == datagramPath {
			err = conn.chooseDatagrams()
		} else {
			err = conn.choose(p.key.path)
		}
		stop()
	}
	if err != nil {
		conn.TCPConn.Close()
		return nil, fmt.Errorf("choose %s at chunk server %s: %w", p.key.path, p.key.address, err)
	}
	return conn, nil
}

// dialer returns what to dial the pool's connections with. Those that data is read
// from have room for what is asked for ahead.
func (p *pool) dialer() net.Dialer {
	name, reads := strings.CutPrefix(p.key.path, string(datapath.Read)+"=")
	if !reads {
		return net.Dialer{Control: tcp.Control}
	}
	dialer := read.Dialer(name)
	control := dialer.Control
	dialer.Control = func(network, address string, conn syscall.RawConn) error {
		if err := tcp.Control(network, address, conn); err != nil {
			return err
		}
		if wire.EnlargeReceiveBuffer(conn) != nil {
			p.servers.client.options.Counters.Counter("client_default_receive_buffers").Add(1)
		}
		if control == nil {
			return nil
		}
		return control(network, address, conn)
	}
	return dialer
}

// choose selects the data path of a new connection.
func (c *dataConn) choose(path string) error {
	ask := wire.Frame{Type: wire.FrameSelect, Extra: []byte(path)}
	if err := c.ask(&ask); err != nil {
		return err
	}
	var answer wire.Frame
	if err := c.answer(&ask, &answer); err != nil {
		return err
	}
	if answer.Status == wire.StatusUnsupported {
		return fmt.Errorf("%w: %s", ErrUnsupported, answer.Extra)
	}
	c.greeting = string(answer.Extra)
	return answerError(&answer)
}

// ask sends a frame, whose ID it chooses, and data behind it.
func (c *dataConn) ask(f *wire.Frame, data ...[]byte) error {
	c.lastID++
	f.ID = c.lastID
	c.out = f.Append(c.out[:0])
	buffers := append(net.Buffers{c.out}, data...)
	if len(data) == 0 {
		_, err := c.Write(c.out)
		return err
	}
	_, err := buffers.WriteTo(c.TCPConn)
	return err
}

// extend gives the server time for the next bytes. It fails if the context that
// is watched has ended.
func (c *dataConn) extend(ctx context.Context, d time.Duration) error {
	if err := c.SetDeadline(time.Now().Add(d)); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}

// answer receives the header of the answer to the frame asked.
func (c *dataConn) answer(asked, answer *wire.Frame) error {
	if err := answer.Receive(c.TCPConn, c.extra); err != nil {
		return notFileEnd(err)
	}
	if answer.ID != asked.ID || answer.Type != asked.Type || answer.Flags&wire.FlagAnswer == 0 {
		return fmt.Errorf("%w: answer %d of type %d to frame %d of type %d", wire.ErrMalformed, answer.ID, answer.Type, asked.ID, asked.Type)
	}
	return nil
}

// receive fills p with data.
func (c *dataConn) receive(p []byte) error {
	_, err := io.ReadFull(c.TCPConn, p)
	return notFileEnd(err)
}

// notFileEnd tells the end of a connection from that of a file.
func notFileEnd(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// give takes a connection back after use. Whole says that every answer on it
// was received; otherwise it is closed.
func (c *dataConn) give(whole bool) {
	p := c.pool
	defer func() { <-p.slots }()
	if !c.stop() { // the context has ended: its function may still touch the deadline
		whole = false
	}
	p.servers.mu.Lock()
	defer p.servers.mu.Unlock()
	p.users--
	switch {
	case whole && !p.servers.closed:
		c.idleFrom = time.Now()
		p.idle = append(p.idle, c)
		return
	case c.reused: // the server may have ended since: then the others are dead, too
		for _, other := range p.idle {
			other.TCPConn.Close()
		}
		p.idle = nil
	}
	c.TCPConn.Close()
}

// avoid notes that a server has failed.
func (s *servers) avoid(address netip.AddrPort) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.avoided[address] = time.Now().Add(avoidTime)
}

// choose picks one of a chunk's replicas: at random, to spread the load, among
// those that have not failed lately, or else of all; but none on a server that
// is refused.
func (s *servers) choose(replicas []wire.Replica, refused []uint32) (wire.Replica, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	var chosen wire.Replica
	candidates, avoidable := 0, true
	for _, r := range replicas {
		avoided := len(s.avoided) > 0 && s.avoided[r.Address].After(now)
		if slices.Contains(refused, r.Server) || avoided && !avoidable {
			continue
		}
		if !avoided && avoidable { // better than all before it
			candidates, avoidable = 0, false
		}
		candidates++
		if rand.IntN(candidates) == 0 {
			chosen = r
		}
	}
	return chosen, candidates > 0
}

// closeIdle closes connections that nobody has used for long.
func (s *servers) closeIdle() {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	for key, p := range s.pools {
		for len(p.idle) > 0 && now.Sub(p.idle[0].idleFrom) > idleTime {
			p.idle[0].TCPConn.Close()
			p.idle = p.idle[1:]
		}
		if len(p.idle) == 0 && p.users == 0 {
			delete(s.pools, key)
		}
	}
	for address, until := range s.avoided {
		if now.After(until) {
			delete(s.avoided, address)
		}
	}
}

func (s *servers) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	var failed error
	for _, p := range s.pools {
		for _, conn := range p.idle {
			failed = errors.Join(failed, conn.TCPConn.Close())
		}
	}
	s.pools = nil
	return errors.Join(failed, s.closeBorrowers(), s.closeReceivers())
}

// answeredError is what a chunk server answered instead of StatusOK.
type answeredError struct {
	status   wire.Status
	text     string
	epoch    uint64
	offset   uint64
	sequence uint64
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
}

func (e *answeredError) Error() string {
	if e.text == "" {
		return statusTexts[e.status]
	}
	return statusTexts[e.status] + ": " + e.text
}

func (e *answeredError) Unwrap() error {
	switch e.status {
	case wire.StatusNoSpace:
		return syscall.ENOSPC
	case wire.StatusIO:
		return syscall.EIO
	case wire.StatusUnsupported:
		return datapath.ErrUnsupported
	}
	return nil
}

func answerError(f *wire.Frame) error {
	if f.Status == wire.StatusOK {
		return nil
	}
	return &answeredError{f.Status, string(f.Extra), f.Epoch, f.Offset, f.Sequence}
}

// statusOf returns what a chunk server answered, or StatusOK if err is no answer.
func statusOf(err error) wire.Status {
	var answered *answeredError
	if errors.As(err, &answered) {
		return answered.status
	}
	return wire.StatusOK
}
