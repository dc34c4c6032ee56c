// Package latex writes plain text, such as that of records, so that LaTeX prints
// the text as it is.
package latex

import (
	"strings"
	"unicode"
)

// Escape gives text for LaTeX with textcomp. Control characters become blanks.
func Escape(s string) string {
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
