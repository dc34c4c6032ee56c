package paper

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Fault is something in the text that could be untrue of a reader's own run.
type Fault struct {
	File string
	Line int
	Text string
}

func (f Fault) String() string { return fmt.Sprintf("%s:%d: %s", f.File, f.Line, f.Text) }

// maxSource is the largest file of the text that is read, in bytes.
const maxSource = 1 << 20

// Lint checks the text of a paper: every .tex file below dir but those in
// generated. It finds bare numbers in prose that are no declared constant,
// sentences that compare a data path with something without being a verdict or
// citing somebody, names that are used but not declared or declared but not
// used, and figures that nobody refers to.
func Lint(d *Declarations, dir string) ([]Fault, error) {
	l := linter{declarations: d, used: map[string]bool{}, referred: map[string]bool{}}
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && entry.Name() == "generated":
			return fs.SkipDir
		case entry.IsDir() || filepath.Ext(path) != ".tex":
			return nil
		}
		return l.file(dir, path)
	})
	if err != nil {
		return nil, fmt.Errorf("check the paper's text: %w", err)
	}
	l.declared()
	return l.faults, nil
}

type linter struct {
	declarations *Declarations
	faults       []Fault
	used         map[string]bool // "number:NAME", ...
	referred     map[string]bool // labels
	figures      []Fault         // where each figure stands, its label as text
}

func (l *linter) fault(file string, line int, format string, arguments ...any) {
	l.faults = append(l.faults, Fault{file, line, fmt.Sprintf(format, arguments...)})
}

func (l *linter) file(dir, path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	name, err := filepath.Rel(dir, path)
	if err != nil {
		return err
	}
	if info.Size() > maxSource {
		return fmt.Errorf("%s is larger than %d bytes", name, maxSource)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	source := withoutComments(string(text))
	l.names(name, source)
	prose := proseOf(source)
	l.numbers(name, prose)
	l.comparisons(name, prose)
	return nil
}

// The text's own macros, and the families that they belong to.
var (
	usePattern   = regexp.MustCompile(`\\(Number|Interval|Repetitions|Verdict|Judgement|Figure|Table)\{([^}]*)\}`)
	refPattern   = regexp.MustCompile(`\\(?:auto|page|eq)?ref\{([^}]*)\}`)
	familyOf     = map[string]string{"Number": "number", "Interval": "number", "Repetitions": "number", "Verdict": "claim", "Judgement": "claim", "Figure": "figure", "Table": "table"}
	labelOfTable = "tab:"
)

// names notes which declarations the text uses, and finds those that are none.
func (l *linter) names(file, source string) {
	for _, m := range usePattern.FindAllStringSubmatchIndex(source, -1) {
		command, name := source[m[2]:m[3]], source[m[4]:m[5]]
		family, line := familyOf[command], lineOf(source, m[0])
		l.used[family+":"+name] = true
		if !l.isDeclared(family, name) {
			l.fault(file, line, "\\%s{%s}: there is no such %s in the declarations", command, name, family)
		}
		if command == "Figure" {
			l.figures = append(l.figures, Fault{file, line, "fig:" + name})
		}
		if command == "Table" {
			l.figures = append(l.figures, Fault{file, line, labelOfTable + name})
		}
	}
	for _, m := range refPattern.FindAllStringSubmatch(source, -1) {
		l.referred[m[1]] = true
	}
}

func (l *linter) isDeclared(family, name string) (known bool) {
	switch d := l.declarations; family {
	case "number":
		_, known = d.Numbers[name]
	case "claim":
		_, known = d.Claims[name]
	case "table":
		_, known = d.Tables[name]
	case "figure":
		known = slices.Contains(d.Figures, name)
	}
	return known
}

// declared finds declarations that the text doesn't use, figures that nobody
// refers to, and numbers in the sentences of verdicts.
func (l *linter) declared() {
	const file = "paper.yaml"
	for _, figure := range l.figures {
		if !l.referred[figure.Text] {
			l.fault(figure.File, figure.Line, "nothing refers to \\ref{%s}", figure.Text)
		}
	}
	unused := func(family string, names []string) {
		for _, name := range names {
			if !l.used[family+":"+name] {
				l.fault(file, 0, "%s %q: the text does not use it", family, name)
			}
		}
	}
	d := l.declarations
	unused("number", sortedNames(d.Numbers))
	unused("claim", sortedNames(d.Claims))
	unused("table", sortedNames(d.Tables))
	unused("figure", d.Figures)
	for _, name := range sortedNames(d.Claims) {
		c := d.Claims[name]
		for _, sentence := range []string{c.About, c.Holds, c.Part, c.Fails} {
			if found := l.bareNumber(proseOf(sentence)); found != "" {
				l.fault(file, 0, "claim %q: the number %q stands in a sentence: declare it, or list it as a constant", name, found)
			}
		}
	}
}

// withoutComments blanks what LaTeX ignores behind a percent sign.
func withoutComments(source string) string {
	return commentPattern.ReplaceAllString(source, "$1")
}

var commentPattern = regexp.MustCompile(`(?m)(^|[^\\])%.*$`)

// What is no prose: code, names of things, and what generated macros print. A
// verdict and a citation leave a mark, since sentences with them may compare.
var blanks = []struct {
	pattern     *regexp.Regexp
	replacement string
}{
	{regexp.MustCompile(`(?s)\\begin\{(verbatim|lstlisting|tabular|tikzpicture)\}.*?\\end\{(verbatim|lstlisting|tabular|tikzpicture)\}`), ""},
	{regexp.MustCompile(`\\(?:[Cc]ite[a-z]*)\*?(?:\[[^\]]*\])*\{[^}]*\}`), " CITED "},
	{regexp.MustCompile(`\\(?:Verdict|Judgement)\{[^}]*\}`), " VERDICT. "},
	{regexp.MustCompile(`\\(?:Number|Interval|Repetitions|ref|autoref|pageref|label|input|include|includegraphics|url|texttt|code|begin|end|usepackage|documentclass|RequirePackage|bibliography|bibliographystyle|hypersetup|settopmatter|renewcommand|setcopyright|acmConference|acmYear|vspace|hspace|email|orcid)\*?(?:\[[^\]]*\])*(?:\{[^}]*\})+`), " "},
	{regexp.MustCompile(`\\(?:Figure|Table)\{[^}]*\}`), " "}, // the caption behind it is prose
	{regexp.MustCompile(`\\href\{[^}]*\}`), " "},
	{regexp.MustCompile(`\\pdf[a-z]+=-?[0-9]+`), " "},
}

// proseOf blanks what is no prose, keeping the lines.
func proseOf(source string) string {
	for _, b := range blanks {
		source = b.pattern.ReplaceAllStringFunc(source, func(match string) string {
			return b.replacement + strings.Repeat("\n", strings.Count(match, "\n"))
		})
	}
	return source
}

var (
	numberPattern = regexp.MustCompile(`[0-9][0-9.,]*`)
	yearPattern   = regexp.MustCompile(`\b(?:19|20)[0-9][0-9]\b`)
)

// numbers finds digits in prose that are neither a year nor a declared constant.
func (l *linter) numbers(file, prose string) {
	for i, line := range strings.Split(prose, "\n") {
		if found := l.bareNumber(line); found != "" {
			l.fault(file, i+1, "the number %q stands in prose: declare it, or list it as a constant", found)
		}
	}
}

func (l *linter) bareNumber(line string) string {
	longest := slices.Clone(l.declarations.Constants)
	slices.SortFunc(longest, func(a, b string) int { return len(b) - len(a) })
	for _, constant := range longest {
		line = removeWord(line, constant)
	}
	return numberPattern.FindString(yearPattern.ReplaceAllString(line, " "))
}

// removeWord blanks the places where a constant stands alone, not as a part of
// a longer number or word.
func removeWord(line, constant string) string {
	pattern := regexp.MustCompile(`(^|[^0-9A-Za-z.])` + regexp.QuoteMeta(constant) + `($|[^0-9A-Za-z])`)
	for range 2 { // matches share the character between them
		line = pattern.ReplaceAllString(line, "$1 $2")
	}
	return line
}

var comparison = regexp.MustCompile(`(?i)\b(faster|fastest|slower|slowest|fewer|fewest|cheaper|cheapest|dearer|better|best|worse|worst|` +
	`higher|lower|more|less|most|least|outperforms?|beats?|wins?|loses?|halves|halve|doubles?|triples?|reduces?|improves?|saves?|times)\b`)

var sentenceEnd = regexp.MustCompile(`[.!?:;](?:\s|$)|\n\s*\n`)

// comparisons finds sentences that compare a data path with something, unless
// they cite somebody.
func (l *linter) comparisons(file, prose string) {
	if len(l.declarations.Paths) == 0 {
		return
	}
	quoted := make([]string, len(l.declarations.Paths))
	for i, p := range l.declarations.Paths {
		quoted[i] = regexp.QuoteMeta(p)
	}
	path := regexp.MustCompile(`(^|[^A-Za-z0-9+-])(` + strings.Join(quoted, "|") + `)($|[^A-Za-z0-9+-])`)
	start := 0
	judge := func(end int) {
		sentence := prose[start:end]
		word := comparison.FindString(sentence)
		if word != "" && path.MatchString(sentence) && !strings.Contains(sentence, "CITED") {
			l.fault(file, lineOf(prose, start+strings.Index(sentence, word)), "%q beside %q: declare the comparison as a claim, or cite it",
				word, path.FindStringSubmatch(sentence)[2])
		}
	}
	for _, end := range sentenceEnd.FindAllStringIndex(prose, -1) {
		judge(end[0])
		start = end[1]
	}
	judge(len(prose))
}

func lineOf(text string, offset int) int { return 1 + strings.Count(text[:offset], "\n") }
