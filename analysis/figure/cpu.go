package figure

import (
	"image/color"
	"maps"
	"slices"

	"waggle/results"
	"waggle/stats"
)

// costBasis is what CPU time is divided by.
type costBasis struct {
	total string // the metric of the whole machine
	role  func(role string) string
	per   func(*results.Record) (float64, bool)
}

var (
	perGB = costBasis{results.CPUPerGB, func(role string) string { return results.CPUPerGB + "_" + role },
		func(r *results.Record) (float64, bool) { return count(r.PayloadBytes, 1e9) }}
	perOperation = costBasis{results.CPUPerOperation, func(role string) string { return results.CPUPerOperation + "_" + role },
		func(r *results.Record) (float64, bool) { return count(r.Operations, 1) }}
)

func count(n *int64, unit float64) (float64, bool) {
	if n == nil || *n == 0 {
		return 0, false
	}
	return float64(*n) / unit, true
}

const (
	softIRQ   = "softirq"
	otherTime = "rest of the machine"
)

var roleColours = map[string]color.RGBA{"chunk": blue, "client": vermillion, "gateway": purple, "meta": green}

// cpuBars stacks CPU time by role, then the machine's softirq time, then what
// is left of the machine's total. The total stands as a cross with its
// interval: where softirq work was also charged to the process it interrupted,
// the stack is longer than the total.
func cpuBars(basis costBasis) func(*selection) (*chart, error) {
	return func(s *selection) (*chart, error) {
		m := metricNamed(basis.total)
		roles := s.visibleRoles(basis)
		var used []string
		plots, err := barsApart(s, quantityOf(m), func(_ series, g stats.Group) (barRow, bool) {
			total := stats.Summarize(g.Sample(m))
			row := barRow{total: &total, value: total.Median}
			sum := 0.0
			add := func(name string, value float64) {
				if value > 0 {
					sum += value
					used = append(used, name)
					row.segments = append(row.segments, segment{cpuFill(name), value})
				}
			}
			for _, role := range roles {
				add(role, stats.Summarize(g.Sample(metricNamed(basis.role(role)))).Median)
			}
			add(softIRQ, stats.Summarize(g.Sample(basis.softIRQ())).Median)
			add(otherTime, total.Median-sum)
			return row, total.N > 0
		})
		if err != nil {
			return nil, err
		}
		c := &chart{metrics: []results.Metric{m}, grid: plots}
		for _, name := range append(roles, softIRQ, otherTime) {
			if slices.Contains(used, name) {
				fill := cpuFill(name)
				c.legend = append(c.legend, legendEntry{name: name, fill: &fill})
			}
		}
		c.legend = append(c.legend, legendEntry{name: "whole machine", style: totalStyle, markerOnly: true})
		c.table = s.table(append(c.metrics, basis.columns(roles)...))
		c.caption = []string{"Each part is its own median; crosses are the whole machine's, with their intervals."}
		c.alt = altText(s, "Stacked bars by role", c.metrics)
		return c, nil
	}
}

const kernelTime = "rest of the host"

// hostBars stacks the CPU time of a host that had processors to itself: that of
// its processes, and what else its processors did. Its total is what the
// processors were not idle, so that nothing that was done for the host is missing.
func hostBars(s *selection) (*chart, error) {
	host := s.host()
	if host == "" {
		return nil, ErrNoData
	}
	m, process := metricNamed(results.HostCPUPerGB+"_"+host), metricNamed(results.CPUPerGB+"_"+host)
	process.Label = host + " process"
	plots, err := barsApart(s, quantityOf(m), func(_ series, g stats.Group) (barRow, bool) {
		total, own := stats.Summarize(g.Sample(m)), stats.Summarize(g.Sample(process)).Median
		row := barRow{total: &total, value: total.Median, segments: []segment{{cpuFill(host), own}}}
		if rest := total.Median - own; rest > 0 {
			row.segments = append(row.segments, segment{cpuFill(kernelTime), rest})
		}
		return row, total.N > 0
	})
	if err != nil {
		return nil, err
	}
	own, rest := cpuFill(host), cpuFill(kernelTime)
	return &chart{
		metrics: []results.Metric{m}, grid: plots,
		legend: []legendEntry{{name: process.Label, fill: &own}, {name: kernelTime, fill: &rest},
			{name: "whole host", style: totalStyle, markerOnly: true}},
		caption: []string{"Whole host: all that the processors did on which only the " + host + "'s host runs and receives packets.",
			"Its rest is soft interrupts and kernel threads; soft interrupts that interrupt a process are booked as the process's."},
		table: s.table([]results.Metric{m, process}),
		alt:   altText(s, "Stacked bars of process and kernel", []results.Metric{m}),
	}, nil
}

// host is the first one that had processors to itself, or "".
func (s *selection) host() string {
	hosts := map[string]bool{}
	for _, g := range s.groups {
		for _, r := range g.Records {
			if r.CPU != nil {
				for host := range r.CPU.ByHost {
					hosts[host] = true
				}
			}
		}
	}
	for _, host := range slices.Sorted(maps.Keys(hosts)) {
		return host
	}
	return ""
}

func (b costBasis) softIRQ() results.Metric {
	total := metricNamed(b.total)
	return results.Metric{Name: softIRQ, Unit: total.Unit, Label: softIRQ, Of: func(r *results.Record) (float64, bool) {
		by, ok := b.per(r)
		if !ok || r.CPU == nil {
			return 0, false
		}
		return r.CPU.SoftIRQ / by, true
	}}
}

// columns are the parts of the total in the table.
func (b costBasis) columns(roles []string) []results.Metric {
	var metrics []results.Metric
	for _, role := range roles {
		m := metricNamed(b.role(role))
		m.Label = role
		metrics = append(metrics, m)
	}
	return append(metrics, b.softIRQ())
}

func cpuFill(name string) filling {
	switch name {
	case softIRQ, kernelTime:
		return filling{yellow, risingHatch}
	case otherTime:
		return filling{paleGrey, noHatch}
	}
	if c, ok := roleColours[name]; ok {
		return filling{c, noHatch}
	}
	return filling{skyBlue, levelHatch}
}

// visibleShare of a cell's processor time is the least that a role must have had
// in any cell to be told apart. What idle roles spend goes to the rest.
const visibleShare = 0.01

func (s *selection) visibleRoles(basis costBasis) []string {
	total := metricNamed(basis.total)
	return slices.DeleteFunc(s.cpuRoles(), func(role string) bool {
		own := metricNamed(basis.role(role))
		return !slices.ContainsFunc(s.groups, func(g stats.Group) bool {
			return stats.Summarize(g.Sample(own)).Median >= visibleShare*stats.Summarize(g.Sample(total)).Median && len(g.Sample(own)) > 0
		})
	})
}

func (s *selection) cpuRoles() []string {
	roles := map[string]bool{}
	for _, g := range s.groups {
		for _, r := range g.Records {
			if r.CPU != nil {
				for role := range r.CPU.ByRole {
					roles[role] = true
				}
			}
		}
	}
	return slices.Sorted(maps.Keys(roles))
}
