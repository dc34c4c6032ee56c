package gateway

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"time"

	"waggle/dfs/client"
	"waggle/dfs/datapath/relay"
	"waggle/dfs/tcp"
	"waggle/dfs/wire"
)

const (
	dialTime    = 3 * time.Second
	answerTime  = 10 * time.Second // for an answer to begin
	idleTime    = 30 * time.Second // after which a connection is closed
	avoidTime   = 5 * time.Second  // for which a server that failed is asked last
	maxIdle     = 64               // connections to one server
	maxUpstream = 4096             // servers that are remembered
)

// upstreams keeps connections to chunk servers whose answers can be relayed.
type upstreams struct {
	relay relay.Relay
	path  string // "read=copy"

	mu      sync.Mutex
	idle    map[string][]*upstream // by address; the last was used last
	avoided map[string]time.Time   // address: until when
	closed  bool
}

// usualExtra is as many bytes as the checksums of the longest body take. A
// connection keeps no more than that, as there may be a thousand in use; for a
// longer answer memory is made.
const usualExtra = 4 * (relay.MaxBody/wire.BlockSize + 1)

// upstream is a connection to a chunk server, used by one goroutine at a time.
type upstream struct {
	conn     *net.TCPConn
	source   relay.Source
	address  string
	reused   bool // its server may have closed it while it was idle
	idleFrom time.Time

	lastHeader int64 // length of the header of the last answer that was relayed

	lastID  uint64
	out     []byte
	extra   []byte
	scratch []byte // for parts of blocks
}

func newUpstreams(r relay.Relay, readPath string) *upstreams {
	return &upstreams{relay: r, path: "read=" + readPath, idle: make(map[string][]*upstream), avoided: make(map[string]time.Time)}
}

// take returns a connection to a chunk server; with fresh a new one.
func (p *upstreams) take(ctx context.Context, address string, fresh bool) (*upstream, error) {
	if u := p.takeIdle(address); u != nil {
		if !fresh {
			return u, nil
		}
		u.source.Close()
	}
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	conn, err := tcp.Dial(ctx, address, 0)
	if err != nil {
		return nil, fmt.Errorf("connect to chunk server %s: %w", address, err)
	}
	u := &upstream{conn: conn, address: address, lastID: rand.Uint64(), extra: make([]byte, usualExtra)}
	if err := u.choose(p.path); err != nil {
		conn.Close()
		return nil, fmt.Errorf("choose %s at chunk server %s: %w", p.path, address, err)
	}
	if u.source, err = p.relay.NewSource(u.conn); err != nil {
		conn.Close()
		return nil, err
	}
	return u, nil
}

func (p *upstreams) takeIdle(address string) *upstream {
	p.mu.Lock()
	defer p.mu.Unlock()
	for list := p.idle[address]; len(list) > 0; list = p.idle[address] {
		u := list[len(list)-1]
		p.idle[address] = list[:len(list)-1]
		if time.Since(u.idleFrom) < idleTime {
			u.reused = true
			return u
		}
		u.source.Close()
	}
	delete(p.idle, address)
	return nil
}

// give takes a connection back. Whole says that all that was asked for was
// received.
func (p *upstreams) give(u *upstream, whole bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !whole || p.closed || len(p.idle[u.address]) >= maxIdle || p.idle[u.address] == nil && len(p.idle) >= maxUpstream {
		u.source.Close()
		return
	}
	u.idleFrom = time.Now()
	p.idle[u.address] = append(p.idle[u.address], u)
}

// avoid notes that a server has failed.
func (p *upstreams) avoid(address string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.avoided) >= maxUpstream {
		clear(p.avoided)
	}
	p.avoided[address] = time.Now().Add(avoidTime)
}

// order returns a chunk's replicas in the order in which to try them: at random,
// to spread the load, those that have failed lately last.
func (p *upstreams) order(replicas []wire.Replica) []wire.Replica {
	p.mu.Lock()
	defer p.mu.Unlock()
	var good, bad []wire.Replica
	for _, i := range rand.Perm(len(replicas)) {
		if p.avoided[replicas[i].Address.String()].After(time.Now()) {
			bad = append(bad, replicas[i])
		} else {
			good = append(good, replicas[i])
		}
	}
	return append(good, bad...)
}

func (p *upstreams) close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	var failed error
	for _, list := range p.idle {
		for _, u := range list {
			failed = errors.Join(failed, u.source.Close())
		}
	}
	p.idle = nil
	return failed
}

// choose selects the chunk server's side of a new connection.
func (u *upstream) choose(path string) error {
	u.conn.SetDeadline(time.Now().Add(answerTime))
	ask := wire.Frame{Type: wire.FrameSelect, Extra: []byte(path)}
	if err := u.ask(&ask); err != nil {
		return err
	}
	var got wire.Frame
	if err := u.answer(&ask, &got); err != nil {
		return err
	}
	if got.Status == wire.StatusUnsupported {
		return fmt.Errorf("%w: %s", client.ErrUnsupported, got.Extra)
	}
	return statusError(&got)
}

// ask sends a frame, whose ID it chooses.
func (u *upstream) ask(f *wire.Frame) error {
	u.lastID++
	f.ID = u.lastID
	return u.send(f)
}

func (u *upstream) send(f *wire.Frame) error {
	u.out = f.Append(u.out[:0])
	_, err := u.conn.Write(u.out)
	return err
}

// missedTime is after what time to look for bytes that nobody was woken for.
const missedTime = 20 * time.Millisecond

// Read reads what is not moved. On a connection that relay=sockmap has moved from,
// the kernel (6.18) may wake nobody for the bytes that have come: see mightBeMissed.
// So it looks again and again, until answerTime is over.
func (u *upstream) Read(p []byte) (n int, err error) {
	end := time.Now().Add(answerTime)
	defer u.conn.SetReadDeadline(end)
	for {
		u.conn.SetReadDeadline(time.Now().Add(missedTime))
		n, err = u.conn.Read(p)
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

// answer receives the header of the answer to asked.
func (u *upstream) answer(asked, got *wire.Frame) error {
	if err := got.Receive(u, u.extra); err != nil {
		return err
	}
	if got.ID != asked.ID || got.Type != asked.Type || got.Flags&wire.FlagAnswer == 0 {
		return fmt.Errorf("%w: answer %d of type %d to frame %d of type %d", wire.ErrMalformed, got.ID, got.Type, asked.ID, asked.Type)
	}
	return nil
}

// answeredError is what a chunk server answered instead of data.
type answeredError struct {
	status wire.Status
	text   string
}

func (e *answeredError) Error() string {
	return fmt.Sprintf("chunk server answered with status %d: %s", e.status, e.text)
}

func statusError(f *wire.Frame) error {
	if f.Status == wire.StatusOK {
		return nil
	}
	return &answeredError{f.Status, string(f.Extra)}
}
