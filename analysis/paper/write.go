package paper

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"waggle/analysis/figure"
	"waggle/analysis/latex"
	"waggle/results"
	"waggle/stats"
)

// Output is everything that the text takes from records.
type Output struct {
	Declarations *Declarations
	Evaluation   *Evaluation
	// Differences are from the reference run; nil where the paper is built from
	// the reference itself.
	Differences *Differences
}

// Names of what Write leaves in its directory, which the text inputs.
const (
	numbersFile     = "numbers.tex"
	verdictsFile    = "verdicts.tex"
	figuresFile     = "figures.tex"
	tablesFile      = "tables.tex"
	originsFile     = "origins.tex"
	differencesFile = "differences.tex"
	// EpochFile holds the time of the records in seconds since 1970: the date that
	// the PDF carries, so that the same records give the same bytes.
	EpochFile  = "epoch"
	figuresDir = "figures"
)

// Write puts everything into a directory, making it if need be. What an earlier
// call has left there is replaced.
func (o *Output) Write(dir string) error {
	if err := os.RemoveAll(filepath.Join(dir, figuresDir)); err != nil {
		return fmt.Errorf("clear the paper's figures: %w", err)
	}
	if err := os.MkdirAll(filepath.Join(dir, figuresDir), 0o755); err != nil {
		return fmt.Errorf("make the paper's directory: %w", err)
	}
	figures, err := o.figures(filepath.Join(dir, figuresDir))
	if err != nil {
		return err
	}
	tables, err := o.tables()
	if err != nil {
		return err
	}
	for name, content := range map[string]string{
		numbersFile: o.numbers(), verdictsFile: o.verdicts(), figuresFile: figures, tablesFile: tables,
		originsFile: o.origins(), differencesFile: o.differences(),
		EpochFile: fmt.Sprintln(o.Evaluation.runs[0].Plan.Start.Unix()),
	} {
		if strings.HasSuffix(name, ".tex") {
			content = generated + content
		}
		if err := results.WriteFile(filepath.Join(dir, name), []byte(content)); err != nil {
			return fmt.Errorf("write the paper's numbers: %w", err)
		}
	}
	return nil
}

const notMeasured = `\NotMeasured{}`

func (o *Output) numbers() string {
	var b strings.Builder
	for _, name := range sortedNames(o.Evaluation.Numbers) {
		r := o.Evaluation.Numbers[name]
		value, interval, n := notMeasured, notMeasured, notMeasured
		if r.Missing == "" {
			value, interval, n = typeset(r.Text), r.intervalText(), fmt.Sprint(r.N)
		}
		if o.Differences.number(name) {
			value = `\Differing{` + value + `}`
		}
		macro(&b, "number", name, value)
		macro(&b, "interval", name, interval)
		macro(&b, "repetitions", name, n)
	}
	return b.String()
}

func (r Reading) intervalText() string {
	if r.Low == "" {
		return ""
	}
	return "[" + typeset(r.Low) + ", " + typeset(r.High) + "]"
}

func (o *Output) verdicts() string {
	var b strings.Builder
	for _, name := range sortedNames(o.Evaluation.Verdicts) {
		v := o.Evaluation.Verdicts[name]
		text := v.Sentence()
		if before, differs := o.Differences.claim(name); differs {
			text = `\DifferingVerdict{` + text + `}{` + latex.Escape(string(before)) + `}`
		}
		macro(&b, "verdict", name, text)
		macro(&b, "judgement", name, latex.Escape(string(v.Judgement)))
	}
	return b.String()
}

// Sentence is what the text says, in LaTeX.
func (v Verdict) Sentence() string {
	text := map[Judgement]string{Holds: v.Claim.Holds, Part: v.Claim.Part, Fails: v.Claim.Fails}[v.Judgement]
	if v.Judgement == Depends {
		text = "As to " + v.Claim.About + ", the answer depends on where the roles run ({range})."
	}
	if v.Judgement == Unknown {
		text = "Our records can't tell about " + v.Claim.About + " ({reason})."
	}
	return strings.NewReplacer(
		"{range}", v.rangeText(),
		"{cells}", fmt.Sprintf("%d of %d", v.Expected, len(v.Pairs)),
		"{reason}", v.unknownText(),
	).Replace(strings.TrimSpace(text))
}

// unknownText says in a few words why nothing can be told: the reader finds the
// whole reason in the appendix.
func (v *Verdict) unknownText() string {
	if len(v.Pairs) == 1 && v.Pairs[0].Ratio != nil {
		return ratioText(*v.Pairs[0].Ratio)
	}
	if len(v.Pairs) > 0 {
		return "too noisy"
	}
	return latex.Escape(v.Reason)
}

func ratioText(r stats.Interval) string {
	if r.Low == r.High {
		return formatRatio(r.Value)
	}
	return formatRatio(r.Value) + "~[" + formatRatio(r.Low) + ", " + formatRatio(r.High) + "]"
}

// rangeText writes the ratios of the decided comparisons.
func (v *Verdict) rangeText() string {
	low, high, _, ok := v.ratios()
	if !ok {
		return "no ratio"
	}
	if low == high {
		return ratioText(low)
	}
	return ratioText(low) + " to " + ratioText(high)
}

// figures draws the declared figures and says which there are.
func (o *Output) figures(dir string) (string, error) {
	drawn := map[string]*figure.Figure{}
	why := map[string]string{}
	for _, run := range o.Evaluation.runs {
		figures, skipped := figure.DrawAll(run)
		for _, f := range figures {
			if drawn[f.Name] == nil {
				drawn[f.Name] = f
			}
		}
		for _, s := range skipped {
			why[s.Experiment+"-"+s.Spec.Kind] = s.Reason.Error()
		}
	}
	var b strings.Builder
	for _, name := range o.Declarations.Figures {
		f := drawn[name]
		if f == nil {
			reason := why[name]
			if reason == "" {
				reason = "the run has no such experiment"
			}
			macro(&b, "figure", name, `\MissingFigure{`+latex.Escape(reason)+`}`)
			continue
		}
		pdf, err := f.PDF()
		if err != nil {
			return "", fmt.Errorf("draw the paper's figures: %w", err)
		}
		if err := results.WriteFile(filepath.Join(dir, name+".pdf"), pdf); err != nil {
			return "", err
		}
		macro(&b, "figure", name, `\includegraphics[width=\linewidth]{`+figuresDir+"/"+name+`.pdf}\Description{`+latex.Escape(f.Alt)+`}`)
		if f.Wide() {
			macro(&b, "wide", name, "")
		}
	}
	return b.String(), nil
}

func (o *Output) tables() (string, error) {
	var b strings.Builder
	for _, name := range sortedNames(o.Declarations.Tables) {
		text, err := o.Evaluation.table(o.Declarations.Tables[name])
		if err != nil {
			return "", fmt.Errorf("table %q: %w", name, err)
		}
		macro(&b, "table", name, text)
	}
	return b.String(), nil
}

// table makes a tabular of medians.
func (e *Evaluation) table(t Table) (string, error) {
	metric, err := results.MetricNamed(t.Metric)
	if err != nil {
		return "", err
	}
	run, groups := e.groups(t.Experiment, t.Where)
	if run == nil || len(groups) == 0 {
		return `\MissingFigure{the run has no such experiment}`, nil
	}
	plan, _ := run.Experiment(t.Experiment)
	rows, columns := stats.Levels(groups, plan, t.Rows), stats.Levels(groups, plan, t.Columns)
	var b strings.Builder
	fmt.Fprintf(&b, "\\begin{tabular}{l%s}\n\\toprule\n", strings.Repeat("r", len(columns)))
	head := []string{latex.Escape(figure.FactorName(t.Rows))}
	for _, level := range columns {
		head = append(head, typeset(figure.FactorLevel(t.Columns, level)))
	}
	row(&b, head...)
	b.WriteString("\\midrule\n")
	for _, level := range rows {
		cells := []string{latex.Escape(figure.LevelText(t.Rows, level))}
		for _, column := range columns {
			value, err := medianOf(stats.Where(groups, results.Cell{t.Rows: level, t.Columns: column}), metric)
			if err != nil {
				return "", err
			}
			cells = append(cells, value)
		}
		row(&b, cells...)
	}
	b.WriteString("\\bottomrule\n\\end{tabular}")
	return b.String(), nil
}

// medianOf writes the median of the one group that a place of a table shows.
func medianOf(groups []stats.Group, metric results.Metric) (string, error) {
	if len(groups) > 1 {
		return "", fmt.Errorf("%d cells fall on one place, such as %s and %s: name more levels", len(groups), groups[0].Cell, groups[1].Cell)
	}
	if len(groups) == 0 {
		return "--", nil
	}
	s := stats.Summarize(groups[0].Sample(metric))
	if s.N == 0 {
		return "--", nil
	}
	return typeset(metric.Format(s.Median)), nil
}

// origins are the rows of the appendix that says where each number and each
// verdict comes from.
func (o *Output) origins() string {
	var numbers, claims strings.Builder
	for _, name := range sortedNames(o.Evaluation.Numbers) {
		r := o.Evaluation.Numbers[name]
		value, interval, n := typeset(r.Text), r.intervalText(), "--"
		if r.N > 0 {
			n = fmt.Sprint(r.N)
		}
		if r.Missing != "" {
			value, interval = notMeasured, latex.Escape(r.Missing)
		}
		row(&numbers, `\hypertarget{number:`+name+`}{\texttt{`+name+`}}`, value, interval, n, r.Origin.latex())
	}
	for _, name := range sortedNames(o.Evaluation.Verdicts) {
		v := o.Evaluation.Verdicts[name]
		n := "--"
		if _, _, repetitions, ok := v.ratios(); ok {
			n = fmt.Sprint(repetitions)
		}
		row(&claims, `\hypertarget{claim:`+name+`}{\texttt{`+name+`}}`, latex.Escape(string(v.Judgement)), v.rangeOrReason(), n, v.Origin.latex())
	}
	return "\\def\\WaggleNumberRows{" + numbers.String() + "}\n\\def\\WaggleClaimRows{" + claims.String() + "}\n"
}

func (v *Verdict) rangeOrReason() string {
	if v.Decided == 0 {
		return latex.Escape(v.Reason)
	}
	return v.rangeText()
}

func (o Origin) latex() string {
	parts := slices.DeleteFunc([]string{o.Experiment, o.Metric, o.Cell, "run " + o.Run}, func(s string) bool { return s == "" || s == "run " })
	return latex.Escape(strings.Join(parts, "; "))
}

// Summary says in one line what the text can rest on.
func (o *Output) Summary() string {
	missing, counts := 0, map[Judgement]int{}
	for _, r := range o.Evaluation.Numbers {
		if r.Missing != "" {
			missing++
		}
	}
	for _, v := range o.Evaluation.Verdicts {
		counts[v.Judgement]++
	}
	s := fmt.Sprintf("%d numbers, %d of them not measured; of %d claims %d hold, %d hold in part, %d depend on placement, %d do not hold, %d can't be told",
		len(o.Evaluation.Numbers), missing, len(o.Evaluation.Verdicts), counts[Holds], counts[Part], counts[Depends], counts[Fails], counts[Unknown])
	if d := o.Differences; d != nil {
		s += fmt.Sprintf("; %d claims and %d numbers differ from the reference", len(d.Claims), len(d.Numbers))
	}
	return s
}
