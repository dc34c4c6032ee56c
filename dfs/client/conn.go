package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"time"

	"waggle/dfs/dataconn"
	"waggle/dfs/datapath"
	"waggle/dfs/datapath/read"
	"waggle/dfs/datapath/read/afxdp"
	"waggle/dfs/datapath/read/shortcircuit"
	"waggle/dfs/tcp"
	"waggle/dfs/wire"
)

// maxServers is how many servers' connections are remembered.
const maxServers = 4096

// servers keeps the connections to chunk servers, and knows which have failed.
type servers struct {
	client  *Client
	avoided dataconn.Avoided
	idle    dataconn.Idle[poolKey, *dataConn]

	mu     sync.Mutex
	pools  map[poolKey]*pool
	closed bool

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

// pool bounds the connections of one key that are in use.
type pool struct {
	servers *servers
	key     poolKey
	slots   chan struct{} // one for each connection in use
	users   int           // connections in use, and those who wait for one; under servers.mu
}

// dataConn is a connection that the client reads or writes with.
type dataConn struct {
	*dataconn.Conn
	raw     syscall.RawConn
	pool    *pool
	stop    func() bool // ends the watch over the context
	blocks  blocks      // of read=afxdp
	scratch [2 * wire.BlockSize]byte
}

func (s *servers) init(c *Client) {
	s.client = c
	s.idle = dataconn.Idle[poolKey, *dataConn]{PerKey: c.options.MaxConnections, Keys: maxServers,
		Close: func(c *dataConn) error { return c.Close() }}
	s.pools = make(map[poolKey]*pool)
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
		if err != nil || !conn.Reused || conn.Quiet() {
			return conn, err
		}
		conn.give(false)
	}
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
			return nil, fmt.Errorf("connect to chunk server %s: connections to %d servers are in use, no more are allowed", key.address, maxServers)
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
	if p.users--; p.users == 0 {
		delete(s.pools, p.key)
	}
}

func (p *pool) take(ctx context.Context) (*dataConn, error) {
	if err := p.takeSlot(ctx); err != nil {
		return nil, err
	}
	if conn, ok := p.servers.idle.Take(p.key); ok {
		conn.Reused, conn.pool = true, p
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

// dial connects and chooses the data path.
func (p *pool) dial(ctx context.Context) (*dataConn, error) {
	path := p.key.path
	if path == datagramPath {
		path = "" // the server is told the port of the interface that the connection goes through
	}
	dialer := p.dialer()
	opened, err := dataconn.Dial(ctx, p.key.address.String(), path, dataconn.Options{Dialer: &dialer})
	if err != nil {
		return nil, err
	}
	conn := &dataConn{Conn: opened, pool: p}
	if conn.raw, err = conn.SyscallConn(); err == nil && p.key.path == datagramPath {
		err = conn.chooseDatagrams(ctx)
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("choose %s at chunk server %s: %w", p.key.path, p.key.address, err)
	}
	return conn, nil
}

// dialer returns what to dial the pool's connections with.
func (p *pool) dialer() net.Dialer {
	name, reads := strings.CutPrefix(p.key.path, string(datapath.Read)+"=")
	if !reads {
		return net.Dialer{Control: tcp.ControlData}
	}
	dialer := read.Dialer(name)
	special := dialer.Control
	dialer.Control = func(network, address string, conn syscall.RawConn) error {
		if err := tcp.ControlData(network, address, conn); err != nil || special == nil {
			return err
		}
		return special(network, address, conn)
	}
	return dialer
}

// give takes a connection back after use. Whole says that every answer on it
// was received; otherwise it is closed.
func (c *dataConn) give(whole bool) {
	p := c.pool
	defer p.servers.leave(p)
	defer func() { <-p.slots }()
	if !c.stop() { // the context has ended: its function may still touch the deadline
		whole = false
	}
	if whole {
		p.servers.idle.Put(p.key, c)
		return
	}
	if c.Reused { // the server may have ended since: then the others are dead, too
		p.servers.idle.Drop(p.key)
	}
	c.Close()
}

func (s *servers) close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	return errors.Join(s.idle.CloseAll(), s.closeBorrowers(), s.closeReceivers())
}
