package runner

import (
	"testing"

	"github.com/stretchr/testify/require"

	"waggle/experiments/spec"
	"waggle/experiments/topology"
	"waggle/results"
)

const downloads = `
name: downloads
question: Does every gateway run?
metrics: [cpu]
fixed: {workload: http-get, files: 3, topology: hosts, clients: 2}
factors:
  pin: [gateway-apart, none]
  relay: [copy, splice, sockmap, nginx]
  file_bytes: [4KiB, 3MiB]
control: {relay: copy}
trials:
  smoke: {repetitions: 1, warm_up_seconds: 0.01, operations: 40}
  quick: {repetitions: 1, seconds: 0.05}
  full: {repetitions: 1, seconds: 0.05}
`

func TestRunDownloadsThroughGateways(t *testing.T) {
	if err := topology.Supported(topology.Hosts); err != nil {
		t.Skip(err)
	}
	o := optionsFor(t, downloads)
	_, err := Run(t.Context(), o)
	require.NoError(t, err)
	run, err := results.Open(o.Out)
	require.NoError(t, err)
	require.Len(t, run.Records, 17)
	for _, r := range run.Records {
		relay := r.Cell["relay"].(string)
		if r.Unsupported {
			require.Error(t, findSupport().reasons["relay="+relay], relay)
			continue
		}
		require.True(t, r.Valid, "%s: %s", relay, r.Reason)
		require.Equal(t, int64(40), *r.Operations)
		if r.CPU == nil { // what so short a trial cost is not known on a busy machine
			require.Contains(t, r.Disturbance.Exceeded, "too early or too late")
		} else {
			require.Contains(t, r.CPU.ByRole, "gateway")
			require.Equal(t, r.Cell["pin"] == spec.PinGateway, r.CPU.ByHost != nil)
			if relay == spec.Nginx {
				require.Contains(t, r.CPU.ByRole, "origin")
			}
		}
		if relay == spec.Nginx {
			continue
		}
		// The client has the last byte of a body before the gateway counts it, so that
		// both the first and the last snapshot may lack one.
		relayed := r.Proof[map[string]string{
			"copy": "relay_copy_bytes", "splice": "relay_splice_bytes", "sockmap": "relay_sockmap_redirected_bytes"}[relay]]
		require.InDelta(t, *r.PayloadBytes, relayed, float64(*r.PayloadBytes / *r.Operations))
	}
	requireNothingLeft(t, o)
}
