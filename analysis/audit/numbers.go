package audit

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"waggle/results"
)

// Checks of the numbers: those of one record must fit one another, and those of
// several must look like measurements.

var arithmetic = []check{
	{Arithmetic, "rates against counts and time", ratesFit},
	{Arithmetic, "payload against operations", payloadFits},
	{Arithmetic, "latencies against histogram", histogramFits},
	{Arithmetic, "operations against histogram and time line", countsFit},
	{Arithmetic, "throughput times latency against clients", littleFits},
	{Arithmetic, "processor time against processors", cpuFits},
	{Arithmetic, "copies against their sum", copiesFit},
}

// near reports whether two numbers that are computed from one another are equal
// but for rounding.
func near(a, b, tolerance float64) bool {
	return math.Abs(a-b) <= tolerance*max(math.Abs(a), math.Abs(b))
}

func ratesFit(run *results.Run, found func(Severity, string, ...any)) {
	const rounding = 1e-6
	measured(run, func(r *results.Record) {
		if r.Seconds == nil || *r.Seconds <= 0 {
			return
		}
		if r.Operations != nil && r.OperationsPerSecond != nil && !near(*r.OperationsPerSecond, float64(*r.Operations)/(*r.Seconds), rounding) {
			found(Fault, "%s: %.6g operations a second, but %d in %.6g s", place(r), *r.OperationsPerSecond, *r.Operations, *r.Seconds)
		}
		if r.PayloadBytes != nil && r.ThroughputBytesPerSecond != nil && !near(*r.ThroughputBytesPerSecond, float64(*r.PayloadBytes)/(*r.Seconds), rounding) {
			found(Fault, "%s: %.6g B/s, but %d bytes in %.6g s", place(r), *r.ThroughputBytesPerSecond, *r.PayloadBytes, *r.Seconds)
		}
	})
}

// payloadFits compares bytes with operations of a known size. Operations at the
// end of a file may be shorter, never longer.
func payloadFits(run *results.Run, found func(Severity, string, ...any)) {
	measured(run, func(r *results.Record) {
		size, ok := r.Cell["size_bytes"].(float64)
		if !ok || r.Operations == nil || r.PayloadBytes == nil || size <= 0 {
			return
		}
		if most := float64(*r.Operations) * size; float64(*r.PayloadBytes) > most*(1+1e-9) {
			found(Fault, "%s: %d bytes in %d operations of %.0f bytes at most", place(r), *r.PayloadBytes, *r.Operations, size)
		}
	})
}

func histogramFits(run *results.Run, found func(Severity, string, ...any)) {
	// A value in a histogram of three digits is exact to a thousandth.
	const precision = 0.002
	measured(run, func(r *results.Record) {
		if r.Latency == nil || r.LatencyHistogram == "" {
			return
		}
		h, err := results.DecodeHistogram(r.LatencyHistogram)
		if err != nil {
			found(Fault, "%s: %v", place(r), err)
			return
		}
		at := func(percentile float64) float64 { return float64(h.ValueAtPercentile(percentile)) / 1e9 }
		for name, pair := range map[string][2]float64{
			"p50": {r.Latency.P50, at(50)}, "p90": {r.Latency.P90, at(90)}, "p99": {r.Latency.P99, at(99)},
			"p999": {r.Latency.P999, at(99.9)}, "max": {r.Latency.Max, float64(h.Max()) / 1e9}, "mean": {r.Latency.Mean, h.Mean() / 1e9},
		} {
			if !near(pair[0], pair[1], precision) {
				found(Fault, "%s: %s is %.4g s, its histogram says %.4g s", place(r), name, pair[0], pair[1])
			}
		}
	})
}

// countsFit compares how many operations are said with how many were recorded one
// by one. A client's very last operations may be outside of the histogram.
func countsFit(run *results.Run, found func(Severity, string, ...any)) {
	measured(run, func(r *results.Record) {
		if r.Operations == nil {
			return
		}
		said := float64(*r.Operations)
		if r.LatencyHistogram != "" {
			if h, err := results.DecodeHistogram(r.LatencyHistogram); err == nil && !near(said, float64(h.TotalCount()), 0.02) && r.Search == nil {
				found(Fault, "%s: %.0f operations, but its histogram holds %d", place(r), said, h.TotalCount())
			}
		}
		if r.Timeline != nil {
			sum := int64(0)
			for _, n := range r.Timeline.Operations {
				sum += n
			}
			if !near(said, float64(sum), 0.02) {
				found(Fault, "%s: %.0f operations, but its time line holds %d", place(r), said, sum)
			}
		}
	})
}

// littleFits applies Little's law to closed loops: operations under way are the
// rate times the mean latency, and no more than there are clients.
func littleFits(run *results.Run, found func(Severity, string, ...any)) {
	for _, e := range run.Plan.Experiments {
		measured(run, func(r *results.Record) {
			clients, ok := level(e, r, "clients")
			if r.Experiment != e.Name || !ok || r.Latency == nil || r.OperationsPerSecond == nil || r.OfferedOperationsPerSecond != nil || r.Search != nil {
				return
			}
			if underWay := *r.OperationsPerSecond * r.Latency.Mean; underWay > clients*1.1+0.05 {
				found(Fault, "%s: %.4g operations a second of %.4g s each are %.3g under way, but there are %.0f clients",
					place(r), *r.OperationsPerSecond, r.Latency.Mean, underWay, clients)
			}
		})
	}
}

// level gives the number that a factor or a fixed parameter has in a record.
func level(e results.PlannedExperiment, r *results.Record, name string) (float64, bool) {
	for _, from := range []results.Cell{r.Cell, e.Fixed} {
		switch v := from[name].(type) {
		case float64:
			return v, true
		case int:
			return float64(v), true
		}
	}
	return 0, false
}

// cpuFits compares processor time with what the processors could give. The
// kernel counts it in ticks of a hundredth of a second.
func cpuFits(run *results.Run, found func(Severity, string, ...any)) {
	const tick = 0.01
	processors := float64(run.Environment.CPUs)
	measured(run, func(r *results.Record) {
		if r.CPU == nil || r.Seconds == nil {
			return
		}
		if limit := processors**r.Seconds*1.05 + 2*tick*processors; r.CPU.Total > limit {
			found(Fault, "%s: %.4g s of processor time in %.4g s of %d processors", place(r), r.CPU.Total, *r.Seconds, run.Environment.CPUs)
		}
		if parts := r.CPU.User + r.CPU.System + r.CPU.SoftIRQ; parts > r.CPU.Total*1.02+2*tick {
			found(Fault, "%s: user, system and softirq add up to %.4g s, more than all processor time, %.4g s", place(r), parts, r.CPU.Total)
		}
	})
}

func copiesFit(run *results.Run, found func(Severity, string, ...any)) {
	measured(run, func(r *results.Record) {
		c := r.Copies
		if c == nil || r.PayloadBytes == nil || *r.PayloadBytes == 0 {
			return
		}
		sum := c.UserToKernelBytes + c.KernelToUserBytes + c.InUserBytes
		if c.InKernelBytes != nil {
			sum += *c.InKernelBytes
		}
		if perByte := float64(sum) / float64(*r.PayloadBytes); !near(perByte, c.PerPayloadByte, 1e-6) {
			found(Fault, "%s: %.6g copies a byte, but the ledger's bytes give %.6g", place(r), c.PerPayloadByte, perByte)
		}
		ofRoles := results.RoleCopies{}
		for _, role := range c.ByRole {
			ofRoles.UserToKernelBytes += role.UserToKernelBytes
			ofRoles.KernelToUserBytes += role.KernelToUserBytes
			ofRoles.InUserBytes += role.InUserBytes
		}
		if len(c.ByRole) > 0 && (ofRoles.UserToKernelBytes != c.UserToKernelBytes || ofRoles.KernelToUserBytes != c.KernelToUserBytes || ofRoles.InUserBytes != c.InUserBytes) {
			found(Fault, "%s: the copies of all roles do not add up to the whole", place(r))
		}
	})
}

var plausibility = []check{
	{Plausibility, "duplicated measurements", duplicated},
	{Plausibility, "smoothed series", smoothed},
	{Plausibility, "copies that a path must make", leastCopies},
	{Plausibility, "proof", proofIsThere},
}

// duplicated finds trials whose measurements are the same to the last digit. Two
// measurements of nanoseconds never are.
func duplicated(run *results.Run, found func(Severity, string, ...any)) {
	histograms, work := map[string]*results.Record{}, map[string]*results.Record{}
	measured(run, func(r *results.Record) {
		if h := r.LatencyHistogram; len(h) > 200 { // shorter ones may be equal by chance
			if before := histograms[h]; before != nil {
				found(Fault, "%s has the very latencies of %s", place(r), place(before))
			}
			histograms[h] = r
		}
		const enough = 20 // operations, whose mean is not the same twice by chance
		if r.Operations == nil || r.Latency == nil || r.Seconds == nil || *r.Operations < enough {
			return
		}
		same := fmt.Sprint(*r.Operations, *r.Seconds, *r.Latency)
		if before := work[same]; before != nil {
			found(Fault, "%s did the very work of %s, %d operations in %v s with a mean of %v s", place(r), place(before), *r.Operations, *r.Seconds, r.Latency.Mean)
		}
		work[same] = r
	})
}

// smoothed finds cells whose repetitions differ by less than any machine's do. It
// needs the cells that were not smoothed to compare with.
func smoothed(run *results.Run, found func(Severity, string, ...any)) {
	throughput, _ := results.MetricNamed(results.OperationRate)
	type cell struct {
		name   string
		spread float64
	}
	for _, e := range run.Plan.Experiments {
		var cells []cell
		records := cellRecords(run, e.Name)
		for _, name := range slices.Sorted(maps.Keys(records)) {
			var logs []float64
			for _, r := range records[name] {
				if v, ok := throughput.Of(r); ok && r.Valid && r.Source == results.SourceMeasured && v > 0 && r.OfferedOperationsPerSecond == nil {
					logs = append(logs, math.Log(v))
				}
			}
			if len(logs) >= 5 {
				cells = append(cells, cell{name, deviation(logs)})
			}
		}
		if len(cells) < 3 {
			continue
		}
		spreads := make([]float64, len(cells))
		for i, c := range cells {
			spreads[i] = c.spread
		}
		slices.Sort(spreads)
		usual := spreads[len(spreads)/2]
		for _, c := range cells {
			// The spread of five draws from one distribution does not vary a hundredfold.
			if c.spread < usual/100 {
				found(Fault, "%s, %s: its repetitions differ by %.2g %%, those of other cells by %.2g %%", e.Name, c.name, 100*c.spread, 100*usual)
			}
		}
	}
}

func deviation(values []float64) float64 {
	mean := 0.0
	for _, v := range values {
		mean += v / float64(len(values))
	}
	sum := 0.0
	for _, v := range values {
		sum += (v - mean) * (v - mean)
	}
	return math.Sqrt(sum / float64(len(values)-1))
}

// leastCopies finds reads that were copied less often than any path can: a client
// that gets bytes in its own buffer has had each of them copied once, whatever
// brought it there.
func leastCopies(run *results.Run, found func(Severity, string, ...any)) {
	measured(run, func(r *results.Record) {
		if r.Copies == nil || r.PayloadBytes == nil || *r.PayloadBytes == 0 {
			return
		}
		if _, reads := r.Cell["read"]; reads && r.Copies.PerPayloadByte < 0.99 {
			found(Fault, "%s: %.3g copies a byte, but the client's own copy alone is one", place(r), r.Copies.PerPayloadByte)
		}
	})
}

// proofIsThere finds valid trials whose paths have proved nothing.
func proofIsThere(run *results.Run, found func(Severity, string, ...any)) {
	measured(run, func(r *results.Record) {
		for name, n := range r.Proof {
			if strings.HasSuffix(name, "_answers") && n == 0 {
				found(Fault, "%s is valid, but its proof %s is 0", place(r), name)
			}
		}
		if r.Proof != nil && len(r.Proof) == 0 {
			found(Fault, "%s is valid, but proves nothing", place(r))
		}
	})
}
