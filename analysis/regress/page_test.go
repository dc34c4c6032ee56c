package regress

import (
	"cmp"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/net/html"

	"waggle/internal/browsertest"
	"waggle/results"
)

// pagedHistory is a history that gets worse at its seventh run; the fourth has no
// record of read=sendfile.
func pagedHistory() History {
	var runs []*results.Run
	for i := range uint64(12) {
		r := good
		if i >= 6 {
			r = revisionUnderTest{slowdown: 1.3, copies: 3}
		}
		r.broken = i == 3
		run := madeRun(100+i, fmt.Sprintf("run%d", i), r)
		runs = append(runs, run)
	}
	return Follow(runs)
}

func TestThePageHasWhatChangedFirstAndLeadsToCommits(t *testing.T) {
	h := pagedHistory()
	o := PageOptions{CommitURL: "https://example.org/p/commit/"}
	page, err := h.Page(o)
	require.NoError(t, err)
	again, err := pagedHistory().Page(o)
	require.NoError(t, err)
	require.Equal(t, string(page), string(again))

	text := string(page)
	require.Less(t, strings.Index(text, "<h2>What changed</h2>"), strings.Index(text, "<h2>What did not change</h2>"))
	assert.Contains(t, text, `<b>worse</b> at <a href="https://example.org/p/commit/c000106">c000106</a>: 3 copies/B, 2 copies/B before`)
	assert.NotContains(t, text, "0 commits without a run")
	links := 0
	tokens := html.NewTokenizer(strings.NewReader(text))
	for tokens.Next() != html.ErrorToken {
		token := tokens.Token()
		require.NotContains(t, []string{"script", "img", "iframe", "object"}, token.Data)
		for _, a := range token.Attr {
			if a.Key == "href" && a.Val != "data:," {
				require.True(t, strings.HasPrefix(a.Val, o.CommitURL), a.Val)
				links++
			}
		}
	}
	points := 0
	for _, trend := range h.Trends {
		points += len(trend.Points) + len(trend.Changes)
	}
	assert.Equal(t, points, links, "each point and each change leads to its commit")
}

func TestAMissingRevisionIsAGap(t *testing.T) {
	h := pagedHistory()
	commits := []string{"before"}
	for _, r := range h.Runs {
		commits = append(commits, r.Commit)
	}
	commits = append(commits[:5:5], append([]string{"no-run"}, commits[5:]...)...)
	columns, warnings := h.columns(commits)
	require.Empty(t, warnings)
	require.Len(t, columns, 14)
	require.Equal(t, 2, gaps(columns))
	for _, trend := range h.Trends {
		g, err := newGraph(trend, columns, "")
		require.NoError(t, err)
		missing, pieces := 2, 2 // a line ends before the gap, and another begins behind
		if trend.Cell == "read=sendfile" {
			missing = 3 // two apart leave a single run between them, which is no line
			assert.Len(t, g.Dots, 11)
		}
		assert.Len(t, g.Gaps, missing, trend.Cell)
		assert.Len(t, g.Lines, pieces, trend.Cell)
	}
	_, warnings = h.columns(commits[:4])
	require.Len(t, warnings, 9)
	assert.Contains(t, warnings[0], "is not among those given")
}

func TestAddressesOfCommits(t *testing.T) {
	require.NoError(t, CheckCommitURL("https://example.org/commit/"))
	require.NoError(t, CheckCommitURL("https://example.org/{commit}.html"))
	assert.Equal(t, "https://example.org/a%2Fb.html", commitLink("https://example.org/{commit}.html", "a/b"))
	for _, wrong := range []string{"", "commit/", "javascript:alert(1)//", "file:///tmp/"} {
		require.ErrorContains(t, CheckCommitURL(wrong), "is no address of commits")
	}
	file := filepath.Join(t.TempDir(), "commits")
	require.NoError(t, os.WriteFile(file, []byte("a\nb\n"), 0o600))
	commits, err := ReadCommits(file)
	require.NoError(t, err)
	assert.Equal(t, []string{"a", "b"}, commits)
	require.NoError(t, os.WriteFile(file, []byte("a\nb\na\n"), 0o600))
	_, err = ReadCommits(file)
	require.ErrorContains(t, err, "lists a twice")
	_, err = ReadCommits(file + "x")
	require.ErrorContains(t, err, "read commits: ")
}

func TestTheHistoryPageInABrowser(t *testing.T) {
	b := browsertest.Start(t)
	dir := cmp.Or(os.Getenv("WAGGLE_TEST_PICTURES"), t.TempDir())
	page, err := pagedHistory().Page(PageOptions{CommitURL: "https://example.org/p/commit/"})
	require.NoError(t, err)
	file, err := filepath.Abs(filepath.Join(dir, "history.html"))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(file, page, 0o600))
	for name, look := range map[string]struct {
		width  int64
		scheme string
	}{"phone": {390, "dark"}, "desktop": {1200, "light"}} {
		b.Media("screen", look.scheme)
		b.Open((&url.URL{Scheme: "file", Path: file}).String(), look.width)
		b.RequireFits(look.width)
		require.Positive(t, browsertest.Look[int](b, `[...document.querySelectorAll('svg a circle')].filter(e => e.getBoundingClientRect().width > 1).length`))
		if os.Getenv("WAGGLE_TEST_PICTURES") != "" {
			b.Picture(filepath.Join(dir, "history-"+name+".jpeg"))
		}
	}
	require.Empty(t, b.Complaints())
}
