package report

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"maps"
	"slices"
	"strings"

	"github.com/dustin/go-humanize"

	"waggle/analysis/figure"
	"waggle/results"
)

//go:embed report.html.tmpl
var pageText string

//go:embed report.css
var styleSheet string

var pageTemplate = template.Must(template.New("report.html").Funcs(template.FuncMap{
	"font":  func() template.CSS { return template.CSS(figure.FontCSS()) },
	"style": func() template.CSS { return template.CSS(styleSheet) },
	"picture": func(f interface{ InlineSVG() (string, error) }) (template.HTML, error) {
		svg, err := f.InlineSVG()
		return template.HTML(svg), err // package figure escapes what it writes
	},
	"paths":      paths,
	"versions":   sortedPairs,
	"ledgerCost": ledgerCost,
	"gib":        func(bytes int64) string { return fmt.Sprintf("%.1f GiB", float64(bytes)/(1<<30)) },
}).Parse(pageText))

// HTML gives the report as one self-contained page.
func (r *Report) HTML() ([]byte, error) {
	var buf bytes.Buffer
	if err := pageTemplate.Execute(&buf, r); err != nil {
		return nil, fmt.Errorf("write report: %w", err)
	}
	return buf.Bytes(), nil
}

type pair struct{ Name, Value string }

func sortedPairs(m map[string]string) []pair {
	var pairs []pair
	for _, name := range slices.Sorted(maps.Keys(m)) {
		pairs = append(pairs, pair{name, m[name]})
	}
	return pairs
}

// paths says of each data path whether it is supported, or why not.
func paths(m map[string]string) []pair {
	pairs := sortedPairs(m)
	for i := range pairs {
		if pairs[i].Value == "" {
			pairs[i].Value = "supported"
		}
	}
	return pairs
}

// ledgerCost says what counting copies costs those that are counted, or "".
func ledgerCost(e results.Environment) string {
	var costs []string
	for _, c := range e.LedgerCost {
		if c.CountedBy != "boundary" {
			continue
		}
		costs = append(costs, fmt.Sprintf("%.0f ns (%.1f %%) of %s",
			c.MoreNanoseconds, 100*c.MoreNanoseconds/(c.Nanoseconds-c.MoreNanoseconds), humanize.IBytes(uint64(c.SizeBytes))))
	}
	if len(costs) == 0 {
		return ""
	}
	return "counting cost a read from the page cache this much more CPU time: " + strings.Join(costs, ", ")
}
