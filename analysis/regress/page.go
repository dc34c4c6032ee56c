package regress

import (
	"bytes"
	"cmp"
	_ "embed"
	"fmt"
	"html/template"
	"net/url"
	"os"
	"slices"
	"strings"

	"waggle/results"
	"waggle/stats"
)

//go:embed page.html.tmpl
var pageText string

//go:embed page.css
var pageStyle string

var pageTemplate = template.Must(template.New("page.html").Funcs(template.FuncMap{
	"style": func() template.CSS { return template.CSS(pageStyle) },
}).Parse(pageText))

// MostGraphs is the most trends that a page draws, those that changed first.
const MostGraphs = 400

// PageOptions say how a page is made.
type PageOptions struct {
	// CommitURL is where a commit can be looked at: "{commit}" in it, or its end, is
	// the place of the commit's name. "" makes no links.
	CommitURL string
	// Commits are all that there are, oldest first, if that is known: one without a
	// run is a gap.
	Commits []string
}

// CheckCommitURL says what is wrong with an address for commits.
func CheckCommitURL(address string) error {
	u, err := url.Parse(commitLink(address, "0123abcd"))
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return fmt.Errorf("%q is no address of commits: give one such as https://example.org/project/commit/", address)
	}
	return nil
}

// ReadCommits reads a file with a commit a line.
func ReadCommits(file string) ([]string, error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, fmt.Errorf("read commits: %w", err)
	}
	if info.Size() > results.MaxDocumentBytes {
		return nil, fmt.Errorf("read commits: %s is larger than %d bytes: give the newest commits only", file, results.MaxDocumentBytes)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read commits: %w", err)
	}
	commits := strings.Fields(string(text))
	seen := map[string]bool{}
	for _, commit := range commits {
		if seen[commit] {
			return nil, fmt.Errorf("read commits: %s lists %s twice", file, commit)
		}
		seen[commit] = true
	}
	return commits, nil
}

func commitLink(address, commit string) string {
	name := url.PathEscape(commit)
	if strings.Contains(address, "{commit}") {
		return strings.ReplaceAll(address, "{commit}", name)
	}
	return address + name
}

// Page gives the history as one web page that needs nothing beside it: what changed
// stands first, then a small graph of every trend. Equal histories give equal bytes.
func (h History) Page(o PageOptions) ([]byte, error) {
	columns, warnings := h.columns(o.Commits)
	page := pageData{History: h, Runs: len(h.Runs), Gaps: gaps(columns), Warnings: append(slices.Clone(h.Warnings), warnings...)}
	if len(h.Runs) > 0 {
		page.From, page.To = h.Runs[0].Start.UTC().Format("2 January 2006"), h.Runs[len(h.Runs)-1].Start.UTC().Format("2 January 2006")
	}
	trends := slices.SortedStableFunc(slices.Values(h.Trends), func(a, b Trend) int { return cmp.Compare(b.strength(), a.strength()) })
	page.Left = max(0, len(trends)-MostGraphs)
	for _, t := range trends[:min(len(trends), MostGraphs)] {
		g, err := newGraph(t, columns, o.CommitURL)
		if err != nil {
			return nil, err
		}
		page.add(t, g)
	}
	var text bytes.Buffer
	if err := pageTemplate.Execute(&text, page); err != nil {
		return nil, fmt.Errorf("write the page of a history: %w", err)
	}
	return text.Bytes(), nil
}

// strength is the size of a trend's largest change, 0 without any.
func (t Trend) strength() (most float64) {
	for _, c := range t.Changes {
		size := 1e9 // from nothing, or to it
		if c.Before > 0 && c.After > 0 {
			size = stats.Effect(c.After / c.Before)
		}
		most = max(most, size)
	}
	return most
}

type pageData struct {
	History
	Runs, Gaps, Left int
	From, To         string
	Warnings         []string
	Changed          []graph
	Steady           []graphFamily
}

// graphFamily is the graphs of one metric of one experiment.
type graphFamily struct {
	Experiment, Metric string
	Graphs             []graph
}

func (p *pageData) add(t Trend, g graph) {
	if len(t.Changes) > 0 {
		p.Changed = append(p.Changed, g)
		return
	}
	i := slices.IndexFunc(p.Steady, func(f graphFamily) bool { return f.Experiment == t.Experiment && f.Metric == g.Metric })
	if i < 0 {
		i = len(p.Steady)
		p.Steady = append(p.Steady, graphFamily{Experiment: t.Experiment, Metric: g.Metric})
	}
	p.Steady[i].Graphs = append(p.Steady[i].Graphs, g)
}

// column is a place on the axis of all graphs: a run, or a commit that has none.
type column struct {
	run    string // "" for a gap
	commit string
}

// columns puts the runs in the order of the commits, if these are known, or else of
// their start.
func (h History) columns(commits []string) (list []column, warnings []string) {
	left := slices.Clone(h.Runs)
	for _, commit := range commits {
		found := false
		left = slices.DeleteFunc(left, func(r RunOfHistory) bool {
			if r.Commit != commit {
				return false
			}
			found = true
			list = append(list, column{r.Run, commit})
			return true
		})
		if !found {
			list = append(list, column{commit: commit})
		}
	}
	for _, r := range left {
		list = append(list, column{r.Run, r.Commit})
		if len(commits) > 0 {
			warnings = append(warnings, fmt.Sprintf("run %s is of commit %s, which is not among those given: it stands at the end", r.Run, short(r.Commit)))
		}
	}
	return list, warnings
}

func gaps(columns []column) (n int) {
	for _, c := range columns {
		if c.run == "" {
			n++
		}
	}
	return n
}

func short(commit string) string { return commit[:min(commitLetters, len(commit))] }

// graph is a trend, drawn. Its numbers are coordinates in the picture.
type graph struct {
	Experiment, Cell, Metric string
	Width, Height            float64
	Lines                    []string // of the medians, broken at gaps
	Dots                     []dot
	Gaps                     []float64
	Marks                    []mark
	Top, Bottom              string // values at the ends of the axis
	Changes                  []changeText
}

type dot struct {
	X, Y, Low, High float64
	Link            string
	Title           string
}

type mark struct {
	X     float64
	Worse bool
}

type changeText struct {
	Verdict, Text, Link, Commit string
}

const (
	graphWidth  = 280.0
	graphHeight = 84.0
	graphLeft   = 6.0
	graphTop    = 14.0
	graphBottom = 76.0
)

func newGraph(t Trend, columns []column, commitURL string) (graph, error) {
	m, err := results.MetricNamed(t.Metric)
	if err != nil {
		return graph{}, err
	}
	g := graph{Experiment: t.Experiment, Cell: t.Cell, Metric: m.Label, Width: graphWidth, Height: graphHeight}
	low, high := 0.0, 0.0
	for _, p := range t.Points {
		high = max(high, p.High)
	}
	if high == low {
		high = 1
	}
	g.Bottom, g.Top = "0", m.Format(high)
	y := func(v float64) float64 { return graphBottom - (v-low)/(high-low)*(graphBottom-graphTop) }
	x := func(i int) float64 {
		return graphLeft + (graphWidth-2*graphLeft)*(float64(i)+.5)/float64(max(1, len(columns)))
	}
	byRun := map[string]int{}
	for i, p := range t.Points {
		byRun[p.Run] = i
	}
	var line []string
	flush := func() {
		if len(line) > 1 {
			g.Lines = append(g.Lines, strings.Join(line, " "))
		}
		line = nil
	}
	for i, c := range columns {
		at, ok := byRun[c.run]
		if !ok || c.run == "" {
			g.Gaps = append(g.Gaps, x(i))
			flush()
			continue
		}
		p := t.Points[at]
		line = append(line, fmt.Sprintf("%.1f,%.1f", x(i), y(p.Median)))
		d := dot{X: x(i), Y: y(p.Median), Low: y(p.Low), High: y(p.High),
			Title: fmt.Sprintf("%s: %s [%s, %s], n = %d, %s", short(p.Commit), m.Format(p.Median), m.Format(p.Low), m.Format(p.High), p.N, p.Start.UTC().Format("2 January 2006"))}
		if commitURL != "" && p.Commit != "" {
			d.Link = commitLink(commitURL, p.Commit)
		}
		g.Dots = append(g.Dots, d)
		for _, change := range t.Changes {
			if change.At == at {
				g.Marks = append(g.Marks, mark{X: x(i) - (graphWidth-2*graphLeft)/float64(len(columns))/2, Worse: change.Verdict == stats.Worse})
			}
		}
	}
	flush()
	for _, c := range t.Changes {
		text := changeText{Verdict: string(c.Verdict), Commit: short(c.Commit),
			Text: fmt.Sprintf("%s, %s before", m.Format(c.After), m.Format(c.Before))}
		if c.Machine != "" {
			text.Text += "; the machine changed too: " + c.Machine
		}
		if commitURL != "" && c.Commit != "" {
			text.Link = commitLink(commitURL, c.Commit)
		}
		g.Changes = append(g.Changes, text)
	}
	return g, nil
}
