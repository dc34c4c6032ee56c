package runner

import (
	"testing"

	"github.com/stretchr/testify/require"

	"waggle/experiments/spec"
	"waggle/results"
)

// One connection of another congestion control is enough for a trial not to be what
// its cell says.
func TestEveryConnectionMustHaveTheCongestionControlOfTheCell(t *testing.T) {
	s := support{congestion: "cubic"}
	mixed := &results.Connections{Congestion: map[string]int64{"cubic": 9, "bbr": 1}}
	require.ErrorContains(t, s.checkCongestion(spec.Parameters{Congestion: spec.CongestionAuto}, mixed), "cubic: 1 of bbr")
	require.ErrorContains(t, s.checkCongestion(spec.Parameters{Congestion: "bbr"}, mixed), "bbr: 9 of cubic")
	require.NoError(t, s.checkCongestion(spec.Parameters{Congestion: spec.CongestionMachine}, mixed))
	require.NoError(t, s.checkCongestion(spec.Parameters{Congestion: "reno"}, &results.Connections{Congestion: map[string]int64{"reno": 3}}))
}
