package gateway

import (
	"context"
	"time"

	"golang.org/x/sys/unix"
)

// pace is how a client takes and sends bytes, as far as the kernel tells.
type pace struct {
	moved uint64 // bytes that it has sent, and acknowledged, ever
	// quiet is since when nothing has moved, though it is the client's turn.
	quiet time.Time
	// taking is since when there has always been something for the client to take,
	// and taken how much it had taken before; zero if there is nothing.
	taking time.Time
	taken  uint64
	due    time.Time // by when it must have taken more, at the least rate
}

// looks is how often a client is looked at in the time that it has.
const looks = 20

// watch ends the connections of clients that take too little of what is there for
// them. The time limit of a body can't see that: it grows with its length, and the
// kernel may move the body without the gateway. Clients that send too little are
// found by those who wait for them, and answered.
func (g *Gateway) watch(ctx context.Context) {
	ticker := time.NewTicker(max(g.config.Grace/looks, time.Millisecond))
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			g.lookAtAll()
		}
	}
}

func (g *Gateway) lookAtAll() {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	for c := range g.connections {
		if c.look(now) && c.pace.isTooSlow(now, &g.config) {
			g.warn("client takes too little", "client", c.RemoteAddr(), "quiet", now.Sub(c.pace.quiet).Round(time.Millisecond))
			g.counts.stalled.Add(1)
			g.end(c)
		}
	}
}

// look updates the pace. It returns whether there is something for the client to
// take.
func (c *connection) look(now time.Time) (pending bool) {
	raw, err := c.SyscallConn()
	if err != nil {
		return false // closed just now
	}
	var info *unix.TCPInfo
	if raw.Control(func(fd uintptr) { info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) }) != nil || err != nil {
		return false
	}
	pending = info.Unacked > 0 || info.Notsent_bytes > 0
	moved := info.Bytes_received + info.Bytes_acked
	p := &c.pace
	if moved != p.moved || !pending && !c.waits.Load() {
		p.moved, p.quiet = moved, now
	}
	switch {
	case !pending:
		p.taking = time.Time{}
	case p.taking.IsZero():
		p.taking, p.taken = now, info.Bytes_acked
	}
	if pending {
		p.due = p.taking.Add(c.gateway.config.bodyTime(int64(info.Bytes_acked - p.taken)))
	}
	return pending
}

// isTooSlow says whether a client that has something to take has taken nothing for
// too long, or less than the least rate.
func (p *pace) isTooSlow(now time.Time, config *Config) bool {
	return now.Sub(p.quiet) > config.Grace || now.After(p.due)
}

// end ends a connection at once, for nothing that was for the client is to wait in
// the kernel. Whoever uses it closes the rest. g.mu is held.
func (g *Gateway) end(c *connection) {
	delete(g.connections, c)
	if cancel := c.body.Load(); cancel != nil {
		(*cancel)()
	}
	c.SetLinger(0)
	c.TCPConn.Close()
}

// makeRoom ends the connection that has been quiet longest, whether its client takes
// nothing, sends nothing, or asks for nothing, if that is long enough to call it
// quiet. So those who only hold connections don't keep others out. g.mu is held.
func (g *Gateway) makeRoom() bool {
	now := time.Now()
	var longest *connection
	for c := range g.connections {
		pending := c.look(now)
		if (pending || c.waits.Load()) && (longest == nil || c.pace.quiet.Before(longest.pace.quiet)) {
			longest = c
		}
	}
	if longest == nil || now.Sub(longest.pace.quiet) < g.config.Grace/quietShare {
		return false
	}
	g.counts.evicted.Add(1)
	g.end(longest)
	return true
}

// quietShare is the part of the time that a client has after which its connection
// may be given to another.
const quietShare = 10
