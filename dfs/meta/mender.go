package meta

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"waggle/dfs/wire/control"
)

// chores are what is left to be done in the background.
type chores struct {
	// clean: there are replicas or removed files to be deleted.
	clean bool
	// mend: chunks to be settled, cut, or copied to more servers.
	mend []place
	// suspects: chunks whose replicas may differ, or be fewer than recorded.
	suspects []place
	// failing: replicas that their disks could not read or sync.
	failing []replica
	// everything: every chunk has to be looked at.
	everything bool
}

func (c *chores) none() bool {
	return !c.clean && !c.everything && len(c.mend) == 0 && len(c.suspects) == 0 && len(c.failing) == 0
}

const (
	// mendersAtOnce bounds the chunks that are mended at once.
	mendersAtOnce = 4
	// mendRetry is how long the mender waits before it tries again what failed.
	mendRetry = 2 * time.Second
	// cleanBatch is how many records one commit of the cleaning changes at most.
	cleanBatch = 1024
)

// mender does what mutations, sessions and servers leave to be done: it settles
// abandoned chunks, brings files back to their replication, and deletes what
// nobody references. Nothing that it does is lost by a restart, because all of
// it can be found in the tables.
type mender struct {
	s       *Server
	limiter *rate.Limiter // of chunks that are copied
	wake    chan struct{}

	mu  sync.Mutex
	due chores
}

func newMender(s *Server) *mender {
	return &mender{s: s, limiter: rate.NewLimiter(rate.Limit(s.config.RepairsPerSecond), mendersAtOnce), wake: make(chan struct{}, 1)}
}

// do leaves chores to the mender.
func (m *mender) do(c chores) {
	if c.none() {
		return
	}
	m.mu.Lock()
	m.due.clean = m.due.clean || c.clean
	m.due.everything = m.due.everything || c.everything
	m.due.mend = append(m.due.mend, c.mend...)
	m.due.suspects = append(m.due.suspects, c.suspects...)
	m.due.failing = append(m.due.failing, c.failing...)
	m.mu.Unlock()
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

func (m *mender) take() chores {
	m.mu.Lock()
	defer m.mu.Unlock()
	due := m.due
	m.due = chores{}
	return due
}

// run does chores until ctx ends. It waits first, so that the chunk servers have
// time to register after a restart of the whole cluster.
func (m *mender) run(ctx context.Context) {
	m.do(chores{clean: true, everything: true})
	wait := time.NewTimer(m.s.config.DeadAfter)
	defer wait.Stop()
	for {
		select {
		case <-wait.C:
		case <-ctx.Done():
			return
		}
		select {
		case <-m.wake:
		case <-ctx.Done():
			return
		}
		again, err := m.work(ctx, m.take())
		if err != nil && ctx.Err() == nil {
			m.s.log.Error("mend and clean", "error", err)
		}
		if again.none() {
			wait.Reset(0)
		} else {
			m.do(again)
			wait.Reset(mendRetry)
		}
	}
}

// work does chores and returns those that have to be done again.
func (m *mender) work(ctx context.Context, due chores) (again chores, err error) {
	if due.clean {
		err = errors.Join(m.cleanGarbage(ctx), m.cleanStrays(ctx))
		again.clean = err != nil
	}
	if due.everything {
		found, scanErr := m.find()
		again.everything = scanErr != nil
		err = errors.Join(err, scanErr)
		due.mend = append(due.mend, found...)
	}
	again.failing = m.replaceAll(ctx, due.failing)
	again.mend = m.mendAll(ctx, due.mend, false)
	again.suspects = m.mendAll(ctx, due.suspects, true)
	return again, err
}

// find returns the chunks that are abandoned, have to be cut, or have fewer live
// replicas than their files ask for.
func (m *mender) find() (found []place, err error) {
	r := m.s.published.snapshot()
	defer r.close()
	err = m.s.scanChunks(r, func(p place, c *chunk) {
		if n := r.inode(p.inode); n != nil && m.needs(n, c) {
			found = append(found, p)
		}
		r.forgive()
	})
	return found, err
}

// needs says whether there is something to be mended that can be mended.
func (m *mender) needs(n *inode, c *chunk) bool {
	if c.open {
		return !m.s.sessions.alive(c.session)
	}
	if c.cut != noCut {
		return true
	}
	good := m.good(c)
	return len(good) < int(n.Replication) && len(m.s.servers.choose(1, good)) > 0
}

// good returns the servers of a chunk that are not lost. A dead one is given
// some time to come back before its replicas are copied to others.
func (m *mender) good(c *chunk) []uint32 {
	return slices.DeleteFunc(slices.Clone(c.servers), func(id uint32) bool {
		return m.s.servers.silence(id) > m.s.config.RepairDelay
	})
}

// mendAll mends chunks, several at once, and returns those that it could not.
func (m *mender) mendAll(ctx context.Context, places []place, suspect bool) (again []place) {
	if len(places) == 0 {
		return nil
	}
	slices.SortFunc(places, comparePlaces)
	places = slices.Compact(places)
	var mu sync.Mutex
	var all sync.WaitGroup
	slots := make(chan struct{}, mendersAtOnce)
	for _, p := range places {
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			if err := m.mend(ctx, p, suspect, nil); err != nil && ctx.Err() == nil {
				m.s.log.Warn("mend a chunk; trying again later", "inode", p.inode, "index", p.index, "error", err)
				mu.Lock()
				again = append(again, p)
				mu.Unlock()
			}
		})
	}
	all.Wait()
	return again
}

// replaceAll makes other replicas in the place of failing ones, and returns those
// which it could not replace.
func (m *mender) replaceAll(ctx context.Context, failing []replica) (again []replica) {
	for _, bad := range failing {
		if err := m.replace(ctx, bad); err != nil && ctx.Err() == nil {
			m.s.log.Warn("replace a failing replica; trying again later", "chunk", bad.chunk, "server", bad.server, "error", err)
			again = append(again, bad)
		}
	}
	return again
}

// replace makes another replica in the place of a failing one. The last replica of a
// chunk stays, whatever it still holds.
func (m *mender) replace(ctx context.Context, bad replica) error {
	r := m.s.published.snapshot()
	p, c := r.findChunk(bad.chunk)
	r.close()
	switch {
	case r.err != nil:
		return storeFailed(r.err)
	case c == nil || !slices.Contains(c.servers, bad.server):
		return nil // replaced or removed meanwhile
	case c.open && m.s.sessions.alive(c.session):
		return fmt.Errorf("chunk %d is being written", bad.chunk)
	case len(c.servers) == 1:
		return m.mend(ctx, p, true, nil)
	}
	return m.mend(ctx, p, true, []uint32{bad.server})
}

// mend settles a chunk that nobody writes to, without the replicas that have failed
// if there are others, and gives it the replicas that it lacks.
func (m *mender) mend(ctx context.Context, p place, suspect bool, failed []uint32) error {
	unlock, err := m.s.places.lock(ctx, p)
	if err != nil {
		return err
	}
	defer unlock()
	n, c, err := m.s.file(p)
	if status.Code(err) == codes.NotFound || (err == nil && c == nil) {
		return nil // removed meanwhile
	}
	if err != nil {
		return err
	}
	writer, _ := m.s.sessions.get(c.session)
	written := c.open && writer != nil
	if written && !suspect {
		return nil // looked at again when it is released
	}
	if !suspect && !m.needs(n, c) {
		return nil
	}
	if err := m.limiter.Wait(ctx); err != nil {
		return err
	}
	settled, err := m.s.settle(ctx, c, failed)
	if err != nil {
		return err
	}
	next := c.settledAs(settled)
	if written { // its writer finds that the epoch is another, and asks for the lease again
		next.open, next.session, next.spill = true, c.session, c.spill
		return m.s.recordChunk(ctx, p, c, next, writer)
	}
	lacking := int(n.Replication) - len(next.servers)
	added := m.s.servers.choose(lacking, slices.Concat(next.servers, failed))
	if len(added) == 0 { // there is no other disk
		added = m.s.servers.choose(lacking, next.servers)
	}
	m.s.making.add(c.id, added)
	defer m.s.making.remove(c.id, added)
	for _, id := range added {
		if err := m.s.copyReplica(ctx, c.id, next.epoch, settled.servers[0], id, nil); err != nil {
			m.s.warn("make a new replica", c.id)(err)
			m.s.dropReplicas(c.id, []uint32{id})
			continue
		}
		next.servers = append(next.servers, id)
	}
	if err := m.s.recordChunk(ctx, p, c, next, nil); err != nil {
		m.s.dropReplicas(c.id, added)
		return err
	}
	m.s.repaired.Add(int64(len(added)))
	if len(next.servers) < int(n.Replication) && m.needs(n, next) {
		return fmt.Errorf("chunk %d has %d replicas, its file asks for %d", c.id, len(next.servers), n.Replication)
	}
	return nil
}

func comparePlaces(a, b place) int {
	ka, kb := chunkKey(a), chunkKey(b)
	return slices.Compare(ka.bytes(), kb.bytes())
}

// cleanGarbage takes the chunks from files that were removed.
func (m *mender) cleanGarbage(ctx context.Context) error {
	for more := true; more; {
		err := m.s.executor.do(ctx, func(c *change) error {
			garbage := c.keys([]byte{tableGarbage}, 1)
			if more = len(garbage) > 0; !more {
				return nil
			}
			removed := &inode{}
			inode := garbage[0].number()
			chunks := c.keys(prefix(tableChunk, inode), cleanBatch)
			for _, k := range chunks {
				c.dropChunk(removed, place{inode, k.second()})
			}
			if len(chunks) < cleanBatch {
				c.delete(garbage[0])
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("take the chunks of removed files: %w", err)
		}
	}
	return nil
}

// cleanStrays deletes replicas on the servers that are alive. Those of dead
// servers wait until they are back.
func (m *mender) cleanStrays(ctx context.Context) error {
	for {
		batches, full, err := m.strays()
		if err != nil {
			return fmt.Errorf("find replicas to be deleted: %w", err)
		}
		for id, chunks := range batches {
			err = errors.Join(err, m.deleteReplicas(ctx, id, chunks))
		}
		if err != nil || !full {
			return err
		}
	}
}

// strays returns a batch of replicas to be deleted for each live server, and
// whether there are more.
func (m *mender) strays() (batches map[uint32][]uint64, full bool, err error) {
	r := m.s.published.snapshot()
	defer r.close()
	batches = make(map[uint32][]uint64)
	err = scanTable(r.state(), tableStray, func(k key, _ []byte) bool {
		id := k.second()
		switch {
		case !m.s.servers.alive(id):
		case len(batches[id]) == cleanBatch:
			full = true
		default:
			batches[id] = append(batches[id], k.number())
		}
		return true
	})
	return batches, full, err
}

// deleteReplicas deletes replicas on one server.
func (m *mender) deleteReplicas(ctx context.Context, id uint32, chunks []uint64) error {
	r := m.s.published.snapshot()
	defer r.close()
	var orphans []uint64
	for _, chunk := range chunks {
		at, owned := r.findChunk(chunk)
		if owned == nil {
			orphans = append(orphans, chunk) // and for ever: numbers are not used twice
			continue
		}
		if err := m.deleteLeftBehind(ctx, id, at, chunk); err != nil {
			return err
		}
	}
	if r.err != nil {
		return r.err
	}
	return m.deleteOn(ctx, id, orphans)
}

// deleteLeftBehind deletes a replica of a chunk that has others, unless the
// chunk counts on it again.
func (m *mender) deleteLeftBehind(ctx context.Context, id uint32, at place, chunk uint64) error {
	unlock, err := m.s.places.lock(ctx, at)
	if err != nil {
		return err
	}
	defer unlock()
	r := m.s.published.snapshot()
	defer r.close()
	_, owned := r.findChunk(chunk)
	switch {
	case r.err != nil:
		return r.err
	case owned != nil && slices.Contains(owned.servers, id):
		return m.forgetStrays(ctx, id, []uint64{chunk})
	}
	return m.deleteOn(ctx, id, []uint64{chunk})
}

func (m *mender) deleteOn(ctx context.Context, id uint32, chunks []uint64) error {
	if len(chunks) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, deleteTimeout)
	defer cancel()
	service, err := m.s.servers.chunk(id)
	if err != nil {
		return err
	}
	if _, err := service.Delete(ctx, &control.ChunkIDs{Chunks: chunks}); err != nil {
		return fmt.Errorf("delete %d replicas on chunk server %d: %w", len(chunks), id, err)
	}
	return m.forgetStrays(ctx, id, chunks)
}

func (m *mender) forgetStrays(ctx context.Context, id uint32, chunks []uint64) error {
	return m.s.executor.do(ctx, func(c *change) error {
		for _, chunk := range chunks {
			c.delete(strayKey(chunk, id))
		}
		return nil
	})
}

// watch has chunks looked at again when a server stays dead, until ctx ends.
func (m *mender) watch(ctx context.Context) {
	lost := make(map[uint32]bool)
	every(ctx, m.s.config.Heartbeat, func() {
		for _, id := range m.s.servers.ids() {
			is := m.s.servers.silence(id) > m.s.config.RepairDelay
			if is && !lost[id] {
				m.s.log.Warn("chunk server is lost, making new replicas of its chunks", "server", id)
				m.do(chores{everything: true})
			}
			lost[id] = is
		}
	})
}
