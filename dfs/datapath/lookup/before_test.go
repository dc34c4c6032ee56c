package lookup

import (
	"context"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	kernel "waggle/bpf/lookup"
	"waggle/dfs/datapath"
)

// TestNoServerStartsBesideTheProgramOfAnother has the program of a server that
// was killed outlive it, for as long as this test wants.
func TestNoServerStartsBesideTheProgramOfAnother(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("loading BPF programs needs root")
	}
	loopback := "127.0.0.1:0"
	first, err := plainUDP.Listen(t.Context(), netip.MustParseAddrPort(loopback), Options{Workers: 1, Counters: new(datapath.Counters)})
	require.NoError(t, err)
	at := first.Address()
	require.NoError(t, first.Close())
	table, err := kernel.Open(kernel.Options{Port: at.Port(), IPv4: at.Addr().As4(), Entries: 10, Locations: 10, Contents: 10, Sessions: 10})
	require.NoError(t, err)
	defer table.Close()
	attachment, err := table.Attach("lo", kernel.Generic)
	require.NoError(t, err)
	for _, name := range append([]string{"xdp-generic"}, userSpacePaths...) {
		path, err := Paths.Use(name)
		require.NoError(t, err)
		for _, address := range []netip.AddrPort{at, netip.AddrPortFrom(netip.IPv4Unspecified(), at.Port())} {
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
			_, err = path.Listen(ctx, address, Options{Workers: 1, Counters: new(datapath.Counters)})
			cancel()
			require.ErrorContains(t, err, "answered by the XDP program of another server, on lo", name)
		}
	}
	require.NoError(t, attachment.Close())
	for _, name := range userSpacePaths {
		_, stop := serve(t, name, at.String(), new(datapath.Counters))
		stop()
	}
}

func TestNativeModeIsNotReplacedByGeneric(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("loading BPF programs needs root")
	}
	path, err := Paths.Use("xdp")
	require.NoError(t, err)
	counters := new(datapath.Counters)
	_, err = path.Listen(t.Context(), netip.MustParseAddrPort("127.0.0.1:0"), Options{Workers: 1, Counters: counters}) // loopback has no driver
	require.ErrorIs(t, err, datapath.ErrUnsupported)
	require.ErrorContains(t, err, "lookup=xdp-generic")
	_, stop := serve(t, "xdp-generic", "127.0.0.1:0", counters)
	require.EqualValues(t, 1, counters.Snapshot()["lookup_xdp_mode_generic"])
	stop()
}
