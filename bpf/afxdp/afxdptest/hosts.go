// Package afxdptest gives tests two hosts that are joined by a link.
package afxdptest

import (
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// Link is the name of each host's interface.
const Link = "eth0"

// Hosts are two network namespaces joined by a veth pair. They are not named,
// and so go with their last socket.
type Hosts [2]netns.NsHandle

// Address is that of host 0 or 1.
func Address(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 79, 0, byte(i + 1)}) }

// New makes hosts that go with the test, which is skipped without root.
func New(t testing.TB) Hosts {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	home, err := netns.Get()
	require.NoError(t, err)
	defer home.Close()
	defer netns.Set(home)
	var h Hosts
	for i := range h {
		h[i], err = netns.New()
		require.NoError(t, err)
		t.Cleanup(func() { h[i].Close() })
	}
	pair := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: Link, Namespace: netlink.NsFd(h[0])}, PeerName: Link, PeerNamespace: netlink.NsFd(h[1])}
	require.NoError(t, netlink.LinkAdd(pair))
	for i := range h {
		require.NoError(t, netns.Set(h[i]))
		link, err := netlink.LinkByName(Link)
		require.NoError(t, err)
		address, err := netlink.ParseAddr(fmt.Sprintf("%s/24", Address(i)))
		require.NoError(t, err)
		require.NoError(t, netlink.AddrAdd(link, address))
		require.NoError(t, netlink.LinkSetUp(link))
	}
	return h
}

// In runs f on a host: sockets that it makes itself are that host's.
func (h Hosts) In(t testing.TB, i int, f func()) {
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
