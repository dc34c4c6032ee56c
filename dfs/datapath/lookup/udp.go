package lookup

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"waggle/dfs/datapath"
	"waggle/dfs/wire"
)

// Counters of lookup=udp.
const (
	udpAnswers   = "lookup_udp_answers"
	udpMalformed = "lookup_udp_malformed_datagrams" // dropped
	udpUnsent    = "lookup_udp_unsent_answers"      // the kernel refused to send them
)

const (
	// batch is how many datagrams one system call receives or sends at most.
	batch = 32
	// socketBuffer holds the requests of a burst, in bytes; the kernel may
	// grant less.
	socketBuffer = 4 << 20
)

func init() { Paths.Register(udpPath{}) }

// udpPath answers in user space: recvmmsg, resolve, sendmmsg, on as many sockets
// as there are processors, which share the address through SO_REUSEPORT.
type udpPath struct{}

func (udpPath) About() datapath.Info {
	return datapath.Info{
		Operation: datapath.Lookup,
		Name:      "udp",
		Summary:   "answered in user space, in batches, on one SO_REUSEPORT socket a processor",
		Supported: func() error { return nil },
		Proof:     []string{udpAnswers},
	}
}

type udpServer struct {
	workers []*udpWorker
}

func (udpPath) Listen(ctx context.Context, address netip.AddrPort, options Options) (Server, error) {
	count := options.Workers
	if count == 0 {
		count = runtime.GOMAXPROCS(0)
	}
	s := &udpServer{}
	config := net.ListenConfig{Control: shareAddress}
	for range count {
		conn, err := config.ListenPacket(ctx, "udp", address.String())
		if err != nil {
			return nil, errors.Join(fmt.Errorf("listen for lookups: %w", err), s.Close())
		}
		udp := conn.(*net.UDPConn)
		s.workers = append(s.workers, newUDPWorker(udp, options.Counters))
		if err := errors.Join(udp.SetReadBuffer(socketBuffer), udp.SetWriteBuffer(socketBuffer)); err != nil {
			return nil, errors.Join(fmt.Errorf("listen for lookups: %w", err), s.Close())
		}
		address = s.Address() // the others share the port that the first one got
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
		failed = errors.Join(failed, w.conn.Close())
	}
	return failed
}

func (s *udpServer) Serve(ctx context.Context, resolver Resolver) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, w := range s.workers {
		group.Go(func() error { return w.serve(ctx, resolver) })
	}
	return errors.Join(group.Wait(), s.Close())
}

// udpWorker answers the datagrams of one socket.
type udpWorker struct {
	conn     *net.UDPConn
	batches  *ipv4.PacketConn // for IPv6 sockets too: it only wraps recvmmsg and sendmmsg
	requests []ipv4.Message
	answers  []ipv4.Message

	answered, malformed, unsent, copied *atomic.Int64
}

func newUDPWorker(conn *net.UDPConn, counters *datapath.Counters) *udpWorker {
	w := &udpWorker{
		conn:      conn,
		batches:   ipv4.NewPacketConn(conn),
		requests:  make([]ipv4.Message, batch),
		answers:   make([]ipv4.Message, batch),
		answered:  counters.Counter(udpAnswers),
		malformed: counters.Counter(udpMalformed),
		unsent:    counters.Counter(udpUnsent),
		copied:    counters.Counter(datapath.CopiedInUser),
	}
	for i := range batch {
		// One byte more than a request has, so that an oversized one is seen.
		w.requests[i].Buffers = [][]byte{make([]byte, wire.InlineRequestSize+1)}
		w.answers[i].Buffers = [][]byte{make([]byte, 0, wire.MaxAnswerSize)}
	}
	return w
}

func (w *udpWorker) serve(ctx context.Context, resolver Resolver) error {
	stop := context.AfterFunc(ctx, func() { w.conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	for {
		n, err := w.batches.ReadBatch(w.requests, 0)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("receive lookups: %w", err)
		}
		w.send(w.answers[:w.answer(w.requests[:n], resolver)])
	}
}

// answer makes the answers to a batch and returns how many there are.
func (w *udpWorker) answer(requests []ipv4.Message, resolver Resolver) (count int) {
	var q wire.LookupRequest
	var a wire.LookupAnswer
	for i := range requests {
		if q.Parse(requests[i].Buffers[0][:requests[i].N]) != nil {
			w.malformed.Add(1)
			continue
		}
		a = wire.LookupAnswer{Location: wire.Location{Replicas: a.Location.Replicas[:0]}}
		resolver.Resolve(&q, &a)
		a.ID = q.ID
		out := &w.answers[count]
		out.Buffers[0] = a.Append(out.Buffers[0][:0])
		out.Addr = requests[i].Addr
		w.copied.Add(int64(len(a.Inline)))
		count++
	}
	return count
}

// send sends answers. One that can't be sent is dropped, as the network might
// have dropped it: the client asks again.
func (w *udpWorker) send(answers []ipv4.Message) {
	for len(answers) > 0 {
		n, err := w.batches.WriteBatch(answers, 0)
		if err != nil {
			w.unsent.Add(1)
			n = 1
		} else {
			w.answered.Add(int64(n))
		}
		answers = answers[n:]
	}
}
