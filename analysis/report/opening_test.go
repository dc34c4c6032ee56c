package report

import (
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"

	"waggle/analysis/figure"
	"waggle/results"
	"waggle/stats"
)

func headlineWith(verdict stats.Verdict, ratio float64) figure.Headline {
	return figure.Headline{Experiment: "e", Metric: "throughput", Paths: "a vs b", Place: "1 MiB", HigherBetter: true,
		Comparison: stats.Comparison{Verdict: verdict, Ratio: &stats.Interval{Value: ratio, Low: ratio * .9, High: ratio * 1.1}}}
}

func TestTheOpeningSaysWhatThePictureShows(t *testing.T) {
	r := makeReport(t, sweep(10, 0.01, map[string][]float64{
		"copy": {1e9, 1e9, 1e9}, "sockmap+copy": {1e9, 2e9, .5e9},
	}))
	require.NotNil(t, r.Opening.Wide)
	require.NotNil(t, r.Opening.Narrow)
	require.Len(t, r.Opening.Sentences, 2)
	require.Equal(t, "eBPF", r.Opening.Sentences[0].Subject)
	require.Regexp(t, `^wins 1 of 3 comparisons, most clearly sockmap\+copy against copy \(read, 64 KiB\), by (2\.0|1\.9)\d× \[.*\]\.$`, r.Opening.Sentences[0].Text)
	require.Regexp(t, `^in 1, most clearly sockmap\+copy against copy \(read, 1 MiB\), by (2\.0|1\.9)\d× \[.*\]; 1 end equal\.$`, r.Opening.Sentences[1].Text)
	page := pageOf(t, r)
	require.Len(t, regexp.MustCompile(`class="plot headlines`).FindAllString(page, -1), 2, "one for a page, one for a narrow screen")
	require.Contains(t, string(r.Markdown()), "**Another path beats it** in 1")

	r = makeReport(t, sweep(10, 0.01, map[string][]float64{"copy": {1e9, 1e9, 1e9}}))
	require.Nil(t, r.Opening.Wide, "without an eBPF path there is no picture")
}

func TestOpeningSentences(t *testing.T) {
	s := summarise([]figure.Headline{headlineWith(stats.Undecided, 1), headlineWith(stats.Depends, 1.2)})
	require.Equal(t, "wins none of the 2 comparisons.", s[0].Text)
	require.Equal(t, "in none; 1 depend on where the roles run, 1 can't be told.", s[1].Text)
	marked := headlineWith(stats.Better, 3)
	marked.Marked = true
	s = summarise([]figure.Headline{marked})
	require.Equal(t, "wins 1 of 1 comparison, most clearly a against b (e, 1 MiB), by 3.00× [2.70, 3.30].", s[0].Text)
	require.Equal(t, "in none; in 1 (†), a setting of the machine moves the result more than the path does.", s[1].Text)
}

// The picture marks comparisons of a path that a setting moves more than the path
// itself does.
func TestMovedPathsAreMarked(t *testing.T) {
	moved := movedBySettings([]Experiment{{Figures: []Figure{{Figure: &figure.Figure{
		Spec: results.FigureSpec{Kind: "tornado", Series: "read"},
		Moves: []figure.Move{
			{Path: "sockmap+copy", Comparison: headlineWith(stats.Better, 1.3).Comparison},
			{Setting: "congestion=bbr", Path: "copy", Comparison: headlineWith(stats.Worse, .5).Comparison},
			{Setting: "mtu=1500", Path: "sockmap+copy", Comparison: headlineWith(stats.Worse, .9).Comparison},
		},
	}}}}})
	require.Len(t, moved, 1)
	require.True(t, moved[0].concerns("read", "afxdp", "copy"))
	require.False(t, moved[0].concerns("read", "sockmap+copy", "sendfile"))
	require.False(t, moved[0].concerns("lookup", "copy", "copy"))
}

func TestTooManyComparisonsAreShownByTheirEnds(t *testing.T) {
	var races []race
	for range 12 {
		c := comparer{figure: &figure.Figure{Spec: results.FigureSpec{Series: "read", X: "size_bytes"}}, metric: results.Metric{Label: "m"}}
		var places []place
		for x := range 5 {
			pair := stats.Pair{Baseline: stats.Group{Cell: results.Cell{"read": "copy"}}, Treatment: stats.Group{Cell: results.Cell{"read": "afxdp"}}}
			places = append(places, place{float64(x + 1), pair, headlineWith(stats.Better, 2).Comparison})
		}
		races = append(races, race{"e", c, contest{places: places}})
	}
	require.Len(t, headlinesOf(races[:2], nil), 10)
	require.Len(t, headlinesOf(races, nil), 24)
}
