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
	// garbage are inodes that were removed, and strays replicas to be deleted.
	garbage []uint64
	strays  []replica
	// mend: chunks to be settled, cut, or copied to more servers.
	mend []place
	// suspects: chunks whose replicas may differ, or be fewer than recorded.
	suspects []place
	// failing: replicas that their disks could not read or sync.
	failing []replica
	// trashed and restored are files that were put into the trash, and taken out of it.
	trashed  []trashed
	restored []uint64
	// everything: every chunk has to be looked at.
	everything bool
}

// workersOfQueue bounds the chunks of one queue that are repaired at once.
const workersOfQueue = 4

// mender does what mutations, sessions and servers leave to be done: it settles
// abandoned chunks, and brings files back to their replication. What is to be deleted
// it hands on to the cleaner. Nothing that it does is lost by a restart, because all
// of it can be found in the tables.
type mender struct {
	s       *Server
	limiter *rate.Limiter // of chunks that are copied
	settles *repairQueue  // chunks that nobody writes to any more, or that must be cut
	copies  *repairQueue  // chunks that lack replicas
	moves   *repairQueue  // chunks with a replica that is better somewhere else
	moving  *rate.Limiter // of chunks that are moved
	added   chan struct{} // holds an element when a server was added
	targets targets
	cleaner *cleaner
	wake    chan struct{} // holds an element when everything has to be looked at

	mu   sync.Mutex
	held chores // left while the server was starting
	up   bool
}

func newMender(s *Server) *mender {
	return &mender{s: s, limiter: rate.NewLimiter(rate.Limit(s.config.RepairsPerSecond), workersOfQueue),
		settles: newRepairQueue(), copies: newRepairQueue(), moves: newRepairQueue(),
		moving: rate.NewLimiter(rate.Limit(s.config.MovesPerSecond), 1), added: make(chan struct{}, 1),
		cleaner: newCleaner(s), wake: make(chan struct{}, 1)}
}

// do leaves chores to the mender.
func (m *mender) do(c chores) {
	if len(c.garbage)+len(c.strays) > 0 {
		m.cleaner.add(c.garbage, c.strays)
	}
	if len(c.trashed)+len(c.restored) > 0 {
		m.s.trash.note(c.trashed, c.restored)
	}
	if c.everything {
		select {
		case m.wake <- struct{}{}:
		default:
		}
	}
	if len(c.mend)+len(c.suspects)+len(c.failing) > 0 {
		m.sort(c)
	}
}

// sort puts chunks into the queues that they belong to.
func (m *mender) sort(c chores) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.up {
		m.held.mend = append(m.held.mend, c.mend...)
		m.held.suspects = append(m.held.suspects, c.suspects...)
		m.held.failing = append(m.held.failing, c.failing...)
		return
	}
	r := m.s.published.snapshot()
	defer r.close()
	for _, p := range c.mend {
		m.add(p, r.inode(p.inode), r.chunk(p), false, nil)
	}
	for _, p := range c.suspects {
		m.add(p, r.inode(p.inode), r.chunk(p), true, nil)
	}
	for _, bad := range c.failing {
		if p, found := r.findChunk(bad.chunk); found != nil && slices.Contains(found.servers, bad.server) {
			m.add(p, r.inode(p.inode), found, true, []uint32{bad.server})
		}
	}
	if r.err != nil {
		m.s.log.Error("a chunk that has to be mended can't be read; run fsck", "error", r.err)
	}
}

// add puts a chunk into its queue.
func (m *mender) add(p place, n *inode, c *chunk, suspect bool, failed []uint32) {
	if n == nil || c == nil {
		return // removed meanwhile
	}
	asked := repair{place: p, urgency: m.urgency(c), suspect: suspect, failed: failed}
	if suspect || c.open || c.cut != noCut {
		m.settles.add(asked)
	} else {
		m.copies.add(asked)
	}
}

// urgency is how many replicas of a chunk are left. One without any can only wait for
// its servers, so it comes last.
func (m *mender) urgency(c *chunk) int {
	alive := 0
	for _, server := range c.servers {
		if m.s.servers.alive(server) {
			alive++
		}
	}
	if alive == 0 {
		return 1 << 16
	}
	return alive
}

// run does chores until ctx ends. It waits first, so that the chunk servers have
// time to register after a restart of the whole cluster.
func (m *mender) run(ctx context.Context) {
	select {
	case <-time.After(m.s.config.DeadAfter):
	case <-ctx.Done():
		return
	}
	m.mu.Lock()
	held := m.held
	m.held, m.up = chores{}, true
	m.mu.Unlock()
	m.do(chores{everything: true})
	m.do(held)
	var all sync.WaitGroup
	defer all.Wait()
	all.Go(func() { m.cleaner.run(ctx) })
	all.Go(func() { m.scan(ctx) })
	all.Go(func() { m.watchBalance(ctx) })
	all.Go(func() { m.watchDrains(ctx) })
	for range workersOfQueue {
		all.Go(func() { m.work(ctx, m.settles, m.settleOne) })
		all.Go(func() { m.work(ctx, m.copies, m.copyOne) })
	}
	all.Go(func() { m.work(ctx, m.moves, m.moveOne) })
}

// scan looks at all chunks whenever it is asked to, until ctx ends.
func (m *mender) scan(ctx context.Context) {
	for {
		select {
		case <-m.wake:
		case <-ctx.Done():
			return
		}
		if err := m.find(); err != nil {
			m.s.log.Error("look for chunks to be mended; run fsck", "error", err)
		}
	}
}

// work carries out the repairs of a queue until ctx ends.
func (m *mender) work(ctx context.Context, q *repairQueue, carryOut func(context.Context, *repair) error) {
	for r := q.take(ctx); r != nil; r = q.take(ctx) {
		err := carryOut(ctx, r)
		if err != nil && ctx.Err() == nil {
			m.s.log.Warn("mend a chunk; trying again later", "inode", r.inode, "index", r.index, "error", err)
		}
		q.end(r, err)
	}
}

// find puts the chunks into the queues that are abandoned, have to be cut, have fewer
// live replicas than their files ask for, or have one on a server that is drained.
func (m *mender) find() error {
	r := m.s.published.snapshot()
	defer r.close()
	return m.s.scanChunks(r, func(p place, c *chunk) {
		n := r.inode(p.inode)
		r.forgive()
		switch {
		case n == nil:
		case m.needs(n, c):
			m.add(p, n, c, false, nil)
		case !c.open && (m.s.servers.drains(c.servers) || len(c.servers) > int(n.Replication)):
			m.moves.add(repair{place: p})
		}
	})
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

// settleOne settles a chunk that nobody writes to. What replicas it lacks then are
// made behind those of chunks that lack more.
func (m *mender) settleOne(ctx context.Context, r *repair) error {
	return m.repair(ctx, r, false)
}

// copyOne gives a chunk the replicas that it lacks.
func (m *mender) copyOne(ctx context.Context, r *repair) error {
	if err := m.limiter.Wait(ctx); err != nil {
		return err
	}
	return m.repair(ctx, r, true)
}

// mend settles a chunk that nobody writes to, whatever its record says, and gives it
// the replicas that it lacks.
func (m *mender) mend(ctx context.Context, p place) error {
	return m.repair(ctx, &repair{place: p, suspect: true}, true)
}

func (m *mender) repair(ctx context.Context, r *repair, copies bool) error {
	unlock, err := m.s.places.lock(ctx, r.place)
	if err != nil {
		return err
	}
	defer unlock()
	n, c, err := m.s.file(r.place)
	if status.Code(err) == codes.NotFound || (err == nil && c == nil) {
		return nil // removed meanwhile
	}
	if err != nil {
		return err
	}
	writer, _ := m.s.sessions.get(c.session)
	written := c.open && writer != nil
	if written && !r.suspect {
		return nil // looked at again when it is released
	}
	if !r.suspect && !m.needs(n, c) {
		return nil
	}
	next, err := m.settled(ctx, c, r.failed)
	if err != nil {
		return err
	}
	if written { // its writer finds that the epoch is another, and asks for the lease again
		next.open, next.session, next.spill = true, c.session, c.spill
		return m.s.recordChunk(ctx, r.place, c, next, writer)
	}
	var added []uint32
	if copies {
		added = m.addReplicas(ctx, n, next, r.failed)
		defer m.s.making.remove(c.id, added)
	}
	if err := m.s.recordChunk(ctx, r.place, c, next, nil); err != nil {
		m.s.dropReplicas(c.id, added)
		return err
	}
	m.s.repaired.Add(int64(len(added)))
	if len(next.servers) >= int(n.Replication) || !m.needs(n, next) {
		return nil
	}
	if !copies {
		m.copies.add(repair{place: r.place, urgency: m.urgency(next), failed: r.failed})
		return nil
	}
	return fmt.Errorf("chunk %d has %d replicas, its file asks for %d", c.id, len(next.servers), n.Replication)
}

// settled settles a chunk without the replicas that have failed, if there are others,
// and returns what its record is then.
func (m *mender) settled(ctx context.Context, c *chunk, failed []uint32) (*chunk, error) {
	if !slices.ContainsFunc(c.servers, func(id uint32) bool { return !slices.Contains(failed, id) }) {
		failed = nil // the last replica of a chunk stays, whatever it still holds
	}
	done, err := m.s.settle(ctx, c, failed)
	if err != nil {
		return nil, err
	}
	return c.settledAs(done), nil
}

// addReplicas makes the replicas that a settled chunk lacks, enters their servers and
// returns them: they are being made until its record is there.
func (m *mender) addReplicas(ctx context.Context, n *inode, next *chunk, failed []uint32) (added []uint32) {
	sources := slices.Clone(next.servers)
	tried := slices.Concat(next.servers, m.targets.avoided())
	for len(next.servers) < int(n.Replication) {
		chosen := m.s.servers.choose(1, slices.Concat(tried, failed))
		if len(chosen) == 0 { // there is no other disk than one that has failed
			chosen = m.s.servers.choose(1, tried)
		}
		if len(chosen) == 0 {
			return added
		}
		tried = append(tried, chosen...)
		m.s.making.add(next.id, chosen)
		if err := m.copyTo(ctx, next, sources, chosen[0]); err != nil {
			m.s.warn("make a new replica", next.id)(err)
			m.s.dropReplicas(next.id, chosen)
			m.s.making.remove(next.id, chosen)
			continue
		}
		added = append(added, chosen...)
		next.servers = append(next.servers, chosen...)
	}
	return added
}

// copyTo copies a chunk to a server from the first source that can be read, and where
// none is intact, with the damage that the first has: the other blocks are worth a
// replica.
func (m *mender) copyTo(ctx context.Context, c *chunk, sources []uint32, to uint32) error {
	if err := m.answers(ctx, to); err != nil {
		m.targets.note(to, err)
		return err
	}
	var failed error
	damaged := 0
	for _, from := range sources {
		err := m.s.copyReplica(ctx, c.id, c.epoch, from, to, nil)
		if err == nil {
			m.targets.note(to, nil)
			return nil
		}
		if status.Code(errors.Unwrap(err)) == codes.DataLoss {
			damaged++
		}
		failed = errors.Join(failed, err)
	}
	if damaged == len(sources) {
		if err := m.s.copyWithDamage(ctx, c.id, c.epoch, sources[0], to); err == nil {
			return nil
		}
	}
	m.targets.note(to, failed)
	return failed
}

// answers says why a server does not answer, if so. A copy would wait for one that
// hangs as long as a copy may take.
func (m *mender) answers(ctx context.Context, server uint32) error {
	_, err := m.s.replicaState(ctx, 0, server)
	if status.Code(err) == codes.NotFound { // there is no chunk 0
		return nil
	}
	return fmt.Errorf("chunk server %d does not answer: %w", server, err)
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

// queues describes what waits to be repaired and deleted.
func (m *mender) queues() []*control.QueueStatus {
	var all []*control.QueueStatus
	for _, q := range []struct {
		name  string
		queue *repairQueue
	}{{"settle", m.settles}, {"copy", m.copies}, {"move", m.moves}} {
		waiting, retrying, running, done, failed := q.queue.state()
		all = append(all, &control.QueueStatus{Name: q.name, Waiting: uint64(waiting), Retrying: uint64(retrying),
			Running: uint64(running), Done: done, Failed: failed})
	}
	files, replicas, deleted := m.cleaner.state()
	return append(all,
		&control.QueueStatus{Name: "removed files", Waiting: uint64(files)},
		&control.QueueStatus{Name: "delete", Waiting: uint64(replicas), Done: deleted})
}
