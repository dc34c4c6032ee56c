package results

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// chainedRun writes a run of a few records, the last after a resume.
func chainedRun(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "run")
	plan, environment := testPlan(), testEnvironment()
	w, err := Create(dir, plan, environment)
	require.NoError(t, err)
	for trial := range 3 {
		require.NoError(t, w.Append(testRecord(trial)))
	}
	require.NoError(t, w.Close())
	w, _, err = Resume(dir, environment)
	require.NoError(t, err)
	require.NoError(t, w.Append(testRecord(3)))
	require.NoError(t, w.Close())
	return dir
}

func TestChainHoldsForWhatWasWritten(t *testing.T) {
	assert.NoError(t, CheckChain(chainedRun(t)))
}

func TestChainBreaksOnEveryEdit(t *testing.T) {
	lines := func(text []byte) [][]byte {
		return bytes.SplitAfter(bytes.TrimSuffix(text, []byte("\n")), []byte("\n"))
	}
	for name, edit := range map[string]func([]byte) []byte{
		"a number": func(text []byte) []byte {
			return bytes.Replace(text, []byte(`"operations":10,`), []byte(`"operations":11,`), 1)
		},
		"a removed record": func(text []byte) []byte { return bytes.Join(lines(text)[1:], nil) },
		"a swapped pair":   func(text []byte) []byte { l := lines(text); l[0], l[1] = l[1], l[0]; return bytes.Join(l, nil) },
		"a removed link": func(text []byte) []byte {
			covered, _, _ := unlinked(bytes.TrimSuffix(lines(text)[0], []byte("\n")))
			return append(append(covered, '\n'), bytes.Join(lines(text)[1:], nil)...)
		},
		"a link of its own": func(text []byte) []byte { return bytes.Replace(text, []byte(`"chain":"`), []byte(`"chain":"0`), 1) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := chainedRun(t)
			file := filepath.Join(dir, RecordsFile)
			text, err := os.ReadFile(file)
			require.NoError(t, err)
			edited := edit(bytes.Clone(text))
			require.NotEqual(t, text, edited)
			require.NoError(t, os.WriteFile(file, edited, 0o600))
			assert.Error(t, CheckChain(dir))
			assert.NotErrorIs(t, CheckChain(dir), ErrNoChain)
		})
	}
}

func TestChainCoversPlanAndEnvironment(t *testing.T) {
	for _, name := range []string{PlanFile, EnvironmentFile} {
		dir := chainedRun(t)
		text, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), append(text, '\n'), 0o600))
		assert.Error(t, CheckChain(dir), name)
	}
}
