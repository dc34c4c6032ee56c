package results

import "time"

// What it means that a path sustains a load.
const (
	// SustainedShare of the operations that are offered a second has to be carried
	// out; the rest is how exactly a short trial can tell.
	SustainedShare = 0.97
	// SustainedP99 is the highest 99th percentile of their latencies, counted from
	// when they were meant to start. A machine of two processors makes even an idle
	// server's clients wait for 10 ms now and then.
	SustainedP99 = 20 * time.Millisecond
)

// Sustained reports whether a load is sustained: what was offered and carried
// out, in operations a second, and the 99th percentile latency in seconds.
func Sustained(offered, achieved, p99 float64) bool {
	return achieved >= SustainedShare*offered && p99 <= SustainedP99.Seconds()
}

// Search is how a trial looked for the highest load that is sustained: by open
// loops of one rate after the other.
type Search struct {
	SustainedOperationsPerSecond float64 `json:"sustained_operations_per_second"`
	// P99LimitSeconds is SustainedP99 as it was when the trial ran.
	P99LimitSeconds float64      `json:"p99_limit_seconds"`
	Steps           []SearchStep `json:"steps"`
}

// SearchStep is one rate that was tried.
type SearchStep struct {
	OfferedOperationsPerSecond float64 `json:"offered_operations_per_second"`
	OperationsPerSecond        float64 `json:"operations_per_second"`
	P99Seconds                 float64 `json:"p99_seconds"`
	Held                       bool    `json:"held"`
}
