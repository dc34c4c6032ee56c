package meta

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestRepairsOfTheFewestReplicasComeFirst(t *testing.T) {
	q := newRepairQueue()
	for inode, urgency := range []int{2, 3, 1, 2, 1} {
		q.add(repair{place: place{uint64(inode), 0}, urgency: urgency})
	}
	q.add(repair{place: place{1, 0}, urgency: 1}) // it has lost more meanwhile
	var order []uint64
	for range 5 {
		r := q.take(t.Context())
		order = append(order, r.inode)
		q.end(r, nil)
	}
	require.Equal(t, []uint64{1, 2, 4, 0, 3}, order)
	waiting, _, running, done, failed := q.state()
	require.Zero(t, waiting+running)
	require.EqualValues(t, 5, done)
	require.Zero(t, failed)
}

func TestFailedRepairsWaitLongerEachTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newRepairQueue()
		q.add(repair{place: place{1, 0}, urgency: 1})
		var waits []time.Duration
		for range 9 {
			asked := time.Now()
			r := q.take(t.Context())
			waits = append(waits, time.Since(asked))
			q.end(r, errors.New("no room"))
		}
		require.Equal(t, []time.Duration{0, 500 * time.Millisecond, time.Second, 2 * time.Second, 4 * time.Second,
			8 * time.Second, 16 * time.Second, 30 * time.Second, 30 * time.Second}, waits)
		// Others don't wait for it, and it does not when it has become more urgent.
		q.add(repair{place: place{2, 0}, urgency: 3})
		r := q.take(t.Context())
		require.EqualValues(t, 2, r.inode)
		q.add(repair{place: place{2, 0}, urgency: 3}) // while it is being repaired
		q.end(r, nil)
		r = q.take(t.Context())
		require.EqualValues(t, 2, r.inode, "it was asked for again")
		q.end(r, nil)
		q.add(repair{place: place{1, 0}, urgency: 0})
		require.EqualValues(t, 1, q.take(t.Context()).inode)
		stopped, stop := context.WithCancel(t.Context())
		stop()
		require.Nil(t, q.take(stopped))
	})
}

func TestTargetsThatFailAreAvoidedForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var all targets
		all.note(7, errors.New("full"))
		require.Equal(t, []uint32{7}, all.avoided())
		time.Sleep(minRetry + time.Millisecond)
		require.Empty(t, all.avoided())
		all.note(7, errors.New("full"))
		time.Sleep(minRetry + time.Millisecond)
		require.Equal(t, []uint32{7}, all.avoided(), "longer the second time")
		all.note(7, nil)
		require.Empty(t, all.avoided())
	})
}
