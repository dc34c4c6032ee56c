package paper

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// lintText checks one section, given the declarations that it uses.
func lintText(t *testing.T, text string) string {
	t.Helper()
	d := declarations(t, `
paths: [sockmap, sendfile]
constants: ["4 KiB", "16"]
figures: [used-figure]
numbers: {speed: {fact: trials}}
`+strings.Replace(readClaim, "EXPECT", "better", 1))
	const uses = "\\Number{speed} \\Verdict{large}\n\n\\Figure{used-figure}{It is referred to.} \\ref{fig:used-figure}\n\n"
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "section.tex"), []byte(uses+text), 0o600))
	require.NoError(t, os.Mkdir(filepath.Join(dir, "generated"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "generated", "numbers.tex"), []byte("42"), 0o600))
	faults, err := Lint(d, dir)
	require.NoError(t, err)
	return fmt.Sprint(faults)
}

func TestLintFindsWhatNoRecordStandsBehind(t *testing.T) {
	for name, c := range map[string]struct{ text, fault string }{
		"a bare number":                  {"We read 17 files.", `"17"`},
		"a constant within a number":     {"We read 160 files.", `"160"`},
		"a number in a caption":          {`\Figure{used-figure}{The best of 9.}`, `"9."`},
		"a comparison":                   {"Clearly sockmap is faster.", `"faster" beside "sockmap"`},
		"a comparison beside a verdict":  {`\Verdict{large} And sendfile saves time.`, `"saves" beside "sendfile"`},
		"a number that isn't declared":   {`It takes \Number{time}.`, `\Number{time}`},
		"a figure that isn't declared":   {`\Figure{other}{} \ref{fig:other}`, `\Figure{other}`},
		"a figure nobody refers to":      {`\Table{t}{} `, `\ref{tab:t}`},
		"a number behind a percent sign": {`It gained 5\% of that.`, `"5"`},
	} {
		assert.Contains(t, lintText(t, c.text), c.fault, name)
	}
}

func TestLintLetsHonestTextPass(t *testing.T) {
	for name, text := range map[string]string{
		"constants":             "A block has 4 KiB, a path 16 components.",
		"years":                 "In 2023 somebody tried.",
		"citations":             `Others found sockmap slower~\cite{osh2023}.`,
		"verdicts":              `\Verdict{large}`,
		"code":                  `Call \texttt{waggle run --clients 4}.`,
		"comments":              "Nothing here. % sockmap is 10 times faster",
		"comparisons of people": "A student has less time than a professor.",
		"what moves":            "With sendfile the socket holds references to pages.",
	} {
		assert.Equal(t, "[]", lintText(t, text), name)
	}
}

func TestLintFindsWhatTheTextDoesNotUse(t *testing.T) {
	d := declarations(t, "figures: [a-b]\nnumbers: {speed: {fact: trials}}")
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "a.tex"), []byte("Nothing."), 0o600))
	faults, err := Lint(d, dir)
	require.NoError(t, err)
	assert.Len(t, faults, 2)
}

// The paper itself is held to what Lint finds.
func TestThePaperItself(t *testing.T) {
	text, err := os.ReadFile("../../paper/paper.yaml")
	require.NoError(t, err)
	d, err := Parse(text)
	require.NoError(t, err)
	faults, err := Lint(d, "../../paper")
	require.NoError(t, err)
	assert.Empty(t, faults)
}

func FuzzParse(f *testing.F) {
	f.Add(readClaim)
	f.Add("numbers: {speed: {fact: trials}}")
	f.Fuzz(func(t *testing.T, text string) {
		if d, err := Parse([]byte(text)); err == nil {
			assert.NoError(t, d.check())
		}
	})
}

func FuzzProse(f *testing.F) {
	f.Add(`\Figure{a}{b 12} % 3` + "\n" + `\cite[p.~4]{x}`)
	f.Fuzz(func(t *testing.T, source string) {
		l := linter{declarations: &Declarations{Paths: []string{"sockmap"}}, used: map[string]bool{}, referred: map[string]bool{}}
		prose := proseOf(withoutComments(source))
		assert.Equal(t, strings.Count(source, "\n"), strings.Count(prose, "\n"), "lines are kept")
		l.names("fuzz", source)
		l.numbers("fuzz", prose)
		l.comparisons("fuzz", prose)
	})
}
