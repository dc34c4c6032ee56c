package paper

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"waggle/analysis/latex"
	"waggle/analysis/synthetic"
	"waggle/results"
)

// declarations parses what a test declares.
func declarations(t *testing.T, text string) *Declarations {
	t.Helper()
	d, err := Parse([]byte(text))
	require.NoError(t, err)
	return d
}

const readClaim = `
claims:
  large:
    about: sendfile against copy
    experiment: read-path
    metric: throughput
    where: {size_bytes: 1048576, topology: local}
    baseline: {read: copy}
    treatment: {read: sendfile}
    expect: EXPECT
    least: 1.1
    holds: It gains {range}.
    part: It gains in {cells}.
    fails: It gains nothing ({range}).
`

func TestDeclarationsAreReadStrictly(t *testing.T) {
	for name, bad := range map[string]string{
		"an unknown field":            "numbers: {a: {experiment: x, metric: throughput, color: red}}",
		"a name that is no macro":     "numbers: {Big Number: {experiment: x, metric: throughput}}",
		"a metric that isn't there":   "numbers: {a: {experiment: x, metric: beauty}}",
		"a fact that isn't there":     "numbers: {a: {fact: weather}}",
		"half a ratio":                "numbers: {a: {experiment: x, metric: throughput, baseline: {read: copy}}}",
		"an expectation of its own":   strings.Replace(readClaim, "EXPECT", "marvellous", 1),
		"a claim without a least":     strings.Replace(strings.Replace(readClaim, "EXPECT", "better", 1), "least: 1.1", "least: 0.5", 1),
		"a figure twice":              "figures: [a-b, a-b]",
		"a table without its columns": "tables: {a: {experiment: x, metric: throughput, rows: read}}",
		"two documents":               "figures: []\n---\nfigures: []",
	} {
		_, err := Parse([]byte(bad))
		assert.Error(t, err, name)
	}
}

func TestSentenceFollowsTheRecords(t *testing.T) {
	run := synthetic.Realistic(t)
	sentence := func(expect string) (Judgement, string) {
		e, err := Evaluate(declarations(t, strings.Replace(readClaim, "EXPECT", expect, 1)), run)
		require.NoError(t, err)
		v := e.Verdicts["large"]
		return v.Judgement, v.Sentence()
	}
	judgement, text := sentence("better")
	opposite, otherText := sentence("worse")
	require.NotEqual(t, Unknown, judgement, text)
	assert.NotEqual(t, judgement, opposite, "a claim and its opposite can't both hold")
	assert.ElementsMatch(t, []Judgement{Holds, Fails}, []Judgement{judgement, opposite})
	assert.NotContains(t, text+otherText, "{range}")
}

func TestWhatIsNotMeasuredIsSaid(t *testing.T) {
	d := declarations(t, strings.Replace(readClaim, "EXPECT", "better", 1)+`
numbers: {speed: {experiment: read-path, metric: throughput, where: {read: sendfile}}}
figures: [read-path-throughput]
tables: {reads: {experiment: read-path, metric: throughput, rows: read, columns: size_bytes}}
`)
	run := synthetic.Realistic(t)
	run.Records = nil
	e, err := Evaluate(d, run)
	require.NoError(t, err)
	assert.Equal(t, Unknown, e.Verdicts["large"].Judgement)
	assert.Contains(t, e.Verdicts["large"].Sentence(), "not measured")
	assert.NotEmpty(t, e.Numbers["speed"].Missing)

	dir := t.TempDir()
	require.NoError(t, (&Output{Declarations: d, Evaluation: e}).Write(dir))
	figures, err := os.ReadFile(filepath.Join(dir, figuresFile))
	require.NoError(t, err)
	assert.Contains(t, string(figures), `\MissingFigure`)
}

func TestNumberThatSeveralCellsGiveIsRefused(t *testing.T) {
	d := declarations(t, `numbers: {speed: {experiment: read-path, metric: throughput, where: {read: sendfile}}}`)
	_, err := Evaluate(d, synthetic.Realistic(t))
	assert.ErrorContains(t, err, "name more levels")
}

func TestSameRecordsGiveTheSameBytes(t *testing.T) {
	d := declarations(t, strings.Replace(readClaim, "EXPECT", "better", 1)+"figures: [read-path-throughput]\n")
	write := func(run *results.Run) map[string]string {
		e, err := Evaluate(d, run)
		require.NoError(t, err)
		dir := t.TempDir()
		require.NoError(t, (&Output{Declarations: d, Evaluation: e}).Write(dir))
		files := map[string]string{}
		require.NoError(t, filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
			if err == nil && !entry.IsDir() {
				content, readErr := os.ReadFile(path)
				files[strings.TrimPrefix(path, dir)], err = string(content), readErr
			}
			return err
		}))
		return files
	}
	run := synthetic.Realistic(t)
	first := write(run)
	for i, j := 0, len(run.Records)-1; i < j; i, j = i+1, j-1 {
		run.Records[i], run.Records[j] = run.Records[j], run.Records[i]
	}
	assert.Equal(t, first, write(run))
	assert.Contains(t, first, "/figures/read-path-throughput.pdf")
}

func TestWhatDiffersFromTheReferenceIsMarked(t *testing.T) {
	d := declarations(t, strings.Replace(readClaim, "EXPECT", "better", 1)+`
numbers: {speed: {experiment: read-path, metric: throughput, where: {read: sendfile, size_bytes: 1048576, topology: local}}}
`)
	reference, err := Evaluate(d, synthetic.Realistic(t))
	require.NoError(t, err)
	same, err := Evaluate(d, synthetic.Realistic(t))
	require.NoError(t, err)
	none := Compare(same, reference)
	assert.Empty(t, none.Claims)
	assert.Empty(t, none.Numbers)

	slowed := synthetic.Realistic(t)
	for i := range slowed.Records {
		if r := &slowed.Records[i]; r.Cell["read"] == "sendfile" && r.ThroughputBytesPerSecond != nil {
			*r.ThroughputBytesPerSecond /= 20
		}
	}
	own, err := Evaluate(d, slowed)
	require.NoError(t, err)
	differences := Compare(own, reference)
	assert.Contains(t, differences.Claims, "large")
	assert.Contains(t, differences.Numbers, "speed")
	out := Output{Declarations: d, Evaluation: own, Differences: differences}
	assert.Contains(t, out.verdicts(), `\DifferingVerdict`)
	assert.Contains(t, out.numbers(), `\Differing{`)
	assert.Contains(t, out.differences(), "sendfile against copy")
}

func TestPlainTextSurvivesLaTeX(t *testing.T) {
	assert.Equal(t, `read=sockmap+copy size\_bytes=1 \%\&\#\$\{\}\textbackslash{}\textasciitilde{}`, latex.Escape(`read=sockmap+copy size_bytes=1 %&#${}\~`))
	assert.Equal(t, "12~\\textmu{}s", typeset("12 µs"))
}
