package claims

import (
	"fmt"
	"strings"
)

// Text shows outcomes on a terminal: each claim with its verdict and the
// numbers beside the authors'.
func Text(outcomes []Outcome) string {
	var b strings.Builder
	counts := map[Verdict]int{}
	for _, o := range outcomes {
		counts[o.Verdict]++
		fmt.Fprintf(&b, "%s: %s\n  %s (%s)\n", strings.ToUpper(string(o.Verdict)), o.ID, o.Claim, o.Source)
		if len(o.Tests) == 0 {
			fmt.Fprintf(&b, "  %s\n", o.Reason)
		}
		for _, t := range o.Tests {
			fmt.Fprintf(&b, "  - %s\n    %s: %s\n", t.What, t.Verdict, t.Reason)
			if t.Note != "" {
				fmt.Fprintf(&b, "    note: %s\n", t.Note)
			}
		}
		b.WriteString("\n")
	}
	fmt.Fprintf(&b, "%d reproduced, %d not reproduced, %d not testable here\n",
		counts[Reproduced], counts[NotReproduced], counts[NotTestable])
	if simulated := counts[ReproducedInSimulation] + counts[NotReproducedInSimulation]; simulated > 0 {
		fmt.Fprintf(&b, "%d reproduced in simulation, %d not reproduced in simulation\n", counts[ReproducedInSimulation], counts[NotReproducedInSimulation])
	}
	return b.String()
}
