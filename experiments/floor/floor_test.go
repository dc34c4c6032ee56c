package floor

import (
	"context"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

func serving(t *testing.T) (*Server, string) {
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(context.Background())
	s, err := Listen(ctx, netip.MustParseAddr("127.0.0.1"), dir)
	require.NoError(t, err)
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx) }()
	t.Cleanup(func() { cancel(); require.NoError(t, <-ended) })
	return s, dir
}

func TestReadGivesWhatWasWritten(t *testing.T) {
	s, dir := serving(t)
	c, err := Dial(t.Context(), s.TCPAddress().String())
	require.NoError(t, err)
	defer c.Close()
	data := make([]byte, maxLength)
	rand.NewChaCha8([32]byte{1}).Read(data)
	require.NoError(t, c.Write(7, data, 0))
	require.NoError(t, c.Write(7, data[:3], 100))
	copy(data[100:], data[:3])
	require.NoError(t, c.Sync(7))
	got := make([]byte, len(data))
	require.NoError(t, c.Read(7, got, 0))
	require.Equal(t, data, got)
	require.NoError(t, c.Read(7, got[:5], 1001))
	require.Equal(t, data[1001:1006], got[:5])
	require.NoError(t, c.Remove(7))
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, left)
	require.Error(t, c.Read(7, got[:1], 0), "an empty file has no byte to read")
}

func TestEcho(t *testing.T) {
	for _, spin := range []bool{false, true} {
		testEcho(t, spin)
	}
}

func testEcho(t *testing.T, spin bool) {
	s, _ := serving(t)
	e, err := DialEcho(s.UDPAddress().String(), 300, 200, spin)
	require.NoError(t, err)
	defer e.Close()
	payload := make([]byte, 288)
	for i := range 1000 {
		payload[i%188]++
		got, err := e.Do(t.Context(), payload)
		require.NoError(t, err)
		require.Equal(t, payload[:188], got)
	}
	_, err = DialEcho(s.UDPAddress().String(), 300, 301, false)
	require.ErrorContains(t, err, "echo 301 of 300 bytes")
}

func TestGarbageEndsItsConnectionOnly(t *testing.T) {
	s, _ := serving(t)
	bad, err := net.Dial("tcp", s.TCPAddress().String())
	require.NoError(t, err)
	defer bad.Close()
	_, err = bad.Write(make([]byte, headerSize))
	require.NoError(t, err)
	_, err = bad.Read(make([]byte, 1))
	require.Error(t, err)
	udp, err := net.Dial("udp", s.UDPAddress().String())
	require.NoError(t, err)
	defer udp.Close()
	_, err = udp.Write([]byte("short"))
	require.NoError(t, err)
	c, err := Dial(t.Context(), s.TCPAddress().String())
	require.NoError(t, err)
	defer c.Close()
	require.NoError(t, c.Write(0, []byte("x"), 0))
}

func FuzzHeader(f *testing.F) {
	f.Add(header{write, 3, 4096, 1 << 20}.append(nil))
	f.Add([]byte(magic))
	f.Fuzz(func(t *testing.T, b []byte) {
		var h header
		if h.parse(b) != nil {
			return
		}
		var again header
		require.NoError(t, again.parse(h.append(nil)))
		require.Equal(t, h, again)
	})
}
