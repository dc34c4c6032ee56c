package results

import (
	"fmt"
	"slices"
	"time"
)

// MaxSlices is the most slices that a time line may have.
const MaxSlices = 2048

// Timeline is how the timed part of a trial went, in slices of equal length from
// its start. What stands still for a moment is lost in a trial's average, and
// seen here.
type Timeline struct {
	SliceSeconds float64 `json:"slice_seconds"`
	// Operations counts those that ended in each slice.
	Operations []int64 `json:"operations"`
	// SlowestSeconds is the longest latency of an operation that ended in each
	// slice, 0 where none did.
	SlowestSeconds []float64 `json:"slowest_seconds"`
}

// What is called a stall: an operation of at least StallLatency that took
// StallFactor times as long as the trial's median one.
const (
	StallLatency = 5 * time.Millisecond
	StallFactor  = 10
)

// Stall is a time within a trial in which at least one client waited, in seconds
// from the start of its timed part.
type Stall struct{ From, To float64 }

// Seconds is how long the stall took.
func (s Stall) Seconds() float64 { return s.To - s.From }

// Stalls finds the stalls of a trial whose median latency is given, in seconds.
// Operations that waited at the same time are one stall. Its ends are exact to a
// slice.
func (t *Timeline) Stalls(median float64) []Stall {
	if t == nil {
		return nil
	}
	least := max(StallLatency.Seconds(), StallFactor*median)
	var stalls []Stall
	for i, slowest := range t.SlowestSeconds {
		if slowest < least {
			continue
		}
		end := float64(i+1) * t.SliceSeconds
		stall := Stall{From: max(0, end-slowest), To: end}
		for len(stalls) > 0 && stalls[len(stalls)-1].To > stall.From {
			stall.From = min(stall.From, stalls[len(stalls)-1].From)
			stalls = stalls[:len(stalls)-1]
		}
		stalls = append(stalls, stall)
	}
	return stalls
}

func (t *Timeline) check() error {
	switch {
	case t == nil:
		return nil
	case !(t.SliceSeconds > 0):
		return fmt.Errorf("a slice of %v s is none", t.SliceSeconds)
	case len(t.Operations) == 0 || len(t.Operations) > MaxSlices || len(t.Operations) != len(t.SlowestSeconds):
		return fmt.Errorf("%d slices of operations and %d of latencies: from 1 to %d are possible, as many of both",
			len(t.Operations), len(t.SlowestSeconds), MaxSlices)
	}
	return nil
}

// Stalls finds the stalls of a trial. What an operation usually takes is the
// trial's median latency or, if that is not known, the median of the slices'
// longest.
func (r *Record) Stalls() []Stall {
	if r.Timeline == nil {
		return nil
	}
	if r.Latency != nil {
		return r.Timeline.Stalls(r.Latency.P50)
	}
	longest := slices.DeleteFunc(slices.Sorted(slices.Values(r.Timeline.SlowestSeconds)), func(s float64) bool { return s == 0 })
	if len(longest) == 0 {
		return nil
	}
	return r.Timeline.Stalls(longest[len(longest)/2])
}
