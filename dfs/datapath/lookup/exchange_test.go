package lookup

import (
	"bytes"
	"context"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// An Exchange passes over what is no answer, asks again, and takes a new socket where
// a Transport does.
func TestExchange(t *testing.T) {
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(t, err)
	defer conn.Close()
	go func() {
		b := make([]byte, 100)
		for answers := true; ; {
			n, from, err := conn.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			if answers = !answers; !answers { // the first is lost, the third ...
				continue
			}
			_, _ = conn.WriteToUDPAddrPort([]byte("noise"), from)
			_, _ = conn.WriteToUDPAddrPort(b[:n], from)
		}
	}()
	var want, got []byte
	x, err := DialExchange(conn.LocalAddr().String(), func(datagram []byte) bool {
		got = bytes.Clone(datagram)
		return bytes.Equal(datagram, want)
	})
	require.NoError(t, err)
	for _, text := range []string{"one", "two", "three"} {
		want = []byte(text)
		require.NoError(t, x.Ask(t.Context(), want))
		require.Equal(t, text, string(got))
	}
	used := x.socket
	used.polled.atOnce = atOnceAgain
	want = []byte("four")
	require.NoError(t, x.Ask(t.Context(), want))
	require.NotSame(t, used, x.socket)
	x.Spin, want = true, []byte("spun")
	require.NoError(t, x.Ask(t.Context(), want))
	x.Spin = false
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
	defer cancel()
	want = nil // nothing will do
	require.ErrorIs(t, x.Ask(ctx, []byte("five")), context.DeadlineExceeded)
	require.NoError(t, x.Close())
}
