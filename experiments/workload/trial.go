package workload

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"waggle/experiments/spec"
	"waggle/results"
)

// worker is a client of a trial. After the loop, finish verifies what could not
// be verified on the way, gives back what the worker holds, and says how many
// bytes were compared.
type worker interface {
	client
	finish(ctx context.Context) (verified int64, err error)
}

// trial is a job under way.
type trial struct {
	job      *Job
	system   system
	sessions []session
	workers  []worker
	moved    int64 // bytes of payload, those of the warm-up too
	measured tally
	search   *results.Search // of a trial that searches for a rate
	counters map[string]int64
	// processors are what they did during the timed part.
	processors Processors
}

// begin connects a job's clients and carries out its warm-up.
func begin(ctx context.Context, j *Job, p *pattern) (*trial, error) {
	s, err := j.open(ctx, p)
	if err != nil {
		return nil, err
	}
	t := &trial{job: j, system: s}
	if err := t.begin(ctx, p); err != nil {
		return nil, errors.Join(err, t.close())
	}
	return t, nil
}

func (t *trial) begin(ctx context.Context, p *pattern) error {
	if t.job.writes() {
		if err := t.system.makeDirectories(ctx, t.job.directories()); err != nil {
			return err
		}
	}
	for number := range t.job.Parameters.Clients {
		s, err := t.system.connect(ctx)
		if err != nil {
			return fmt.Errorf("connect client %d: %w", number, err)
		}
		t.sessions = append(t.sessions, s)
		w, err := t.newWorker(ctx, p, s, number)
		if err != nil {
			return fmt.Errorf("start client %d: %w", number, err)
		}
		t.workers = append(t.workers, w)
	}
	if t.job.WarmUp == 0 {
		return nil
	}
	if err := t.goThrough(ctx); err != nil {
		return fmt.Errorf("go through the files: %w", err)
	}
	_, err := t.run(ctx, pace{duration: t.job.WarmUp})
	return err
}

// goThrough has each file that is to be read front to back read once.
func (t *trial) goThrough(ctx context.Context) error {
	if t.job.Parameters.Workload != spec.SequentialRead {
		return nil
	}
	group, ctx := errgroup.WithContext(ctx)
	for number, w := range t.workers[:min(len(t.workers), t.job.Parameters.Files)] {
		group.Go(func() error { return w.(*blockReader).goThrough(ctx, number, t.job.Parameters.FileBytes) })
	}
	return group.Wait()
}

func (t *trial) newWorker(ctx context.Context, p *pattern, s session, number int) (worker, error) {
	switch t.job.Parameters.Workload {
	case spec.SequentialRead, spec.RandomRead, spec.HTTPGet:
		return newBlockReader(ctx, t.job, p, s, number)
	case spec.SequentialWrite, spec.RandomWrite:
		return newBlockWriter(ctx, t.job, p, s, number)
	case spec.SmallCreate:
		return &smallCreator{job: t.job, pattern: p, session: s, number: number}, nil
	case spec.SmallRead, spec.Lookup:
		return newSmallReader(t.job, p, s, number), nil
	default:
		return nil, fmt.Errorf("workload %q is unknown", t.job.Parameters.Workload)
	}
}

// directories are those that the trial writes into.
func (j *Job) directories() []string {
	if j.Parameters.Workload == spec.SmallCreate {
		return smallDirectories(j.written(), j.Parameters.Depth)
	}
	return []string{"/" + j.written()}
}

func (j *Job) writes() bool {
	switch j.Parameters.Workload {
	case spec.SequentialWrite, spec.RandomWrite, spec.SmallCreate:
		return true
	}
	return false
}

func (t *trial) run(ctx context.Context, p pace) (tally, error) {
	clients := make([]client, len(t.workers))
	for i, w := range t.workers {
		clients[i] = w
	}
	done, err := run(ctx, wallClock{time.Now()}, clients, p)
	t.moved += done.bytes
	return done, err
}

// measure is the timed part.
func (t *trial) measure(ctx context.Context) (err error) {
	before := t.system.counters()
	started, err := readProcessors(true)
	if err != nil {
		return err
	}
	if t.job.Parameters.SearchRate {
		err = t.findRate(ctx)
	} else {
		t.measured, err = t.run(ctx, pace{rate: t.job.Parameters.Rate, duration: t.job.Duration, operations: t.job.Operations})
	}
	if err != nil {
		return err
	}
	ended, err := readProcessors(false)
	t.processors = ended.since(started)
	t.counters = t.system.counters()
	for name, n := range before {
		t.counters[name] -= n
	}
	return err
}

// finish verifies, cleans up and gives the result.
func (t *trial) finish(ctx context.Context) (Result, error) {
	verified, err := t.verify(ctx)
	if err == nil && t.job.writes() {
		err = t.sessions[0].removeAll(ctx, t.job.written())
	}
	if err = errors.Join(err, t.close()); err != nil {
		return Result{}, err
	}
	histogram, err := results.EncodeHistogram(t.measured.latency)
	return Result{
		Operations: t.measured.operations,
		Bytes:      t.measured.bytes,
		Seconds:    t.measured.elapsed.Seconds(),
		Histogram:  histogram,
		Verified:   verified,
		Counters:   t.counters,
		Search:     t.search,
		Timeline:   t.measured.line.result(),
		Processors: t.processors,
	}, err
}

func (t *trial) verify(ctx context.Context) (int64, error) {
	group, ctx := errgroup.WithContext(ctx)
	parts := make([]int64, len(t.workers))
	for i, w := range t.workers {
		group.Go(func() (err error) {
			parts[i], err = w.finish(ctx)
			return err
		})
	}
	err := group.Wait()
	var all int64
	for _, n := range parts {
		all += n
	}
	if err == nil && all < t.moved && !t.job.overwrites() {
		err = fmt.Errorf("only %d of %d bytes were verified", all, t.moved)
	}
	return all, err
}

// overwrites says whether the job writes some bytes more than once: then what
// was written last is read back, and verified bytes are fewer than moved ones.
func (j *Job) overwrites() bool {
	return j.Parameters.Workload == spec.SequentialWrite || j.Parameters.Workload == spec.RandomWrite
}

func (t *trial) close() error {
	var failed error
	for _, s := range t.sessions {
		failed = errors.Join(failed, s.close())
	}
	return errors.Join(failed, t.system.close())
}
