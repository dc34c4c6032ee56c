package lookup

import (
	"bytes"
	"errors"
	"net"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"waggle/bpf/xdppass"
)

// inNamespaces runs f on a thread that can enter two network namespaces joined
// by a veth pair: "server" has 10.0.0.1 and fd00::1, "client" .2.
func inNamespaces(t *testing.T, f func(enterServer, enterClient func())) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	runtime.LockOSThread()
	home, err := netns.Get()
	require.NoError(t, err)
	server, err := netns.New()
	require.NoError(t, err)
	client, err := netns.New()
	require.NoError(t, err)
	defer func() {
		require.NoError(t, netns.Set(home))
		for _, n := range []netns.NsHandle{server, client, home} {
			n.Close()
		}
		runtime.UnlockOSThread()
	}()
	pair := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "client"}, PeerName: "server", PeerNamespace: netlink.NsFd(server)}
	if err := netlink.LinkAdd(pair); errors.Is(err, unix.EOPNOTSUPP) {
		t.Skip("this kernel has no veth, or not its module at hand")
	} else {
		require.NoError(t, err)
	}
	up := func(name, ipv4, ipv6 string) {
		device, err := netlink.LinkByName(name)
		require.NoError(t, err)
		for _, cidr := range []string{ipv4, ipv6} {
			address, err := netlink.ParseAddr(cidr)
			require.NoError(t, err)
			address.Flags = 2 // IFA_F_NODAD: usable at once
			require.NoError(t, netlink.AddrAdd(device, address))
		}
		require.NoError(t, netlink.LinkSetUp(device))
	}
	enter := func(n netns.NsHandle) func() { return func() { require.NoError(t, netns.Set(n)) } }
	up("client", "10.0.0.2/24", "fd00::2/64")
	enter(server)()
	up("server", "10.0.0.1/24", "fd00::1/64")
	f(enter(server), enter(client))
}

// ask sends a request from a real socket and returns the answer, sent by no
// socket: nobody listens.
func ask(t *testing.T, server string, q []byte) []byte {
	t.Helper()
	conn, err := net.Dial("udp", server)
	require.NoError(t, err)
	defer conn.Close()
	answer := make([]byte, 2048)
	// The first packets may wait for the link to come up.
	for range 50 {
		_, err = conn.Write(q)
		if err == nil {
			require.NoError(t, conn.SetReadDeadline(time.Now().Add(200*time.Millisecond)))
			var n int
			if n, err = conn.Read(answer); err == nil {
				return answer[:n]
			}
		}
		time.Sleep(20 * time.Millisecond)
	}
	require.NoError(t, err, "no answer from %s", server)
	return nil
}

func TestAnswersOverVethAreNative(t *testing.T) {
	inNamespaces(t, func(enterServer, enterClient func()) {
		enterServer()
		device, err := net.InterfaceByName("server")
		require.NoError(t, err)
		table := openTableAt(t, MAC(device))
		content := bytes.Repeat([]byte("w"), MaxContent)
		fill(t, table, content)
		attachment, err := table.Attach("server", Native)
		require.NoError(t, err)
		defer attachment.Close()
		require.Equal(t, Native, attachment.Mode)

		enterClient()
		pass, err := xdppass.Attach("client")
		require.NoError(t, err)
		defer pass.Close()
		for _, server := range []string{"10.0.0.1:7400", "[fd00::1]:7400"} {
			answer := ask(t, server, request(3, 0, names[0], names[2]))
			require.Len(t, answer, answerSize+MaxContent, server)
			require.Equal(t, content, answer[answerSize:], server)
			require.Len(t, ask(t, server, request(3, 2, names[0], names[1])), answerSize, server)
		}
		outcomes, err := table.Outcomes()
		require.NoError(t, err)
		require.GreaterOrEqual(t, outcomes[Answered], uint64(4))
		require.Zero(t, outcomes[PassNoRoom])
	})
}

func TestAnswersOverLoopbackAreGeneric(t *testing.T) {
	inNamespaces(t, func(enterServer, _ func()) {
		enterServer()
		loopback, err := netlink.LinkByName("lo")
		require.NoError(t, err)
		require.NoError(t, netlink.LinkSetUp(loopback))
		table, err := Open(Options{Port: testPort, Entries: 1000, Locations: 1000, Contents: 1000, Sessions: 100})
		require.NoError(t, err)
		defer table.Close()
		content := bytes.Repeat([]byte("w"), MaxContent)
		fill(t, table, content)
		attachment, err := table.Attach("lo", Generic)
		require.NoError(t, err)
		defer attachment.Close()
		require.Equal(t, Generic, attachment.Mode)
		for _, server := range []string{"127.0.0.1:7400", "[::1]:7400"} {
			answer := ask(t, server, request(3, 0, names[0], names[2]))
			require.Equal(t, content, answer[answerSize:], server)
		}
	})
}

func TestAttachToNothing(t *testing.T) {
	_, err := openTable(t).Attach("no-such-device", Native)
	require.ErrorContains(t, err, "no-such-device")
}

func TestGenericModeIsNeverTakenForNative(t *testing.T) {
	inNamespaces(t, func(enterServer, _ func()) {
		enterServer()
		_, err := openTableAt(t, [6]byte{}).Attach("lo", Native) // loopback has no driver
		require.ErrorContains(t, err, "lo in native mode")
		_, err = openTableAt(t, serverMAC).Attach("lo", Generic)
		require.ErrorContains(t, err, "it is for frames to 00:00:00:00:00:02")
	})
}

func TestAProgramIsFoundByItsPort(t *testing.T) {
	inNamespaces(t, func(enterServer, _ func()) {
		enterServer()
		loopback, err := net.InterfaceByName("lo")
		require.NoError(t, err)
		at := func(port uint16) bool {
			answers, err := AnswersAt(loopback.Index, port)
			require.NoError(t, err)
			return answers
		}
		require.False(t, at(testPort))
		attachment, err := openTableAt(t, [6]byte{}).Attach("lo", Generic)
		require.NoError(t, err)
		require.True(t, at(testPort))
		require.False(t, at(testPort+1))
		require.NoError(t, attachment.Close())
		require.False(t, at(testPort))
		pass, err := xdppass.Attach("lo")
		if err == nil { // loopback may take no native program
			require.False(t, at(testPort))
			require.NoError(t, pass.Close())
		}
	})
}
