package paper

import (
	"fmt"
	"strings"

	"waggle/analysis/latex"
)

// Differences are what a reader's own run says otherwise than the reference.
type Differences struct {
	// Claims gives the reference's judgement of each claim that came out
	// otherwise.
	Claims map[string]Judgement
	// Numbers gives the reference's reading of each number whose interval does not
	// meet the own one, or that only one of both runs has.
	Numbers map[string]Reading
}

// Compare finds what an evaluation says otherwise than the reference. Facts
// about the run always differ and are left out.
func Compare(own, reference *Evaluation) *Differences {
	d := &Differences{Claims: map[string]Judgement{}, Numbers: map[string]Reading{}}
	for name, v := range own.Verdicts {
		if before := reference.Verdicts[name]; before.Judgement != v.Judgement {
			d.Claims[name] = before.Judgement
		}
	}
	for name, r := range own.Numbers {
		if before := reference.Numbers[name]; differ(r, before) {
			d.Numbers[name] = before
		}
	}
	return d
}

func differ(own, reference Reading) bool {
	if (own.Missing == "") != (reference.Missing == "") {
		return true
	}
	a, b := own.interval, reference.interval
	return a.Low > b.High || a.High < b.Low
}

func (d *Differences) number(name string) bool {
	if d == nil {
		return false
	}
	_, differs := d.Numbers[name]
	return differs
}

func (d *Differences) claim(name string) (Judgement, bool) {
	if d == nil {
		return "", false
	}
	before, differs := d.Claims[name]
	return before, differs
}

// differences makes the page "on your machine". It is empty where the paper is
// built from the reference.
func (o *Output) differences() string {
	d := o.Differences
	if d == nil {
		return "\\WaggleReference{}\n"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "\\OnYourMachine{%d}{%d}{%d}{%d}\n", len(d.Claims), len(o.Evaluation.Verdicts), len(d.Numbers), len(o.Evaluation.Numbers))
	if len(d.Claims) > 0 {
		b.WriteString("\\begin{DifferingClaims}\n")
		for _, name := range sortedNames(d.Claims) {
			v := o.Evaluation.Verdicts[name]
			row(&b, latex.Escape(v.Claim.About), latex.Escape(string(d.Claims[name])), latex.Escape(string(v.Judgement)), v.rangeOrReason())
		}
		b.WriteString("\\end{DifferingClaims}\n")
	}
	if len(d.Numbers) > 0 {
		b.WriteString("\\begin{DifferingNumbers}\n")
		for _, name := range sortedNames(d.Numbers) {
			row(&b, `\texttt{`+name+`}`, d.Numbers[name].latex(), o.Evaluation.Numbers[name].latex())
		}
		b.WriteString("\\end{DifferingNumbers}\n")
	}
	return b.String()
}

func (r Reading) latex() string {
	if r.Missing != "" {
		return notMeasured
	}
	return strings.TrimSpace(typeset(r.Text) + " " + r.intervalText())
}
