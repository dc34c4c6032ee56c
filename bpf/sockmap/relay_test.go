package sockmap

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// hop is a relay between an upstream and a client: up writes to from, down reads
// what is written to to.
type hop struct {
	relay              *Relay
	up, from, to, down *net.TCPConn
}

func newHop(t testing.TB) *hop {
	t.Helper()
	requireRoot(t)
	relay, err := NewRelay()
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, relay.Close()) })
	return newHopOf(t, relay)
}

func newHopOf(t testing.TB, relay *Relay) *hop {
	t.Helper()
	l := listen(t, "127.0.0.1:0")
	h := &hop{relay: relay}
	h.from, h.up = connect(t, l, net.Dialer{})
	h.down, h.to = connect(t, l, net.Dialer{})
	return h
}

func (h *hop) counts(t testing.TB) RelayCounters {
	t.Helper()
	c, err := h.relay.Counters()
	require.NoError(t, err)
	return c
}

// move relays n bytes within ten seconds.
func (h *hop) move(n int) (int64, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return h.relay.Relay(ctx, h.from, h.to, int64(n))
}

func readExactly(t testing.TB, r io.Reader, n int) []byte {
	t.Helper()
	b := make([]byte, n)
	_, err := io.ReadFull(r, b)
	require.NoError(t, err)
	return b
}

// The body lies between a header and the next header, all in the queue before
// the transfer begins, and so in one buffer: its both ends are inside it.
func TestRelayExactlyTheBody(t *testing.T) {
	relay := newHop(t).relay
	moved := uint64(0)
	for _, size := range []int{1, 100, 4096, 65536, 300_000} {
		h := newHopOf(t, relay)
		header, body, next := []byte("header"), randomBytes(size), []byte("next header")
		go h.up.Write(append(append(append([]byte{}, header...), body...), next...))
		assert.Equal(t, header, readExactly(t, h.from, len(header)))
		_, err := h.to.Write([]byte("before "))
		require.NoError(t, err)
		n, err := h.move(size)
		require.NoError(t, err)
		assert.EqualValues(t, size, n)
		_, err = h.to.Write([]byte(" after"))
		require.NoError(t, err)
		got := readExactly(t, h.down, len("before ")+size+len(" after"))
		assert.True(t, bytes.Equal([]byte("before "+string(body)+" after"), got), size)
		assert.Equal(t, next, readExactly(t, h.from, len(next)))
		moved += uint64(size)
		assert.Equal(t, moved, h.counts(t).RedirectedBytes)
	}
}

// One stream of headers and bodies, written as the upstream likes, is taken
// apart again: headers by reading, bodies by relaying. Nothing is lost or doubled.
func TestRelayKeepsTheConnectionAlive(t *testing.T) {
	h := newHop(t)
	random := rand.New(rand.NewPCG(5, 6))
	var stream, bodies []byte
	var sizes []int
	for range 300 {
		size := 1 + random.IntN(1<<random.IntN(18))
		sizes = append(sizes, size)
		body := randomBytes(size)
		bodies = append(bodies, body...)
		stream = append(append(stream, binary.BigEndian.AppendUint32(nil, uint32(size))...), body...)
	}
	go func() {
		pieces := rand.New(rand.NewPCG(7, 8))
		for rest := stream; len(rest) > 0; {
			n := min(1+pieces.IntN(1<<pieces.IntN(19)), len(rest))
			if _, err := h.up.Write(rest[:n]); err != nil {
				return
			}
			rest = rest[n:]
			if pieces.IntN(4) == 0 {
				time.Sleep(time.Duration(pieces.IntN(500)) * time.Microsecond)
			}
		}
	}()
	got := make(chan []byte)
	go func() { got <- readExactly(t, h.down, len(bodies)) }()
	for _, want := range sizes {
		size := int(binary.BigEndian.Uint32(readExactly(t, h.from, 4)))
		require.Equal(t, want, size)
		moved, err := h.move(size)
		require.NoError(t, err)
		require.EqualValues(t, size, moved)
	}
	assert.True(t, bytes.Equal(bodies, <-got))
	assert.EqualValues(t, len(bodies), h.counts(t).RedirectedBytes)

	// Hazard 4: the connection's own reads and writes go on in both directions.
	_, err := h.from.Write([]byte("request"))
	require.NoError(t, err)
	assert.Equal(t, "request", string(readExactly(t, h.up, 7)))
	_, err = h.up.Write([]byte("answer"))
	require.NoError(t, err)
	assert.Equal(t, "answer", string(readExactly(t, h.from, 6)))
}

// Hazard 5: the kernel's stream parser refuses a message larger than the
// receive buffer, which may shrink below what is already queued.
func TestRelayWithAShrunkenReceiveBuffer(t *testing.T) {
	h := newHop(t)
	body := randomBytes(100_000)
	_, err := h.up.Write(body)
	require.NoError(t, err)
	require.NoError(t, h.from.SetReadBuffer(2048))
	moved, err := h.move(len(body))
	require.NoError(t, err)
	assert.EqualValues(t, len(body), moved)
	assert.True(t, bytes.Equal(body, readExactly(t, h.down, len(body))))
	assert.Greater(t, h.counts(t).RedirectedMessages, uint64(len(body)/5000), "messages fit the buffer")
}

// The kernel would queue without bound for a receiver that does not read.
func TestRelayBoundsWhatIsHeldForASlowReceiver(t *testing.T) {
	h := newHop(t)
	body := randomBytes(32 << 20)
	go h.up.Write(body)
	var moved int64
	moving := make(chan error, 1)
	go func() {
		var err error
		moved, err = h.move(len(body))
		moving <- err
	}()
	time.Sleep(300 * time.Millisecond)
	c := h.counts(t)
	t.Logf("nobody reads: %+v", c)
	received, err := unixQueued(h.down)
	require.NoError(t, err)
	assert.LessOrEqual(t, c.RedirectedBytes, uint64(HeldLimit+received), "held beyond what the receiver's TCP took")
	got := make([]byte, len(body))
	for read := 0; read < len(got); {
		n, err := h.down.Read(got[read:min(len(got), read+100_000)])
		require.NoError(t, err)
		read += n
		if read%7 == 0 {
			time.Sleep(time.Millisecond)
		}
	}
	require.NoError(t, <-moving)
	assert.EqualValues(t, len(body), moved)
	assert.True(t, bytes.Equal(body, got))
	t.Logf("all read: %+v", h.counts(t))
	assert.NotZero(t, h.counts(t).Refusals)
}

// What is as little as may be held is moved in one go, also behind other bytes
// that the receiver has not taken.
func TestRelayOfLittleIsNeverStopped(t *testing.T) {
	h := newHop(t)
	require.NoError(t, h.from.SetReadBuffer(4<<20))
	before, body := randomBytes(300_000), randomBytes(500_000)
	for range 5 {
		_, err := h.to.Write(before)
		require.NoError(t, err)
		_, err = h.up.Write(body)
		require.NoError(t, err)
		moved := make(chan error, 1)
		go func() { _, err := h.move(len(body)); moved <- err }()
		time.Sleep(20 * time.Millisecond)
		assert.True(t, bytes.Equal(append(before[:len(before):len(before)], body...), readExactly(t, h.down, len(before)+len(body))))
		require.NoError(t, <-moved)
	}
	assert.Zero(t, h.counts(t).Refusals)
}

// Of what has arrived already nothing more comes that would wake a transfer up
// that a slow receiver has stopped.
func TestRelayOfWhatHasArrivedIsResumed(t *testing.T) {
	h := newHop(t)
	require.NoError(t, h.from.SetReadBuffer(8<<20))
	body := randomBytes(HeldLimit + 200_000)
	for range 5 {
		_, err := h.up.Write(body)
		require.NoError(t, err)
		moved := make(chan error, 1)
		go func() { _, err := h.move(len(body)); moved <- err }()
		time.Sleep(20 * time.Millisecond)
		assert.True(t, bytes.Equal(body, readExactly(t, h.down, len(body))))
		require.NoError(t, <-moved)
	}
	assert.NotZero(t, h.counts(t).Refusals)
}

func unixQueued(conn *net.TCPConn) (n int, err error) {
	e, err := newEndpoint(conn)
	if err != nil {
		return 0, err
	}
	err = e.control("count queued bytes", func(fd int) (err error) {
		n, err = unix.IoctlGetInt(fd, unix.TIOCINQ)
		return err
	})
	return n, err
}

// What came before the upstream died is moved and counted, to the byte, so that
// the rest can come from elsewhere on the same connection.
func TestRelayFromAnUpstreamThatEndsEarly(t *testing.T) {
	for name, finish := range map[string]func(*hop){
		"close":       func(h *hop) { h.up.Close() },
		"half close":  func(h *hop) { h.up.CloseWrite() },
		"after begin": func(h *hop) { time.Sleep(20 * time.Millisecond); h.up.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			h := newHop(t)
			part, rest := randomBytes(100_000), []byte("from another replica")
			type result struct {
				moved int64
				err   error
			}
			results := make(chan result)
			go func() {
				moved, err := h.move(len(part) + len(rest))
				results <- result{moved, err}
			}()
			time.Sleep(10 * time.Millisecond)
			_, err := h.up.Write(part)
			require.NoError(t, err)
			finish(h)
			r := <-results
			require.ErrorIs(t, r.err, io.ErrUnexpectedEOF)
			assert.EqualValues(t, len(part), r.moved)
			_, err = h.to.Write(rest)
			require.NoError(t, err)
			got := readExactly(t, h.down, len(part)+len(rest))
			assert.True(t, bytes.Equal(append(part, rest...), got))
		})
	}
}

func TestRelayFromAnUpstreamThatIsReset(t *testing.T) {
	h := newHop(t)
	go func() {
		time.Sleep(20 * time.Millisecond)
		h.up.SetLinger(0)
		h.up.Close()
	}()
	_, err := h.move(1000)
	require.ErrorIs(t, err, unix.ECONNRESET)
}

// Hazard: with its last byte the upstream may end the connection.
func TestRelayWithTheEndOfTheConnection(t *testing.T) {
	relay := newHop(t).relay
	for range 20 {
		h := newHopOf(t, relay)
		body := randomBytes(50_000)
		go func() {
			h.up.Write(body)
			h.up.Close()
		}()
		moved, err := h.move(len(body))
		if errors.Is(err, ErrNotEstablished) { // the end came first: still all there to be read
			got := readExactly(t, h.from, len(body))
			assert.True(t, bytes.Equal(body, got))
			continue
		}
		require.NoError(t, err)
		assert.EqualValues(t, len(body), moved)
		assert.True(t, bytes.Equal(body, readExactly(t, h.down, len(body))))
		_, err = h.from.Read(make([]byte, 1))
		assert.ErrorIs(t, err, io.EOF)
	}
}

func TestRelayToAReceiverThatGoes(t *testing.T) {
	for name, leave := range map[string]func(*hop){
		"close": func(h *hop) { h.down.Close() },
		"reset": func(h *hop) { h.down.SetLinger(0); h.down.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			h := newHop(t)
			go func() {
				for {
					if _, err := h.up.Write(make([]byte, 100_000)); err != nil {
						return
					}
				}
			}()
			go func() {
				io.ReadFull(h.down, make([]byte, 1_000_000))
				leave(h)
			}()
			_, err := h.move(1 << 30)
			require.ErrorIs(t, err, ErrReceiverGone)
			h.up.Close()
		})
	}
}

func TestRelayIsCancelled(t *testing.T) {
	h := newHop(t)
	_, err := h.up.Write([]byte("part"))
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	_, err = h.relay.Relay(ctx, h.from, h.to, 1000)
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

func TestRelayRefusesAConnectionInUse(t *testing.T) {
	h := newHop(t)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { _, err := h.relay.Relay(ctx, h.from, h.to, 1000); done <- err }()
	time.Sleep(10 * time.Millisecond)
	_, err := h.relay.Relay(ctx, h.to, h.from, 1000)
	assert.ErrorIs(t, err, ErrBusy)
	cancel()
	assert.ErrorIs(t, <-done, context.Canceled)
}

// Both directions of the same two connections, one after the other.
func TestRelayBothDirections(t *testing.T) {
	h := newHop(t)
	back := &hop{relay: h.relay, up: h.down, from: h.to, to: h.from, down: h.up}
	for i := range 20 {
		for _, h := range []*hop{h, back} {
			body := randomBytes(1000 + 5000*i)
			go h.up.Write(body)
			_, err := h.move(len(body))
			require.NoError(t, err)
			assert.True(t, bytes.Equal(body, readExactly(t, h.down, len(body))))
		}
	}
}

func TestManyRelaysAtOnceLeaveNothing(t *testing.T) {
	requireRoot(t)
	relay, err := NewRelay()
	require.NoError(t, err)
	defer relay.Close()
	const hops, transfers = 32, 100
	var all sync.WaitGroup
	for range hops {
		h := newHopOf(t, relay)
		all.Go(func() {
			for i := range transfers {
				body := randomBytes(1 + i*i*7)
				all.Go(func() { h.up.Write(body) })
				got := make(chan []byte, 1)
				go func() {
					b := make([]byte, len(body))
					io.ReadFull(h.down, b)
					got <- b
				}()
				if _, err := h.move(len(body)); !assert.NoError(t, err) || !assert.True(t, bytes.Equal(body, <-got)) {
					return
				}
			}
			h.up.Close()
			h.from.Close()
			h.to.Close()
			h.down.Close()
		})
	}
	all.Wait()
	for name, m := range map[string]*ebpf.Map{"sources": relay.objects.Sources, "targets": relay.objects.Targets, "transfers": relay.objects.Transfers} {
		key, err := m.NextKeyBytes(nil)
		require.NoError(t, err)
		assert.Nil(t, key, "%s still holds an entry", name)
	}
}

// TestAnEndThatFindsTheRingFullIsNoticed has more transfers end than the ring has
// room for, before anybody reads it.
func TestAnEndThatFindsTheRingFullIsNoticed(t *testing.T) {
	requireRoot(t)
	const ring, record = 4096, 16 // bytes, of an event with its header
	const transfers = ring/record + 20
	relay, err := loadRelayWith(ring)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, relay.Close()) })
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var all errgroup.Group
	var hops []*hop
	for range transfers {
		h := newHopOf(t, relay)
		for _, conn := range []*net.TCPConn{h.up, h.from, h.to, h.down} {
			require.NoError(t, conn.SetDeadline(time.Time{})) // which would wake a waiter, too
		}
		hops = append(hops, h)
		all.Go(func() error {
			_, err := relay.Relay(ctx, h.from, h.to, 10)
			return err
		})
	}
	count := func(m *ebpf.Map, is func(value []byte) bool) (n int) {
		var key, value []byte
		for entries := m.Iterate(); entries.Next(&key, &value); {
			if is(value) {
				n++
			}
		}
		return n
	}
	require.Eventually(t, func() bool {
		return count(relay.objects.Awaited, func([]byte) bool { return true }) == transfers
	}, 30*time.Second, 5*time.Millisecond, "not all wait")
	for _, h := range hops {
		_, err := h.up.Write(make([]byte, 10))
		require.NoError(t, err)
	}
	require.Eventually(t, func() bool { return redirected(t, relay) == 10*transfers }, 30*time.Second, 5*time.Millisecond, "not all have ended")
	var missed uint64
	require.NoError(t, relay.objects.MissedEnds.Get(&missed))
	require.NotZero(t, missed)
	relay.reading.Go(relay.dispatch)
	require.NoError(t, all.Wait())
}

// redirected is how many bytes a relay has redirected.
func redirected(t *testing.T, relay *Relay) uint64 {
	c, err := relay.Counters()
	require.NoError(t, err)
	return c.RedirectedBytes
}

func TestWaitingForAReceiverIsLateByAPartOfItsStall(t *testing.T) {
	for _, stalled := range []time.Duration{0, time.Millisecond, 10 * time.Millisecond, 100 * time.Millisecond} {
		require.LessOrEqual(t, nextWait(stalled), max(stalled/lateBy, shortestWait), stalled)
	}
	require.Equal(t, longestWait, nextWait(time.Hour))
	require.Equal(t, shortestWait, nextWait(0))
}
