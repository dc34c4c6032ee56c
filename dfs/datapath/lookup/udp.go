package lookup

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"waggle/dfs/datapath"
	"waggle/dfs/wire"
)

// socketBuffer holds the requests of a burst, in bytes; the kernel may grant less.
const socketBuffer = 4 << 20

func init() { Paths.Register(plainUDP) }

// plainUDP is the path that the others are measured against.
var plainUDP = udpPath{
	name:    "udp",
	summary: "answered in user space, a datagram a system call, on one SO_REUSEPORT socket a processor",
	workers: runtime.GOMAXPROCS,
	serve:   (*udpWorker).serveOneByOne,
	calls:   4.5,
}

// udpPath answers in user space, on sockets that share an address through
// SO_REUSEPORT. Its variants differ in how they receive and send.
type udpPath struct {
	name, summary string
	// workers says how many sockets there are by default, as runtime.GOMAXPROCS
	// is called: with 0.
	workers func(int) int
	serve   func(*udpWorker, context.Context, Resolver) error
	polls   bool
	// calls is how many system calls a lookup takes at low load.
	calls float64
}

// counter returns the name of one of the path's counters.
func (p udpPath) counter(what string) string {
	return "lookup_" + strings.ReplaceAll(p.name, "-", "_") + "_" + what
}

func (p udpPath) About() datapath.Info {
	return datapath.Info{
		Operation: datapath.Lookup,
		Name:      p.name,
		Summary:   p.summary,
		Polls:     p.polls,
		Supported: func() error { return nil },
		Proof:     []string{p.counter("answers")},
		Stages:    inUserSpace(p.calls),
	}
}

type udpServer struct {
	path    udpPath
	workers []*udpWorker
}

func (p udpPath) Listen(ctx context.Context, address netip.AddrPort, options Options) (Server, error) {
	count := options.Workers
	if count == 0 {
		count = p.workers(0)
	}
	s := &udpServer{path: p}
	config := net.ListenConfig{Control: shareAddress}
	for range count {
		conn, err := config.ListenPacket(ctx, "udp", address.String())
		if err != nil {
			return nil, errors.Join(fmt.Errorf("listen for lookups: %w", err), s.Close())
		}
		udp := conn.(*net.UDPConn)
		s.workers = append(s.workers, &udpWorker{
			conn:      udp,
			answered:  options.Counters.Counter(p.counter("answers")),
			malformed: options.Counters.Counter(p.counter("malformed_datagrams")),
			unsent:    options.Counters.Counter(p.counter("unsent_answers")),
			copied:    options.Counters.Counter(datapath.CopiedInUser),
		})
		err = errors.Join(udp.SetReadBuffer(socketBuffer), udp.SetWriteBuffer(socketBuffer))
		if address.Addr().IsUnspecified() {
			s.workers[len(s.workers)-1].source = make([]byte, sourceSize)
			err = errors.Join(err, wantDestinations(udp))
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("listen for lookups: %w", err), s.Close())
		}
		address = s.Address() // the others share the port that the first one got
	}
	if err := awaitSilence(ctx, s.Address()); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func shareAddress(_, _ string, raw syscall.RawConn) error {
	var failed error
	err := raw.Control(func(fd uintptr) {
		failed = os.NewSyscallError("setsockopt SO_REUSEPORT", unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1))
	})
	return errors.Join(err, failed)
}

func (s *udpServer) Address() netip.AddrPort {
	address := s.workers[0].conn.LocalAddr().(*net.UDPAddr).AddrPort()
	return netip.AddrPortFrom(address.Addr().Unmap(), address.Port())
}

// Tables implements Server: every answer is the Resolver's.
func (s *udpServer) Tables() *Tables { return nil }

func (s *udpServer) Close() error {
	var failed error
	for _, w := range s.workers {
		// A path that takes the socket from the poller has closed conn.
		if err := w.conn.Close(); !errors.Is(err, net.ErrClosed) {
			failed = errors.Join(failed, err)
		}
	}
	return failed
}

func (s *udpServer) Serve(ctx context.Context, resolver Resolver) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, w := range s.workers {
		group.Go(func() error {
			stop := context.AfterFunc(ctx, func() { w.conn.SetReadDeadline(time.Unix(1, 0)) })
			defer stop()
			err := s.path.serve(w, ctx, resolver)
			if ctx.Err() != nil {
				return nil
			}
			return err
		})
	}
	return errors.Join(group.Wait(), s.Close())
}

// udpWorker answers the datagrams of one socket.
type udpWorker struct {
	conn *net.UDPConn
	// source has room for where a request went, if the socket listens at all
	// addresses; otherwise it is empty.
	source []byte

	q wire.LookupRequest
	a wire.LookupAnswer

	answered  *atomic.Int64
	malformed *atomic.Int64 // dropped
	unsent    *atomic.Int64 // the kernel refused to send them
	copied    *atomic.Int64
}

// answer appends the answer to a request's datagram to out. There is none to a
// datagram that is no request.
func (w *udpWorker) answer(request, out []byte, resolver Resolver) (answer []byte, ok bool) {
	if w.q.Parse(request) != nil {
		w.malformed.Add(1)
		return out, false
	}
	w.a = wire.LookupAnswer{Location: wire.Location{Replicas: w.a.Location.Replicas[:0]}}
	resolver.Resolve(&w.q, &w.a)
	w.a.ID = w.q.ID
	w.copied.Add(int64(len(w.a.Inline)))
	return w.a.Append(out), true
}

// serveOneByOne answers one datagram after another, until the read deadline. An
// answer that can't be sent is dropped, as the network might have dropped it: the
// client asks again.
func (w *udpWorker) serveOneByOne(_ context.Context, resolver Resolver) error {
	// One byte more than a request has, so that an oversized one is seen.
	request, answer := make([]byte, wire.InlineRequestSize+1), make([]byte, 0, wire.MaxAnswerSize)
	for {
		n, from, source, err := w.receive(request)
		if err != nil {
			return fmt.Errorf("receive lookups: %w", err)
		}
		var ok bool
		if answer, ok = w.answer(request[:n], answer[:0], resolver); !ok {
			continue
		}
		if err := w.send(answer, from, source); err != nil {
			w.unsent.Add(1)
		} else {
			w.answered.Add(1)
		}
	}
}

// receive takes a datagram, and what an answer needs to come from where it went.
func (w *udpWorker) receive(request []byte) (n int, from netip.AddrPort, source []byte, err error) {
	if len(w.source) == 0 {
		n, from, err = w.conn.ReadFromUDPAddrPort(request)
		return n, from, nil, err
	}
	n, size, _, from, err := w.conn.ReadMsgUDPAddrPort(request, w.source)
	asSource(w.source[:size])
	return n, from, w.source[:size], err
}

func (w *udpWorker) send(answer []byte, to netip.AddrPort, source []byte) (err error) {
	if len(source) == 0 {
		_, err = w.conn.WriteToUDPAddrPort(answer, to)
	} else {
		_, _, err = w.conn.WriteMsgUDPAddrPort(answer, source, to)
	}
	return err
}
