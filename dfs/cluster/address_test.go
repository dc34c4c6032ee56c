package cluster

import (
	"os"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

func TestChunkServersListenWhereTheMetadataServerDoes(t *testing.T) {
	for meta, want := range map[string][]string{
		"127.0.0.1:9430": {"--data-address", "127.0.0.1:0", "--control-address", "127.0.0.1:0"},
		"[::1]:9430":     {"--data-address", "[::1]:0", "--control-address", "[::1]:0"},
	} {
		have, err := (&Config{Meta: meta}).chunkAddresses()
		require.NoError(t, err)
		require.Equal(t, want, have)
	}
	_, err := (&Config{Meta: "nonsense"}).chunkAddresses()
	require.ErrorContains(t, err, "nonsense")
}

// TestTheAddressForOthersIsNoLoopbackAddress is in a network namespace with an
// interface of its own.
func TestTheAddressForOthersIsNoLoopbackAddress(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	runtime.LockOSThread()
	home, err := netns.Get()
	require.NoError(t, err)
	alone, err := netns.New()
	require.NoError(t, err)
	defer func() {
		require.NoError(t, netns.Set(home))
		home.Close()
		alone.Close()
		runtime.UnlockOSThread()
	}()
	advertised := func(c Config) string {
		flags, err := c.chunkAddresses()
		require.NoError(t, err)
		require.Equal(t, "--advertise", flags[4])
		return flags[5]
	}
	require.Equal(t, "127.0.0.1", advertised(Config{Meta: "0.0.0.0:9430"}), "there is nobody else")
	link := &netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Name: "others"}}
	if err := netlink.LinkAdd(link); err != nil {
		t.Skipf("no interface can be made: %v", err)
	}
	address, err := netlink.ParseAddr("10.9.8.7/24")
	require.NoError(t, err)
	require.NoError(t, netlink.AddrAdd(link, address))
	require.NoError(t, netlink.LinkSetUp(link))
	require.Equal(t, "10.9.8.7", advertised(Config{Meta: "0.0.0.0:9430"}))
	require.NoError(t, netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: address.IP}))
	require.Equal(t, "10.9.8.7", advertised(Config{Meta: "0.0.0.0:9430"}), "by its route")
	require.Equal(t, "10.1.1.1", advertised(Config{Meta: "0.0.0.0:9430", Advertise: "10.1.1.1"}))
}
