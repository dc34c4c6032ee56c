package lookup

import (
	"context"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"waggle/dfs/wire"
)

// peer answers the lookups of one socket.
type peer struct {
	t    *testing.T
	conn *net.UDPConn
	s    *socket
	at   netip.AddrPort // the socket's address
}

func newPeer(t *testing.T) *peer {
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	s, err := dial(conn.LocalAddr().String())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.close()) })
	name, err := unix.Getsockname(s.fd)
	require.NoError(t, err)
	at := name.(*unix.SockaddrInet4)
	return &peer{t, conn, s, netip.AddrPortFrom(netip.AddrFrom4(at.Addr), uint16(at.Port))}
}

// request waits for a request.
func (p *peer) request() {
	b := make([]byte, wire.InlineRequestSize)
	n, err := p.conn.Read(b)
	require.NoError(p.t, err)
	require.NoError(p.t, new(wire.LookupRequest).Parse(b[:n]))
}

func (p *peer) answer(id uint64) {
	_, err := p.conn.WriteToUDPAddrPort((&wire.LookupAnswer{ID: id}).Append(nil), p.at)
	require.NoError(p.t, err)
}

func (p *peer) ask() {
	a, err := p.s.ask(p.t.Context(), &wire.LookupRequest{})
	require.NoError(p.t, err)
	require.Equal(p.t, p.s.lastID, a.ID)
}

// atOnce has a lookup answered before it is asked.
func (p *peer) atOnce() {
	p.answer(p.s.lastID + 1)
	// A busy kernel delivers some time after the call that sent.
	for {
		ready, err := unix.Poll([]unix.PollFd{{Fd: int32(p.s.fd), Events: unix.POLLIN}}, 10_000)
		if err != unix.EINTR {
			require.NoError(p.t, err)
			require.Equal(p.t, 1, ready)
			break
		}
	}
	p.ask()
	p.request()
}

// late has a lookup answered when its socket waits, after an answer to another.
func (p *peer) late() {
	id := p.s.lastID + 1
	go func() {
		p.request()
		time.Sleep(time.Millisecond)
		p.answer(id - 1)
		p.answer(id)
	}()
	p.ask()
}

func TestASocketWaitsWithThePollerOnly(t *testing.T) {
	p := newPeer(t)
	for range 2 * atOnceAgain {
		p.atOnce()
	}
	require.Nil(t, p.s.polled, "nothing had to be waited for")
	p.late()
	require.NotNil(t, p.s.polled)
	for range atOnceAgain - 1 {
		p.atOnce()
	}
	require.True(t, p.s.isGood())
	p.late()
	for range atOnceAgain {
		require.True(t, p.s.isGood())
		p.atOnce()
	}
	require.False(t, p.s.isGood(), "another socket would do without the poller")
}

func TestASocketThatSpinsNeverWaits(t *testing.T) {
	p := newPeer(t)
	p.s.spins = true
	p.atOnce()
	p.late()
	require.Nil(t, p.s.polled)
	require.True(t, p.s.isGood())
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
	defer cancel()
	_, err := p.s.ask(ctx, &wire.LookupRequest{})
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.True(t, p.s.isGood(), "nothing is about to end the next wait")
	p.request()
	id := p.s.lastID + 1
	go func() {
		p.request()
		p.request() // asked for again
		p.answer(id)
	}()
	p.ask()
}

func TestASocketWhoseWaitWasEndedIsNotUsedAgain(t *testing.T) {
	p := newPeer(t)
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(5*time.Millisecond, cancel)
	_, err := p.s.ask(ctx, &wire.LookupRequest{})
	require.ErrorIs(t, err, context.Canceled)
	require.False(t, p.s.isGood())
}
