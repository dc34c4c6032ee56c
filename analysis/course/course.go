// Package course writes the skeleton of a course report from a run: question,
// set-up, method, results and threats, in Markdown and in LaTeX, in English or
// Chinese. Everything that records can say is generated: tables, figures,
// comparisons with their judgement. What only the author can say is a marked
// place, so that nobody hands in the program's words as their own.
package course

import (
	"bytes"
	"embed"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"text/template"

	"waggle/analysis/figure"
	"waggle/analysis/latex"
	"waggle/results"
	"waggle/stats"
)

//go:embed templates
var templates embed.FS

// Names of what Write leaves.
const (
	MarkdownFile = "report.md"
	LaTeXFile    = "report.tex"
	figuresDir   = "figures"
)

// Report is what the templates show.
type Report struct {
	Run         string
	Date        string
	Environment results.Environment
	MemoryGiB   int64
	OrderSeed   uint64
	// Trials counts the records; Invalid and Unsupported are among them.
	Trials, Invalid, Unsupported int
	Experiments                  []Experiment

	language figure.Language
	figures  []*figure.Figure
}

// Experiment is a part of the report.
type Experiment struct {
	Name, Question, Effort string
	// Factors name what was varied, with its levels.
	Factors []Factor
	// Comparisons are those of each figure's series with its baseline.
	Comparisons []Comparison
	Figures     []Figure
}

// Factor is what an experiment varied, in words.
type Factor struct{ Name, Levels string }

// Comparison is one comparison with its judgement.
type Comparison struct {
	Metric, What, Place string
	// Ratio is treatment over baseline with its interval, "" where there is none.
	Ratio   string
	Verdict stats.Verdict
	N       int
}

// Figure is a figure with the numbers behind it.
type Figure struct {
	File, Title string
	Header      []string
	Rows        [][]string
	Warnings    []string
}

// Make makes the report of a run. It sets the language of this process's figures.
func Make(run *results.Run, language figure.Language) (*Report, error) {
	if err := figure.UseLanguage(language); err != nil {
		return nil, err
	}
	figures, _ := figure.DrawAll(run) // what is skipped is in the run's own report, with the reason
	r := &Report{
		Run: run.Plan.Run, Date: run.Plan.Start.UTC().Format("2006-01-02"), Environment: run.Environment,
		MemoryGiB: run.Environment.MemoryBytes >> 30, OrderSeed: run.Plan.OrderSeed, Trials: len(run.Records),
		language: language, figures: figures,
	}
	for _, record := range run.Records {
		switch {
		case record.Unsupported:
			r.Unsupported++
		case !record.Valid:
			r.Invalid++
		}
	}
	for _, planned := range run.Plan.Experiments {
		if e := r.experiment(run, planned); len(e.Figures) > 0 {
			r.Experiments = append(r.Experiments, e)
		}
	}
	if len(r.Experiments) == 0 {
		return nil, fmt.Errorf("run %s has no experiment with valid trials: there is nothing to report", r.Run)
	}
	return r, nil
}

func (r *Report) experiment(run *results.Run, planned results.PlannedExperiment) Experiment {
	e := Experiment{Name: planned.Name, Question: planned.Question, Effort: planned.Effort}
	for _, f := range planned.Factors {
		var levels []string
		for _, level := range f.Levels {
			levels = append(levels, r.word(figure.LevelText(f.Name, level)))
		}
		e.Factors = append(e.Factors, Factor{r.word(figure.FactorName(f.Name)), strings.Join(levels, ", ")})
	}
	asked := map[string]bool{}
	for _, f := range r.figures {
		if f.Experiment.Name != planned.Name {
			continue
		}
		e.Figures = append(e.Figures, r.figure(f))
		question := f.Metrics[0].Name + " " + f.Spec.Series + " " + f.Spec.Baseline + " " + f.Spec.Where.String()
		if f.Spec.Baseline != "" && f.Spec.Series != "" && !asked[question] {
			asked[question] = true
			e.Comparisons = append(e.Comparisons, r.compare(run, f)...)
		}
	}
	return e
}

func (r *Report) figure(f *figure.Figure) Figure {
	shown := Figure{File: figuresDir + "/" + f.Name + ".png", Title: f.Spec.Title, Rows: f.Table.Rows, Warnings: f.Warnings}
	for _, head := range f.Table.Header {
		shown.Header = append(shown.Header, r.word(head))
	}
	return shown
}

// compare judges every level of a figure's series against its baseline.
func (r *Report) compare(run *results.Run, f *figure.Figure) []Comparison {
	metric := f.Metrics[0]
	groups := stats.Where(stats.Main(stats.GroupRecords(run, f.Experiment.Name)), f.Spec.Where)
	noise, known := stats.NoiseOf(run, f.Experiment.Name, metric)
	var pairs []stats.Pair
	var questions []stats.Question
	for _, level := range stats.Levels(groups, f.Experiment, f.Spec.Series) {
		if results.FormatLevel(level) == f.Spec.Baseline {
			continue
		}
		for _, p := range stats.PairUp(groups, results.Cell{f.Spec.Series: f.Spec.Baseline}, results.Cell{f.Spec.Series: level}) {
			q := stats.Question{Metric: metric, Baseline: p.Baseline.Sample(metric), Treatment: p.Treatment.Sample(metric), Interleaved: true}
			if known {
				q.Noise = &noise
			}
			pairs, questions = append(pairs, p), append(questions, q)
		}
	}
	var all []Comparison
	for i, answer := range stats.Judge(questions) {
		if answer.Baseline.N == 0 || answer.Treatment.N == 0 {
			continue
		}
		c := Comparison{
			Metric:  r.word(metric.Label),
			What:    results.FormatLevel(pairs[i].Treatment.Cell[f.Spec.Series]) + " / " + f.Spec.Baseline,
			Place:   r.place(f.Experiment, pairs[i].Treatment.Cell.Without(f.Spec.Series)),
			Verdict: answer.Verdict, N: min(answer.Baseline.N, answer.Treatment.N),
		}
		if answer.Ratio != nil {
			c.Ratio = fmt.Sprintf("%.2f [%.2f, %.2f]", answer.Ratio.Value, answer.Ratio.Low, answer.Ratio.High)
		}
		all = append(all, c)
	}
	return all
}

// place says in which cell a comparison was made, without the factors that have
// one level.
func (r *Report) place(e results.PlannedExperiment, cell results.Cell) string {
	var parts []string
	for _, f := range e.Factors {
		if level, ok := cell[f.Name]; ok && len(f.Levels) > 1 {
			parts = append(parts, r.word(figure.FactorLevel(f.Name, level)))
		}
	}
	return strings.Join(parts, ", ")
}

func (r *Report) word(english string) string { return figure.Translate(r.language, english) }

// Write puts report.md, report.tex and the figures into a directory, making it if
// need be. A report.md or report.tex that is there already is left alone, since
// its author may have written into it: that is an error.
func (r *Report) Write(dir string) error {
	for _, name := range []string{MarkdownFile, LaTeXFile} {
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			return fmt.Errorf("%s holds a %s already, perhaps with your words in it: choose another directory", dir, name)
		}
	}
	if err := os.MkdirAll(filepath.Join(dir, figuresDir), 0o755); err != nil {
		return fmt.Errorf("make the report's directory: %w", err)
	}
	for _, f := range r.figures {
		// PNG in both: it needs no font where it is shown.
		data, err := f.PNG()
		if err != nil {
			return err
		}
		if err := results.WriteFile(filepath.Join(dir, figuresDir, f.Name+".png"), data); err != nil {
			return err
		}
	}
	for name, escape := range map[string]func(string) string{MarkdownFile: escapeMarkdown, LaTeXFile: latex.Escape} {
		text, err := r.render(fmt.Sprintf("templates/%s.%s.tmpl", strings.TrimSuffix(name, filepath.Ext(name)), r.language)+filepath.Ext(name), escape)
		if err != nil {
			return err
		}
		if err := results.WriteFile(filepath.Join(dir, name), text); err != nil {
			return err
		}
	}
	return nil
}

func (r *Report) render(name string, escape func(string) string) ([]byte, error) {
	t, err := template.New(filepath.Base(name)).Delims("<<", ">>").Funcs(template.FuncMap{
		"text": escape, "verdict": r.verdict, "row": func(cells []string) string { return joinCells(cells, name, escape) },
		"columns": func(cells []string) string { return strings.Repeat("l", len(cells)) },
		"rule":    func(cells []string) string { return "|" + strings.Repeat("---|", len(cells)) },
	}).ParseFS(templates, name)
	if err != nil {
		return nil, fmt.Errorf("the report's template is broken: %w", err)
	}
	var b bytes.Buffer
	if err := t.Execute(&b, r); err != nil {
		return nil, fmt.Errorf("write the report: %w", err)
	}
	return b.Bytes(), nil
}

func joinCells(cells []string, template string, escape func(string) string) string {
	escaped := make([]string, len(cells))
	for i, c := range cells {
		escaped[i] = escape(c)
	}
	if strings.HasSuffix(template, ".tex") {
		return strings.Join(escaped, " & ") + ` \\`
	}
	return "| " + strings.Join(escaped, " | ") + " |"
}

// verdicts in Chinese.
var verdicts = map[stats.Verdict]string{
	stats.Better: "更好", stats.Worse: "更差", stats.NoDifference: "无差异", stats.Undecided: "无法判断",
}

func (r *Report) verdict(v stats.Verdict) string {
	if other, ok := verdicts[v]; ok && r.language == figure.Chinese {
		return other
	}
	return string(v)
}

var markdownSpecial = strings.NewReplacer(`\`, `\\`, "|", `\|`, "*", `\*`, "_", `\_`, "<", "&lt;", "[", `\[`, "`", "\\`", "\n", " ")

func escapeMarkdown(s string) string { return markdownSpecial.Replace(s) }
