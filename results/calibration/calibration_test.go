package calibration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func example() *Calibration {
	return &Calibration{Schema: Schema, Runs: []string{"r"}, Records: 1, Machine: "m", CPUs: 2, PathSet: []string{"read=copy"},
		Prices: []Price{{Call, Interval{1e-6, 0, 2e-6}, Interval{1e-6, 0, 2e-6}}}, Residuals: []float64{1},
		Paths: []Path{{Name: "read=copy", Topology: "local", Replicas: 1, Points: []Point{
			{SizeBytes: 1000, Counted: Work{Call: 10}, Processor: 1, Elapsed: 1, By: map[string]float64{"client": 1}, ElapsedSeconds: 1e-5, Spread: []float64{.5, 1.5}},
			{SizeBytes: 2000, Counted: Work{Call: 20}, Processor: 4, Elapsed: 1, By: map[string]float64{"client": .5, "chunk": .5}, ElapsedSeconds: 1e-4, Spread: []float64{1}}}}},
		Least: map[string]float64{}, Most: map[string]float64{}}
}

func TestACalibrationIsReadAsItWasWritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), FileName)
	require.NoError(t, example().Write(path))
	c, err := Read(path)
	require.NoError(t, err)
	require.Equal(t, example(), c)
	require.NoError(t, c.CheckPathSet([]string{"read=copy"}))
	require.ErrorContains(t, c.CheckPathSet([]string{"read=copy", "read=warp"}), "without the data path read=warp")
	require.ErrorContains(t, c.CheckPathSet(nil), "which is no more")
}

func TestErrorsNameFileAndLine(t *testing.T) {
	path := filepath.Join(t.TempDir(), FileName)
	require.NoError(t, example().Write(path))
	good, err := os.ReadFile(path)
	require.NoError(t, err)
	for _, c := range []struct{ from, to, want string }{
		{`"schema": 1`, `"schema": 7`, "schema is 7, this program reads 1"},
		{`"feature": "call"`, `"feature": "yell"`, `there is no feature "yell"`},
		{`"cpus": 2`, `"cpus": 0`, "0 CPUs"},
		{`"cpus": 2`, `"cups": 2`, "cups"},
		{`"cpus": 2`, `"cpus": "two"`, "cpus"},
		{`"size_bytes": 2000`, `"size_bytes": 20`, "sizes are not in order"},
		{`"processor_residual": 4`, `"processor_residual": 0`, "residual holds 0"},
		{`{`, `[`, ""},
	} {
		require.Contains(t, string(good), c.from)
		require.NoError(t, os.WriteFile(path, []byte(strings.Replace(string(good), c.from, c.to, 1)), 0o600))
		_, err := Read(path)
		require.ErrorContains(t, err, c.want, c.to)
		require.NotContains(t, err.Error(), "\n")
		require.Regexp(t, `calibration\.json:\d+: `, err.Error())
	}
	_, err = Read(filepath.Join(t.TempDir(), "none"))
	require.ErrorContains(t, err, "read a calibration")
}

func TestBetweenSizesAndBeyond(t *testing.T) {
	p := example().Paths[0]
	require.InDelta(t, 15, p.At(1500).Counted[Call], 1e-9)
	require.InDelta(t, 30, p.At(3000).Counted[Call], 1e-9)
	require.InDelta(t, 4, p.At(3000).Processor, 1e-9)
	require.InDelta(t, 1, p.At(10).Processor, 1e-9)
	require.InEpsilon(t, 2, p.At(1414.2).Processor, 0.01)
	require.InDelta(t, 0, p.At(0).Counted[Call], 1e-9)
	c := example()
	require.Equal(t, []float64{.5, 1.5}, c.Spread(&p, 1100, 0))
	require.Equal(t, []float64{1}, c.Spread(nil, 0, 2e-4))
}

func TestPacketsBetweenHosts(t *testing.T) {
	d := Demand{Operation: Work{Operation: 1, Packet: 2}, Byte: Work{TCPByte: 1, CopiedByte: 2}, ReplicaByte: Work{TCPByte: 1}, ReplicaOperation: Work{Call: 3}}
	require.Zero(t, d.At(1000, 1, false, 0)[Packet])
	require.InDelta(t, 2+2*16, d.At(1<<20, 1, true, 0)[Packet], 1e-9)
	w := d.At(1000, 3, false, 0)
	require.InDelta(t, 3000, w[TCPByte], 1e-9)
	require.InDelta(t, 6, w[Call], 1e-9)
}

func FuzzParse(f *testing.F) {
	path := filepath.Join(f.TempDir(), FileName)
	if err := example().Write(path); err != nil {
		f.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Fuzz(func(t *testing.T, text []byte) {
		if _, err := Parse(text); err != nil && strings.Contains(err.Error(), "\n") {
			t.Fatalf("more than one line: %q", err)
		}
	})
}
