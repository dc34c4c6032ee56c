package report

import (
	"cmp"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/html"

	"waggle/analysis/figure"
	"waggle/analysis/synthetic"
	"waggle/results"
)

// pictures is a directory to leave reports in, for people to look at:
// WAGGLE_TEST_PICTURES, or one that is removed.
func pictures(t *testing.T) string { return cmp.Or(os.Getenv("WAGGLE_TEST_PICTURES"), t.TempDir()) }

func makeReport(t *testing.T, run *results.Run) *Report {
	figures, skipped := figure.DrawAll(run)
	r, err := Make(run, figures, skipped)
	require.NoError(t, err)
	return r
}

func pageOf(t *testing.T, r *Report) string {
	data, err := r.HTML()
	require.NoError(t, err)
	return string(data)
}

func TestSameRecordsGiveSameBytes(t *testing.T) {
	run := synthetic.Realistic(t)
	shuffled := *run
	shuffled.Records = slices.Clone(run.Records)
	rand.New(rand.NewPCG(3, 4)).Shuffle(len(shuffled.Records), func(i, j int) {
		shuffled.Records[i], shuffled.Records[j] = shuffled.Records[j], shuffled.Records[i]
	})
	a, b := makeReport(t, run), makeReport(t, &shuffled)
	require.True(t, pageOf(t, a) == pageOf(t, b), "report.html depends on the order of the records")
	require.Equal(t, string(a.Markdown()), string(b.Markdown()))
}

// sweep is a run with one figure: read paths at sizes, with a throughput each,
// an A/A control, and so many repetitions.
func sweep(repetitions int, noise float64, throughput map[string][]float64) *results.Run {
	sizes := []any{4096.0, 65536.0, 1048576.0}
	paths := slices.Sorted(maps.Keys(throughput))
	levels := []any{}
	for _, path := range append(paths[:len(paths):len(paths)], "xdp") {
		levels = append(levels, path)
	}
	e := results.PlannedExperiment{
		Name: "read", Question: "Which?", Repetitions: repetitions,
		Factors: []results.Factor{{Name: "size_bytes", Levels: sizes}, {Name: "read", Levels: levels}},
		Figures: []results.FigureSpec{{Kind: "throughput", Title: "Throughput", X: "size_bytes", Series: "read", Baseline: "copy"}},
	}
	run := &results.Run{Plan: results.Plan{Run: "r", Experiments: []results.PlannedExperiment{e}}}
	random := rand.New(rand.NewPCG(1, 2))
	add := func(r results.Record, v float64) {
		v *= 1 + noise*random.NormFloat64()
		r.Schema, r.Run, r.Experiment, r.Source, r.Trial = results.Schema, "r", "read", results.SourceMeasured, len(run.Records)
		if r.Reason == "" {
			r.Valid, r.ThroughputBytesPerSecond = true, &v
		}
		run.Records = append(run.Records, r)
	}
	for repetition := range repetitions {
		for i, size := range sizes {
			for _, path := range paths {
				add(results.Record{Repetition: repetition, Cell: results.Cell{"read": path, "size_bytes": size}}, throughput[path][i])
			}
			add(results.Record{Repetition: repetition, Cell: results.Cell{"read": "xdp", "size_bytes": size}, Unsupported: true, Reason: "read=xdp: no such thing"}, 0)
		}
		add(results.Record{Repetition: repetition, Cell: results.Cell{"read": "copy", "size_bytes": sizes[0]}, Control: results.ControlAA}, throughput["copy"][0])
	}
	return run
}

func TestTheAnswerInWords(t *testing.T) {
	r := makeReport(t, sweep(10, 0.01, map[string][]float64{"copy": {1e8, 1e9, 2e9}, "sendfile": {0.8e8, 1e9, 4e9}}))
	require.Len(t, r.Experiments[0].Answers, 1)
	answer := r.Experiments[0].Answers[0]
	require.Equal(t, "On this machine, against copy, by throughput:", answer.Lead)
	require.Len(t, answer.Points, 2)
	require.Equal(t, "sendfile", answer.Points[0].Subject)
	require.Regexp(t, `^wins at 1 MiB, by (2\.0|1\.9)\d× \[.*\]; loses at 4 KiB, by 1\.2\d× \[.*\]; makes no difference above \d\.\d % at 64 KiB\.$`, answer.Points[0].Text)
	require.Equal(t, Sentence{"xdp", "is not supported on this machine (read=xdp: no such thing)."}, answer.Points[1])
	require.Contains(t, pageOf(t, r), "<b>sendfile</b> wins at 1 MiB")
	require.Contains(t, string(r.Markdown()), "- **sendfile** wins at 1 MiB")
}

func TestTheStrongestComesFirstAndTheUndecidedTogether(t *testing.T) {
	r := makeReport(t, sweep(10, 0.01, map[string][]float64{
		"copy": {1e9, 1e9, 1e9}, "mmap": {1e9, 1e9, 1e9}, "sendfile": {0.5e9, 0.5e9, 0.5e9},
		"splice": {2e9, 2e9, 2e9}, "sockmap+copy": {4e9, 4e9, 4e9}, "iouring": {1e9, 1e9, 1e9},
	}))
	var subjects []string
	for _, p := range r.Experiments[0].Answers[0].Points {
		subjects = append(subjects, p.Subject)
	}
	require.Equal(t, []string{"sockmap+copy", "splice", "sendfile", "iouring, mmap", "xdp"}, subjects)
	require.Regexp(t, `^make no difference above \S+ % at every size\.$`, r.Experiments[0].Answers[0].Points[3].Text)
}

func TestTheFirstLinesSayWhereAnotherPathBeatsEBPF(t *testing.T) {
	r := makeReport(t, sweep(10, 0.01, map[string][]float64{
		"copy": {1e9, 1e9, 1e9}, "sockmap+copy": {1e9, 2e9, 2e9}, "sockmap+mmap": {0.9e9, 2.5e9, 2.1e9}, "shortcircuit": {8e9, 7e9, 6e9},
	}))
	require.Len(t, r.Opening.Details, 1)
	require.Equal(t, "read:", r.Opening.Details[0].Subject)
	require.Regexp(t, `^read=sockmap\+copy or sockmap\+mmap against shortcircuit, by throughput: loses at every size, by 2\.\d+× \[.*\] at \S+ \S+ to (8|7)\.\d+× \[.*\] at 4 KiB\.$`, r.Opening.Details[0].Text)
	page := pageOf(t, r)
	require.Less(t, strings.Index(page, "against shortcircuit, by throughput: loses"), strings.Index(page, "On this machine, against copy"))

	r = makeReport(t, sweep(10, 0.01, map[string][]float64{"copy": {1e9, 1e9, 1e9}, "sockmap+copy": {1e9, 1e9, 1e9}}))
	require.Equal(t, []Sentence{{"No difference:", "read."}}, r.Opening.Details)
	r = makeReport(t, sweep(2, 0.01, map[string][]float64{"copy": {1e9, 1e9, 1e9}, "sockmap+copy": {1e9, 1e9, 1e9}}))
	require.Equal(t, []Sentence{{"Can't be told:", "read."}}, r.Opening.Details)
	r = makeReport(t, sweep(10, 0.01, map[string][]float64{"copy": {1e9, 1e9, 1e9}}))
	require.Empty(t, r.Opening.Details, "without an eBPF path there is nothing to say about it")
}

func TestNothingIsClaimedBelowTheNoise(t *testing.T) {
	for name, run := range map[string]*results.Run{
		"same":             sweep(10, 0.02, map[string][]float64{"copy": {1e9, 1e9, 1e9}, "sendfile": {1e9, 1e9, 1e9}}),
		"too few":          sweep(2, 0.001, map[string][]float64{"copy": {1e9, 1e9, 1e9}, "sendfile": {9e9, 9e9, 9e9}}),
		"drowned in noise": sweep(10, 0.3, map[string][]float64{"copy": {1e9, 1e9, 1e9}, "sendfile": {1.02e9, 1.02e9, 1.02e9}}),
	} {
		text := string(makeReport(t, run).Markdown())
		require.NotContains(t, text, "** wins", name)
		require.NotContains(t, text, "** loses", name)
	}
	uncontrolled := sweep(10, 0.01, map[string][]float64{"copy": {1e9, 1e9, 1e9}, "sendfile": {9e9, 9e9, 9e9}})
	uncontrolled.Records = slices.DeleteFunc(uncontrolled.Records, func(r results.Record) bool { return r.Control != "" })
	require.Contains(t, string(makeReport(t, uncontrolled).Markdown()), "no A/A control")
}

func TestRangesOfPlaces(t *testing.T) {
	c := comparer{figure: &figure.Figure{Spec: results.FigureSpec{X: "size_bytes"}}}
	all := []place{{x: 1.0}, {x: 2.0}, {x: 4.0}, {x: 8.0}}
	for want, chosen := range map[string][]place{
		" at every size":    all,
		" at 2 B":           all[1:2],
		" from 2 B up":      all[1:],
		" up to 4 B":        all[:3],
		" from 2 B to 4 B":  all[1:3],
		" at 1 B, 4 B, 8 B": {all[0], all[2], all[3]},
	} {
		require.Equal(t, want, c.where(all, chosen))
	}
}

func TestRecordsAreNotTrusted(t *testing.T) {
	const attack = `"><script>alert(1)</script><img src=x onerror=alert(1)>|` + "`*"
	run := sweep(6, 0.01, map[string][]float64{"copy": {1e8, 1e9, 2e9}, "sendfile": {1e8, 1e9, 4e9}})
	e := &run.Plan.Experiments[0]
	e.Question, e.Effort, e.Name = attack, attack, attack
	e.Figures[0].Title = attack
	run.Environment = results.Environment{CPU: attack, Kernel: attack, CommandLine: []string{attack}, Paths: map[string]string{attack: attack}}
	for i := range run.Records {
		r := &run.Records[i]
		r.Experiment = attack
		if r.Cell["read"] == "sendfile" {
			r.Cell = results.Cell{"read": attack, "size_bytes": r.Cell["size_bytes"]}
		}
		if r.Reason != "" {
			r.Reason = attack
		}
	}
	report := makeReport(t, run)
	tokens := html.NewTokenizer(strings.NewReader(pageOf(t, report)))
	for tokens.Next() != html.ErrorToken {
		token := tokens.Token()
		require.NotContains(t, []string{"script", "img", "iframe", "object", "a"}, token.Data)
		for _, a := range token.Attr {
			require.False(t, strings.HasPrefix(a.Key, "on"), "%s has %s", token.Data, a.Key)
			if a.Val != "data:," { // the icon
				require.NotContains(t, []string{"src", "href"}, a.Key, "%v", token)
			}
		}
	}
	for line := range strings.Lines(string(report.Markdown())) {
		require.NotContains(t, line, "<")
	}
}

func TestWhatWasLeftOutIsSaidOnce(t *testing.T) {
	r := makeReport(t, sweep(6, 0.01, map[string][]float64{"copy": {1e8, 1e9, 2e9}, "sendfile": {1e8, 1e9, 4e9}}))
	require.Len(t, r.Rejected, 3, "a line a cell and reason")
	require.Equal(t, 18, r.Unsupported)
	require.Equal(t, 6, r.Rejected[0].Trials)
}

func TestAFigureWithoutDataIsNamed(t *testing.T) {
	run := sweep(6, 0.01, map[string][]float64{"copy": {1e8, 1e9, 2e9}, "sendfile": {1e8, 1e9, 4e9}})
	run.Plan.Experiments[0].Figures = append(run.Plan.Experiments[0].Figures, results.FigureSpec{Kind: "copies", Title: "Copies", Series: "read"})
	require.Contains(t, pageOf(t, makeReport(t, run)), "Not drawn: Copies: ")
}

func TestARunWithoutRecordsIsNoReport(t *testing.T) {
	_, err := Make(&results.Run{}, nil, nil)
	require.ErrorContains(t, err, "run or resume it first")
}
