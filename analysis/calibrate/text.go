package calibrate

import (
	"fmt"
	"math"
	"path/filepath"
	"strings"

	"waggle/results"
	"waggle/results/calibration"
)

// Files that are written beside calibration.json.
const (
	PageFile       = "calibration.md"
	ValidationFile = "validation.md"
	PicturesDir    = "calibration" // apart from those of the records
)

const micro = 1e6

// Text shows a calibration's prices on a terminal.
func Text(c *calibration.Calibration) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, %d CPUs: fitted from %d records of one client\n\n", c.Machine, c.CPUs, c.Records)
	fmt.Fprintf(&b, "%-24s %-34s %s\n", "one costs", "processor us [95 %]", "elapsed us [95 %]")
	for _, p := range c.Prices {
		fmt.Fprintf(&b, "%-24s %-34s %s\n", p.Feature.Label(), inUnits(p.Feature, p.Processor), inUnits(p.Feature, p.Elapsed))
	}
	fmt.Fprintf(&b, "\nmedian error on what was fitted: processor time %s, elapsed time %s\n", percent(c.MedianErrorProcessor), percent(c.MedianErrorElapsed))
	return b.String()
}

func inUnits(f calibration.Feature, i calibration.Interval) string {
	u := f.Unit() * micro
	return fmt.Sprintf("%.3g [%.3g, %.3g]", u*i.Value, u*i.Low, u*i.High)
}

func percent(share float64) string {
	if math.IsNaN(share) {
		return "–"
	}
	return fmt.Sprintf("%.1f %%", 100*share)
}

// WritePage writes the page that explains a calibration into a directory.
func WritePage(dir string, c *calibration.Calibration, demands calibration.Demands) error {
	return results.WriteFile(filepath.Join(dir, PageFile), []byte(page(c, demands)))
}

func page(c *calibration.Calibration, demands calibration.Demands) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# What operations are made of\n\n%s, %d CPUs, from %s: %d records of one client, each cell's median.\n\n", c.Machine, c.CPUs, strings.Join(c.Runs, ", "), c.Records)
	b.WriteString("An operation's time is a sum: how often it does something times what that costs. The costs are non-negative least\n" +
		"squares of relative errors; intervals are 95 %, from cells and trials drawn again. Processor time is that of all roles\n" +
		"together, elapsed time what one client waits. Features that nearly always come together can't be told apart: their\n" +
		"intervals are wide, and a 0 says that another one has its cost.\n\n")
	b.WriteString("| One costs | Processor, µs [95 %] | Elapsed, µs [95 %] |\n|---|---|---|\n")
	for _, p := range c.Prices {
		fmt.Fprintf(&b, "| %s | %s | %s |\n", p.Feature.Label(), inUnits(p.Feature, p.Processor), inUnits(p.Feature, p.Elapsed))
	}
	fmt.Fprintf(&b, "\nMedian error on the fitted cells: %s of processor time, %s of elapsed time.\n", percent(c.MedianErrorProcessor), percent(c.MedianErrorElapsed))
	b.WriteString("\n## What each path's processor time is made of\n\nIn µs an operation. The rest is what the model lacks or has too much of.\n\n")
	b.WriteString("| Path | Size | Copies | Calls | Switches | TCP and packets | Checksums, pages, the operation | Rest | All |\n|---|---|---|---|---|---|---|---|---|\n")
	for _, p := range Parts(c) {
		fmt.Fprintf(&b, "| %s | %.0f B | %.1f | %.1f | %.1f | %.1f | %.1f | %+.1f (%+.0f %%) | %.1f |\n", p.Label(), p.SizeBytes,
			p.Copies*micro, p.Calls*micro, p.Switches*micro, p.Packets*micro, p.Other*micro, p.Rest*micro, 100*p.Rest/p.All, p.All*micro)
	}
	b.WriteString("\n## What paths declare, and what the ledger counted\n\n| Path | Size | Calls declared | counted | Copied bytes declared | counted |\n|---|---|---|---|---|---|\n")
	for _, p := range c.Paths {
		demand, ok := demands[p.Name]
		if !ok {
			continue
		}
		for _, point := range p.Points {
			d := demand.At(point.SizeBytes, p.Replicas, p.Topology == "hosts", 0)
			fmt.Fprintf(&b, "| %s, %s | %.0f B | %.1f | %.1f | %.0f | %.0f |\n", p.Name, p.Topology, point.SizeBytes,
				d[calibration.Call], point.Counted[calibration.Call], d[calibration.CopiedByte], point.Counted[calibration.CopiedByte])
		}
	}
	return b.String()
}

// Part is what the processor time of an operation is made of, in seconds.
type Part struct {
	Path, Topology                          string
	Replicas                                int
	SizeBytes                               float64
	Copies, Calls, Switches, Packets, Other float64
	Rest, All                               float64
}

// Label names a part's path for people.
func (p *Part) Label() string {
	label := p.Path
	if p.Topology != defaultTopology {
		label += ", " + p.Topology
	}
	if p.Replicas > 1 {
		label += fmt.Sprintf(", %d replicas", p.Replicas)
	}
	return label
}

// Parts takes every measured path apart.
func Parts(c *calibration.Calibration) (parts []Part) {
	for _, path := range c.Paths {
		for _, point := range path.Points {
			p := Part{Path: path.Name, Topology: path.Topology, Replicas: path.Replicas, SizeBytes: point.SizeBytes}
			sum := 0.0
			for _, f := range calibration.Features {
				cost := point.Counted[f] * c.Price(f).Processor.Value
				sum += cost
				switch f {
				case calibration.CopiedByte:
					p.Copies += cost
				case calibration.Call:
					p.Calls += cost
				case calibration.Switch:
					p.Switches += cost
				case calibration.TCPByte, calibration.SockmapB, calibration.Packet:
					p.Packets += cost
				default:
					p.Other += cost
				}
			}
			p.All = sum * point.Processor
			p.Rest = p.All - sum
			parts = append(parts, p)
		}
	}
	return parts
}

// Text shows the validation on a terminal.
func (t *Table) Text() string { return "\n" + t.markdown(false) }

// Write writes the validation into a directory.
func (t *Table) Write(dir string) error {
	return results.WriteFile(filepath.Join(dir, ValidationFile), []byte("# How far off predictions are\n\n"+
		"Each kind of cells was left out, the rest fitted, and the cells that were left out predicted. The numbers are median\n"+
		"errors. Beside them stand two models that know nothing of paths (the nearest cell that was measured, and an M/M/c queue\n"+
		"with its mean), and the difference of equal cells (A/A), below which no error can be claimed.\n\n"+t.markdown(true)))
}

func (t *Table) markdown(cells bool) string {
	var b strings.Builder
	b.WriteString("| Held out | Metric | Cells | Median error | Nearest cell | M/M/c | A/A noise | Aim | |\n|---|---|---|---|---|---|---|---|---|\n")
	for _, r := range t.Rows() {
		verdict := "met"
		if !r.Met {
			verdict = "**missed**"
		}
		fmt.Fprintf(&b, "| %s | %s | %d | %s | %s | %s | %s | %s | %s |\n", r.Kind, r.Metric, r.Cells, percent(r.Error), percent(r.Nearest), percent(r.Queue),
			percent(r.Noise), percent(r.Aim), verdict)
	}
	b.WriteString("\n")
	for _, o := range t.Orders() {
		verdict := "met"
		if float64(o.Kept) < t.Declaration.Aims.Order*float64(o.Pairs) {
			verdict = "**missed**"
		}
		fmt.Fprintf(&b, "- %s: the order of %d of %d pairs of paths that differ by more than twice the noise is kept (aim %s): %s\n", o.Kind, o.Kept, o.Pairs, percent(t.Declaration.Aims.Order), verdict)
	}
	for _, h := range t.Declaration.HoldOuts {
		if !t.has(h.Kind) {
			fmt.Fprintf(&b, "- %s: the runs have no such cell\n", h.Kind)
		}
	}
	for _, f := range t.Failed {
		fmt.Fprintf(&b, "- not simulated: %s\n", f)
	}
	if !cells {
		return b.String()
	}
	b.WriteString("\n## Every cell\n\n| Held out | Cell | Metric | Measured | Predicted | Error |\n|---|---|---|---|---|---|\n")
	for _, p := range t.Predictions {
		for _, v := range validated {
			if c, ok := p.Metrics[v.name]; ok {
				fmt.Fprintf(&b, "| %s | %s | %s | %.4g | %.4g | %+.1f %% |\n", p.Kind, p.Cell, v.name, c.Measured, c.Predicted, 100*(c.Predicted/c.Measured-1))
			}
		}
	}
	return b.String()
}

func (t *Table) has(kind string) bool {
	for _, p := range t.Predictions {
		if p.Kind == kind {
			return true
		}
	}
	return false
}
