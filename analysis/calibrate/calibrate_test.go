package calibrate

import (
	"context"
	"errors"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"waggle/results"
	"waggle/results/calibration"
)

// truth is what the synthetic machine's operations cost, in seconds.
var truth = map[calibration.Feature]float64{
	calibration.Operation: 2e-6, calibration.Call: 1.5e-6, calibration.Switch: 6e-6, calibration.CopiedByte: 5e-11, calibration.TCPByte: 1e-10,
}

// paths of the synthetic machine: calls, switches, copies a byte, TCP a byte.
var paths = map[string][4]float64{
	"copy": {14, 4, 3, 1}, "sendfile": {9, 4, 1, 1}, "mmap": {12, 2, 2, 1}, "sockmap+copy": {14, 1, 3, 0}, "shortcircuit": {2, 0, 1, 0},
}

func demands() calibration.Demands {
	d := calibration.Demands{}
	for name, p := range paths {
		d["read="+name] = calibration.Demand{Operation: calibration.Work{calibration.Operation: 1, calibration.Call: p[0], calibration.Switch: p[1]},
			Byte: calibration.Work{calibration.CopiedByte: p[2], calibration.TCPByte: p[3]}, By: map[string]float64{"client": .5, "chunk": .5}}
	}
	return d
}

// synthetic makes a run whose records cost what truth says, but for noise.
func synthetic(t *testing.T, noise float64) *results.Run {
	random := rand.New(rand.NewPCG(1, 1))
	run := &results.Run{
		Plan:        results.Plan{Run: "synthetic", Experiments: []results.PlannedExperiment{{Name: "read-path", Fixed: results.Cell{"workload": "random-read"}}}},
		Environment: results.Environment{CPU: "synthetic", CPUs: 2},
	}
	for _, name := range slices.Sorted(maps.Keys(paths)) {
		p := paths[name]
		for _, size := range []float64{4096, 65536, 1 << 20} {
			for _, clients := range []float64{1, 2, 8} {
				for repetition := range 8 {
					cost := truth[calibration.Operation] + p[0]*truth[calibration.Call] + p[1]*truth[calibration.Switch] +
						size*(p[2]*truth[calibration.CopiedByte]+p[3]*truth[calibration.TCPByte])
					cost *= math.Exp(noise * random.NormFloat64())
					operations, calls, switches := int64(1000), int64(1000*p[0]), int64(1000*p[1])
					rate := min(clients, 2) / cost
					r := results.Record{Experiment: "read-path", Valid: true, Source: results.SourceMeasured, Repetition: repetition,
						Cell:       results.Cell{"read": name, "size_bytes": size, "clients": clients},
						Operations: &operations, OperationsPerSecond: &rate, Syscalls: &calls, ContextSwitches: &switches,
						CPU:     &results.CPU{ByRole: map[string]float64{"client": 400 * cost, "chunk": 600 * cost}},
						Copies:  &results.Copies{UserToKernelBytes: int64(1000 * size * p[2])},
						Latency: &results.Latency{P50: cost, P99: 2 * cost}}
					run.Records = append(run.Records, r)
				}
			}
		}
	}
	return run
}

func TestFitFindsWhatOperationsCost(t *testing.T) {
	c, err := Fit([]*results.Run{synthetic(t, 0)}, Options{Demands: demands()})
	require.NoError(t, err)
	for f, want := range truth {
		require.InEpsilon(t, want, c.Price(f).Processor.Value, 0.01, f)
		require.InEpsilon(t, want, c.Price(f).Elapsed.Value, 0.01, f)
	}
	require.Zero(t, c.Price(calibration.SockmapB).Processor.Value)
	require.Less(t, c.MedianErrorProcessor, 0.001)
	require.InDelta(t, 8, c.Most["clients"], 0, "what was measured, though not fitted")

	c, err = Fit([]*results.Run{synthetic(t, 0.1)}, Options{Demands: demands()})
	require.NoError(t, err)
	for f, want := range truth {
		p := c.Price(f).Processor
		require.LessOrEqual(t, p.Low, p.Value)
		require.GreaterOrEqual(t, p.High, p.Value)
		require.True(t, want >= p.Low*.8 && want <= p.High*1.2, "%s costs %g, fitted %v", f, want, p)
	}
	again, err := Fit([]*results.Run{synthetic(t, 0.1)}, Options{Demands: demands()})
	require.NoError(t, err)
	require.Equal(t, c, again, "the seed follows from the data")
}

func TestPathsTakenApartAddUp(t *testing.T) {
	c, err := Fit([]*results.Run{synthetic(t, 0.1)}, Options{Demands: demands()})
	require.NoError(t, err)
	parts := Parts(c)
	require.Len(t, parts, len(paths)*3)
	for _, p := range parts {
		require.InEpsilon(t, p.All, p.Copies+p.Calls+p.Switches+p.Packets+p.Other+p.Rest, 1e-9)
	}
	require.Contains(t, page(c, demands()), "| read=copy | 4096 B |")
}

func TestWhatCantBeCalibratedIsSaid(t *testing.T) {
	_, err := Fit(nil, Options{})
	require.ErrorContains(t, err, "no run is given")
	_, err = Fit([]*results.Run{synthetic(t, 0)}, Options{Demands: calibration.Demands{}})
	require.ErrorContains(t, err, "0 cells of one client")
	other := synthetic(t, 0)
	other.Environment.CPUs = 64
	_, err = Fit([]*results.Run{synthetic(t, 0), other}, Options{Demands: demands()})
	require.ErrorContains(t, err, "a calibration is of one machine")
	simulated := synthetic(t, 0)
	for i := range simulated.Records {
		simulated.Records[i].Source = results.SourceSimulated
	}
	_, err = Fit([]*results.Run{simulated}, Options{Demands: demands()})
	require.ErrorContains(t, err, "0 cells of one client", "what was simulated is no measurement")
}

// perfect predicts with the fitted prices alone, and a machine of two processors.
func perfect(_ context.Context, c *calibration.Calibration, levels results.Cell) (results.Record, error) {
	described, ok := describe(levels)
	if !ok {
		return results.Record{}, errors.New("not described")
	}
	p, ok := c.Path(described.path, described.topology, 1)
	if !ok {
		return results.Record{}, errors.New("not known")
	}
	processor, _ := c.Cost(p.At(described.size).Counted)
	operations, rate := int64(1000), min(described.clients, 2)/processor
	return results.Record{Operations: &operations, OperationsPerSecond: &rate, CPU: &results.CPU{ByRole: map[string]float64{"all": 1000 * processor}},
		Latency: &results.Latency{P50: processor, P99: processor}}, nil
}

func TestValidationPredictsWhatItNeverSaw(t *testing.T) {
	seen := map[string]bool{}
	table, err := Validate(context.Background(), []*results.Run{synthetic(t, 0.01)}, demands(), func(ctx context.Context, c *calibration.Calibration, levels results.Cell) (results.Record, error) {
		seen[c.HeldOut] = true
		return perfect(ctx, c, levels)
	})
	require.NoError(t, err)
	require.True(t, seen["concurrency"] && seen["size"] && seen["read=mmap"], seen)
	require.Empty(t, table.Failed)
	kinds := map[string]bool{}
	for _, r := range table.Rows() {
		kinds[r.Kind] = true
		if r.Metric == "p99" {
			require.InDelta(t, 0.5, r.Error, 0.05, "the predictor says half of it")
			require.False(t, r.Met)
			continue
		}
		require.Less(t, r.Error, 0.05, "%s %s", r.Kind, r.Metric)
		require.True(t, r.Met)
	}
	require.Equal(t, map[string]bool{"concurrency": true, "size": true, "path": true}, kinds)
	orders := table.Orders()
	require.NotEmpty(t, orders)
	for _, o := range orders {
		require.Equal(t, o.Pairs, o.Kept, o.Kind)
	}
	text := table.Text()
	require.Contains(t, text, "**missed**")
	require.Contains(t, text, "topology: the runs have no such cell")
	dir := t.TempDir()
	require.NoError(t, table.Write(dir))
	written, err := os.ReadFile(filepath.Join(dir, ValidationFile))
	require.NoError(t, err)
	require.Contains(t, string(written), "| size | read=copy local, 65536 B |")
}

func TestDeclarationsAreStrict(t *testing.T) {
	d, err := Declared()
	require.NoError(t, err)
	require.Len(t, d.HoldOuts, 6)
	for from, to := range map[string]string{
		"kind: size":            "sort: size",
		"operations: [write]":   "operations: []",
		"each_path: true":       "each_path: false",
		"aims:":                 "---\naims:",
		"topology: hosts":       "topology: [hosts]",
		"says: fitted on one c": "tells: fitted on one c",
	} {
		require.Contains(t, string(declared), from)
		_, err := ParseDeclaration([]byte(strings.Replace(string(declared), from, to, 1)))
		require.Error(t, err, to)
		require.NotContains(t, err.Error(), "\n")
	}
}

func TestLeastSquaresIsNeverNegative(t *testing.T) {
	// y = 3a - b: the best without a negative part has b at 0.
	rows := [][]float64{{1, 0}, {1, 1}, {2, 1}}
	x := leastSquares(rows, []float64{3, 2, 5})
	require.Zero(t, x[1])
	require.Positive(t, x[0])
	require.Nil(t, leastSquares(nil, nil))
}

func FuzzDeclaration(f *testing.F) {
	f.Add(declared)
	f.Fuzz(func(t *testing.T, text []byte) {
		if _, err := ParseDeclaration(text); err != nil && strings.Contains(err.Error(), "\n") {
			t.Fatalf("more than one line: %q", err)
		}
	})
}
