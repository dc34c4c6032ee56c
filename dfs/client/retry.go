package client

import (
	"context"
	"fmt"
	"time"
)

const (
	firstPause  = 5 * time.Millisecond
	longPause   = 500 * time.Millisecond
	maxAttempts = 200
)

// retry bounds how often and how long something is tried.
type retry struct {
	end      time.Time
	pause    time.Duration
	attempts int
}

func newRetry(patience time.Duration) retry {
	return retry{end: time.Now().Add(patience), pause: firstPause}
}

// again waits before the next attempt. It returns an error that wraps cause if
// there must not be one.
func (r *retry) again(ctx context.Context, cause error) error {
	r.attempts++
	if r.attempts >= maxAttempts || !time.Now().Before(r.end) {
		return fmt.Errorf("%w after %d attempts: %w", ErrUnavailable, r.attempts, cause)
	}
	timer := time.NewTimer(r.pause)
	defer timer.Stop()
	r.pause = min(2*r.pause, longPause)
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w (last attempt: %w)", context.Cause(ctx), cause)
	}
}
