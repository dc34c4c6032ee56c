package stats

import (
	"cmp"
	"slices"
)

// Adjust corrects p-values for having asked many questions: claiming those that
// are at most Alpha afterwards leaves at most that share of the claims wrong,
// on average (Benjamini and Hochberg 1995). Where no question has a difference
// behind it, even one claim comes up in at most that share of runs.
func Adjust(p []float64) []float64 {
	order := make([]int, len(p))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(p[a], p[b]) })
	adjusted := make([]float64, len(p))
	smallest := 1.0
	for rank := len(p); rank > 0; rank-- {
		i := order[rank-1]
		smallest = min(smallest, p[i]*float64(len(p))/float64(rank))
		adjusted[i] = smallest
	}
	return adjusted
}
