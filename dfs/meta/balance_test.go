package meta

import (
	"context"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"waggle/dfs/wire/control"
)

func TestALostRegistrationLeavesNoGhost(t *testing.T) {
	r := newRig(t)
	q := &control.RegisterRequest{DataAddress: "127.0.0.1:1", ControlAddress: "127.0.0.1:2", Nonce: []byte("0123456789abcdef")}
	first, err := r.meta.Register(t.Context(), q)
	require.NoError(t, err)
	r.restart()
	q.DataAddress = "127.0.0.1:3" // the answer was lost, and the server started again
	second, err := r.meta.Register(t.Context(), q)
	require.NoError(t, err)
	require.Equal(t, first.Server, second.Server)
	cluster, err := r.meta.Cluster(t.Context(), &control.Empty{})
	require.NoError(t, err)
	require.Len(t, cluster.Servers, 1)
	require.Equal(t, "127.0.0.1:3", cluster.Servers[0].DataAddress)
	q.Nonce = []byte("short")
	_, err = r.meta.Register(t.Context(), q)
	require.Equal(t, codes.InvalidArgument, status.Code(err))
}

// decommission drains a server to the end and returns how far it was, each time.
func (r *rig) decommission(server uint32) (left []uint64, err error) {
	stream, err := r.meta.Decommission(r.t.Context(), &control.DecommissionRequest{Server: server})
	require.NoError(r.t, err)
	for {
		p, err := stream.Recv()
		if err == io.EOF {
			return left, nil
		}
		if err != nil {
			return left, err
		}
		left = append(left, p.ReplicasLeft)
	}
}

func TestDecommissionDrainsAndRemoves(t *testing.T) {
	u, hosts := cluster(t, 3, func(c *Config) { c.MovesPerSecond = 1000 })
	for i := range 10 {
		u.store(fmt.Sprintf("/f%d", i), "hello")
	}
	drained := hosts[0].status().Server
	u.addHost()
	_, err := u.decommission(99)
	require.Equal(t, codes.InvalidArgument, status.Code(err))
	left, err := u.decommission(drained)
	require.NoError(t, err)
	require.EqualValues(t, 10, left[0])
	require.Zero(t, left[len(left)-1])
	cluster, err := u.meta.Cluster(t.Context(), &control.Empty{})
	require.NoError(t, err)
	require.Len(t, cluster.Servers, 3)
	for i := range 10 {
		require.True(t, u.has(fmt.Sprintf("/f%d", i), 3, "hello"))
	}
	u.checkClean()
	u.restart()
	u.checkClean()

	// The server is told that it is no part of the cluster any more.
	hosts[0].stop = func() {}
	_, err = u.meta.Register(t.Context(), &control.RegisterRequest{Cluster: cluster.Cluster, Server: drained,
		DataAddress: "127.0.0.1:1", ControlAddress: "127.0.0.1:2"})
	require.ErrorContains(t, err, "was decommissioned")
}

func TestTheLastServerCanNotBeDrained(t *testing.T) {
	u, hosts := cluster(t, 1)
	server := hosts[0].status().Server
	_, err := u.decommission(server)
	require.ErrorContains(t, err, "add another one first")
	require.False(t, hosts[0].status().Draining)
}

func TestADrainCanBeCancelled(t *testing.T) {
	u, hosts := cluster(t, 2, func(c *Config) { c.MovesPerSecond = 0.001 })
	u.store("/f", "hello")
	server := hosts[0].status().Server
	ctx, cancel := context.WithCancel(t.Context())
	stream, err := u.meta.Decommission(ctx, &control.DecommissionRequest{Server: server})
	require.NoError(t, err)
	_, err = stream.Recv()
	require.NoError(t, err)
	cancel()
	u.restart()
	require.True(t, hosts[0].status().Draining, "whether anybody waits or not")
	require.EqualValues(t, 1, hosts[0].status().CountedOn)
	stream, err = u.meta.Decommission(t.Context(), &control.DecommissionRequest{Server: server, Cancel: true})
	require.NoError(t, err)
	_, err = stream.Recv()
	require.NoError(t, err)
	require.False(t, hosts[0].status().Draining)
}

func TestAnAddedServerGetsItsShare(t *testing.T) {
	u, hosts := cluster(t, 2, func(c *Config) { c.MovesPerSecond, c.minSurplus = 1000, 1 })
	content := strings.Repeat("x", 60_000)
	for i := range 12 {
		u.store(fmt.Sprintf("/f%d", i), content)
	}
	eventually(t, "heartbeats say what the servers hold", func() bool {
		return hosts[0].status().UsedBytes >= 12*60_000 && hosts[1].status().UsedBytes >= 12*60_000
	})
	third := u.addHost()
	eventually(t, "the new server has its share", func() bool { return third.status().Replicas >= 6 })
	eventually(t, "nothing is left to be moved", func() bool {
		waiting, _, running, _, _ := u.server.mender.moves.state()
		return waiting+running == 0
	})
	for i := range 12 {
		require.True(t, u.has(fmt.Sprintf("/f%d", i), 2, content))
	}
	eventually(t, "the old replicas are deleted", func() bool {
		return hosts[0].status().Replicas+hosts[1].status().Replicas+third.status().Replicas == 24
	})
	require.LessOrEqual(t, third.status().Replicas, uint64(10), "and no more than that")
	u.checkClean()
}
