package figure

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"

	"waggle/results"
)

// backing is what lies behind a figure's data: nothing for what was measured,
// lines for what was simulated, lines both ways for what was simulated beyond what
// was ever measured. Nobody should take one for the other, not even from afar.
type backing int

const (
	measured backing = iota
	simulated
	extrapolated
)

// backing says what a selection's records are.
func (s *selection) backing() backing {
	b := measured
	for _, g := range s.groups {
		for i := range g.Records {
			switch {
			case g.Records[i].Extrapolated():
				return extrapolated
			case g.Source == results.SourceSimulated:
				b = simulated
			}
		}
	}
	return b
}

// simulationNotes say of simulated figures what they are and what is extrapolated.
func (s *selection) simulationNotes() []string {
	const shown = 3
	machines, beyond := map[string]bool{}, map[string]bool{}
	for _, g := range s.groups {
		for _, r := range g.Records {
			if r.Simulation == nil {
				continue
			}
			machines[r.Simulation.Machine] = true
			for _, b := range r.Simulation.Beyond {
				beyond[b] = true
			}
		}
	}
	if len(machines) == 0 {
		return nil
	}
	note := fmt.Sprintf("Simulated on the model %s, not measured: hatched.", strings.Join(slices.Sorted(maps.Keys(machines)), ", "))
	if len(beyond) > 0 {
		list := slices.Sorted(maps.Keys(beyond))
		more := ""
		if len(list) > shown {
			more = fmt.Sprintf(", and %d more", len(list)-shown)
			list = list[:shown]
		}
		note += " Hatched twice: beyond what was ever measured (" + strings.Join(list, "; ") + more + ")."
	}
	return []string{note}
}

// drawBacking hatches a plot's data area.
func drawBacking(canvas draw.Canvas, b backing) {
	const apart = vg.Length(7)
	line := draw.LineStyle{Color: paleGrey, Width: 0.6}
	size := canvas.Size()
	for at := -size.Y; at < size.X; at += apart {
		if b >= simulated {
			strokeWithin(canvas, line, at, 1)
		}
		if b == extrapolated {
			strokeWithin(canvas, line, at, -1)
		}
	}
}

// strokeWithin draws a line of slope 1 or -1 that crosses the lower (or upper) edge
// so far from the left, as far as it lies in the canvas.
func strokeWithin(canvas draw.Canvas, line draw.LineStyle, at vg.Length, slope int) {
	size := canvas.Size()
	from, to := max(0, at), min(size.X, at+size.Y)
	if from >= to {
		return
	}
	y := func(x vg.Length) vg.Length {
		if slope < 0 {
			return canvas.Max.Y - (x - at)
		}
		return canvas.Min.Y + (x - at)
	}
	canvas.StrokeLine2(line, canvas.Min.X+from, y(from), canvas.Min.X+to, y(to))
}
