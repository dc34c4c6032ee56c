package runner

import (
	"fmt"

	"waggle/experiments/workload"
	"waggle/results"
)

// A trial that other machines or other programs took processor time from says little
// about its cell, so it is run again. /proc/stat tells of that in hundredths of a
// second, and one more or less of those may come from before the trial: only what is
// above both a share and a few of them counts.
const (
	stealShare   = 0.05 // of what the processors could give
	stealLeast   = 0.015
	foreignShare = 0.10
	foreignLeast = 0.035
)

// moreAttempts is how many times a disturbed trial is run again, and repeatedShare the
// share of a run's trials that may be: on a machine that is never quiet all of them
// would be.
const (
	moreAttempts  = 2
	repeatedShare = 0.1
)

// disturbanceOf tells what else the processors did in a trial that took so many
// seconds. Used is the processor time of the roles, in seconds.
func disturbanceOf(p workload.Processors, timed float64, used map[string]float64) *results.Disturbance {
	foreign := p.User + p.System
	for _, seconds := range used {
		foreign -= seconds
	}
	all := p.Window * float64(len(p.Idle))
	d := &results.Disturbance{StealSeconds: min(p.Steal, all), ForeignSeconds: min(max(0, foreign), all), Attempts: 1}
	switch {
	case !results.WithinClockSlack(p.Window, timed):
		// Then it is not known either what the trial cost.
		d.Exceeded = fmt.Sprintf("foreign load: the clocks were read %.1f ms too early or too late", 1e3*(p.Window-timed))
	case d.StealSeconds > max(stealShare*all, stealLeast):
		d.Exceeded = fmt.Sprintf("steal: other machines had %.0f %% of the processors' time", 100*d.StealSeconds/all)
	case d.ForeignSeconds > max(foreignShare*all, foreignLeast):
		d.Exceeded = fmt.Sprintf("foreign load: other programs had %.0f %% of the processors' time", 100*d.ForeignSeconds/all)
	}
	return d
}
