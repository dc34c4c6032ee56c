//go:build !race

package stats

// simulatedRuns is how many runs without a difference each kind of noise makes.
const simulatedRuns = 200
