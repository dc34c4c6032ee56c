package gateway

import (
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"waggle/dfs/dfstest"
)

// litmusSummary is what litmus says at the end of each of its parts.
var litmusSummary = regexp.MustCompile("<- summary for `(\\w+)': of (\\d+) tests run: (\\d+) passed, (\\d+) failed")

// litmusTests are how many tests each part of litmus 0.13 has.
var litmusTests = map[string]string{"basic": "16", "copymove": "13", "props": "30", "locks": "41", "http": "4"}

// WebDAV's own suite of tests passes: all of them run, none is skipped.
func TestLitmus(t *testing.T) {
	litmus, err := exec.LookPath("litmus")
	if err != nil {
		t.Skip("litmus is not installed (Debian: apt-get install litmus): ", err)
	}
	p := start(t, dfstest.Start(t, dfstest.Options{}), nil)
	command := exec.CommandContext(t.Context(), litmus, "-k", p.url+"/")
	command.Dir = t.TempDir() // where litmus writes debug.log
	out, err := command.CombinedOutput()
	text := strings.ReplaceAll(string(out), "\r", "\n")
	t.Log(strings.Join(regexp.MustCompile("(?m)^.*(summary|WARNING|FAIL|SKIP|warning).*$").FindAllString(text, -1), "\n"))
	require.NoError(t, err, "%s", text)
	ran := make(map[string]string)
	for _, m := range litmusSummary.FindAllStringSubmatch(text, -1) {
		ran[m[1]] = m[2]
		assert.Equal(t, m[2], m[3], "%s: passed", m[1])
	}
	assert.Equal(t, litmusTests, ran)
	assert.NotContains(t, text, "SKIPPED")
}
