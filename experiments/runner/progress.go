package runner

import (
	"fmt"
	"io"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/schollz/progressbar/v3"

	"waggle/results"
)

// Progress shows a person how far a run is.
type Progress interface {
	Begin(trials int)
	// Trial says that one trial is done, of the cell that is named.
	Trial(cell string, r results.Record)
	// Skip says that a trial is not needed.
	Skip()
	End()
}

// NewProgress shows a bar on a terminal, and plain lines elsewhere.
func NewProgress(w io.Writer, terminal bool) Progress {
	if terminal {
		return &bar{w: w}
	}
	return &lines{w: w}
}

// bar is a progress bar with the time that is left. What is not valid stands
// above it.
type bar struct {
	w   io.Writer
	bar *progressbar.ProgressBar
}

func (b *bar) Begin(trials int) {
	b.bar = progressbar.NewOptions(trials, progressbar.OptionSetWriter(b.w), progressbar.OptionShowCount(),
		progressbar.OptionSetPredictTime(true), progressbar.OptionFullWidth(), progressbar.OptionClearOnFinish(),
		progressbar.OptionThrottle(100*time.Millisecond))
}

// Trouble with showing progress is no trouble of the run.
func (b *bar) Trial(cell string, r results.Record) {
	if !r.Valid {
		_ = b.bar.Clear()
		fmt.Fprintf(b.w, "%s %s: %s\n", r.Experiment, cell, outcome(r))
	}
	b.bar.Describe(r.Experiment)
	_ = b.bar.Add(1)
}

func (b *bar) Skip() { _ = b.bar.Add(1) }

func (b *bar) End() { _ = b.bar.Exit() }

// lines writes one line a trial.
type lines struct {
	w           io.Writer
	done, total int
}

func (l *lines) Begin(trials int) { l.total = trials }

func (l *lines) Trial(cell string, r results.Record) {
	l.done++
	fmt.Fprintf(l.w, "[%d/%d] %s %s: %s\n", l.done, l.total, r.Experiment, cell, outcome(r))
}

func (l *lines) Skip() { l.done++ }

func (l *lines) End() {}

// outcome is a record in a few words.
func outcome(r results.Record) string {
	switch {
	case r.Unsupported:
		return "not supported here: " + r.Reason
	case !r.Valid:
		return "NOT VALID: " + r.Reason
	case r.ThroughputBytesPerSecond != nil:
		return fmt.Sprintf("%s/s, %s", humanize.IBytes(uint64(*r.ThroughputBytesPerSecond)), rate(r))
	default:
		return rate(r)
	}
}

func rate(r results.Record) string {
	if r.Search != nil {
		return fmt.Sprintf("sustains %s operations/s", humanize.Comma(int64(r.Search.SustainedOperationsPerSecond)))
	}
	switch {
	case r.OperationsPerSecond == nil:
		return "copies counted"
	case r.Latency == nil:
		return fmt.Sprintf("%s operations/s", humanize.Comma(int64(*r.OperationsPerSecond)))
	}
	return fmt.Sprintf("%s operations/s, p50 %v, p99 %v", humanize.Comma(int64(*r.OperationsPerSecond)), since(r.Latency.P50), since(r.Latency.P99))
}

func since(seconds float64) time.Duration {
	return time.Duration(seconds * float64(time.Second)).Round(100 * time.Nanosecond)
}
