package read

import (
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"waggle/dfs/wire"
)

// BenchmarkPaths sends answers of 256 KiB, the largest that the client library
// asks for, with the send buffer that the kernel chooses and with a large one.
func BenchmarkPaths(b *testing.B) {
	const answer, buffer = 256 << 10, 4 << 20
	file, _, mapping := replica(b, 8<<20)
	for _, p := range Paths.All() {
		if p.About().Name == ShortCircuit {
			continue
		}
		if err := p.About().Supported(); err != nil {
			b.Logf("%s: %v", p.About(), err)
			continue
		}
		for _, large := range []bool{false, true} {
			b.Run(fmt.Sprintf("%s/large-buffer=%v", p.About().Name, large), func(b *testing.B) {
				site := open(b, p)
				server, client := site.connect(b)
				if large {
					raw, err := server.SyscallConn()
					require.NoError(b, err)
					require.NoError(b, raw.Control(func(fd uintptr) {
						require.NoError(b, unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, buffer/2))
					}))
				}
				sender := site.sender(b, server)
				defer sender.Close()
				b.SetBytes(answer)
				header := make([]byte, wire.HeaderSize)
				// A client library has no more than this many answers under way.
				ahead := make(chan struct{}, 8)
				done := make(chan error)
				b.ResetTimer()
				before := cpu(b)
				go func() {
					into := make([]byte, len(header)+answer)
					for range b.N {
						if _, err := io.ReadFull(client, into); err != nil {
							done <- err
							return
						}
						<-ahead
					}
					done <- nil
				}()
				for i := range b.N {
					ahead <- struct{}{}
					require.NoError(b, sender.Prepare(Range{File: file, Offset: int64(i%32) * answer, Length: answer, Mapping: mapping}))
					require.NoError(b, sender.Send(header))
				}
				require.NoError(b, <-done)
				b.ReportMetric((cpu(b)-before).Seconds()/(float64(b.N)*answer/1e9), "cpu-s/GB")
			})
		}
	}
}

// cpu is the processor time that this process has used.
func cpu(t testing.TB) time.Duration {
	var u unix.Rusage
	require.NoError(t, unix.Getrusage(unix.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
