package runner

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"waggle/experiments/spec"
	"waggle/experiments/workload"
	"waggle/results"
)

// trialPatience is how long a trial may take beyond the time that it is meant
// to: an open loop that lags, its data set, and reading back what was written.
func trialPatience(t planned) time.Duration {
	loops := time.Duration(1)
	if t.cell.Parameters.SearchRate {
		loops = workload.MaxSearchSteps
	}
	return 2*time.Minute + 5*(t.plan.Trial.WarmUp+loops*t.plan.Trial.Duration)
}

// record runs one trial. An error means that the run can't go on; whatever goes
// wrong with the trial alone is in its record.
func (r *run) record(ctx context.Context, t planned) (results.Record, error) {
	record := results.Record{
		Experiment: t.plan.Experiment.Name, Trial: t.number, Repetition: t.repetition,
		Source: results.SourceMeasured, Cell: t.cell.Levels, Control: t.cell.Control, Placement: t.placement,
	}
	if err := r.support.cell(t.cell.Parameters); err != nil {
		record.Unsupported, record.Reason = true, oneLine(err)
		return record, nil
	}
	err := r.attempts(ctx, t, &record)
	if ctx.Err() != nil {
		return record, ctx.Err()
	}
	record.Valid = err == nil
	if err != nil {
		record.Reason = oneLine(err)
		if failed := r.afterFailure(t, err); failed != nil {
			return record, failed
		}
	}
	return record, nil
}

// attempts runs a trial, and again while something else has disturbed it too much.
func (r *run) attempts(ctx context.Context, t planned, record *results.Record) error {
	empty := *record
	for attempt := 1; ; attempt++ {
		s, err := r.stageFor(t.cell.Parameters)
		if err == nil {
			err = r.try(ctx, s, t, record)
		}
		if record.Disturbance == nil {
			return err
		}
		record.Disturbance.Attempts = attempt
		if err != nil || record.Disturbance.Exceeded == "" || attempt > moreAttempts || r.repeated >= r.mayRepeat {
			return err
		}
		r.repeated++
		*record = empty
	}
}

func oneLine(err error) string {
	text := strings.ReplaceAll(err.Error(), "\n", "; ")
	return text[:min(len(text), 1000)]
}

// afterFailure gives up the stage of a trial that failed because a role is no
// more, or because something has not answered: the next trial gets a new one.
func (r *run) afterFailure(t planned, err error) error {
	var s *stage
	for _, up := range r.stages {
		if up.key == keyOf(t.cell.Parameters) {
			s = up
		}
	}
	broken := s == nil || s.died() != nil || errors.Is(err, workload.ErrGone) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, errStart)
	if !broken {
		return nil
	}
	if s != nil {
		r.drop(s)
	}
	if r.failures++; r.failures > maxFailures {
		return fmt.Errorf("gave up after roles died or could not start %d times, last: %s", r.failures, oneLine(err))
	}
	return nil
}

// maxFailures is how many times a stage may break in one run.
const maxFailures = 5

// errStart marks that a stage could not be made ready.
var errStart = errors.New("start")

// try runs a trial on a stage and fills in the record. The error says why the
// trial is not valid.
func (r *run) try(ctx context.Context, s *stage, t planned, record *results.Record) error {
	ctx, cancel := context.WithTimeout(ctx, trialPatience(t))
	defer cancel()
	j := &workload.Job{
		Parameters: t.cell.Parameters, Seed: t.seed, Trial: t.number,
		WarmUp: t.plan.Trial.WarmUp, Duration: t.plan.Trial.Duration, Operations: t.plan.Trial.Operations,
	}
	if err := s.prepare(ctx, j); err != nil {
		return err
	}
	if err := s.pin(t.pinOf()); err != nil {
		return s.whyGone(ctx, err)
	}
	if err := r.setLedger(t.counted || t.cell.Parameters.Ledger); err != nil {
		return err
	}
	if err := r.owner.Hold(machineSettings(t.cell.Parameters)); err != nil {
		return err
	}
	ctx, stopWatching := s.watch(ctx)
	defer stopWatching()
	m, err := newMeter(s, t)
	if err != nil {
		return err
	}
	result, err := m.around(ctx, s.generator, j)
	if err == nil {
		err = r.fill(record, t, m, result)
	}
	return errors.Join(s.died(), err)
}

// around carries out a job between two snapshots.
func (m *meter) around(ctx context.Context, g *workload.Generator, j *workload.Job) (workload.Result, error) {
	if err := g.Begin(ctx, j); err != nil {
		return workload.Result{}, fmt.Errorf("warm up: %w", err)
	}
	if err := m.start(ctx); err != nil {
		return workload.Result{}, err
	}
	if err := g.Measure(ctx); err != nil {
		return workload.Result{}, err
	}
	if err := m.stop(ctx); err != nil {
		return workload.Result{}, err
	}
	result, err := g.Finish(ctx)
	if err != nil {
		return result, fmt.Errorf("verify: %w", err)
	}
	return result, nil
}

// whyGone adds how a role ended to an error that comes from its being gone: its
// threads are not there any more a moment before its end is known.
func (s *stage) whyGone(ctx context.Context, err error) error {
	for wait := time.Millisecond; errors.Is(err, fs.ErrNotExist) && wait < time.Second && ctx.Err() == nil; wait *= 2 {
		if died := s.died(); died != nil {
			return errors.Join(died, err)
		}
		time.Sleep(wait)
	}
	return err
}

// fill writes what was measured into the record, and returns why the trial is
// not valid, or nil.
func (r *run) fill(record *results.Record, t planned, m *meter, got workload.Result) error {
	if got.Operations == 0 || got.Seconds <= 0 {
		return fmt.Errorf("%d operations were done in %v s", got.Operations, got.Seconds)
	}
	record.Operations, record.PayloadBytes, record.Seconds = &got.Operations, &got.Bytes, &got.Seconds
	record.Connections = m.after.connections
	if err := r.support.checkCongestion(t.cell.Parameters, record.Connections); err != nil {
		return err
	}
	grown := m.grown(got.Counters)
	var err error
	switch {
	case got.Search != nil:
		record.Search = got.Search
	case t.counted:
		err = m.fillCopies(record, grown)
	default:
		err = m.fillTimes(record, t, got)
	}
	return errors.Join(err, r.fillProof(record, proof{cell: t.cell.Parameters, grown: grown, now: m.after.counters,
		payload: float64(got.Bytes), count: float64(got.Operations)}))
}

// fillTimes writes how fast the trial was, and what it cost the processors.
func (m *meter) fillTimes(record *results.Record, t planned, got workload.Result) error {
	record.Disturbance = disturbanceOf(got.Processors, got.Seconds, m.used())
	perSecond, throughput := float64(got.Operations)/got.Seconds, float64(got.Bytes)/got.Seconds
	record.OperationsPerSecond, record.Timeline = &perSecond, got.Timeline
	if got.Bytes > 0 {
		record.ThroughputBytesPerSecond = &throughput
	}
	if rate := t.cell.Parameters.Rate; rate > 0 {
		record.OfferedOperationsPerSecond = &rate
	}
	if m.cpu && results.WithinClockSlack(got.Processors.Window, got.Seconds) {
		record.CPU = m.spent(got.Processors)
	}
	if err := fillLatency(record, t.cell.Parameters, got); err != nil {
		return err
	}
	// A closed loop's last operations end behind its duration, never before.
	if wanted := t.plan.Trial.Duration.Seconds(); wanted > 0 && t.cell.Parameters.Rate == 0 && got.Seconds < wanted {
		return fmt.Errorf("the trial ran for %.3f s instead of %.3f s", got.Seconds, wanted)
	}
	return nil
}

// fillLatency leaves latencies out where they say how long the clients of a closed loop
// waited for a processor, and not for an answer: more clients than processors are
// measured by open loops.
func fillLatency(record *results.Record, p spec.Parameters, got workload.Result) (err error) {
	if p.Rate == 0 && p.Clients > len(got.Processors.Idle) {
		return nil
	}
	record.LatencyHistogram = got.Histogram
	record.Latency, err = latencyOf(got.Histogram)
	return err
}

// latencyOf summarises a histogram of nanoseconds.
func latencyOf(encoded string) (*results.Latency, error) {
	h, err := results.DecodeHistogram(encoded)
	if err != nil {
		return nil, err
	}
	at := func(percentile float64) float64 { return float64(h.ValueAtPercentile(percentile)) / 1e9 }
	return &results.Latency{
		P50: at(50), P90: at(90), P99: at(99), P999: at(99.9),
		Max: float64(h.Max()) / 1e9, Mean: h.Mean() / 1e9,
	}, nil
}
