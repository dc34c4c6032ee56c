package stockkernel

import (
	"testing"

	"github.com/stretchr/testify/require"

	"waggle/results"
)

func cell(read string) results.Cell {
	return results.Cell{"read": read, "topology": "local", "size_bytes": 1048576.0}
}

func TestWhatTheStockKernelCounted(t *testing.T) {
	for read, want := range map[string]float64{"copy": 3, "sendfile": 1, "splice": 1, "mmap": 2, "sockmap+copy": 3, "sockmap+mmap": 2, "sockmap+sendfile": 2, "shortcircuit": 1} {
		counted, ok := CopiesPerByte(cell(read))
		require.True(t, ok, read)
		require.InDelta(t, want, counted, .01, read)
	}
	_, ok := CopiesPerByte(cell("magic"))
	require.False(t, ok)
	_, ok = CopiesPerByte(results.Cell{"lookup": "xdp"})
	require.False(t, ok)
	require.Regexp(t, `^Linux 6\.\d+\S*, \d+ \w+ 20\d\d$`, Source())
}

func TestOnlyWhatALedgerCouldNotSeeIsAdded(t *testing.T) {
	m, err := results.MetricNamed(results.CopiesPerByte)
	require.NoError(t, err)
	blind := results.Record{Cell: cell("sockmap+sendfile"), Copies: &results.Copies{PerPayloadByte: 1, Backend: "boundary"}}
	v, ok := Complete(m).Of(&blind)
	require.True(t, ok)
	require.InDelta(t, 2, v, .01, "one more inside the kernel")

	inside := int64(5)
	seeing := blind
	seeing.Copies = &results.Copies{PerPayloadByte: 1, InKernelBytes: &inside, Backend: "sites"}
	_, ok = Added(&seeing)
	require.False(t, ok, "this kernel counted for itself")

	more := results.Record{Cell: cell("sendfile"), Copies: &results.Copies{PerPayloadByte: 1.2, Backend: "boundary"}}
	added, ok := Added(&more)
	require.True(t, ok)
	require.Zero(t, added, "what was counted here is never taken away")

	throughput, err := results.MetricNamed(results.Throughput)
	require.NoError(t, err)
	_, ok = Complete(throughput).Of(&blind)
	require.False(t, ok)
}
