package calibrate

import "math"

// leastSquares finds the non-negative x for which rows·x is nearest to wanted, in
// relative terms: every row counts alike, however large what it wants. Coordinate
// descent on the normal equations: each step finds the best value of one unknown,
// until none moves.
func leastSquares(rows [][]float64, wanted []float64) []float64 {
	if len(rows) == 0 {
		return nil
	}
	n := len(rows[0])
	square := make([][]float64, n)
	for i := range square {
		square[i] = make([]float64, n+1)
	}
	for k, row := range rows {
		for i := range n {
			for j := range n {
				square[i][j] += row[i] * row[j] / (wanted[k] * wanted[k])
			}
			square[i][n] += row[i] / wanted[k]
		}
	}
	x := make([]float64, n)
	const most, still = 20_000, 1e-9
	for range most {
		moved := 0.0
		for i := range n {
			if square[i][i] == 0 {
				continue
			}
			slope := square[i][n]
			for j := range n {
				slope -= square[i][j] * x[j]
			}
			next := max(0, x[i]+slope/square[i][i])
			// Moves are compared by what they do to a row's sum, not by their units.
			moved = max(moved, math.Abs(next-x[i])*math.Sqrt(square[i][i]))
			x[i] = next
		}
		if moved < still {
			break
		}
	}
	return x
}
