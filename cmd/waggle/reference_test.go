package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"waggle/results"
)

// referenceRun is a run that is kept with the code, and what was drawn from it.
const referenceRun = "../../results/reference"

// Whoever changes how records are read, judged or drawn sees in the difference
// what that does to a real run: `waggle figures results/reference` and `waggle
// report results/reference` make these files again.
func TestReferenceRunIsDrawnAsCommitted(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{results.PlanFile, results.EnvironmentFile, results.RecordsFile} {
		data, err := os.ReadFile(filepath.Join(referenceRun, name))
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), data, 0o600))
	}
	for _, command := range []string{"figures", "report"} {
		code, _, stderr := waggle(t, command, dir)
		require.Zero(t, code, stderr)
		require.Empty(t, stderr)
	}
	committed, err := filepath.Glob(filepath.Join(referenceRun, results.FiguresDir, "*.svg"))
	require.NoError(t, err)
	drawn, err := filepath.Glob(filepath.Join(dir, results.FiguresDir, "*.svg"))
	require.NoError(t, err)
	require.Len(t, committed, len(drawn), "draw the reference run again")
	for _, file := range append(drawn, filepath.Join(dir, results.SummaryFile)) {
		name, err := filepath.Rel(dir, file)
		require.NoError(t, err)
		want, err := os.ReadFile(filepath.Join(referenceRun, name))
		require.NoError(t, err)
		got, err := os.ReadFile(file)
		require.NoError(t, err)
		require.True(t, string(want) == string(got), "%s of the reference run is not drawn as it is committed: look at the difference, draw it again, commit", name)
	}
}
