package report

import (
	"slices"

	"waggle/analysis/figure"
)

// movedPaths are paths whose results a setting of the machine moves more than the
// choice of the path does, as a figure of kind tornado found.
type movedPaths struct {
	factor string
	levels []string
}

// movedBySettings gathers what the tornadoes of a report found.
func movedBySettings(experiments []Experiment) []movedPaths {
	var moved []movedPaths
	for _, e := range experiments {
		for _, f := range e.Figures {
			m := movedPaths{factor: f.Spec.Series}
			for path := range f.Outdone() {
				m.levels = append(m.levels, path)
			}
			if len(m.levels) > 0 {
				moved = append(moved, m)
			}
		}
	}
	return moved
}

// concerns reports that one of two paths is among them.
func (m movedPaths) concerns(factor string, paths ...any) bool {
	return factor == m.factor && slices.ContainsFunc(paths, func(path any) bool {
		return slices.Contains(m.levels, figure.LevelText(factor, path))
	})
}
