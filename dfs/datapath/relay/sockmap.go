package relay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"

	"waggle/bpf/sockmap"
	"waggle/dfs/datapath"
)

func init() { Paths.Register(sockmapPath{}) }

// sockmapPath has the kernel redirect the body where it arrives: this process
// never touches it.
type sockmapPath struct{}

func (sockmapPath) About() datapath.Info {
	return datapath.Info{
		Operation: datapath.Relay,
		Name:      "sockmap",
		Summary:   "an sk_skb program redirects exactly the body's bytes from one socket to the other",
		EBPF:      true,
		Supported: sockmap.RelaySupported,
		Proof:     []string{"relay_sockmap_redirected_bytes"},
		Stages:    through(datapath.Work{TCP: 1}),
		Watched:   []string{"relay_sockmap_copied_bytes"},
	}
}

func (sockmapPath) Open(counters *datapath.Counters) (Relay, error) {
	r, err := sockmap.NewRelay()
	if err != nil {
		return nil, fmt.Errorf("relay=sockmap: %w", err)
	}
	s := &sockmapRelay{relay: r, copied: counters.Counter("relay_sockmap_copied_bytes")}
	counters.AddSource(s.count)
	return s, nil
}

type sockmapRelay struct {
	relay  *sockmap.Relay
	copied *atomic.Int64 // by this process, because the kernel takes no connection that is half closed

	mu     sync.Mutex
	closed bool
	last   sockmap.RelayCounters
}

func (r *sockmapRelay) count(counts map[string]int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.closed {
		// The map is this process's own: reading it can't fail.
		r.last, _ = r.relay.Counters()
	}
	counts["relay_sockmap_redirected_bytes"] += int64(r.last.RedirectedBytes)
	counts["relay_sockmap_messages"] += int64(r.last.RedirectedMessages)
	counts["relay_sockmap_refusals"] += int64(r.last.Refusals)
}

func (r *sockmapRelay) NewSource(conn *net.TCPConn) (Source, error) {
	s, err := r.relay.NewSource(conn)
	if err != nil {
		return nil, err
	}
	return &sockmapSource{s}, nil
}

func (r *sockmapRelay) NewTarget(conn *net.TCPConn) (Target, error) {
	t, err := r.relay.NewTarget(conn)
	if err != nil {
		return nil, err
	}
	return sockmapTarget{t, conn}, nil
}

// Pass copies what a peer that has ended its side has sent before: the kernel
// refuses such a connection. It is no part of the proof.
func (r *sockmapRelay) Pass(ctx context.Context, from, to *net.TCPConn, n int64) (int64, error) {
	moved, err := r.relay.Relay(ctx, from, to, n)
	if errors.Is(err, sockmap.ErrNotEstablished) {
		return bounded(ctx, from, to, n, func() (int64, error) {
			moved, err := io.CopyN(struct{ io.Writer }{to}, struct{ io.Reader }{from}, n) // neither splices
			r.copied.Add(moved)
			return moved, err
		})
	}
	return moved, err
}

func (r *sockmapRelay) Close() error {
	r.count(make(map[string]int64))
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	return r.relay.Close()
}

type sockmapTarget struct {
	*sockmap.Target
	conn *net.TCPConn
}

func (t sockmapTarget) Write(ctx context.Context, p []byte) (int, error) {
	deadline, _ := ctx.Deadline()
	t.conn.SetWriteDeadline(deadline)
	return t.Target.Write(ctx, p)
}

type sockmapSource struct{ source *sockmap.Source }

func (s *sockmapSource) Begin(to Target, header Header, n int64) error {
	return s.source.Begin(to.(sockmapTarget).Target, header, n)
}

func (s *sockmapSource) Move(ctx context.Context) (int64, error) {
	moved, err := s.source.Wait(ctx)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = fmt.Errorf("%w: %w", ErrUpstream, err)
	}
	return moved, err
}

// Decline finds out that the program has seen the same header.
func (s *sockmapSource) Decline(ctx context.Context) error {
	_, err := s.source.Wait(ctx)
	if errors.Is(err, sockmap.ErrUnexpectedHeader) {
		return nil
	}
	if err == nil {
		err = errors.New("relay=sockmap: the body of an answer with an unexpected header was moved")
	}
	return err
}

func (s *sockmapSource) Close() error { return s.source.Close() }
