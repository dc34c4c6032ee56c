package gateway

import (
	"context"
	"errors"
	"net"
	"os"
	"time"

	"waggle/dfs/dataconn"
	"waggle/dfs/datapath/relay"
	"waggle/dfs/wire"
)

const (
	maxIdle     = 64   // connections to one server
	maxUpstream = 4096 // servers that are remembered
)

// upstreams keeps connections to chunk servers whose answers can be relayed.
type upstreams struct {
	relay   relay.Relay
	path    string // "read=copy"
	avoided dataconn.Avoided
	idle    dataconn.Idle[string, *upstream] // by address
}

// usualExtra is as many bytes as the checksums of the longest body take. A
// connection keeps no more than that, as there may be a thousand in use; for a
// longer answer memory is made.
const usualExtra = 4 * (relay.MaxBody/wire.BlockSize + 1)

// upstream is a connection to a chunk server, used by one goroutine at a time.
type upstream struct {
	*dataconn.Conn
	source  relay.Source
	address string

	lastHeader int64 // length of the header of the last answer that was relayed

	scratch []byte // for parts of blocks
}

func newUpstreams(r relay.Relay, readPath string) *upstreams {
	return &upstreams{relay: r, path: "read=" + readPath, idle: dataconn.Idle[string, *upstream]{PerKey: maxIdle, Keys: maxUpstream,
		Close: func(u *upstream) error { return u.source.Close() }}}
}

// take returns a connection to a chunk server; with fresh a new one.
func (p *upstreams) take(ctx context.Context, address string, fresh bool) (*upstream, error) {
	if u, ok := p.idle.Take(address); ok {
		if !fresh {
			u.Reused = true
			return u, nil
		}
		u.source.Close()
	}
	conn, err := dataconn.Dial(ctx, address, p.path, dataconn.Options{ExtraBytes: usualExtra})
	if err != nil {
		return nil, err
	}
	u := &upstream{Conn: conn, address: address}
	u.Reader = lookAgain{u.TCPConn}
	if u.source, err = p.relay.NewSource(u.TCPConn); err != nil {
		conn.Close()
		return nil, err
	}
	return u, nil
}

// give takes a connection back. Whole says that all that was asked for was
// received.
func (p *upstreams) give(u *upstream, whole bool) {
	if !whole {
		u.source.Close()
		return
	}
	p.idle.Put(u.address, u)
}

func (p *upstreams) close() error { return p.idle.CloseAll() }

// missedTime is after what time to look for bytes that nobody was woken for.
const missedTime = 20 * time.Millisecond

// lookAgain reads what is not moved. On a connection that relay=sockmap has moved
// from, the kernel (6.18) may wake nobody for the bytes that have come: see
// mightBeMissed. So it looks again and again, until ReadTimeout is over.
type lookAgain struct{ conn *net.TCPConn }

func (l lookAgain) Read(p []byte) (n int, err error) {
	end := time.Now().Add(dataconn.ReadTimeout)
	defer l.conn.SetReadDeadline(end)
	for {
		l.conn.SetReadDeadline(time.Now().Add(missedTime))
		n, err = l.conn.Read(p)
		if !errors.Is(err, os.ErrDeadlineExceeded) || time.Now().After(end) {
			return n, err
		}
	}
}

// part is room for n bytes, less than a block, that are not moved. Most bodies
// begin and end with blocks, and need none.
func (u *upstream) part(n int64) []byte {
	if n > 0 && u.scratch == nil {
		u.scratch = make([]byte, wire.BlockSize)
	}
	return u.scratch[:n]
}
