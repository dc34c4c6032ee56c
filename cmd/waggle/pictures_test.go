package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"waggle/results"
)

// picturedRun writes a run directory whose plan asks for one figure.
func picturedRun(t *testing.T, kind string) string {
	dir := filepath.Join(t.TempDir(), "run")
	figures := []results.FigureSpec{{Kind: kind, Title: "Copies", X: "read"}}
	w, err := results.Create(dir, results.Plan{Run: "r", Start: time.Now(),
		Experiments: []results.PlannedExperiment{{Name: "copies", Question: "How many?", Repetitions: 3, Figures: figures}}},
		results.Environment{CPUs: 1, MemoryBytes: 1, Commit: "c"})
	require.NoError(t, err)
	payload := int64(1000)
	for i := range 3 {
		require.NoError(t, w.Append(results.Record{Experiment: "copies", Trial: i, Repetition: i, Source: results.SourceMeasured,
			Cell: results.Cell{"read": "copy"}, Valid: true, PayloadBytes: &payload,
			Copies: &results.Copies{UserToKernelBytes: 2000, PerPayloadByte: 2, Backend: "boundary"}}))
	}
	require.NoError(t, w.Close())
	return dir
}

// contents reads every file of a directory tree.
func contents(t *testing.T, dir string) map[string]string {
	files := map[string]string{}
	require.NoError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		files[path] = string(data)
		return err
	}))
	return files
}

func TestFiguresAndReportAreTheSameTheSecondTime(t *testing.T) {
	dir := picturedRun(t, "copies")
	draw := func() map[string]string {
		code, stdout, stderr := waggle(t, "figures", dir)
		require.Zero(t, code, stderr)
		require.Contains(t, stdout, "figures drawn into ")
		code, stdout, stderr = waggle(t, "report", dir)
		require.Zero(t, code, stderr)
		require.Contains(t, stdout, results.ReportFile)
		return contents(t, dir)
	}
	first := draw()
	for _, name := range []string{"figures/copies-copies.svg", "figures/copies-copies.pdf", "figures/copies-copies.png", results.ReportFile, results.SummaryFile} {
		require.Contains(t, first, filepath.Join(dir, name))
	}
	second := draw()
	require.Len(t, second, len(first))
	for name := range first {
		require.True(t, first[name] == second[name], "%s changed", name)
	}
}

func TestNoPictureOfNothing(t *testing.T) {
	dir := picturedRun(t, "throughput")
	code, _, stderr := waggle(t, "figures", dir)
	require.Equal(t, exitFailed, code)
	require.Contains(t, stderr, "no figure could be drawn")
	code, _, stderr = waggle(t, "figures")
	require.Equal(t, exitUsage, code)
	require.Contains(t, stderr, "waggle figures DIR")
}
