package dataconn

import (
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"waggle/dfs/datapath"
	"waggle/dfs/wire"
)

// serve answers the frames of one connection, one after another, each by its own
// function; then it closes the connection.
func serve(t *testing.T, answers ...func(*wire.Frame)) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { listener.Close() })
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		for _, answer := range answers {
			var f wire.Frame
			if f.Receive(conn, nil) != nil {
				return
			}
			f.Flags |= wire.FlagAnswer
			answer(&f)
			conn.Write(f.Append(nil))
		}
	}()
	return listener.Addr().String()
}

func greet(words string) func(*wire.Frame) {
	return func(f *wire.Frame) { f.Extra = []byte(words) }
}

func refuse(s wire.Status) func(*wire.Frame) {
	return func(f *wire.Frame) { f.Status, f.Extra = s, []byte("because") }
}

func TestPathIsSelectedAndGreets(t *testing.T) {
	c, err := Dial(t.Context(), serve(t, greet("hello")), "read=copy", Options{})
	require.NoError(t, err)
	defer c.Close()
	assert.Equal(t, "hello", c.Greeting)
}

func TestRefusedPathIsUnsupported(t *testing.T) {
	_, err := Dial(t.Context(), serve(t, refuse(wire.StatusUnsupported)), "read=sendfile", Options{})
	assert.ErrorIs(t, err, datapath.ErrUnsupported)
	assert.ErrorContains(t, err, "read=sendfile")
}

func TestServerThatDoesNotAnswerIsGivenUp(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	_, err = Dial(t.Context(), listener.Addr().String(), "read=copy", Options{Timeout: 20 * time.Millisecond})
	assert.Error(t, err)
}

func TestAnswerToAnotherFrameIsMalformed(t *testing.T) {
	for name, change := range map[string]func(*wire.Frame){
		"number": func(f *wire.Frame) { f.ID++ },
		"type":   func(f *wire.Frame) { f.Type = wire.FrameSync },
		"flag":   func(f *wire.Frame) { f.Flags &^= wire.FlagAnswer },
	} {
		c, err := Dial(t.Context(), serve(t, change), "", Options{})
		require.NoError(t, err)
		asked := wire.Frame{Type: wire.FrameRead}
		require.NoError(t, c.Ask(&asked))
		var answer wire.Frame
		assert.ErrorIs(t, c.Answer(&asked, &answer), wire.ErrMalformed, name)
		c.Close()
	}
}

func TestStatusesAreErrorsOfTheirKind(t *testing.T) {
	assert.NoError(t, AnswerError(&wire.Frame{}))
	assert.ErrorIs(t, AnswerError(&wire.Frame{Status: wire.StatusNoSpace}), syscall.ENOSPC)
	assert.ErrorIs(t, AnswerError(&wire.Frame{Status: wire.StatusIO}), syscall.EIO)
	assert.ErrorIs(t, AnswerError(&wire.Frame{Status: wire.StatusUnsupported}), datapath.ErrUnsupported)
	err := AnswerError(&wire.Frame{Status: wire.StatusStaleEpoch, Extra: []byte("it is 3")})
	assert.EqualError(t, err, "wrong epoch: it is 3")
	assert.Equal(t, wire.StatusStaleEpoch, StatusOf(err))
	assert.Equal(t, wire.StatusOK, StatusOf(net.ErrClosed))
	assert.EqualError(t, AnswerError(&wire.Frame{Status: 99}), "answered with status 99")
}

func TestConnectionThatWasClosedIsNotQuiet(t *testing.T) {
	c, err := Dial(t.Context(), serve(t, greet("")), "read=copy", Options{})
	require.NoError(t, err)
	defer c.Close()
	assert.Eventually(t, func() bool { return !c.Quiet() }, 10*time.Second, time.Millisecond, "its server has closed it")

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	open, err := Dial(t.Context(), listener.Addr().String(), "", Options{})
	require.NoError(t, err)
	defer open.Close()
	assert.True(t, open.Quiet())
}

// closing is a connection that notes that it was closed.
type closing struct{ closed bool }

func TestIdleConnectionsAreKeptWithinLimits(t *testing.T) {
	idle := Idle[string, *closing]{PerKey: 2, Keys: 1, Close: func(c *closing) error { c.closed = true; return nil }}
	a, b, c, d := new(closing), new(closing), new(closing), new(closing)
	idle.Put("x", a)
	idle.Put("x", b)
	idle.Put("x", c) // one too many
	idle.Put("y", d) // one key too many
	assert.Equal(t, []bool{false, false, true, true}, []bool{a.closed, b.closed, c.closed, d.closed})
	got, ok := idle.Take("x")
	require.True(t, ok)
	assert.Same(t, b, got, "the one used last comes first")
	_, ok = idle.Take("y")
	assert.False(t, ok)

	idle.lists["x"][0].since = time.Now().Add(-IdleTimeout)
	_, ok = idle.Take("x")
	assert.False(t, ok, "it is too old")
	assert.True(t, a.closed)

	idle.Put("x", b)
	idle.lists["x"][0].since = time.Now().Add(-IdleTimeout)
	idle.CloseOld()
	assert.True(t, b.closed)
	assert.Zero(t, idle.Len())

	e := new(closing)
	require.NoError(t, idle.CloseAll())
	idle.Put("x", e)
	assert.True(t, e.closed, "all is closed")
}
