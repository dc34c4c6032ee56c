package runner

import (
	"encoding/json"
	"fmt"

	"waggle/results"
)

// planDifference says in what two plans differ so much that one can't go on
// where the other stopped, or "".
func planDifference(begun, wanted results.Plan) string {
	if len(begun.Experiments) != len(wanted.Experiments) {
		return fmt.Sprintf("it has %d experiments and not %d", len(begun.Experiments), len(wanted.Experiments))
	}
	for i, was := range begun.Experiments {
		is := wanted.Experiments[i]
		switch {
		case was.Name != is.Name:
			return fmt.Sprintf("its experiment %d is %s and not %s", i+1, was.Name, is.Name)
		case was.Effort != is.Effort:
			return fmt.Sprintf("%s was begun at effort %s and not %s", was.Name, was.Effort, is.Effort)
		case was.Repetitions != is.Repetitions:
			return fmt.Sprintf("%s was begun with %d repetitions and not %d", was.Name, was.Repetitions, is.Repetitions)
		case !equal(was.Factors, is.Factors):
			return fmt.Sprintf("%s was begun with other factors or levels", was.Name)
		}
	}
	return ""
}

// equal compares as the run directory holds them.
func equal(a, b []results.Factor) bool {
	left, errLeft := json.Marshal(a)
	right, errRight := json.Marshal(b)
	return errLeft == nil && errRight == nil && string(left) == string(right)
}
