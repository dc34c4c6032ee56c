package sockmap

import (
	"bytes"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// takenPair is a connection over loopback that an Ingress takes.
func takenPair(t testing.TB, config Config) (in *Ingress, asker, answerer *net.TCPConn) {
	t.Helper()
	group := enterCgroup(t)
	l := listen(t, "127.0.0.1:0")
	config.Cgroup, config.Ports = group.Path(), []uint16{port(l)}
	in, err := NewIngress(config)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, in.Close()) })
	asker, answerer = connect(t, l, net.Dialer{})
	return in, asker, answerer
}

// control runs f with the connection's descriptor.
func control(t testing.TB, conn *net.TCPConn, f func(fd int)) {
	t.Helper()
	raw, err := conn.SyscallConn()
	require.NoError(t, err)
	require.NoError(t, raw.Control(func(fd uintptr) { f(int(fd)) }))
}

// Hazard 1: lost wake-ups under Go's netpoller.
func TestManySmallExchangesLoseNoWakeUp(t *testing.T) {
	for name, bothWays := range map[string]bool{"answers": false, "both ways": true} {
		t.Run(name, func(t *testing.T) {
			group := enterCgroup(t)
			l := listen(t, "127.0.0.1:0")
			in, err := NewIngress(Config{Cgroup: group.Path(), Ports: []uint16{port(l)}, BothWays: bothWays})
			require.NoError(t, err)
			defer in.Close()
			const connections, exchanges, size = 16, 2000, 100
			var all sync.WaitGroup
			for range connections {
				asker, answerer := connect(t, l, net.Dialer{})
				all.Go(func() { io.Copy(struct{ io.Writer }{answerer}, struct{ io.Reader }{answerer}) })
				all.Go(func() {
					defer asker.CloseWrite()
					sent, got := randomBytes(size), make([]byte, size)
					for i := range exchanges {
						sent[0] = byte(i)
						if _, err := asker.Write(sent); !assert.NoError(t, err) {
							return
						}
						if _, err := io.ReadFull(asker, got); !assert.NoError(t, err) || !assert.Equal(t, sent, got) {
							return
						}
					}
				})
			}
			all.Wait()
			c := counts(t, in)
			assert.EqualValues(t, connections*exchanges*size, c.Answers.RedirectedBytes)
			if bothWays {
				assert.EqualValues(t, connections*exchanges*size, c.Requests.RedirectedBytes+c.Requests.PassedBytes())
				t.Logf("requests: %+v", c.Requests)
			}
		})
	}
}

// Hazard 1: FIONREAD shows what was redirected only where the kernel counts it.
func TestQueueLengthOfRedirectedBytes(t *testing.T) {
	_, asker, answerer := takenPair(t, Config{})
	_, err := answerer.Write(make([]byte, 1000))
	require.NoError(t, err)
	control(t, asker, func(fd int) {
		n, err := unix.IoctlGetInt(fd, unix.TIOCINQ)
		require.NoError(t, err)
		t.Logf("FIONREAD says %d of 1000 redirected bytes", n)
		polled := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		ready, err := unix.Poll(polled, 0)
		require.NoError(t, err)
		assert.Equal(t, 1, ready, "redirected bytes make the socket readable")
	})
}

// Hazard 2: splice does not see redirected bytes, so a reader that splices waits
// for ever or reads nothing. ReadFrom of a TCPConn tries splice first.
func TestSpliceDoesNotSeeRedirectedBytes(t *testing.T) {
	_, asker, answerer := takenPair(t, Config{})
	_, err := answerer.Write(make([]byte, 1000))
	require.NoError(t, err)
	var pipe [2]int
	require.NoError(t, unix.Pipe2(pipe[:], unix.O_CLOEXEC))
	defer unix.Close(pipe[0])
	defer unix.Close(pipe[1])
	control(t, asker, func(fd int) {
		n, err := unix.Splice(fd, nil, pipe[1], nil, 1000, unix.SPLICE_F_NONBLOCK)
		t.Logf("splice: %d, %v", n, err)
		assert.LessOrEqual(t, n, int64(0))
	})
	got, err := asker.Read(make([]byte, 2000))
	require.NoError(t, err)
	assert.Equal(t, 1000, got)
}

// What is queued when the answerer closes its half, or all, is still read.
func TestHalfCloseWithRedirectedBytesQueued(t *testing.T) {
	for name, finish := range map[string]func(*net.TCPConn) error{
		"half": (*net.TCPConn).CloseWrite, "whole": (*net.TCPConn).Close,
	} {
		t.Run(name, func(t *testing.T) {
			_, asker, answerer := takenPair(t, Config{})
			answer := randomBytes(300_000)
			_, err := answerer.Write(answer)
			require.NoError(t, err)
			require.NoError(t, finish(answerer))
			time.Sleep(10 * time.Millisecond) // the FIN overtakes nothing
			got, err := io.ReadAll(struct{ io.Reader }{asker})
			require.NoError(t, err)
			assert.True(t, bytes.Equal(answer, got))
		})
	}
}

// After the asker closed its half, answers still arrive.
func TestAnswersAfterTheAskerClosedItsHalf(t *testing.T) {
	in, asker, answerer := takenPair(t, Config{})
	require.NoError(t, asker.CloseWrite())
	_, err := answerer.Read(make([]byte, 1))
	require.ErrorIs(t, err, io.EOF)
	_, err = answerer.Write([]byte("answer"))
	require.NoError(t, err)
	require.NoError(t, answerer.CloseWrite())
	got, err := io.ReadAll(struct{ io.Reader }{asker})
	require.NoError(t, err)
	assert.Equal(t, "answer", string(got))
	assert.EqualValues(t, 6, counts(t, in).Answers.RedirectedBytes)
}

// A reader that does not read bounds what the kernel queues for it, and gets
// every byte in order although some were redirected and some passed.
func TestSlowReaderBlocksTheSender(t *testing.T) {
	const limit = 256 << 10
	in, asker, answerer := takenPair(t, Config{QueueLimit: limit})
	answer := randomBytes(64 << 20)
	sent := make(chan error, 1)
	go func() {
		for rest := answer; len(rest) > 0; {
			n := min(50_000, len(rest))
			if _, err := answerer.Write(rest[:n]); err != nil {
				sent <- err
				return
			}
			rest = rest[n:]
		}
		sent <- nil
	}()
	time.Sleep(200 * time.Millisecond)
	c := counts(t, in)
	t.Logf("nobody reads: %+v", c.Answers)
	assert.LessOrEqual(t, c.Answers.RedirectedBytes, uint64(2*limit))
	select {
	case err := <-sent:
		t.Fatalf("the sender sent all of it (%v) to a reader that does not read", err)
	default:
	}
	got := make([]byte, len(answer))
	for read := 0; read < len(got); {
		n, err := asker.Read(got[read:min(len(got), read+70_000)])
		require.NoError(t, err)
		read += n
	}
	require.NoError(t, <-sent)
	assert.True(t, bytes.Equal(answer, got))
	c = counts(t, in)
	t.Logf("all read: %+v", c.Answers)
	assert.GreaterOrEqual(t, c.Answers.RedirectedBytes+c.Answers.PassedBytes(), uint64(len(answer)),
		"what TCP had no room for was given to it again")

	_, err := answerer.Write(answer[:1000])
	require.NoError(t, err)
	_, err = io.ReadFull(asker, got[:1000])
	require.NoError(t, err)
	assert.Equal(t, c.Answers.RedirectedBytes+1000, counts(t, in).Answers.RedirectedBytes,
		"once the reader has read all, it is redirected to again")
}

// A reader that falls behind and catches up again makes bytes go both ways in
// turn: they stay in order.
func TestRedirectedAndPassedBytesStayInOrder(t *testing.T) {
	in, asker, answerer := takenPair(t, Config{QueueLimit: 20_000})
	answer := randomBytes(8 << 20)
	var read atomic.Int64
	go func() {
		random := rand.New(rand.NewPCG(3, 4))
		for sent := 0; sent < len(answer); {
			n := min(1+random.IntN(30_000), len(answer)-sent)
			if _, err := answerer.Write(answer[sent : sent+n]); err != nil {
				return
			}
			sent += n
			for catchUp := random.IntN(6) == 0; catchUp && read.Load() < int64(sent) && t.Context().Err() == nil; {
				time.Sleep(50 * time.Microsecond)
			}
		}
	}()
	got := make([]byte, len(answer))
	random := rand.New(rand.NewPCG(1, 2))
	for n := 0; n < len(got); read.Store(int64(n)) {
		more, err := asker.Read(got[n:min(len(got), n+1+random.IntN(60_000))])
		require.NoError(t, err)
		n += more
	}
	assert.True(t, bytes.Equal(answer, got))
	c := counts(t, in).Answers
	t.Logf("%+v", c)
	assert.NotZero(t, c.PassedBytes())
	assert.Greater(t, c.RedirectedMessages, uint64(20))
}

// The programs stay with the sockets that they serve, so a connection outlives
// its Ingress: nothing is lost, and it goes on being redirected.
func TestConnectionsOutliveTheirIngress(t *testing.T) {
	group := enterCgroup(t)
	l := listen(t, "127.0.0.1:0")
	in, err := NewIngress(Config{Cgroup: group.Path(), Ports: []uint16{port(l)}, BothWays: true})
	require.NoError(t, err)
	programs, err := in.programs()
	require.NoError(t, err)
	asker, answerer := connect(t, l, net.Dialer{})
	_, err = answerer.Write([]byte("queued, "))
	require.NoError(t, err)
	require.NoError(t, in.Close())
	time.Sleep(50 * time.Millisecond) // maps are freed after a grace period
	_, err = answerer.Write([]byte("sent after"))
	require.NoError(t, err)
	got := make([]byte, 18)
	_, err = io.ReadFull(asker, got)
	require.NoError(t, err)
	assert.Equal(t, "queued, sent after", string(got))
	_, err = asker.Write([]byte("request"))
	require.NoError(t, err)
	_, err = io.ReadFull(answerer, got[:7])
	require.NoError(t, err)
	assert.Equal(t, "request", string(got[:7]))

	asker.Close()
	answerer.Close()
	assertUnloaded(t, programs) // the last socket takes them with it
}

// Hazard 4: reading redirected bytes leaves TCP's own position alone.
func TestRedirectedBytesDoNotMoveTCPsPosition(t *testing.T) {
	in, asker, answerer := takenPair(t, Config{})
	buf := make([]byte, 100_000)
	for range 10 {
		_, err := answerer.Write(buf)
		require.NoError(t, err)
		_, err = io.ReadFull(asker, buf)
		require.NoError(t, err)
	}
	assert.EqualValues(t, 10*len(buf), counts(t, in).Answers.RedirectedBytes,
		"a moved position would end the redirecting: it is compared before each message")
}

func TestAnswererGone(t *testing.T) {
	_, asker, answerer := takenPair(t, Config{})
	require.NoError(t, asker.Close())
	require.Eventually(t, func() bool {
		_, err := answerer.Write([]byte("to nobody"))
		return err != nil
	}, 5*time.Second, time.Millisecond)
}

// A page given to sendfile is copied into the redirected message: an overwrite
// after sendfile is not seen by the reader.
func TestSendfileIsCopied(t *testing.T) {
	in, asker, answerer := takenPair(t, Config{})
	path := filepath.Join(t.TempDir(), "replica")
	before := bytes.Repeat([]byte("before--"), 8192)
	require.NoError(t, os.WriteFile(path, before, 0o600))
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	require.NoError(t, err)
	defer f.Close()
	control(t, answerer, func(fd int) {
		n, err := unix.Sendfile(fd, int(f.Fd()), nil, len(before))
		require.NoError(t, err)
		require.Equal(t, len(before), n)
	})
	_, err = f.WriteAt(bytes.Repeat([]byte("after---"), 8192), 0)
	require.NoError(t, err)
	got := make([]byte, len(before))
	_, err = io.ReadFull(asker, got)
	require.NoError(t, err)
	assert.True(t, bytes.Equal(before, got))
	c := counts(t, in).Answers
	t.Logf("%+v", c)
	assert.EqualValues(t, len(before), c.RedirectedBytes)
}

func TestThousandConnectionsLeaveNothing(t *testing.T) {
	group := enterCgroup(t)
	l := listen(t, "127.0.0.1:0")
	in, err := NewIngress(Config{Cgroup: group.Path(), Ports: []uint16{port(l)}, MaxConnections: 64})
	require.NoError(t, err)
	defer in.Close()
	buf := make([]byte, 10)
	for i := range 1000 {
		conn, err := net.Dial("tcp", l.Addr().String())
		require.NoError(t, err)
		answerer, err := l.AcceptTCP()
		require.NoError(t, err)
		_, err = answerer.Write(buf)
		require.NoError(t, err)
		if i%2 == 0 { // every other is dropped with bytes unread
			_, err = io.ReadFull(conn, buf)
			require.NoError(t, err)
		}
		if i%3 == 0 { // and some with a reset
			answerer.SetLinger(0)
		}
		answerer.Close()
		conn.Close()
	}
	assert.Eventually(t, func() bool { n, err := in.Known(); return err == nil && n == 0 }, 5*time.Second, 10*time.Millisecond)
	assert.EqualValues(t, 10_000, counts(t, in).Answers.RedirectedBytes, "every connection found room in maps for 64 ends")
	for name, m := range map[string]interface{ NextKeyBytes(any) ([]byte, error) }{"askers": in.objects.Askers, "answerers": in.objects.Answerers} {
		key, err := m.NextKeyBytes(nil)
		require.NoError(t, err)
		assert.Nil(t, key, "%s still holds a socket", name)
	}
}

// An end that is not in this kernel, or not in the group, is served by TCP.
func TestConnectionsThatAreNotTaken(t *testing.T) {
	group := enterCgroup(t)
	l := listen(t, "127.0.0.1:0")
	in, err := NewIngress(Config{Cgroup: group.Path(), Ports: []uint16{port(l)}, Mark: 77})
	require.NoError(t, err)
	defer in.Close()
	exchange := func(dialer net.Dialer) bool {
		asker, answerer := connect(t, l, dialer)
		_, err := answerer.Write([]byte("answer"))
		require.NoError(t, err)
		_, err = io.ReadFull(asker, make([]byte, 6))
		require.NoError(t, err)
		joined, err := in.Joined(answerer)
		require.NoError(t, err)
		return joined
	}
	assert.False(t, exchange(net.Dialer{}), "without the mark")
	assert.Zero(t, counts(t, in))
	assert.True(t, exchange(net.Dialer{Control: Mark(77)}), "with the mark")
	assert.EqualValues(t, 6, counts(t, in).Answers.RedirectedBytes)

	require.NoError(t, moveProcess(group.parent, "0"))
	outside, err := net.Dial("tcp", l.Addr().String())
	require.NoError(t, err)
	defer outside.Close()
	answerer, err := l.AcceptTCP()
	require.NoError(t, err)
	defer answerer.Close()
	joined, err := in.Joined(answerer)
	require.NoError(t, err)
	assert.False(t, joined, "dialled from outside the group")
}
