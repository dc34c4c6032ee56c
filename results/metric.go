package results

import (
	"fmt"
	"strings"

	"github.com/dustin/go-humanize"
)

// Metric is one number a record can answer for. Its value is always such that
// it can be compared between cells: a rate, a share, or a cost per operation or
// per byte, never a total that grows with how long the trial ran.
type Metric struct {
	Name string
	// Unit is for people: "B/s", "s", "CPU s/GB" (GB is 10^9 bytes).
	Unit string
	// Label names the metric on a figure's axis.
	Label        string
	HigherBetter bool
	// Exact says that the metric counts what the program does, not how fast the
	// machine was: two runs on two machines may be compared.
	Exact bool
	// BenchUnit is the metric's unit in the Go benchmark format, where it must be
	// one word that tells metrics apart.
	BenchUnit string
	// Of gives the metric's value, or false where the record didn't measure it.
	Of func(*Record) (float64, bool)
}

// Format writes a value with its unit for people: "1.25 GB/s", "85 µs".
func (m Metric) Format(v float64) string {
	switch m.Unit {
	case "B/s", "op/s", "s", "CPU s/op", "B/op":
		return humanize.SIWithDigits(v, 2, m.Unit)
	}
	return fmt.Sprintf("%.4g %s", v, m.Unit)
}

// Names of the metrics.
const (
	Throughput           = "throughput"
	OperationRate        = "operation_rate"
	SustainedRate        = "sustained_rate"
	LatencyP50           = "latency_p50"
	LatencyP90           = "latency_p90"
	LatencyP99           = "latency_p99"
	LatencyP999          = "latency_p999"
	LatencyMax           = "latency_max"
	LatencyMean          = "latency_mean"
	CPUPerGB             = "cpu_per_gb"
	CPUPerOperation      = "cpu_per_operation"
	HostCPUPerGB         = "host_cpu_per_gb"
	SoftIRQPerOperation  = "softirq_per_operation"
	CopiesPerByte        = "copies_per_byte"
	UserToKernelPerByte  = "user_to_kernel_per_byte"
	KernelToUserPerByte  = "kernel_to_user_per_byte"
	InKernelPerByte      = "in_kernel_per_byte"
	InUserPerByte        = "in_user_per_byte"
	CopiedPerOperation   = "copied_bytes_per_operation"
	SyscallsPerOperation = "syscalls_per_operation"
	SwitchesPerOperation = "context_switches_per_operation"
	PayloadPerOperation  = "payload_per_operation"
)

const bytesPerGB = 1e9

var metrics = []Metric{
	{Name: Throughput, Unit: "B/s", Label: "throughput", HigherBetter: true, BenchUnit: "B/s",
		Of: func(r *Record) (float64, bool) { return value(r.ThroughputBytesPerSecond) }},
	{Name: OperationRate, Unit: "op/s", Label: "operations per second", HigherBetter: true, BenchUnit: "op/s",
		Of: func(r *Record) (float64, bool) { return value(r.OperationsPerSecond) }},
	{Name: SustainedRate, Unit: "op/s", Label: "highest load sustained", HigherBetter: true, BenchUnit: "sustained-op/s",
		Of: func(r *Record) (float64, bool) {
			if r.Search == nil {
				return 0, false
			}
			return r.Search.SustainedOperationsPerSecond, true
		}},
	latency(LatencyP50, "p50-sec", "median latency", func(l *Latency) float64 { return l.P50 }),
	latency(LatencyP90, "p90-sec", "90th percentile latency", func(l *Latency) float64 { return l.P90 }),
	latency(LatencyP99, "p99-sec", "99th percentile latency", func(l *Latency) float64 { return l.P99 }),
	latency(LatencyP999, "p99.9-sec", "99.9th percentile latency", func(l *Latency) float64 { return l.P999 }),
	latency(LatencyMax, "max-sec", "highest latency", func(l *Latency) float64 { return l.Max }),
	latency(LatencyMean, "mean-sec", "mean latency", func(l *Latency) float64 { return l.Mean }),
	{Name: CPUPerGB, Unit: "CPU s/GB", Label: "CPU seconds per GB", BenchUnit: "cpu-sec/GB",
		Of: cpuPer(perGB, func(c *CPU) (float64, bool) { return c.Total, true })},
	{Name: CPUPerOperation, Unit: "CPU s/op", Label: "CPU seconds per operation", BenchUnit: "cpu-sec/op",
		Of: cpuPer(perOperation[float64], func(c *CPU) (float64, bool) { return c.Total, true })},
	{Name: SoftIRQPerOperation, Unit: "CPU s/op", Label: "softirq seconds per operation", BenchUnit: "softirq-sec/op",
		Of: cpuPer(perOperation[float64], func(c *CPU) (float64, bool) { return c.SoftIRQ, true })},
	{Name: CopiesPerByte, Unit: "copies/B", Label: "copies per payload byte", Exact: true, BenchUnit: "copies/B",
		Of: func(r *Record) (float64, bool) {
			if r.Copies == nil {
				return 0, false
			}
			return r.Copies.PerPayloadByte, true
		}},
	copied(UserToKernelPerByte, "user-to-kernel/B", "user to kernel", func(c *Copies) *int64 { return &c.UserToKernelBytes }),
	copied(KernelToUserPerByte, "kernel-to-user/B", "kernel to user", func(c *Copies) *int64 { return &c.KernelToUserBytes }),
	copied(InKernelPerByte, "in-kernel/B", "inside the kernel", func(c *Copies) *int64 { return c.InKernelBytes }),
	copied(InUserPerByte, "in-user/B", "inside a process", func(c *Copies) *int64 { return &c.InUserBytes }),
	{Name: CopiedPerOperation, Unit: "B/op", Label: "copied per operation", Exact: true, BenchUnit: "copied-B/op",
		Of: func(r *Record) (float64, bool) {
			if r.Copies == nil {
				return 0, false
			}
			copied := r.Copies.UserToKernelBytes + r.Copies.KernelToUserBytes + r.Copies.InUserBytes
			if inside := r.Copies.InKernelBytes; inside != nil {
				copied += *inside
			}
			return perOperation(r, &copied)
		}},
	{Name: SyscallsPerOperation, Unit: "calls/op", Label: "system calls per operation", Exact: true, BenchUnit: "syscalls/op",
		Of: func(r *Record) (float64, bool) { return perOperation(r, r.Syscalls) }},
	{Name: SwitchesPerOperation, Unit: "switches/op", Label: "context switches per operation", BenchUnit: "switches/op",
		Of: func(r *Record) (float64, bool) { return perOperation(r, r.ContextSwitches) }},
	{Name: PayloadPerOperation, Unit: "B/op", Label: "payload bytes per operation", HigherBetter: true, Exact: true, BenchUnit: "payload-B/op",
		Of: func(r *Record) (float64, bool) { return perOperation(r, r.PayloadBytes) }},
}

// Metrics gives all metrics that need no role's name, in the order in which
// they are to be shown.
func Metrics() []Metric { return metrics }

// MetricNamed finds a metric by name. A role's own CPU time is asked for as
// "cpu_per_gb_ROLE" or "cpu_per_operation_ROLE", that of all that a host did as
// "host_cpu_per_gb_HOST".
func MetricNamed(name string) (Metric, error) {
	for _, m := range metrics {
		if m.Name == name {
			return m, nil
		}
	}
	if role, ok := strings.CutPrefix(name, CPUPerGB+"_"); ok && role != "" {
		return Metric{Name: name, Unit: "CPU s/GB", Label: role + " CPU seconds per GB", BenchUnit: role + "-cpu-sec/GB",
			Of: cpuPer(perGB, ofRole(role))}, nil
	}
	if role, ok := strings.CutPrefix(name, CPUPerOperation+"_"); ok && role != "" {
		return Metric{Name: name, Unit: "CPU s/op", Label: role + " CPU seconds per operation", BenchUnit: role + "-cpu-sec/op",
			Of: cpuPer(perOperation[float64], ofRole(role))}, nil
	}
	if host, ok := strings.CutPrefix(name, HostCPUPerGB+"_"); ok && host != "" {
		return Metric{Name: name, Unit: "CPU s/GB", Label: "CPU seconds per GB of the " + host + "'s host", BenchUnit: host + "-host-cpu-sec/GB",
			Of: cpuPer(perGB, ofHost(host))}, nil
	}
	return Metric{}, fmt.Errorf("there is no metric %q", name)
}

func value[N int64 | float64](p *N) (float64, bool) {
	if p == nil {
		return 0, false
	}
	return float64(*p), true
}

func latency(name, benchUnit, label string, of func(*Latency) float64) Metric {
	return Metric{Name: name, Unit: "s", BenchUnit: benchUnit, Label: label, Of: func(r *Record) (float64, bool) {
		if r.Latency == nil {
			return 0, false
		}
		return of(r.Latency), true
	}}
}

func copied(name, benchUnit, direction string, of func(*Copies) *int64) Metric {
	return Metric{Name: name, Unit: "copies/B", Label: "copies per payload byte, " + direction, Exact: true, BenchUnit: benchUnit,
		Of: func(r *Record) (float64, bool) {
			if r.Copies == nil {
				return 0, false
			}
			return over(of(r.Copies), r.PayloadBytes)
		}}
}

func cpuPer(per func(*Record, *float64) (float64, bool), of func(*CPU) (float64, bool)) func(*Record) (float64, bool) {
	return func(r *Record) (float64, bool) {
		if r.CPU == nil {
			return 0, false
		}
		seconds, ok := of(r.CPU)
		if !ok {
			return 0, false
		}
		return per(r, &seconds)
	}
}

func ofRole(role string) func(*CPU) (float64, bool) {
	return func(c *CPU) (float64, bool) {
		seconds, ok := c.ByRole[role]
		return seconds, ok
	}
}

func ofHost(host string) func(*CPU) (float64, bool) {
	return func(c *CPU) (float64, bool) {
		seconds, ok := c.ByHost[host]
		return seconds, ok
	}
}

func perGB(r *Record, amount *float64) (float64, bool) {
	v, ok := over(amount, r.PayloadBytes)
	return v * bytesPerGB, ok
}

func perOperation[N int64 | float64](r *Record, amount *N) (float64, bool) {
	return over(amount, r.Operations)
}

// over divides, and has no answer where nothing was measured or nothing was
// done.
func over[N int64 | float64](amount *N, by *int64) (float64, bool) {
	if amount == nil || by == nil || *by == 0 {
		return 0, false
	}
	return float64(*amount) / float64(*by), true
}
