package cluster_test

import (
	"context"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"waggle/experiments/sim"
	"waggle/experiments/sim/cluster"
	"waggle/experiments/sim/machine"
	"waggle/experiments/spec"
	"waggle/results"
	"waggle/results/calibration"
	"waggle/results/reference"
)

func model(t testing.TB, name string) cluster.Model {
	m, err := machine.Load(name)
	require.NoError(t, err)
	c, err := calibration.Parse(reference.Calibration)
	require.NoError(t, err)
	return cluster.Model{Machine: m, Calibration: c, Demands: sim.Demands()}
}

func run(t testing.TB, name string, limits cluster.Limits, levels results.Cell) *cluster.Outcome {
	p, err := spec.Resolve(levels)
	require.NoError(t, err)
	m := model(t, name)
	o, err := m.Run(context.Background(), &p, 1, limits)
	require.NoError(t, err)
	return o
}

var quick = cluster.Limits{Width: 0.02, Events: 2_000_000, Seconds: 2}

// A card that is slower than everything else is what limits throughput, whatever
// the path.
func TestTheCardIsTheLimit(t *testing.T) {
	for _, path := range []string{"copy", "sendfile"} {
		o := run(t, "rack-25g", quick, results.Cell{"workload": "random-read", "topology": "hosts", "read": path, "size_bytes": float64(1 << 20), "client_hosts": 32.0, "link_gbps": 1.0})
		require.InEpsilon(t, 1e9/8, o.Rate.Value*o.Payload, 0.07, "but for headers")
	}
}

// Where processors are the limit, twice as many serve twice as much.
func TestProcessorsAreTheLimit(t *testing.T) {
	at := func(cores float64) float64 {
		return run(t, "rack-100g", quick, results.Cell{"workload": "random-read", "topology": "hosts", "read": "copy", "size_bytes": 65536.0, "client_hosts": 64.0, "clients": 4.0, "cores": cores}).Rate.Value
	}
	require.InEpsilon(t, 2, at(2)/at(1), 0.1)
}

// A page cache that holds less of popular data makes reads wait for the disk.
func TestMissesWaitForTheDisk(t *testing.T) {
	at := func(levels results.Cell) *cluster.Outcome {
		levels["workload"], levels["topology"], levels["read"], levels["size_bytes"], levels["servers"], levels["client_hosts"] = "random-read", "hosts", "copy", 65536.0, 2.0, 4.0
		levels["zipf"] = 0.9
		return run(t, "rack-25g", quick, levels)
	}
	all, half, slow := at(results.Cell{}), at(results.Cell{"cache_percent": 50.0, "disk": "nvme"}), at(results.Cell{"cache_percent": 50.0, "disk": "hdd"})
	require.Greater(t, half.Mean.Value, all.Mean.Value)
	require.Greater(t, slow.Mean.Value, 10*half.Mean.Value)
}

func TestFailuresAreNoticedAndRepaired(t *testing.T) {
	levels := results.Cell{"workload": "random-read", "topology": "hosts", "read": "copy", "size_bytes": 65536.0, "servers": 6.0, "client_hosts": 6.0, "rate": 2000.0}
	before := run(t, "rack-25g", cluster.Limits{Width: 0.01, Events: 5_000_000, Seconds: 3}, levels)
	levels["failed_servers"] = 1.0
	after := run(t, "rack-25g", cluster.Limits{Width: 0.01, Events: 5_000_000, Seconds: 3}, levels)
	require.Zero(t, before.RepairedBytes)
	require.Equal(t, int64(1e9)/(1<<20)*(1<<20), after.RepairedBytes, "all whole pieces of the failed server's data")
	require.Greater(t, after.RepairedSeconds, 1.0)
	require.Greater(t, after.Latency.Max(), 3*before.Latency.Max(), "some waited for the time-out")
}

func TestChainsTakeLongerThanFanOut(t *testing.T) {
	at := func(path string) float64 {
		return run(t, "rack-25g", quick, results.Cell{"workload": "random-write", "topology": "hosts", "write": path, "size_bytes": float64(1 << 20),
			"servers": 3.0, "chunk_servers": 3.0, "replication": 3.0, "client_hosts": 1.0}).Mean.Value
	}
	require.Greater(t, at("chain"), at("switch-fanout"))
}

// BenchmarkThousandServers is one simulated second of 1,000 servers and 10,000
// clients. It must take less than a minute and 2 GiB.
func BenchmarkThousandServers(b *testing.B) {
	for b.Loop() {
		o := run(b, "rack-25g", cluster.Limits{Events: 1 << 40, Seconds: 1}, results.Cell{"workload": "random-read", "topology": "hosts", "read": "copy",
			"size_bytes": 65536.0, "servers": 1000.0, "client_hosts": 10_000.0, "rate": 500_000.0, "zipf": 0.9})
		b.ReportMetric(float64(o.Events)/1e6, "Mevents")
		b.ReportMetric(float64(peakMiB(b)), "peak-MiB")
	}
}

// peakMiB is the most memory that the process had resident.
func peakMiB(b *testing.B) int {
	text, err := os.ReadFile("/proc/self/status")
	require.NoError(b, err)
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, err := strconv.Atoi(strings.Fields(rest)[0])
			require.NoError(b, err)
			return kib / 1024
		}
	}
	return 0
}
