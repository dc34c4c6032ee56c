package workload

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"golang.org/x/sync/errgroup"
)

// client carries out operations, one at a time.
type client interface {
	// do does one operation and returns how many bytes of payload it moved.
	do(ctx context.Context) (int, error)
	// check verifies what the last operation gave, after its latency was taken.
	check() error
}

// clock is the time of a loop. It starts at 0.
type clock interface {
	now() time.Duration
	// alarm makes what one client sleeps by.
	alarm() (alarm, error)
}

type alarm interface {
	sleepUntil(time.Duration) error
	close() error
}

// pace says when operations start and how many there are.
type pace struct {
	// rate is operations a second of all clients together. Operation k is meant
	// to start k/rate after the loop, evenly spaced, and its latency counts from
	// then, whenever a client was free to start it. 0 is a closed loop.
	rate float64
	// duration ends a closed loop, and the schedule of an open one; operations
	// ends a loop after so many. One of them is set.
	duration   time.Duration
	operations int64
	// mayLag makes an open loop that lags too much end early, with fewer operations
	// than were scheduled, instead of failing.
	mayLag bool
}

// maxLag is how many times its duration an open loop may take until all that
// was scheduled is done.
const maxLag = 4

// maxLatency is the longest latency that is told apart.
const maxLatency = 10 * time.Minute

// tally is what a loop measured.
type tally struct {
	operations int64
	bytes      int64
	// elapsed is until the last operation ended, or until a loop that is ended by
	// its duration began no more.
	elapsed time.Duration
	latency *hdrhistogram.Histogram // nanoseconds
	line    *timeline
}

// add puts a loop that ran afterwards to one that ran before.
func (t *tally) add(later tally) {
	t.operations += later.operations
	t.bytes += later.bytes
	t.elapsed += later.elapsed
	if later.latency != nil {
		t.latency.Merge(later.latency)
	}
}

func newHistogram() *hdrhistogram.Histogram {
	return hdrhistogram.New(1, maxLatency.Nanoseconds(), 3)
}

// total is how many operations an open loop schedules, or a loop that is ended
// by their number; otherwise 0.
func (p pace) total() int64 {
	if p.operations > 0 {
		return p.operations
	}
	return int64(p.rate * p.duration.Seconds())
}

// run lets each client carry out operations, one at a time, until the pace says
// that all are done. The first error ends it.
func run(ctx context.Context, c clock, clients []client, p pace) (tally, error) {
	group, ctx := errgroup.WithContext(ctx)
	parts := make([]tally, len(clients))
	var next atomic.Int64
	for i, client := range clients {
		group.Go(func() (err error) {
			parts[i], err = runClient(ctx, c, client, p, &next)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return tally{}, err
	}
	all := tally{latency: newHistogram(), line: newTimeline()}
	for _, part := range parts {
		all.operations += part.operations
		all.bytes += part.bytes
		all.elapsed = max(all.elapsed, part.elapsed)
		all.latency.Merge(part.latency)
		all.line.merge(part.line)
	}
	if p.rate > 0 { // the last operation stands for the time up to the next one
		all.elapsed = max(all.elapsed, time.Duration(float64(all.operations)/p.rate*float64(time.Second)))
	}
	return all, nil
}

func runClient(ctx context.Context, c clock, client client, p pace, next *atomic.Int64) (t tally, err error) {
	a, err := c.alarm()
	if err != nil {
		return t, err
	}
	defer func() { err = errors.Join(err, a.close()) }()
	t.latency, t.line = newHistogram(), newTimeline()
	for ctx.Err() == nil {
		start, ok, err := p.start(c, a, next.Add(1)-1)
		if !ok {
			if p.rate == 0 && p.duration > 0 {
				t.elapsed = c.now()
			}
			return t, err
		}
		if err := t.one(ctx, c, client, start); err != nil {
			return t, err
		}
	}
	return t, ctx.Err()
}

// one carries out and counts an operation whose latency counts from start.
func (t *tally) one(ctx context.Context, c clock, client client, start time.Duration) error {
	n, err := client.do(ctx)
	if err != nil {
		return err
	}
	t.elapsed = c.now()
	t.operations++
	t.bytes += int64(n)
	if err := t.latency.RecordValue(max(1, (t.elapsed - start).Nanoseconds())); err != nil {
		return fmt.Errorf("an operation took longer than %v: %w", maxLatency, err)
	}
	t.line.add(t.elapsed, t.elapsed-start)
	return client.check()
}

var errCantKeepRate = errors.New("the rate can't be kept")

// start waits until operation k may start and says from when its latency
// counts; ok is false if there is no such operation.
func (p pace) start(c clock, a alarm, k int64) (start time.Duration, ok bool, err error) {
	if total := p.total(); total > 0 && k >= total {
		return 0, false, nil
	}
	now := c.now()
	if p.rate == 0 {
		return now, p.operations > 0 || now < p.duration, nil
	}
	if p.duration > 0 && now > maxLag*p.duration {
		if p.mayLag {
			return 0, false, nil
		}
		return 0, false, fmt.Errorf("%w: %.0f operations a second were offered for %v, after %v only %d of %d had started",
			errCantKeepRate, p.rate, p.duration, maxLag*p.duration, k, p.total())
	}
	start = time.Duration(float64(k) / p.rate * float64(time.Second))
	if start > now {
		err = a.sleepUntil(start)
	}
	return start, err == nil, err
}
