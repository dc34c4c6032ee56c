package afxdp

import (
	"bufio"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"waggle/bpf/afxdp/afxdptest"
)

const (
	ourPort = 7000
	// attachTo tells a child process the interface.
	attachTo = "WAGGLE_TEST_INTERFACE"
)

func TestMain(m *testing.M) {
	if index, err := strconv.Atoi(os.Getenv(attachTo)); err == nil {
		_, r, err := receiver(index)
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println("attached", r.Mode)
		select {}
	}
	os.Exit(m.Run())
}

var small = Config{FrameSize: 2048, Frames: 64, Direction: Receives}

// receiver attaches to an interface for ourPort of host 0.
func receiver(index int) (*Socket, *Redirect, error) {
	config := small
	config.Interface = index
	s, err := Open(config)
	if err != nil {
		return nil, nil, err
	}
	r, err := Attach(s, netip.AddrPortFrom(afxdptest.Address(0), ourPort))
	return s, r, err
}

func index(t *testing.T, h afxdptest.Hosts) (i int) {
	h.In(t, 0, func() {
		link, err := net.InterfaceByName(afxdptest.Link)
		require.NoError(t, err)
		i = link.Index
	})
	return i
}

// attached says whether an XDP program is on host 0's interface.
func attached(t *testing.T, h afxdptest.Hosts) (is bool) {
	h.In(t, 0, func() {
		link, err := netlink.LinkByName(afxdptest.Link)
		require.NoError(t, err)
		is = link.Attrs().Xdp != nil && link.Attrs().Xdp.Attached
	})
	return is
}

func listen(t *testing.T, h afxdptest.Hosts, port uint16) (conn *net.UDPConn) {
	h.In(t, 0, func() {
		var err error
		conn, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(afxdptest.Address(0), port)))
		require.NoError(t, err)
		t.Cleanup(func() { conn.Close() })
	})
	return conn
}

func say(t *testing.T, h afxdptest.Hosts, port uint16, text string) {
	h.In(t, 1, func() {
		conn, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(afxdptest.Address(0), port)))
		require.NoError(t, err)
		defer conn.Close()
		_, err = conn.Write([]byte(text))
		require.NoError(t, err)
	})
}

func heard(t *testing.T, conn *net.UDPConn) string {
	buf := make([]byte, 100)
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(5*time.Second)))
	n, err := conn.Read(buf)
	require.NoError(t, err)
	return string(buf[:n])
}

// Our port's datagrams come to the socket, more of them than it has frames; all
// else goes to where it always did; and after the end everything does.
func TestOnlyOurPortIsRedirected(t *testing.T) {
	h := afxdptest.New(t)
	ours, others := listen(t, h, ourPort), listen(t, h, ourPort+1)
	var s *Socket
	var r *Redirect
	h.In(t, 0, func() {
		var err error
		s, r, err = receiver(index(t, h))
		require.NoError(t, err)
	})
	assert.True(t, s.NeedsWakeup)
	assert.False(t, s.ZeroCopy, "a veth has no zero copy")
	assert.Equal(t, Native, r.Mode)
	const headers = 14 + 20 + 8
	for i := range 5 * small.Frames {
		text := fmt.Sprint("ours ", i)
		say(t, h, ourPort, text)
		require.NoError(t, s.Wait())
		n, err := s.Receive(func(packet []byte) { assert.Equal(t, text, string(packet[headers:])) })
		require.NoError(t, err)
		require.Equal(t, 1, n)
	}
	n, err := r.Redirected()
	require.NoError(t, err)
	require.EqualValues(t, 5*small.Frames, n)
	say(t, h, ourPort+1, "other")
	require.Equal(t, "other", heard(t, others))

	require.NoError(t, r.Close())
	require.False(t, attached(t, h))
	say(t, h, ourPort, "plain")
	require.Equal(t, "plain", heard(t, ours))
	require.NoError(t, s.Close())
	require.ErrorIs(t, s.Wait(), os.ErrClosed)
}

// What finds no room is lost, and counted; what comes after is received.
func TestOverflowIsCounted(t *testing.T) {
	h := afxdptest.New(t)
	var s *Socket
	h.In(t, 0, func() {
		var r *Redirect
		var err error
		s, r, err = receiver(index(t, h))
		require.NoError(t, err)
		t.Cleanup(func() { assert.NoError(t, r.Close()); assert.NoError(t, s.Close()) })
	})
	for range small.Frames + 10 {
		say(t, h, ourPort, "x")
	}
	lost := func() uint64 {
		n, err := s.Lost()
		require.NoError(t, err)
		return n
	}
	require.Eventually(t, func() bool { return lost() >= 10 }, 5*time.Second, time.Millisecond)
	n, err := s.Receive(func([]byte) {})
	require.NoError(t, err)
	require.Equal(t, small.Frames, n)
	say(t, h, ourPort, "after")
	require.NoError(t, s.Wait())
}

// An interface has room for one socket and one program; a process that is killed
// leaves neither.
func TestAKilledProcessLeavesNothing(t *testing.T) {
	h := afxdptest.New(t)
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), fmt.Sprintf("%s=%d", attachTo, index(t, h)))
	output, err := child.StdoutPipe()
	require.NoError(t, err)
	h.In(t, 0, func() { require.NoError(t, child.Start()) })
	line, err := bufio.NewReader(output).ReadString('\n')
	assert.NoError(t, err)
	assert.Equal(t, "attached native\n", line)
	assert.True(t, attached(t, h))
	h.In(t, 0, func() {
		_, _, err := receiver(index(t, h))
		assert.ErrorIs(t, err, unix.EBUSY)
	})
	require.NoError(t, child.Process.Kill())
	require.Error(t, child.Wait())
	require.Eventually(t, func() bool { return !attached(t, h) }, 5*time.Second, time.Millisecond)
	require.Eventually(t, func() (again bool) {
		h.In(t, 0, func() {
			s, r, err := receiver(index(t, h))
			if again = err == nil; again {
				assert.NoError(t, r.Close())
				assert.NoError(t, s.Close())
			}
		})
		return again
	}, 5*time.Second, 10*time.Millisecond)
}

func TestSupported(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	require.NoError(t, Supported())
}
