//go:build race

package stats

// Under the race detector a simulation takes ten times as long, and finds nothing
// more: nothing here runs at the same time as anything else.
const simulatedRuns = 20
