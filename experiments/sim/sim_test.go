package sim_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"waggle/experiments"
	"waggle/experiments/runner"
	"waggle/experiments/sim"
	"waggle/experiments/sim/machine"
	"waggle/experiments/spec"
	"waggle/results"
	"waggle/results/calibration"
	"waggle/results/reference"
)

func options(t *testing.T, machineName, experiment string, sets ...string) sim.Options {
	m, err := machine.Load(machineName)
	require.NoError(t, err)
	c, err := calibration.Parse(reference.Calibration)
	require.NoError(t, err)
	known := sim.Known(runner.KnownPaths(), m)
	e, err := experiments.Load(experiment, known)
	require.NoError(t, err)
	o := sim.Options{Experiments: []*spec.Experiment{e}, Effort: spec.Smoke, Machine: m, Calibration: c, Out: filepath.Join(t.TempDir(), "run"),
		Seed: 7, Environment: runner.Describe(nil)}
	for _, set := range sets {
		override, err := spec.ParseOverride(set, known)
		require.NoError(t, err)
		o.Overrides = append(o.Overrides, override)
	}
	return o
}

func simulate(t *testing.T, o sim.Options) *results.Run {
	require.NoError(t, sim.Run(context.Background(), o))
	run, err := results.Open(o.Out)
	require.NoError(t, err)
	return run
}

func TestAMeasuredExperimentIsSimulatedFromTheSameFile(t *testing.T) {
	run := simulate(t, options(t, "two-core-vm", "read-path", "read=copy,sendfile,shortcircuit", "size_bytes=4KiB,1MiB", "clients=1,8"))
	require.Len(t, run.Records, 2*(3*2*2+1))
	seconds := map[string]float64{}
	for _, r := range run.Records {
		require.True(t, r.Valid, r.Reason)
		require.Equal(t, results.SourceSimulated, r.Source)
		require.Positive(t, *r.Operations)
		require.Positive(t, r.CPU.Total)
		require.NotEmpty(t, r.LatencyHistogram)
		require.Contains(t, r.Simulation.Intervals, results.OperationRate)
		require.Empty(t, r.Simulation.Beyond, "all of this was measured")
		seconds[r.Cell.String()] = 1 / *r.OperationsPerSecond
	}
	c, err := calibration.Parse(reference.Calibration)
	require.NoError(t, err)
	path, ok := c.Path("read=copy", "local", 1)
	require.True(t, ok)
	require.InEpsilon(t, path.Points[0].ElapsedSeconds, seconds["clients=1 read=copy size_bytes=4096 topology=local"], 0.1, "one client takes what was measured")
}

func TestASeedGivesTheSameRecords(t *testing.T) {
	first := options(t, "rack-25g", "scale-out", "size_bytes=64KiB")
	second := first
	second.Out += "-again"
	a, b := simulate(t, first), simulate(t, second)
	require.Len(t, b.Records, len(a.Records))
	for i := range a.Records {
		a.Records[i].Run, b.Records[i].Run = "", ""
		require.Equal(t, a.Records[i], b.Records[i])
		require.NotEmpty(t, a.Records[i].Simulation.Beyond, "nothing of this was measured")
	}
}

func TestWhatEndsEarlyIsKeptAndGoneOnWith(t *testing.T) {
	o := options(t, "two-core-vm", "read-path", "read=copy,sendfile", "size_bytes=4KiB")
	ctx, cancel := context.WithCancel(context.Background())
	o.Each = func(string, results.Record) { cancel() }
	require.ErrorIs(t, sim.Run(ctx, o), sim.ErrInterrupted)
	run, err := results.Open(o.Out)
	require.NoError(t, err)
	require.NotEmpty(t, run.Records)
	o.Each, o.Resume = nil, true
	whole := simulate(t, o)
	require.Len(t, whole.Records, 6)
	o.Resume = false
	require.ErrorContains(t, sim.Run(context.Background(), o), "--resume")
}

func TestWhatCantBeSimulatedSaysWhy(t *testing.T) {
	for _, r := range simulate(t, options(t, "two-core-vm", "lookup-hits", "hit_percent=50")).Records {
		require.True(t, r.Unsupported)
		require.Contains(t, r.Reason, "hit_percent=50 can't be simulated")
	}
}

func TestEverySimulatedExperimentIsDone(t *testing.T) {
	for _, name := range experiments.SimulatedNames() {
		t.Run(name, func(t *testing.T) {
			for _, r := range simulate(t, options(t, "rack-25g", name)).Records {
				require.True(t, r.Valid, "%s: %s", r.Cell, r.Reason)
			}
		})
	}
}

func TestEveryPathSaysWhatItsStagesDo(t *testing.T) {
	demands := sim.Demands()
	for name, d := range demands {
		require.Positive(t, d.Operation[calibration.Operation], name)
		sum := 0.0
		for _, share := range d.By {
			sum += share
		}
		require.InDelta(t, 1, sum, 1e-9, name)
	}
	for _, path := range []string{"read=copy", "read=sockmap+sendfile", "write=chain", "lookup=xdp", "relay=splice"} {
		require.Contains(t, demands, path)
	}
	require.True(t, demands["lookup=xdp"].InDriver)
	require.False(t, demands["lookup=udp"].InDriver)
	require.Positive(t, demands["read=sockmap+copy"].Byte[calibration.SockmapB])
	require.Zero(t, demands["read=sockmap+copy"].Byte[calibration.TCPByte])
	require.Positive(t, demands["write=chain"].ReplicaByte[calibration.CopiedByte])
}

func TestTraces(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sizes")
	write := func(text string) { require.NoError(t, os.WriteFile(path, []byte(text), 0o600)) }
	write("4096\n65536\n4096\n")
	sizes, err := sim.ReadTrace(path)
	require.NoError(t, err)
	require.Equal(t, []int64{4096, 4096, 65536}, sizes)
	for text, want := range map[string]string{
		"4096\n\n4096\n": ":2: the trace has a gap here",
		"4096\nlarge\n":  `:2: "large" is no request's size`,
		"-1\n":           `:1: "-1" is no request's size`,
		"999999999999\n": ":1:",
		"":               ":1: the trace is empty",
	} {
		write(text)
		_, err := sim.ReadTrace(path)
		require.ErrorContains(t, err, path+want)
	}
	write("4096\n1048576\n")
	for _, r := range simulate(t, options(t, "rack-25g", "scale-out", "read=copy", "size_bytes=64KiB", "trace="+path)).Records {
		require.True(t, r.Valid, r.Reason)
		require.InEpsilon(t, (4096+1048576)/2.0, float64(*r.PayloadBytes)/float64(*r.Operations), 1e-3)
	}
}
