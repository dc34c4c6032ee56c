package chunk

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"waggle/dfs/datapath/write"
	"waggle/dfs/tcp"
	"waggle/dfs/wire"
)

// Bounds of what is kept for the next write.
const (
	maxIdleLinks   = 8 // to one server
	maxLinkServers = 64
	dialTimeout    = 2 * time.Second
)

// link is a data connection to the next server of a chain. One goroutine passes
// frames on, one awaits the answers.
type link struct {
	key        linkKey
	conn       *net.TCPConn
	forwarder  write.Forwarder
	in         *bufio.Reader
	extra      []byte
	unanswered atomic.Int32
	broken     atomic.Bool
}

type linkKey struct {
	address netip.AddrPort
	path    string
}

// chainError says which server of the chain did not acknowledge.
type chainError struct {
	position uint64 // counted from this server as 0
	reason   string
}

func (e *chainError) Error() string { return e.reason }

func dialLink(s *Server, key linkKey, path write.Path) (*link, error) {
	conn, err := tcp.Dial(context.Background(), key.address.String(), min(dialTimeout, s.config.PeerTimeout))
	if err != nil {
		return nil, err
	}
	l := &link{key: key, conn: conn, in: bufio.NewReaderSize(conn, wire.HeaderSize), extra: make([]byte, wire.MaxExtra)}
	if l.forwarder, err = path.NewForwarder(l.conn, s.Counters()); err != nil {
		conn.Close()
		return nil, fmt.Errorf("%s: %w", path.About(), err)
	}
	if err := l.choose(path, s.config.PeerTimeout); err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

// choose has the next server take the same path to those behind it.
func (l *link) choose(path write.Path, timeout time.Duration) error {
	f := wire.Frame{Type: wire.FrameSelect, Extra: []byte(path.About().String())}
	if err := l.forward(f.Append(nil), nil, timeout); err != nil {
		return err
	}
	return l.await(f.ID, timeout)
}

// forward sends a frame.
func (l *link) forward(head, data []byte, timeout time.Duration) error {
	l.conn.SetWriteDeadline(time.Now().Add(timeout))
	if err := l.forwarder.Forward(head, data); err != nil {
		l.fail()
		return fmt.Errorf("send to %s: %w", l.key.address, err)
	}
	l.unanswered.Add(1)
	return nil
}

// await receives the answer to the oldest frame that was not answered.
func (l *link) await(id uint64, timeout time.Duration) error {
	defer l.unanswered.Add(-1)
	l.conn.SetReadDeadline(time.Now().Add(timeout))
	var f wire.Frame
	err := f.Receive(l.in, l.extra)
	switch {
	case err == nil && (f.Flags&wire.FlagAnswer == 0 || f.ID != id):
		err = fmt.Errorf("%w: answer to frame %d where %d was asked", wire.ErrMalformed, f.ID, id)
		fallthrough
	case err != nil:
		l.fail()
		return fmt.Errorf("wait for %s: %w", l.key.address, err)
	case f.Status == wire.StatusOK:
		return nil
	case f.Status == wire.StatusChainBroken:
		return &chainError{position: f.Sequence + 1, reason: string(f.Extra)}
	}
	return fmt.Errorf("%s answered with status %d: %s", l.key.address, f.Status, f.Extra)
}

func (l *link) fail() {
	l.broken.Store(true)
	l.conn.Close()
}

func (l *link) close() {
	l.forwarder.Close()
	l.conn.Close()
}

// usable says whether the other side still listens: while the link was not in
// use its server may have ended, or closed it as idle.
func (l *link) usable() bool {
	if l.broken.Load() {
		return false
	}
	if l.unanswered.Load() > 0 {
		return true
	}
	raw, err := l.conn.SyscallConn()
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

// linkPool keeps links that no connection uses.
type linkPool struct {
	mu     sync.Mutex
	idle   map[linkKey][]*link
	closed bool
}

func (p *linkPool) get(s *Server, address netip.AddrPort, path write.Path) (*link, error) {
	key := linkKey{address: address, path: path.About().Name}
	for {
		l := p.pop(key)
		if l == nil {
			return dialLink(s, key, path)
		}
		if l.usable() {
			return l, nil
		}
		l.close()
	}
}

func (p *linkPool) pop(key linkKey) *link {
	p.mu.Lock()
	defer p.mu.Unlock()
	links := p.idle[key]
	if len(links) == 0 {
		return nil
	}
	l := links[len(links)-1]
	if p.idle[key] = links[:len(links)-1]; len(links) == 1 {
		delete(p.idle, key)
	}
	return l
}

// put takes back a link. One with unanswered frames is of no use to others.
func (p *linkPool) put(l *link) {
	p.mu.Lock()
	defer p.mu.Unlock()
	full := len(p.idle[l.key]) >= maxIdleLinks || len(p.idle[l.key]) == 0 && len(p.idle) >= maxLinkServers
	if p.closed || full || l.broken.Load() || l.unanswered.Load() > 0 {
		l.close()
		return
	}
	if p.idle == nil {
		p.idle = make(map[linkKey][]*link)
	}
	p.idle[l.key] = append(p.idle[l.key], l)
}

func (p *linkPool) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for _, links := range p.idle {
		for _, l := range links {
			l.close()
		}
	}
	p.idle = nil
}
