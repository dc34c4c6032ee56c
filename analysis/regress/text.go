package regress

import (
	"fmt"
	"strings"

	"waggle/results"
	"waggle/stats"
)

// Headline is the outcome in one line.
func (r Report) Headline() string {
	if r.Decided() == 0 && len(r.Broken) == 0 {
		return fmt.Sprintf("nothing could be compared: %s came to no answer", count(len(r.Findings), "comparison"))
	}
	if r.Failed() {
		return fmt.Sprintf("%s, %s, %s in %d comparisons",
			count(len(r.Regressions()), "regression"), count(len(r.Broken), "broken cell"),
			count(len(r.Improvements()), "improvement"), r.Decided())
	}
	return fmt.Sprintf("no regression, %s in %d comparisons (%d came to no answer)", count(len(r.Improvements()), "improvement"),
		r.Decided(), len(r.Findings)-r.Decided())
}

// Text is the report for a terminal: what got worse, what got better, and what
// to bear in mind.
func (r Report) Text() string {
	var b strings.Builder
	for _, c := range r.Broken {
		fmt.Fprintf(&b, "BROKEN  %s%s: %s\n", c.Experiment, inCell(c.Cell, c.Cell), c.Reason)
	}
	for _, f := range r.Regressions() {
		fmt.Fprintf(&b, "WORSE   %s, %s: %s: %s\n", f.Experiment, f.Cell, f.Metric, f.Reason)
	}
	for _, f := range r.Improvements() {
		fmt.Fprintf(&b, "better  %s, %s: %s: %s\n", f.Experiment, f.Cell, f.Metric, f.Reason)
	}
	for _, w := range r.Warnings {
		fmt.Fprintf(&b, "note    %s\n", w)
	}
	fmt.Fprintf(&b, "%s\n", r.Headline())
	return b.String()
}

// Markdown is the report as a comment on a change: the outcome, a table of what
// changed, and everything that was compared behind a fold.
func (r Report) Markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "## Waggle: %s\n\n", r.Headline())
	fmt.Fprintf(&b, "base %s (run %s), head %s (run %s)\n\n", code(r.Base.Commit), code(r.Base.Run), code(r.Head.Commit), code(r.Head.Run))
	for _, c := range r.Broken {
		fmt.Fprintf(&b, "- **broken**: %s%s: %s\n", escape(c.Experiment), inCell(c.Cell, code(c.Cell)), escape(c.Reason))
	}
	if len(r.Broken) > 0 {
		b.WriteString("\n")
	}
	writeTable(&b, "Worse", r.Regressions())
	writeTable(&b, "Better", r.Improvements())
	for _, w := range r.Warnings {
		fmt.Fprintf(&b, "> %s\n", escape(w))
	}
	if len(r.Warnings) > 0 {
		b.WriteString("\n")
	}
	if len(r.Findings) > 0 {
		b.WriteString("<details><summary>Everything that was compared</summary>\n\n")
		writeTable(&b, "", r.Findings)
		b.WriteString("</details>\n")
	}
	return b.String()
}

// inCell puts a cell as it is shown behind its experiment, if one is meant.
func inCell(cell, shown string) string {
	if cell == "" {
		return ""
	}
	return ", " + shown
}

func writeTable(b *strings.Builder, title string, findings []Finding) {
	if len(findings) == 0 {
		return
	}
	if title != "" {
		fmt.Fprintf(b, "### %s\n\n", title)
	}
	b.WriteString("| experiment | cell | metric | base | head | change | verdict |\n|---|---|---|---|---|---|---|\n")
	for _, f := range findings {
		fmt.Fprintf(b, "| %s | %s | %s | %s | %s | %s | %s: %s |\n", escape(f.Experiment), code(f.Cell), f.Metric,
			value(f, f.Baseline), value(f, f.Treatment), change(f), f.Verdict, escape(f.Reason))
	}
	b.WriteString("\n")
}

func value(f Finding, s stats.Summary) string {
	m, err := results.MetricNamed(f.Metric)
	if err != nil || s.N == 0 {
		return "-"
	}
	return m.Format(s.Median)
}

func change(f Finding) string {
	if f.Ratio == nil {
		return "-"
	}
	if f.Exact {
		return fmt.Sprintf("%+.3g %%", 100*(f.Ratio.Value-1))
	}
	return fmt.Sprintf("%+.3g %% [%+.3g, %+.3g]", 100*(f.Ratio.Value-1), 100*(f.Ratio.Low-1), 100*(f.Ratio.High-1))
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// escape keeps text from a record from being taken for markup.
func escape(s string) string {
	return strings.NewReplacer("|", `\|`, "<", "&lt;", ">", "&gt;", "\n", " ", "`", "'", "*", `\*`, "_", `\_`, "[", `\[`, "@", "&#64;").Replace(s)
}

// code writes text so that it is shown as it is.
func code(s string) string {
	if s == "" {
		return "-"
	}
	return "`" + strings.NewReplacer("|", `\|`, "`", "'", "\n", " ").Replace(s) + "`"
}

// Text is the history for a terminal: every change with its commit.
func (h History) Text() string {
	var b strings.Builder
	for _, t := range h.Changed() {
		for _, c := range t.Changes {
			fmt.Fprintf(&b, "%-7s %s, %s: %s: %s\n", c.Verdict, t.Experiment, t.Cell, t.Metric, c.describe(t.Metric))
		}
	}
	for _, w := range h.Warnings {
		fmt.Fprintf(&b, "note    %s\n", w)
	}
	fmt.Fprintf(&b, "%s\n", h.Headline())
	return b.String()
}

// Headline is the history in one line.
func (h History) Headline() string {
	return fmt.Sprintf("%d of %s changed", len(h.Changed()), count(len(h.Trends), "trend"))
}

// Markdown is the history as a comment.
func (h History) Markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "## Waggle: %s\n\n", h.Headline())
	if len(h.Changed()) > 0 {
		b.WriteString("| experiment | cell | metric | change |\n|---|---|---|---|\n")
	}
	for _, t := range h.Changed() {
		for _, c := range t.Changes {
			fmt.Fprintf(&b, "| %s | %s | %s | %s: %s |\n", escape(t.Experiment), code(t.Cell), t.Metric, c.Verdict, escape(c.describe(t.Metric)))
		}
	}
	for _, w := range h.Warnings {
		fmt.Fprintf(&b, "\n> %s\n", escape(w))
	}
	return b.String()
}

func (c Change) describe(metric string) string {
	m, err := results.MetricNamed(metric)
	if err != nil {
		panic(err) // a trend is made of a metric there is
	}
	s := fmt.Sprintf("%s at %s, %s before", m.Format(c.After), c.Commit, m.Format(c.Before))
	if c.Machine != "" {
		s += " (the machine changed too: " + c.Machine + ")"
	}
	return s
}
