package paper

import (
	"fmt"
	"strings"

	"waggle/analysis/latex"
)

// typeset escapes a value with its unit, and keeps both on one line.
func typeset(value string) string {
	return strings.ReplaceAll(latex.Escape(value), " ", "~")
}

// macro writes the definition of one entry of a family of macros. The text calls
// \FAMILY{NAME}.
func macro(b *strings.Builder, family, name, body string) {
	fmt.Fprintf(b, "\\expandafter\\def\\csname waggle@%s@%s\\endcsname{%s}%%\n", family, name, body)
}

// row writes a row of a table.
func row(b *strings.Builder, cells ...string) {
	b.WriteString(strings.Join(cells, " & "))
	b.WriteString(" \\\\\n")
}

// generated heads each file.
const generated = "% Made by `waggle paper` from records. Do not edit.\n"
