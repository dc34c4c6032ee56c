package runner

import (
	"testing"

	"github.com/stretchr/testify/require"

	"waggle/experiments/spec"
	"waggle/experiments/workload"
	"waggle/results"
)

// Two processors, looked at for a tenth of a second: 0.13 s of work, 0.01 s stolen.
var twoProcessors = workload.Processors{Window: 0.1, Idle: map[int]float64{0: 0.02, 1: 0.04}, User: 0.03, System: 0.06, SoftIRQ: 0.03, Steal: 0.01}

func TestProcessorTimeIsWhatWasNotIdle(t *testing.T) {
	m := &meter{cpu: true, gateway: []int{1}}
	cpu := m.spent(twoProcessors)
	require.InDelta(t, 0.13, cpu.Total, 1e-9)
	require.InDelta(t, cpu.Total, cpu.User+cpu.System+cpu.SoftIRQ, 1e-9)
	require.InDelta(t, 2, cpu.System/cpu.User, 1e-9, "shared out as sampled")
	require.InDelta(t, 0.06, cpu.ByHost[roleGateway], 1e-9)
}

func TestDisturbancesAboveTheirLimitsAreNamed(t *testing.T) {
	quiet := disturbanceOf(workload.Processors{Window: 1, Idle: map[int]float64{0: 0, 1: 0}, User: 1, System: 0.9, Steal: 0.05}, 1, map[string]float64{"chunk": 1.8})
	require.Empty(t, quiet.Exceeded)
	require.InDelta(t, 0.1, quiet.ForeignSeconds, 1e-9)
	stolen := disturbanceOf(workload.Processors{Window: 1, Idle: map[int]float64{0: 0, 1: 0}, Steal: 0.2}, 1, nil)
	require.Contains(t, stolen.Exceeded, "steal: other machines had 10 %")
	foreign := disturbanceOf(workload.Processors{Window: 1, Idle: map[int]float64{0: 0, 1: 0}, User: 1}, 1, map[string]float64{"chunk": 0.5})
	require.Contains(t, foreign.Exceeded, "foreign load: other programs had 25 %")
	// One tick of the kernel's, in a short trial, may be from before it.
	require.Empty(t, disturbanceOf(workload.Processors{Window: 0.05, Idle: map[int]float64{0: 0, 1: 0}, Steal: 0.01}, 0.05, nil).Exceeded)
}

// Where the load generator had to wait for a processor between the clocks and the timed
// part, what the trial cost is not known.
func TestClocksThatWereReadLateAreADisturbance(t *testing.T) {
	late := disturbanceOf(workload.Processors{Window: 0.02, Idle: map[int]float64{0: 0}}, 0.0014, nil)
	require.Contains(t, late.Exceeded, "18.6 ms too early or too late")
}

func TestClosedLoopsOfManyClientsGiveNoLatency(t *testing.T) {
	var record results.Record
	got := workload.Result{Processors: twoProcessors, Histogram: "none"}
	require.NoError(t, fillLatency(&record, spec.Parameters{Clients: 3}, got))
	require.Nil(t, record.Latency)
	require.Error(t, fillLatency(&record, spec.Parameters{Clients: 2}, got), "it is asked for")
	require.Error(t, fillLatency(&record, spec.Parameters{Clients: 3, Rate: 10}, got), "it is asked for")
}
