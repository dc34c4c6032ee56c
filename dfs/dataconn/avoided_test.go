package dataconn

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"waggle/dfs/wire"
)

func TestReplicasAreChosenEvenlyAndFailedOnesLast(t *testing.T) {
	replica := func(n uint16) wire.Replica {
		return wire.Replica{Server: uint32(n), Address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), n)}
	}
	var a Avoided
	all := []wire.Replica{replica(1), replica(2), replica(3)}
	choose := func(refused ...uint32) map[uint32]int {
		chosen := make(map[uint32]int)
		for range 3000 {
			r, ok := a.Choose(all, refused)
			require.True(t, ok)
			chosen[r.Server]++
		}
		return chosen
	}
	for server, times := range choose() {
		require.InDelta(t, 1000, times, 200, "server %d", server)
	}
	require.Len(t, choose(2), 2)

	a.Note(all[0].Address)
	chosen := choose()
	require.Len(t, chosen, 2)
	require.InDelta(t, 1500, chosen[2], 200)
	require.Len(t, choose(2, 3), 1, "a failed one is better than none")
	a.Note(all[1].Address)
	a.Note(all[2].Address)
	require.Len(t, choose(), 3)
	a.until[all[1].Address] = time.Now().Add(-time.Second)
	require.Len(t, choose(), 1)
	require.Equal(t, all[1], a.Order(all)[0])
	_, ok := a.Choose(all, []uint32{1, 2, 3})
	require.False(t, ok)
}
