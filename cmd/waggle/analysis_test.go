package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"waggle/results"
)

// countedRun writes a run directory whose one cell copies so many times.
func countedRun(t *testing.T, name string, copies float64) string {
	dir := filepath.Join(t.TempDir(), name)
	w, err := results.Create(dir, results.Plan{Run: name, Start: time.Now(),
		Experiments: []results.PlannedExperiment{{Name: "copies", Repetitions: 3}}},
		results.Environment{CPUs: 1, MemoryBytes: 1, Commit: name})
	require.NoError(t, err)
	for i := range 3 {
		require.NoError(t, w.Append(results.Record{Experiment: "copies", Trial: i, Repetition: i, Source: results.SourceMeasured,
			Cell: results.Cell{"read": "copy"}, Valid: true, Copies: &results.Copies{PerPayloadByte: copies, Backend: "boundary"}}))
	}
	require.NoError(t, w.Close())
	return dir
}

func TestRegressFailsOnAnAddedCopyAndNamesTheCell(t *testing.T) {
	base, head := countedRun(t, "base", 2), countedRun(t, "head", 3)
	code, stdout, stderr := waggle(t, "regress", "--base", base, "--head", head)
	require.Equal(t, exitFailed, code)
	require.Contains(t, stdout, "WORSE   copies, read=copy: copies_per_byte: 3 instead of 2")
	require.Empty(t, stderr)

	code, stdout, _ = waggle(t, "regress", "--base", base, "--head", base, "--json")
	require.Zero(t, code)
	require.True(t, json.Valid([]byte(stdout)))

	code, stdout, _ = waggle(t, "regress", "--base", head, "--head", base, "--markdown")
	require.Zero(t, code)
	require.Contains(t, stdout, "### Better")
}

func TestRegressDrawsAHistory(t *testing.T) {
	dir := filepath.Dir(countedRun(t, "only", 2))
	graphs := filepath.Join(t.TempDir(), "graphs")
	code, stdout, stderr := waggle(t, "regress", "--history", dir, "--graphs", graphs)
	require.Zero(t, code, stderr)
	require.Contains(t, stdout, "0 of 1 trend changed")
	_, err := os.Stat(filepath.Join(graphs, "trend-copies-copies_per_byte.svg"))
	require.NoError(t, err)
}

func TestAHistoryThatGotWorseFails(t *testing.T) {
	dir := t.TempDir()
	for i, copies := range []float64{2, 3} {
		name := fmt.Sprint("run", i)
		require.NoError(t, os.Rename(countedRun(t, name, copies), filepath.Join(dir, name)))
	}
	code, stdout, _ := waggle(t, "regress", "--history", dir)
	require.Equal(t, exitFailed, code)
	require.Contains(t, stdout, "worse   copies, read=copy: copies_per_byte")
}

func TestClaimsPrintsAVerdictForEach(t *testing.T) {
	dir := countedRun(t, "run", 2)
	code, stdout, stderr := waggle(t, "claims", dir)
	require.Zero(t, code, stderr)
	require.Contains(t, stdout, "not testable here")
	code, stdout, _ = waggle(t, "claims", dir, "--json")
	require.Zero(t, code)
	require.True(t, json.Valid([]byte(stdout)))
}

func TestAnalysisUsage(t *testing.T) {
	for _, args := range [][]string{
		{"claims"}, {"claims", "a", "b"}, {"regress"}, {"regress", "--base", "a"}, {"regress", "a", "--base", "b", "--head", "c"},
		{"regress", "a", "--json", "--markdown"}, {"regress", "a", "--graphs", "g"}, {"regress", "--history", "h", "--base", "b"},
	} {
		code, _, stderr := waggle(t, args...)
		require.Equal(t, exitUsage, code, args)
		require.Regexp(t, `^waggle: [^\n]+\n$`, stderr, args)
	}
	code, _, stderr := waggle(t, "claims", t.TempDir())
	require.Equal(t, exitFailed, code)
	require.Contains(t, stderr, "is not a run directory")
}
