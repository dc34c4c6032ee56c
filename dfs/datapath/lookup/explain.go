package lookup

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

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
	s, err := dial(t.address)
	if err != nil {
		return wire.LookupAnswer{}, Explanation{}, err
	}
	defer s.close()
	if s.witness, err = newWitness(s.fd); err != nil {
		return wire.LookupAnswer{}, Explanation{}, fmt.Errorf("ask for the hop limit of answers: %w", err)
	}
	a, err := s.ask(ctx, q)
	if err != nil {
		return wire.LookupAnswer{}, Explanation{}, fmt.Errorf("look up at %s: %w", t.address, err)
	}
	return a, Explanation{InKernel: s.witness.hops >= leastKernelHops, Took: s.witness.took}, nil
}

// witness remembers how a socket's last datagram came.
type witness struct {
	sent    time.Time
	took    time.Duration
	hops    int
	control [64]byte
}

// newWitness asks for the hop limit of what the socket receives.
func newWitness(fd int) (*witness, error) {
	family, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return nil, os.NewSyscallError("getsockopt", err)
	}
	level, option := unix.IPPROTO_IP, unix.IP_RECVTTL
	if family == unix.AF_INET6 {
		level, option = unix.IPPROTO_IPV6, unix.IPV6_RECVHOPLIMIT
	}
	return new(witness), os.NewSyscallError("setsockopt", unix.SetsockoptInt(fd, level, option, 1))
}

func (w *witness) receive(fd int, b []byte) (int, error) {
	n, size, _, _, err := unix.Recvmsg(fd, b, w.control[:], 0)
	if err != nil {
		return 0, err
	}
	w.took = time.Since(w.sent)
	w.hops, err = hopLimit(w.control[:size])
	return n, err
}

// hopLimit finds the hop limit that a datagram came with, 0 if it was not told.
func hopLimit(control []byte) (int, error) {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return 0, err
	}
	for _, m := range messages {
		level, kind := m.Header.Level, m.Header.Type
		if level == unix.IPPROTO_IP && kind == unix.IP_TTL || level == unix.IPPROTO_IPV6 && kind == unix.IPV6_HOPLIMIT {
			return int(binary.NativeEndian.Uint32(m.Data)), nil
		}
	}
	return 0, nil
}
