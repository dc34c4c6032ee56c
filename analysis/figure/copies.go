package figure

import (
	"image/color"
	"maps"
	"slices"
	"strings"

	"waggle/results"
	"waggle/results/stockkernel"
	"waggle/stats"
)

// direction is one of the ways in which the CPU copies bytes.
type direction struct {
	name   string
	colour color.RGBA
	of     func(results.RoleCopies) *int64
}

var directions = []direction{
	{"user to kernel", blue, func(c results.RoleCopies) *int64 { return &c.UserToKernelBytes }},
	{"kernel to user", orange, func(c results.RoleCopies) *int64 { return &c.KernelToUserBytes }},
	{"inside the kernel", green, func(c results.RoleCopies) *int64 { return c.InKernelBytes }},
	{"inside a process", purple, func(c results.RoleCopies) *int64 { return &c.InUserBytes }},
}

// roleHatches tells roles apart on top of the colours of directions.
var roleHatches = map[string]hatch{
	"chunk": noHatch, "client": risingHatch, "gateway": crossHatch, "meta": fallingHatch,
}

// unattributed is what a ledger doesn't put down to any role.
const unattributed = "not attributed"

// copyBars stacks the copies per payload byte by direction, and within a
// direction by role.
func copyBars(s *selection) (*chart, error) {
	m := stockkernel.Complete(metricNamed(results.CopiesPerByte))
	roles := s.copyRoles()
	var used []string
	borrowed := false
	plots, err := barPanels(s, quantityOf(m), func(_ series, g stats.Group) (barRow, bool) {
		total := stats.Summarize(g.Sample(m))
		row := barRow{value: total.Median}
		for _, d := range directions {
			for _, role := range roles {
				value := stats.Summarize(g.Sample(copiesBy(d, role)))
				if value.Median > 0 {
					row.segments = append(row.segments, segment{filling{d.colour, hatchOf(role)}, value.Median})
					used = append(used, d.name, role)
				}
			}
		}
		if more := stats.Summarize(g.Sample(stockKernelCopies)); more.Median >= leastBorrowed {
			row.segments = append(row.segments, segment{borrowedFill, more.Median})
			borrowed = true
		}
		if len(row.segments) == 0 {
			row.segments = []segment{{filling{black, noHatch}, 0}}
		}
		return row, total.N > 0
	})
	if err != nil {
		return nil, err
	}
	c := &chart{metrics: copyMetrics(s), grid: plots, legend: copyLegend(roles, used)}
	if borrowed {
		c.legend = append(c.legend, legendEntry{name: "inside a stock kernel", fill: &borrowedFill})
		c.caption = append(c.caption, "Inside a stock kernel: counted on "+stockkernel.Source()+", in a virtual machine, as this kernel can't count them.")
	}
	switch blind := s.kernelBlind(m); {
	case len(blind) == len(s.names):
		c.warnings = append(c.warnings, "Copies inside the kernel were not counted.")
	case len(blind) > 0:
		c.warnings = append(c.warnings, "Copies inside the kernel were not counted for "+strings.Join(blind, ", ")+".")
	}
	c.alt = altText(s, "Stacked bars, by direction and role,", c.metrics[:1])
	return c, nil
}

// stockKernelCopies are the copies a byte that a stock kernel counted inside itself, for
// records whose own kernel could not.
var stockKernelCopies = results.Metric{Name: "stock_kernel_copies", Unit: "copies/B", Label: "inside a stock kernel", Exact: true, Of: stockkernel.Added}

// borrowedFill shows what was counted on another kernel.
var borrowedFill = filling{paleGreen, crossHatch}

// leastBorrowed is the least that is drawn of them: below are packet headers.
const leastBorrowed = 0.005

// copyMetrics are the columns of the table.
func copyMetrics(s *selection) []results.Metric {
	names := []string{results.CopiesPerByte, results.UserToKernelPerByte, results.KernelToUserPerByte,
		results.InKernelPerByte, results.InUserPerByte}
	var metrics []results.Metric
	for _, name := range names {
		if m := stockkernel.Complete(metricNamed(name)); s.drawable(m) {
			m.Label = m.Label[strings.LastIndex(m.Label, ",")+1:] // the first column says of what
			m.Label = strings.TrimSpace(m.Label)
			metrics = append(metrics, m)
		}
	}
	if s.drawable(stockKernelCopies) {
		metrics = append(metrics, stockKernelCopies)
	}
	return metrics
}

// copyRoles are the roles of the selection's ledgers, and at the end what is
// nobody's.
func (s *selection) copyRoles() []string {
	roles := map[string]bool{}
	for _, g := range s.groups {
		for _, r := range g.Records {
			if r.Copies != nil {
				for role := range r.Copies.ByRole {
					roles[role] = true
				}
			}
		}
	}
	return append(slices.Sorted(maps.Keys(roles)), unattributed)
}

// copiesBy counts a role's copies in one direction per payload byte.
func copiesBy(d direction, role string) results.Metric {
	return results.Metric{Of: func(r *results.Record) (float64, bool) {
		if r.Copies == nil || r.PayloadBytes == nil || *r.PayloadBytes == 0 {
			return 0, false
		}
		bytes := d.of(r.Copies.ByRole[role])
		if role == unattributed {
			bytes = unattributedBytes(d, r.Copies)
		}
		if bytes == nil {
			return 0, false
		}
		return float64(*bytes) / float64(*r.PayloadBytes), true
	}}
}

func unattributedBytes(d direction, c *results.Copies) *int64 {
	all := d.of(results.RoleCopies{
		UserToKernelBytes: c.UserToKernelBytes, KernelToUserBytes: c.KernelToUserBytes,
		InKernelBytes: c.InKernelBytes, InUserBytes: c.InUserBytes,
	})
	if all == nil {
		return nil
	}
	rest := *all
	for _, role := range c.ByRole {
		if bytes := d.of(role); bytes != nil {
			rest -= *bytes
		}
	}
	rest = max(rest, 0)
	return &rest
}

func hatchOf(role string) hatch {
	h, ok := roleHatches[role]
	if !ok {
		return levelHatch
	}
	return h
}

func copyLegend(roles, used []string) []legendEntry {
	var entries []legendEntry
	for _, d := range directions {
		if slices.Contains(used, d.name) {
			entries = append(entries, legendEntry{name: d.name, fill: &filling{d.colour, noHatch}})
		}
	}
	if len(roles) == 1 {
		return entries
	}
	for _, role := range roles {
		if slices.Contains(used, role) {
			entries = append(entries, legendEntry{name: role, fill: &filling{color.White, hatchOf(role)}})
		}
	}
	return entries
}

// kernelBlind names the series whose ledger couldn't see inside the kernel, and for
// which no stock kernel was asked.
func (s *selection) kernelBlind(m results.Metric) []string {
	inKernel := metricNamed(results.InKernelPerByte)
	var blind []string
	for _, g := range s.groups {
		name := s.seriesName(g)
		if len(g.Sample(m)) > 0 && len(g.Sample(inKernel)) == 0 && len(g.Sample(stockKernelCopies)) == 0 && !slices.Contains(blind, name) {
			blind = append(blind, name)
		}
	}
	return blind
}
