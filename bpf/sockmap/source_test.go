package sockmap

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// lasting is a hop whose connections stay with the relay.
type lasting struct {
	*hop
	source *Source
	target *Target
}

func newLasting(t testing.TB) *lasting {
	t.Helper()
	h := newHop(t)
	source, err := h.relay.NewSource(h.from)
	require.NoError(t, err)
	target, err := h.relay.NewTarget(h.to)
	require.NoError(t, err)
	return &lasting{h, source, target}
}

func (l *lasting) wait() (int64, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return l.source.Wait(ctx)
}

// answerHeader is 64 bytes: a mark, and the body's length.
func answerHeader(mark string, size int) []byte {
	return binary.LittleEndian.AppendUint64(append([]byte(mark), make([]byte, 48)...), uint64(size))
}

func expected(size int) Header {
	mask := make([]byte, 64)
	copy(mask, "\xff\xff\xff\xff\xff\xff\xff\xff")
	copy(mask[56:], mask[:8])
	return Header{Length: 64, Value: answerHeader("ANSWERED", size), Mask: mask}
}

// Every byte of a body is redirected, however the answer is cut into segments,
// and what surrounds it on either connection keeps its place.
func TestSourceMovesWholeAnswers(t *testing.T) {
	l := newLasting(t)
	random := rand.New(rand.NewPCG(9, 10))
	total := 0
	for range 300 {
		size := 1 + random.IntN(1<<random.IntN(19))
		total += size
		body := randomBytes(size)
		_, err := l.to.Write([]byte("before"))
		require.NoError(t, err)
		require.NoError(t, l.source.Begin(l.target, expected(size), int64(size)))
		answer := append(append(answerHeader("ANSWERED", size), body...), "behind"...)
		first := random.IntN(len(answer))
		go func() {
			l.up.Write(answer[:first])
			if first%3 == 0 {
				time.Sleep(200 * time.Microsecond)
			}
			l.up.Write(answer[first:])
		}()
		got := make(chan []byte, 1)
		go func() {
			b := make([]byte, 6+size)
			io.ReadFull(l.down, b)
			got <- b
		}()
		require.Equal(t, answer[:64], readExactly(t, l.from, 64))
		moved, err := l.wait()
		require.NoError(t, err)
		require.EqualValues(t, size, moved)
		require.True(t, bytes.Equal(append([]byte("before"), body...), <-got))
		require.Equal(t, "behind", string(readExactly(t, l.from, 6)))
		require.NoError(t, l.target.Settle(context.Background()))
		_, err = l.to.Write([]byte("after"))
		require.NoError(t, err)
		require.Equal(t, "after", string(readExactly(t, l.down, 5)))
		_, err = l.from.Write([]byte("request"))
		require.NoError(t, err)
		require.Equal(t, "request", string(readExactly(t, l.up, 7)))
	}
	assert.EqualValues(t, total, l.counts(t).RedirectedBytes)
}

// An answer other than the expected one, such as an error, is read as usual.
func TestSourceGivesBackAnUnexpectedAnswer(t *testing.T) {
	l := newLasting(t)
	for range 3 {
		require.NoError(t, l.source.Begin(l.target, expected(1000), 1000))
		answer := append(answerHeader("REFUSED!", 1000), "because"...)
		_, err := l.up.Write(answer[:10]) // less than what is checked
		require.NoError(t, err)
		time.Sleep(time.Millisecond)
		_, err = l.up.Write(answer[10:])
		require.NoError(t, err)
		assert.Equal(t, answer, readExactly(t, l.from, len(answer)))
		moved, err := l.wait()
		require.ErrorIs(t, err, ErrUnexpectedHeader)
		assert.Zero(t, moved)
	}
	assert.Zero(t, l.counts(t).RedirectedBytes)
}

// Wait returns once TCP has taken a body, which a receiver that does not read
// keeps it from, and so bounds what is held.
func TestSourceWithASlowReceiver(t *testing.T) {
	l := newLasting(t)
	body := randomBytes(MaxBody)
	const bodies = 16
	waited := make(chan error)
	go func() {
		for range bodies {
			if err := l.source.Begin(l.target, expected(len(body)), int64(len(body))); err != nil {
				waited <- err
				return
			}
			go l.up.Write(append(answerHeader("ANSWERED", len(body)), body...))
			io.ReadFull(l.from, make([]byte, 64))
			if _, err := l.wait(); err != nil {
				waited <- err
				return
			}
			if err := l.target.Settle(context.Background()); err != nil {
				waited <- err
				return
			}
		}
		waited <- nil
	}()
	time.Sleep(200 * time.Millisecond)
	received, err := unixQueued(l.down)
	require.NoError(t, err)
	written, err := l.target.end.written()
	require.NoError(t, err)
	held := l.counts(t).RedirectedBytes - written
	t.Logf("nobody reads: %d bytes received, %d sent or to be sent, %d held", received, int(written)-received, held)
	assert.LessOrEqual(t, held, uint64(MaxBody))
	for range bodies {
		assert.True(t, bytes.Equal(body, readExactly(t, l.down, len(body))))
	}
	require.NoError(t, <-waited)
}

func TestSourceEndsEarly(t *testing.T) {
	l := newLasting(t)
	require.NoError(t, l.source.Begin(l.target, Header{Length: 8}, 1000))
	_, err := l.up.Write(append([]byte("a header"), randomBytes(600)...))
	require.NoError(t, err)
	l.up.Close()
	readExactly(t, l.from, 8)
	moved, err := l.wait()
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	assert.EqualValues(t, 600, moved)
	assert.Equal(t, randomBytes(600), readExactly(t, l.down, 600))
}

func TestSourceToAReceiverThatGoes(t *testing.T) {
	l := newLasting(t)
	require.NoError(t, l.source.Begin(l.target, Header{}, MaxBody))
	go func() {
		for range 10 {
			l.up.Write(make([]byte, MaxBody/10))
			time.Sleep(5 * time.Millisecond)
		}
	}()
	go func() {
		io.ReadFull(l.down, make([]byte, 100_000))
		l.down.Close()
	}()
	_, err := l.wait()
	if err == nil { // the kernel had taken all of it
		err = l.target.Settle(t.Context())
	}
	require.ErrorIs(t, err, ErrReceiverGone)
	require.NoError(t, l.source.Close())
	require.NoError(t, l.target.Close())
}

func TestSourceChecksItsUse(t *testing.T) {
	l := newLasting(t)
	_, err := l.wait()
	assert.ErrorContains(t, err, "nothing was begun")
	assert.ErrorContains(t, l.source.Begin(l.target, Header{Length: 4, Value: make([]byte, 8), Mask: make([]byte, 8)}, 1), "4 bytes can't be checked")
	require.NoError(t, l.source.Begin(l.target, Header{}, 1))
	assert.ErrorIs(t, l.source.Begin(l.target, Header{}, 1), ErrBusy)
	_, err = l.relay.NewSource(l.from)
	assert.ErrorIs(t, err, ErrBusy)
	require.NoError(t, l.source.Close())
	require.NoError(t, l.target.Close())
}
