package gateway

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"waggle/dfs/dfstest"
	"waggle/dfs/wire/control"
)

func TestControlCallsTellWhatWasCounted(t *testing.T) {
	p := start(t, dfstest.Start(t, dfstest.Options{ChunkServers: 1}), func(c *Config) { c.ControlAddress = "127.0.0.1:0" })
	p.put(t, "/file", randomBytes(10_000))
	_, got := p.do(t, "GET", "/file", nil)
	require.Len(t, got, 10_000)
	conn, err := grpc.NewClient(p.gateway.ControlAddress(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	defer conn.Close()
	status, err := control.NewAdminClient(conn).Status(t.Context(), &control.Empty{})
	require.NoError(t, err)
	require.Equal(t, "gateway", status.Role)
	require.Eventually(t, func() bool { // the client has the last byte before it is counted
		status, err := control.NewAdminClient(conn).Status(t.Context(), &control.Empty{})
		return err == nil && status.Counters["relay_copy_bytes"] == 10_000
	}, 10*time.Second, time.Millisecond)
}
