package chunk

import (
	"bufio"
	"context"
	"fmt"
	"net/netip"
	"sync/atomic"
	"time"

	"waggle/dfs/dataconn"
	"waggle/dfs/datapath/write"
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
	*dataconn.Conn
	key        linkKey
	forwarder  write.Forwarder
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
	conn, err := dataconn.Dial(context.Background(), key.address.String(), "", dataconn.Options{Timeout: min(dialTimeout, s.config.PeerTimeout)})
	if err != nil {
		return nil, err
	}
	conn.Reader = bufio.NewReaderSize(conn.TCPConn, wire.HeaderSize)
	l := &link{Conn: conn, key: key}
	if l.forwarder, err = path.NewForwarder(l.TCPConn, s.Counters()); err != nil {
		conn.Close()
		return nil, fmt.Errorf("%s: %w", path.About(), err)
	}
	// The next server takes the same path to those behind it.
	if err = l.Extend(context.Background(), s.config.PeerTimeout); err == nil {
		err = l.Select(path.About().String())
	}
	if err != nil {
		l.close()
		return nil, err
	}
	return l, l.SetDeadline(time.Time{})
}

// forward sends a frame.
func (l *link) forward(head, data []byte, timeout time.Duration) error {
	l.SetWriteDeadline(time.Now().Add(timeout))
	if err := l.forwarder.Forward(head, data); err != nil {
		l.fail()
		return fmt.Errorf("send to %s: %w", l.key.address, err)
	}
	l.unanswered.Add(1)
	return nil
}

// await receives the answer to the oldest frame that was not answered.
func (l *link) await(asked *wire.Frame, timeout time.Duration) error {
	defer l.unanswered.Add(-1)
	l.SetReadDeadline(time.Now().Add(timeout))
	var f wire.Frame
	if err := l.Answer(asked, &f); err != nil {
		l.fail()
		return fmt.Errorf("wait for %s: %w", l.key.address, err)
	}
	if f.Status == wire.StatusChainBroken {
		return &chainError{position: f.Sequence + 1, reason: string(f.Extra)}
	}
	if err := dataconn.AnswerError(&f); err != nil {
		return fmt.Errorf("%s: %w", l.key.address, err)
	}
	return nil
}

func (l *link) fail() {
	l.broken.Store(true)
	l.Close()
}

func (l *link) close() error {
	l.forwarder.Close()
	return l.Close()
}

// usable says whether the other side still listens: while the link was not in
// use its server may have ended, or closed it as idle.
func (l *link) usable() bool {
	return !l.broken.Load() && (l.unanswered.Load() > 0 || l.Quiet())
}

// links keeps links that no connection uses.
type links struct {
	idle dataconn.Idle[linkKey, *link]
}

func newLinks() links {
	return links{dataconn.Idle[linkKey, *link]{PerKey: maxIdleLinks, Keys: maxLinkServers, Close: (*link).close}}
}

func (p *links) get(s *Server, address netip.AddrPort, path write.Path) (*link, error) {
	key := linkKey{address: address, path: path.About().Name}
	for {
		l, ok := p.idle.Take(key)
		if !ok {
			return dialLink(s, key, path)
		}
		if l.usable() {
			return l, nil
		}
		l.close()
	}
}

// put takes back a link. One with unanswered frames is of no use to others.
func (p *links) put(l *link) {
	if l.broken.Load() || l.unanswered.Load() > 0 {
		l.close()
		return
	}
	p.idle.Put(l.key, l)
}
