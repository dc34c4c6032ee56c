package sockmap

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// sender is a way to get a file's first n bytes into a connection.
type sender struct {
	name string
	send func(conn *net.TCPConn, f *os.File, mapped, buf []byte) error
}

var senders = []sender{
	{"copy", func(conn *net.TCPConn, f *os.File, _, buf []byte) error {
		if _, err := f.ReadAt(buf, 0); err != nil {
			return err
		}
		_, err := conn.Write(buf)
		return err
	}},
	{"sendfile", func(conn *net.TCPConn, f *os.File, _, buf []byte) error {
		raw, err := conn.SyscallConn()
		if err != nil {
			return err
		}
		var offset int64
		var failed error
		err = raw.Write(func(fd uintptr) bool {
			for int(offset) < len(buf) {
				_, failed = unix.Sendfile(int(fd), int(f.Fd()), &offset, len(buf)-int(offset))
				if failed == unix.EAGAIN {
					return false
				}
				if failed != nil {
					return true
				}
			}
			return true
		})
		if err == nil {
			err = failed
		}
		return err
	}},
	{"mmap", func(conn *net.TCPConn, _ *os.File, mapped, buf []byte) error {
		_, err := conn.Write(mapped[:len(buf)])
		return err
	}},
}

// contender is one combination: its clients, and what they took so far.
type contender struct {
	name    string
	clients []*net.TCPConn
	took    time.Duration
	cpu     time.Duration
}

// round has every client read size bytes a few times.
func (c *contender) round(b *testing.B, size, times int) {
	cpu, start := processCPU(b), time.Now()
	var all sync.WaitGroup
	for _, conn := range c.clients {
		all.Go(func() {
			buf := make([]byte, size)
			for range times {
				if _, err := conn.Write([]byte{1}); err != nil {
					b.Error(err)
					return
				}
				if _, err := io.ReadFull(conn, buf); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	c.took += time.Since(start)
	c.cpu += processCPU(b) - cpu
}

func processCPU(b *testing.B) time.Duration {
	var u unix.Rusage
	require.NoError(b, unix.Getrusage(unix.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkRead compares ways to send a file over loopback, with TCP and with
// redirected answers. All take turns in one run, in random order: what disturbs
// the machine disturbs all alike. b.N counts rounds.
func BenchmarkRead(b *testing.B) {
	for _, size := range []int{4 << 10, 64 << 10, 1 << 20} {
		for _, clients := range []int{1, 4} {
			b.Run(fmt.Sprintf("size=%d/clients=%d", size, clients), func(b *testing.B) {
				benchmarkRead(b, size, clients)
			})
		}
	}
}

func benchmarkRead(b *testing.B, size, clients int) {
	group := enterCgroup(b)
	path := filepath.Join(b.TempDir(), "replica")
	require.NoError(b, os.WriteFile(path, randomBytes(size), 0o600))
	f, err := os.Open(path)
	require.NoError(b, err)
	defer f.Close()
	mapped, err := unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ, unix.MAP_SHARED)
	require.NoError(b, err)
	defer unix.Munmap(mapped)

	var contenders []*contender
	for _, transport := range []string{"tcp", "sockmap", "sockmap-both"} {
		l := listen(b, "127.0.0.1:0")
		if transport != "tcp" {
			in, err := NewIngress(Config{Cgroup: group.Path(), Ports: []uint16{port(l)}, BothWays: transport == "sockmap-both"})
			require.NoError(b, err)
			defer in.Close()
			defer func() {
				c, err := in.Counters()
				require.NoError(b, err)
				require.NotZero(b, c.Answers.RedirectedBytes)
				require.Zero(b, c.Answers.PassedBytes())
			}()
		}
		for _, s := range senders {
			c := &contender{name: transport + "+" + s.name}
			for range clients {
				asker, answerer := connect(b, l, net.Dialer{})
				require.NoError(b, asker.SetDeadline(time.Time{}))
				require.NoError(b, answerer.SetDeadline(time.Time{}))
				c.clients = append(c.clients, asker)
				go func() {
					buf := make([]byte, size)
					for {
						if _, err := io.ReadFull(answerer, buf[:1]); err != nil {
							return
						}
						if err := s.send(answerer, f, mapped, buf); err != nil {
							return
						}
					}
				}()
			}
			contenders = append(contenders, c)
		}
	}
	times := max(1, 2<<20/size/clients) // 2 MiB a round
	for b.Loop() {
		for _, i := range rand.Perm(len(contenders)) {
			contenders[i].round(b, size, times)
		}
	}
	moved := float64(b.N * times * clients * size)
	for _, c := range contenders {
		b.ReportMetric(moved/c.took.Seconds()/1e6, c.name+"-MB/s")
		b.ReportMetric(c.cpu.Seconds()*1e9/moved, c.name+"-cpu-s/GB")
		b.ReportMetric(c.took.Seconds()*1e6/float64(b.N*times), c.name+"-us/read")
	}
	b.ReportMetric(0, "ns/op")
}
