package report

import (
	"bytes"
	"fmt"
	"strings"

	"waggle/results"
)

// Markdown gives the report's answer and tables as text.
func (r *Report) Markdown() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "# Waggle: what the records say\n\n")
	fmt.Fprintf(&b, "Run %s, %s. %s, %d CPUs, Linux %s. %d trials, %d invalid, %d not supported here.\n",
		escape(r.Run), r.Start, escape(r.Environment.CPU), r.Environment.CPUs, escape(r.Environment.Kernel), r.Trials, r.Invalid, r.Unsupported)
	if cost := ledgerCost(r.Environment); cost != "" {
		fmt.Fprintf(&b, "\nThe copy ledger: %s.\n", cost)
	}
	if r.Opening.Wide != nil {
		fmt.Fprintf(&b, "\n## Does eBPF pay on this machine?\n\n")
		for _, s := range r.Opening.Sentences {
			fmt.Fprintf(&b, "**%s** %s\n", escape(s.Subject), escape(s.Text))
		}
		fmt.Fprintf(&b, "\nThe best eBPF path against the best of the others:\n\n")
		writeTable(&b, r.Opening.Wide.Table.Header, r.Opening.Wide.Table.Rows)
		fmt.Fprintf(&b, "\nThe clearest first:\n\n")
		writeSentences(&b, r.Opening.Details)
	}
	for _, e := range r.Experiments {
		fmt.Fprintf(&b, "\n## %s\n", escape(e.Question))
		for _, a := range e.Answers {
			fmt.Fprintf(&b, "\n%s\n\n", escape(a.Lead))
			writeSentences(&b, a.Points)
			if a.Left > 0 {
				fmt.Fprintf(&b, "- %d more in %s\n", a.Left, results.ReportFile)
			}
		}
		if e.Stalls != "" {
			fmt.Fprintf(&b, "\n%s\n", escape(e.Stalls))
		}
		for _, f := range e.Figures {
			writeFigure(&b, f)
		}
		for _, missing := range e.Missing {
			fmt.Fprintf(&b, "\nNot drawn: %s\n", escape(missing))
		}
	}
	if len(r.Warnings) > 0 {
		fmt.Fprintf(&b, "\n## Warnings\n\n")
		for _, w := range r.Warnings {
			fmt.Fprintf(&b, "- %s\n", escape(w.String()))
		}
	}
	r.writeRejected(&b)
	return b.Bytes()
}

func writeFigure(b *bytes.Buffer, f Figure) {
	fmt.Fprintf(b, "\n### %s\n\n%s\n\n", escape(f.Spec.Title), escape(f.Method))
	writeTable(b, f.Table.Header, f.Table.Rows)
}

func (r *Report) writeRejected(b *bytes.Buffer) {
	if len(r.Rejected) == 0 {
		return
	}
	var rows [][]string
	for _, c := range r.Rejected {
		rows = append(rows, []string{c.Experiment, c.State, c.Reason, c.Cell, fmt.Sprint(c.Trials)})
	}
	fmt.Fprintf(b, "\n## What was left out\n\n")
	writeTable(b, []string{"Experiment", "State", "Reason", "Cell", "Trials"}, rows)
}

func writeSentences(b *bytes.Buffer, sentences []Sentence) {
	for _, s := range sentences {
		if s.Subject == "" {
			fmt.Fprintf(b, "- %s\n", escape(s.Text))
			continue
		}
		fmt.Fprintf(b, "- **%s** %s\n", escape(s.Subject), escape(s.Text))
	}
}

func writeTable(b *bytes.Buffer, header []string, rows [][]string) {
	writeRow(b, header)
	b.WriteString(strings.Repeat("|---", len(header)) + "|\n")
	for _, row := range rows {
		writeRow(b, row)
	}
}

func writeRow(b *bytes.Buffer, cells []string) {
	for _, c := range cells {
		fmt.Fprintf(b, "| %s ", escape(c))
	}
	b.WriteString("|\n")
}

var markup = strings.NewReplacer(`\`, `\\`, "`", "\\`", "*", `\*`, "_", `\_`, "|", `\|`, "<", "&lt;", ">", "&gt;", "&", "&amp;", "#", `\#`, "\n", " ")

// escape makes text from records mean itself in Markdown.
func escape(s string) string { return markup.Replace(s) }
