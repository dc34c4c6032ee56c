package sockmap

import (
	"fmt"
	"io"
	"net"
	"runtime"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// hosts are two network namespaces joined by a veth pair, .1 and .2 of a net.
// They are not named, and so go with their last socket.
type hosts [2]netns.NsHandle

func newHosts(t testing.TB, net string) hosts {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	home, err := netns.Get()
	require.NoError(t, err)
	defer home.Close()
	defer netns.Set(home)
	var h hosts
	for i := range h {
		h[i], err = netns.New()
		require.NoError(t, err)
		t.Cleanup(func() { h[i].Close() })
	}
	pair := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "veth", Namespace: netlink.NsFd(h[0])}, PeerName: "veth", PeerNamespace: netlink.NsFd(h[1])}
	require.NoError(t, netlink.LinkAdd(pair))
	for i := range h {
		require.NoError(t, netns.Set(h[i]))
		link, err := netlink.LinkByName("veth")
		require.NoError(t, err)
		address, err := netlink.ParseAddr(fmt.Sprintf("%s.%d/24", net, i+1))
		require.NoError(t, err)
		require.NoError(t, netlink.AddrAdd(link, address))
		require.NoError(t, netlink.LinkSetUp(link))
	}
	return h
}

// in runs f in a namespace.
func (h hosts) in(t testing.TB, i int, f func()) {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	home, err := netns.Get()
	require.NoError(t, err)
	defer home.Close()
	defer func() { require.NoError(t, netns.Set(home)) }()
	require.NoError(t, netns.Set(h[i]))
	f()
}

// Two pairs of hosts use the same addresses and ports at the same time: each
// connection is redirected, and to its own other end.
func TestNamespacesWithEqualAddresses(t *testing.T) {
	group := enterCgroup(t)
	const port = 7777
	in, err := NewIngress(Config{Cgroup: group.Path(), Ports: []uint16{port}, BothWays: true})
	require.NoError(t, err)
	defer in.Close()
	type connection struct{ asker, answerer *net.TCPConn }
	var connections []connection
	for range 2 {
		h := newHosts(t, "10.77.0")
		var l *net.TCPListener
		h.in(t, 1, func() { l = listen(t, fmt.Sprintf("10.77.0.2:%d", port)) })
		h.in(t, 0, func() {
			dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(10, 77, 0, 1), Port: 40000}}
			asker, answerer := connect(t, l, dialer)
			connections = append(connections, connection{asker, answerer})
		})
	}
	assert.Equal(t, connections[0].asker.LocalAddr(), connections[1].asker.LocalAddr())
	for i, c := range connections {
		_, err := c.asker.Write(fmt.Appendf(nil, "request %d", i))
		require.NoError(t, err)
		_, err = c.answerer.Write(fmt.Appendf(nil, "answer %d", i))
		require.NoError(t, err)
	}
	for i, c := range connections {
		got := make([]byte, 9)
		_, err := io.ReadFull(c.answerer, got)
		require.NoError(t, err)
		assert.Equal(t, fmt.Sprintf("request %d", i), string(got))
		_, err = io.ReadFull(c.asker, got[:8])
		require.NoError(t, err)
		assert.Equal(t, fmt.Sprintf("answer %d", i), string(got[:8]))
	}
	assert.EqualValues(t, 16, counts(t, in).Answers.RedirectedBytes)
	assert.EqualValues(t, 18, counts(t, in).Requests.RedirectedBytes)
}

// The relay works over veth as over loopback.
func TestRelayBetweenNamespaces(t *testing.T) {
	requireRoot(t)
	relay, err := NewRelay()
	require.NoError(t, err)
	defer relay.Close()
	hosts := newHosts(t, "10.78.0")
	h := &hop{relay: relay}
	var l *net.TCPListener
	hosts.in(t, 1, func() { l = listen(t, "10.78.0.2:0") })
	hosts.in(t, 0, func() {
		h.up, h.from = connect(t, l, net.Dialer{})
		h.down, h.to = connect(t, l, net.Dialer{})
	})
	body := randomBytes(3_000_000)
	go h.up.Write(append(body, "next"...))
	done := make(chan error, 1)
	go func() { _, err := h.move(len(body)); done <- err }()
	assert.Equal(t, body, readExactly(t, h.down, len(body)))
	require.NoError(t, <-done)
	assert.Equal(t, "next", string(readExactly(t, h.from, 4)))
}
