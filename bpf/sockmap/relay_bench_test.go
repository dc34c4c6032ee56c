package sockmap

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

const benchHeader = 64 // bytes before each body, upstream and downstream

// relayer is a way to pass a body of n bytes on: settle is called before the
// client is written to, begin before the body is asked for, pass when the header
// before it has been read.
type relayer struct {
	name   string
	settle func(context.Context) error
	begin  func(n int) error
	pass   func(n int) error
}

// relayers are the ways from one connection of a gateway to another.
var relayers = []func(b *testing.B, r *Relay, from, to *net.TCPConn) relayer{
	func(b *testing.B, _ *Relay, from, to *net.TCPConn) relayer {
		buf := make([]byte, 128<<10)
		return relayer{"copy", settled, nothing, func(n int) error {
			_, err := io.CopyBuffer(struct{ io.Writer }{to}, io.LimitReader(from, int64(n)), buf)
			return err
		}}
	},
	func(b *testing.B, _ *Relay, from, to *net.TCPConn) relayer {
		return relayer{"splice", settled, nothing, func(n int) error {
			_, err := to.ReadFrom(&io.LimitedReader{R: from, N: int64(n)})
			return err
		}}
	},
	func(b *testing.B, r *Relay, from, to *net.TCPConn) relayer {
		return relayer{"sockmap-once", settled, nothing, func(n int) error {
			_, err := r.Relay(context.Background(), from, to, int64(n))
			return err
		}}
	},
	func(b *testing.B, r *Relay, from, to *net.TCPConn) relayer {
		source, err := r.NewSource(from)
		require.NoError(b, err)
		target, err := r.NewTarget(to)
		require.NoError(b, err)
		return relayer{"sockmap-lasting", target.Settle, func(n int) error {
			return source.Begin(target, Header{Length: benchHeader}, int64(n))
		}, func(int) error {
			_, err := source.Wait(context.Background())
			return err
		}}
	},
}

func nothing(int) error { return nil }

func settled(context.Context) error { return nil }

// route is a client, a gateway, and an upstream that answers each byte it is
// sent with a header and a part of a body.
type route struct {
	relayer
	down *net.TCPConn
	took time.Duration
	cpu  time.Duration
	gate atomic.Int64 // nanoseconds of CPU time of the gateway's thread
}

func newRoute(b *testing.B, relay *Relay, make func(*testing.B, *Relay, *net.TCPConn, *net.TCPConn) relayer, size, part int) *route {
	l := listen(b, "127.0.0.1:0")
	from, up := connect(b, l, net.Dialer{})
	down, to := connect(b, l, net.Dialer{})
	for _, conn := range []*net.TCPConn{from, up, down, to} {
		require.NoError(b, conn.SetDeadline(time.Time{}))
	}
	r := &route{relayer: make(b, relay, from, to), down: down}
	go serveParts(up, part)
	go func() {
		runtime.LockOSThread()
		start := threadCPU()
		for r.serve(from, to, size/part, part) == nil {
			r.gate.Store(threadCPU() - start)
		}
	}()
	return r
}

// threadCPU is the calling thread's CPU time in nanoseconds.
func threadCPU() int64 {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_THREAD, &u) != nil {
		return 0
	}
	return u.Utime.Nano() + u.Stime.Nano()
}

func serveParts(up *net.TCPConn, part int) {
	answer, request := randomBytes(benchHeader+part), make([]byte, 1)
	for {
		if _, err := io.ReadFull(up, request); err != nil {
			return
		}
		if _, err := up.Write(answer); err != nil {
			return
		}
	}
}

// serve answers one request of the client.
func (r *route) serve(from, to *net.TCPConn, parts, part int) error {
	header := make([]byte, benchHeader)
	if _, err := io.ReadFull(to, header[:1]); err != nil {
		return err
	}
	for i := range parts {
		if err := r.settle(context.Background()); err != nil {
			return err
		}
		if i == 0 {
			if _, err := to.Write(header); err != nil {
				return err
			}
		}
		if err := r.begin(part); err != nil {
			return err
		}
		if _, err := from.Write(header[:1]); err != nil {
			return err
		}
		if _, err := io.ReadFull(from, header); err != nil {
			return err
		}
		if err := r.pass(part); err != nil {
			return err
		}
	}
	return nil
}

func (r *route) fetch(b *testing.B, size, times int) {
	cpu, start := processCPU(b), time.Now()
	answer := make([]byte, benchHeader+size)
	for range times {
		_, err := r.down.Write([]byte{1})
		require.NoError(b, err)
		_, err = io.ReadFull(r.down, answer)
		require.NoError(b, err)
	}
	r.took += time.Since(start)
	r.cpu += processCPU(b) - cpu
}

// BenchmarkRelay compares ways through a gateway, in turns within one run. The
// CPU time is that of client, gateway and upstream together, and that of the
// gateway's thread; neither has what the kernel does on its own threads.
func BenchmarkRelay(b *testing.B) {
	for _, size := range []int{4 << 10, 64 << 10, 1 << 20, 16 << 20} {
		b.Run(fmt.Sprintf("size=%d", size), func(b *testing.B) { benchmarkRelay(b, size) })
	}
}

func benchmarkRelay(b *testing.B, size int) {
	requireRoot(b)
	relay, err := NewRelay()
	require.NoError(b, err)
	defer relay.Close()
	part := min(size, MaxBody)
	var routes []*route
	for _, make := range relayers {
		routes = append(routes, newRoute(b, relay, make, size, part))
	}
	times := max(1, 1<<20/size)
	for b.Loop() {
		for _, i := range rand.Perm(len(routes)) {
			routes[i].fetch(b, size, times)
		}
	}
	moved := float64(b.N * times * size)
	for _, r := range routes {
		b.ReportMetric(moved/r.took.Seconds()/1e6, r.name+"-MB/s")
		b.ReportMetric(r.cpu.Seconds()*1e9/moved, r.name+"-cpu-s/GB")
		b.ReportMetric(float64(r.gate.Load())/moved, r.name+"-gate-s/GB")
		b.ReportMetric(r.took.Seconds()*1e6/float64(b.N*times), r.name+"-us/body")
	}
	c, err := relay.Counters()
	require.NoError(b, err)
	require.EqualValues(b, 2*b.N*times*size, c.RedirectedBytes)
	b.ReportMetric(float64(c.Refusals), "sockmap-refusals")
	b.ReportMetric(0, "ns/op")
}
