package paper

import (
	"fmt"
	"strings"
	"unicode"
)

// escape writes plain text so that LaTeX prints it as it is.
func escape(s string) string {
	var b strings.Builder
	for _, r := range s {
		switch r {
		case '\\':
			b.WriteString(`\textbackslash{}`)
		case '{', '}', '$', '&', '#', '%', '_':
			b.WriteRune('\\')
			b.WriteRune(r)
		case '~':
			b.WriteString(`\textasciitilde{}`)
		case '^':
			b.WriteString(`\textasciicircum{}`)
		case '<':
			b.WriteString(`\textless{}`)
		case '>':
			b.WriteString(`\textgreater{}`)
		case 'µ', 'μ':
			b.WriteString(`\textmu{}`)
		case '×':
			b.WriteString(`\texttimes{}`)
		case '\u00a0':
			b.WriteByte('~')
		default:
			if unicode.IsControl(r) {
				r = ' '
			}
			b.WriteRune(r)
		}
	}
	return b.String()
}

// typeset escapes a value with its unit, and keeps both on one line.
func typeset(value string) string {
	return strings.ReplaceAll(escape(value), " ", "~")
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
