// Package stockkernel knows how often a stock kernel copies a byte inside itself, for
// each data path that was tried on one.
//
// The copy ledger sees inside the kernel only where programs can be attached to its
// functions (backend sites); many kernels allow that to nobody. What such a kernel
// can't count was counted for the same paths on Debian's kernel in a virtual machine: its
// records are kept with the code, and `.ci/test-vm measure` makes them again. Byte counts
// don't depend on how fast the machine is, but they may on the kernel's version: whoever
// shows them says where they are from.
package stockkernel

import (
	_ "embed"
	"fmt"
	"slices"
	"sync"

	"waggle/results"
)

//go:embed plan.json
var plan []byte

//go:embed environment.json
var environment []byte

//go:embed records.jsonl
var records []byte

// counted is the embedded run, read once.
var counted = sync.OnceValue(func() *results.Run {
	run, err := results.Decode(plan, environment, records)
	if err != nil {
		panic(fmt.Sprintf("stockkernel: the embedded run is broken: %v", err)) // a test reads it
	}
	return run
})

// Source says which kernel counted, and when: "Linux 6.18.15, 28 November 2026".
func Source() string {
	run := counted()
	return fmt.Sprintf("Linux %s, %s", run.Environment.Kernel, run.Plan.Start.UTC().Format("2 January 2006"))
}

// sameCopies are the factors by which it is known what a kernel copies inside itself.
var sameCopies = []string{"read", "topology", "size_bytes"}

// CopiesPerByte gives all copies per payload byte, those inside the kernel included,
// that the stock kernel counted for the path, topology and size of a cell: the median of
// its trials. It is false if that was not tried.
func CopiesPerByte(cell results.Cell) (float64, bool) {
	want := results.Cell{}
	for _, factor := range sameCopies {
		level, ok := cell[factor]
		if !ok {
			return 0, false
		}
		want[factor] = level
	}
	var values []float64
	run := counted()
	for i := range run.Records {
		if r := &run.Records[i]; r.Valid && r.Control == "" && r.Cell.Has(want) && r.Copies != nil && r.Copies.InKernelBytes != nil {
			values = append(values, r.Copies.PerPayloadByte)
		}
	}
	if len(values) == 0 {
		return 0, false
	}
	slices.Sort(values)
	return values[len(values)/2], true
}

// Added gives how many copies per payload byte the stock kernel counted beyond those
// of a record whose own ledger could not see inside the kernel; false if it could, or
// nothing is known. It is the difference of the sums, because the two backends book a
// zero-copy send that was copied after all under different directions.
func Added(r *results.Record) (float64, bool) {
	if r.Copies == nil || r.Copies.InKernelBytes != nil {
		return 0, false
	}
	all, ok := CopiesPerByte(r.Cell)
	return max(0, all-r.Copies.PerPayloadByte), ok
}

// Complete makes of the metric of copies per payload byte one that adds what the stock
// kernel counted inside the kernel, where a record's own ledger could not see that. Other
// metrics it leaves as they are.
func Complete(m results.Metric) results.Metric {
	if m.Name != results.CopiesPerByte {
		return m
	}
	counted := m.Of
	m.Of = func(r *results.Record) (float64, bool) {
		v, ok := counted(r)
		if more, known := Added(r); ok && known {
			v += more
		}
		return v, ok
	}
	return m
}
