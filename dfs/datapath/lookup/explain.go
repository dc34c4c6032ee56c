package lookup

import (
	"context"
	"fmt"
	"net"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"

	"waggle/dfs/wire"
)

// Explanation says who answered a lookup, and how fast.
type Explanation struct {
	// InKernel: the answer was made by the XDP program of lookup=xdp. Its answers
	// start with a hop limit of 255, those that the stack sends with 64 by default.
	InKernel bool
	// Took is the time from sending the request that was answered to having its
	// answer.
	Took time.Duration
}

// leastKernelHops tells a hop limit that was 255 at its source from one that was
// 64, or 128 where an administrator has raised it.
const leastKernelHops = 129

// Explain is Lookup with a socket of its own, and says who answered.
func (t *Transport) Explain(ctx context.Context, q *wire.LookupRequest) (wire.LookupAnswer, Explanation, error) {
	s, err := t.dial()
	if err != nil {
		return wire.LookupAnswer{}, Explanation{}, err
	}
	defer s.conn.Close()
	w, err := newWitness(s.conn.(*net.UDPConn))
	if err != nil {
		return wire.LookupAnswer{}, Explanation{}, fmt.Errorf("ask for the hop limit of answers: %w", err)
	}
	s.conn = w
	stop := context.AfterFunc(ctx, func() { w.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	a, err := s.ask(ctx, q)
	if err != nil {
		return wire.LookupAnswer{}, Explanation{}, fmt.Errorf("look up at %s: %w", t.address, err)
	}
	return a, Explanation{InKernel: w.hops >= leastKernelHops, Took: w.took}, nil
}

// witness is a connection that remembers how its last datagram came.
type witness struct {
	*net.UDPConn
	read func(b []byte) (n, hops int, err error)
	sent time.Time
	took time.Duration
	hops int
}

func newWitness(conn *net.UDPConn) (*witness, error) {
	w := &witness{UDPConn: conn}
	if conn.RemoteAddr().(*net.UDPAddr).IP.To4() != nil {
		packets := ipv4.NewPacketConn(conn)
		w.read = func(b []byte) (int, int, error) {
			n, message, _, err := packets.ReadFrom(b)
			if err != nil || message == nil {
				return n, 0, err
			}
			return n, message.TTL, nil
		}
		return w, packets.SetControlMessage(ipv4.FlagTTL, true)
	}
	packets := ipv6.NewPacketConn(conn)
	w.read = func(b []byte) (int, int, error) {
		n, message, _, err := packets.ReadFrom(b)
		if err != nil || message == nil {
			return n, 0, err
		}
		return n, message.HopLimit, nil
	}
	return w, packets.SetControlMessage(ipv6.FlagHopLimit, true)
}

func (w *witness) Write(b []byte) (int, error) {
	w.sent = time.Now()
	return w.UDPConn.Write(b)
}

func (w *witness) Read(b []byte) (n int, err error) {
	n, w.hops, err = w.read(b)
	w.took = time.Since(w.sent)
	return n, err
}
