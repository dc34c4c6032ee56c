package client_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"waggle/dfs/client"
	"waggle/dfs/dfstest"
)

func TestALookupIsExplained(t *testing.T) {
	c := dfstest.Start(t, dfstest.Options{ChunkServers: 1}).Dial(client.Options{})
	for path, names := range map[string]int{"/": 0, "/no/such/file": 3} {
		e, err := c.Explain(t.Context(), path)
		require.NoError(t, err)
		require.Equal(t, "user space", e.AnsweredBy, "lookup=udp answers nothing in the kernel")
		require.Equal(t, names, e.Names)
		require.Positive(t, e.Microseconds)
	}
}
