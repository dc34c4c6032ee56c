package audit

import (
	"fmt"
	"strings"
)

// Text is the report as one page for people.
func (r *Report) Text() string {
	var b strings.Builder
	verdict := "nothing was found that can't be true"
	if !r.Believable() {
		verdict = "do not believe it: something was changed, or can't be true"
	}
	fmt.Fprintf(&b, "run %s, %d records: %s\n\n", r.Run, r.Records, verdict)
	for _, s := range r.Scores {
		fmt.Fprintf(&b, "%-13s %3d  %s\n", s.Category, s.Score, strings.Repeat("#", s.Score/5))
		for _, f := range r.Findings {
			if f.Category == s.Category {
				fmt.Fprintf(&b, "    %s: %s: %s\n", f.Severity, f.Check, f.What)
			}
		}
	}
	if r.Rerun != nil {
		b.WriteString("\nrun again:\n")
		for _, c := range r.Rerun.Cells {
			fmt.Fprintf(&b, "  %s, %s: %s\n", c.Experiment, c.Cell, c.outcome())
		}
	}
	return b.String()
}

func (c RerunCell) outcome() string {
	if c.Failed != "" {
		return "not run again: " + c.Failed
	}
	var parts []string
	for _, m := range c.Metrics {
		word := "agrees"
		if !m.Agrees {
			word = "DIFFERS"
		}
		parts = append(parts, fmt.Sprintf("%s %s (%.4g, again %.4g)", m.Metric, word, m.Before, m.Again))
	}
	return strings.Join(parts, ", ")
}
