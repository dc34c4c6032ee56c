package results

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const appendForeverIn = "WAGGLE_TEST_APPEND_FOREVER_IN"

// TestMain lets the test binary stand in for a runner that is killed.
func TestMain(m *testing.M) {
	if dir := os.Getenv(appendForeverIn); dir != "" {
		appendForever(dir)
	}
	os.Exit(m.Run())
}

// appendForever says on its output how many records it was told are safe.
func appendForever(dir string) {
	w, err := Create(dir, testPlan(), testEnvironment())
	for i := 0; err == nil; i++ {
		if err = w.Append(testRecord(i)); err == nil {
			fmt.Println(i + 1)
		}
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func TestAKilledRunLosesNothingThatWasSafe(t *testing.T) {
	for _, killAfter := range []int{1, 2, 17} {
		dir := filepath.Join(t.TempDir(), "run")
		runner := exec.CommandContext(t.Context(), os.Args[0])
		runner.Env = append(os.Environ(), appendForeverIn+"="+dir)
		output, err := runner.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, runner.Start())
		safe, lines := 0, bufio.NewScanner(output)
		for lines.Scan() {
			if safe++; safe == killAfter {
				require.NoError(t, runner.Process.Kill())
			}
		}
		require.Error(t, runner.Wait())

		w, run, err := Resume(dir, testEnvironment())
		require.NoError(t, err)
		assert.GreaterOrEqual(t, len(run.Records), safe)
		require.NoError(t, w.Append(testRecord(len(run.Records))))
		require.NoError(t, w.Close())
		_, err = Open(dir)
		require.NoError(t, err)
	}
}
