package meta

import (
	"context"
	"sync"
	"time"

	"waggle/dfs/meta/store"
	"waggle/dfs/weaken"
	"waggle/dfs/wire/control"
)

const (
	// maxLeases bounds the leases of one session that are kept alive, and those of one
	// file that a change looks through.
	maxLeases = 1 << 16
	// endBatch is how many records one commit of ending sessions and leases changes.
	endBatch = 1024
)

// renewals are when leases were renewed last, by those that hold them. They are
// in memory only: after a restart every lease has its full time.
type renewals struct {
	mu   sync.Mutex
	last map[heldLease]time.Time
}

type heldLease struct {
	session uint64
	place
}

func (r *renewals) renew(session uint64, places ...place) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.last == nil {
		r.last = make(map[heldLease]time.Time)
	}
	now := time.Now()
	for _, p := range places {
		r.last[heldLease{session, p}] = now
	}
}

// lapsed returns those leases of a list that were not renewed for a term. It
// forgets what is not in the list, but for what was granted since it was made.
func (r *renewals) lapsed(held []heldLease, listed time.Time, term time.Duration) (over []heldLease) {
	r.mu.Lock()
	defer r.mu.Unlock()
	kept := make(map[heldLease]time.Time, len(held))
	for _, h := range held {
		last, known := r.last[h]
		if !known {
			last = listed // found now
		}
		if listed.Sub(last) > term {
			over = append(over, h)
		} else {
			kept[h] = last
		}
	}
	for h, last := range r.last {
		if last.After(listed) {
			kept[h] = last
		}
	}
	r.last = kept
	return over
}

// KeepAlive implements control.MetaServer.
func (s *Server) KeepAlive(_ context.Context, q *control.KeepAliveRequest) (*control.Empty, error) {
	kept, err := s.sessions.get(q.Session)
	if err != nil {
		return nil, err
	}
	kept.extend(s.sessions.timeToLive)
	places := make([]place, 0, min(len(q.Leases), maxLeases))
	for _, l := range q.Leases[:min(len(q.Leases), maxLeases)] {
		places = append(places, place{l.Inode, l.Index})
	}
	s.renewals.renew(q.Session, places...)
	return &control.Empty{}, nil
}

// takeLeases takes the leases that have lapsed, and those of sessions that have
// ended, so that the chunks are settled.
func (s *Server) takeLeases(ctx context.Context) error {
	listed := time.Now()
	held, err := s.heldLeases()
	if err != nil {
		return err
	}
	over := s.renewals.lapsed(held, listed, s.sessions.timeToLive)
	if weaken.On(weaken.LapseLeases) {
		over = nil
	}
	for _, h := range held {
		if !s.sessions.alive(h.session) {
			over = append(over, h)
		}
	}
	for len(over) > 0 {
		batch := over[:min(len(over), endBatch)]
		over = over[len(batch):]
		err := s.executor.do(ctx, func(c *change) error {
			for _, h := range batch {
				if now, found := load(c, leaseKey(h.place), decodeHolder); found && now == holder(h.session) {
					c.abandonLease(h.place)
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *Server) heldLeases() (held []heldLease, err error) {
	r := s.published.snapshot()
	defer r.close()
	var failed error
	err = scanTable(r.state(), tableLease, func(k key, value []byte) bool {
		var h holder
		if h, failed = decodeHolder(value); failed == nil && h != 0 {
			held = append(held, heldLease{uint64(h), place{k.number(), k.second()}})
		}
		return failed == nil
	})
	if err == nil {
		err = failed
	}
	return held, err
}

// endSession forgets a session and takes its leases. The chunks that it was
// writing to are settled later.
func (s *Server) endSession(ctx context.Context, id uint64) error {
	ending, err := s.sessions.get(id)
	if err != nil {
		return nil // somebody else has ended it
	}
	// The session goes first: with it, and without its answers, a mutation could be
	// carried out twice.
	err = s.executor.do(ctx, func(c *change) error {
		ending.ended = true
		c.delete(sessionKey(id))
		return nil
	})
	if err != nil {
		return err
	}
	s.mirror.removeSession(id) // first: nobody is answered once somebody was refused
	s.sessions.remove(id)
	if err := s.dropResults(ctx, id); err != nil {
		return err
	}
	return s.takeLeases(ctx)
}

// dropResults forgets what the mutations of a session that has ended were
// answered.
func (s *Server) dropResults(ctx context.Context, id uint64) error {
	for more := true; more; {
		err := s.executor.do(ctx, func(c *change) error {
			results := c.keys(prefix(tableResult, id), endBatch)
			for _, k := range results {
				c.delete(k)
			}
			more = len(results) == endBatch
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// dropOrphanedResults forgets what sessions were answered whose end was
// interrupted by the end of the server before this one.
func (s *Server) dropOrphanedResults(ctx context.Context) error {
	orphans := make(map[uint64]bool)
	r := s.published.snapshot()
	err := scanTable(r.state(), tableResult, func(k key, _ []byte) bool {
		if !s.sessions.alive(k.number()) {
			orphans[k.number()] = true
		}
		return true
	})
	r.close()
	if err != nil {
		return err
	}
	for id := range orphans {
		if err := s.dropResults(ctx, id); err != nil {
			return err
		}
	}
	return nil
}

// expireSessions ends sessions that were not kept alive, and takes leases that
// were not renewed, until ctx ends.
func (s *Server) expireSessions(ctx context.Context) {
	orphans := time.Now().Add(s.config.DeadAfter) // the server has more urgent work first
	every(ctx, s.sessions.timeToLive/4, func() {
		if !orphans.IsZero() && time.Now().After(orphans) {
			if err := s.dropOrphanedResults(ctx); err != nil && ctx.Err() == nil {
				s.log.Error("forget the answers of sessions that have ended", "error", err)
			}
			orphans = time.Time{}
		}
		for _, id := range s.sessions.expired(time.Now()) {
			if err := s.endSession(ctx, id); err != nil && ctx.Err() == nil {
				s.log.Error("end a session that was not kept alive", "session", id, "error", err)
			}
		}
		if err := s.takeLeases(ctx); err != nil && ctx.Err() == nil {
			s.log.Error("take leases that were not renewed", "error", err)
		}
	})
}

// every calls f at an interval until ctx ends.
func every(ctx context.Context, interval time.Duration, f func()) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			f()
		case <-ctx.Done():
			return
		}
	}
}

// scanTable visits a table's records.
func scanTable(r store.Reader, table byte, visit func(k key, value []byte) bool) error {
	return r.Scan([]byte{table}, []byte{table + 1}, func(k, value []byte) bool { return visit(keyOf(k), value) })
}
