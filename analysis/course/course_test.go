package course

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"waggle/analysis/figure"
	"waggle/analysis/latex"
	"waggle/analysis/synthetic"
)

// inLanguage gives this process's figures a language for one test.
func inLanguage(t *testing.T, l figure.Language) {
	t.Helper()
	if err := figure.UseLanguage(l); err != nil {
		t.Skipf("%v", err)
	}
	t.Cleanup(func() { require.NoError(t, figure.UseLanguage(figure.English)) })
}

func TestSkeletonHoldsResultsAndPlacesForOwnWords(t *testing.T) {
	for _, language := range []figure.Language{figure.English, figure.Chinese} {
		t.Run(string(language), func(t *testing.T) {
			inLanguage(t, language)
			run := synthetic.Realistic(t)
			report, err := Make(run, language)
			require.NoError(t, err)
			dir := t.TempDir()
			require.NoError(t, report.Write(dir))
			marks := map[string]string{MarkdownFile: "**Your words:**", LaTeXFile: `\yourwords{`}
			if language == figure.Chinese {
				marks[MarkdownFile] = "**请填写：**"
			}
			for name, mark := range marks {
				text, err := os.ReadFile(filepath.Join(dir, name))
				require.NoError(t, err)
				assert.GreaterOrEqual(t, strings.Count(string(text), mark), 5, name)
				assert.Contains(t, string(text), "sendfile / copy", name)
				assert.NotContains(t, string(text), "<<", name)
			}
			pictures, err := filepath.Glob(filepath.Join(dir, figuresDir, "*.png"))
			require.NoError(t, err)
			assert.NotEmpty(t, pictures)
			assert.ErrorContains(t, report.Write(dir), "your words")
		})
	}
}

func TestRunWithoutTrialsIsNoReport(t *testing.T) {
	run := synthetic.Realistic(t)
	run.Records = nil
	_, err := Make(run, figure.English)
	assert.ErrorContains(t, err, "nothing to report")
}

func TestTextOfRecordsIsEscaped(t *testing.T) {
	assert.Equal(t, `a\|b\_c&lt;`, escapeMarkdown("a|b_c<"))
	assert.Equal(t, `a\_b\%\textbackslash{}`, latex.Escape(`a_b%\`))
}
