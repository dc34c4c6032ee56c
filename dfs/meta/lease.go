package meta

import (
	"context"
	"slices"

	"google.golang.org/grpc/codes"

	"waggle/dfs/wire"
	"waggle/dfs/wire/control"
)

// maxLeases bounds the leases that one change looks through. Those of a session
// that has ended and had more are found by the mender.
const maxLeases = 1 << 16

// chunkIDBlock is how many chunk numbers are taken at once, so that making a
// chunk costs one commit. What is left of a block when the server stops is lost.
const chunkIDBlock = 256

// The life of a lease. A chunk that is open under an epoch is recorded as such
// before its writer hears of it; so after a crash of this server it is known
// which replicas may differ. It is closed by a release that says that all
// replicas have acknowledged everything. Otherwise it has to be settled first:
// see settle. Whoever changes a chunk's epoch or servers holds its place's lock,
// from before the replicas are sealed until the record is durable.

// Lease implements control.MetaServer.
func (s *Server) Lease(ctx context.Context, q *control.LeaseRequest) (*control.LeaseReply, error) {
	session, err := s.sessions.get(q.Session)
	if err != nil {
		return nil, err
	}
	p := place{q.Inode, q.Index}
	unlock, err := s.places.lock(ctx, p)
	if err != nil {
		return nil, err
	}
	defer unlock()
	n, c, err := s.file(p)
	if err != nil {
		return nil, err
	}
	if err := mayWriteFile(&session.credentials, n); err != nil {
		return nil, err
	}
	switch {
	case c == nil:
		return s.makeChunk(ctx, session, n, p)
	case c.open && c.session != session.id && s.sessions.alive(c.session):
		return nil, refusal(codes.Unavailable, "EBUSY: chunk %d of inode %d is being written by another session", p.index, p.inode)
	}
	return s.reopen(ctx, session, n, p, c, nil)
}

// file returns a file and the chunk at a place of it, nil if there is none.
func (s *Server) file(p place) (*inode, *chunk, error) {
	r := s.published.snapshot()
	defer r.close()
	n, c := r.inode(p.inode), r.chunk(p)
	switch {
	case r.err != nil:
		return nil, nil, storeFailed(r.err)
	case n == nil:
		return nil, nil, refusal(codes.NotFound, "inode %d does not exist", p.inode)
	}
	return n, c, nil
}

// reopen settles a chunk under a new epoch and opens it for a session.
func (s *Server) reopen(ctx context.Context, session *session, n *inode, p place, c *chunk, failed []uint32) (*control.LeaseReply, error) {
	settled, err := s.settle(ctx, c, s.keep(n, p, c, session.id), failed)
	if err != nil {
		return nil, err
	}
	next := c.clone()
	next.epoch, next.servers, next.cut = settled.epoch, settled.servers, noCut
	next.open, next.session, next.writer = true, session.id, session.id
	if err := s.recordChunk(ctx, p, c, next, session); err != nil {
		return nil, err
	}
	return s.leaseReply(p, next, settled.sequence+1, settled.length), nil
}

func (s *Server) leaseReply(p place, c *chunk, next, length uint64) *control.LeaseReply {
	return &control.LeaseReply{Location: s.locationMessage(p, c), NextSequence: next, Length: length}
}

// keep returns how many bytes of a chunk's replicas a new writer may find. What
// was cut off is gone; and what a writer that is gone has left behind the
// file's end was never part of it.
func (s *Server) keep(n *inode, p place, c *chunk, writer uint64) uint64 {
	keep := uint64(c.cut) // noCut is more than any chunk holds
	if c.writer != writer && !s.sessions.alive(c.writer) {
		var size uint64 // of the file in chunks; a small file has its bytes elsewhere
		if !isSmall(n) {
			size = n.Size
		}
		start := uint64(p.index) * uint64(n.ChunkSize)
		keep = min(keep, size-min(size, start))
	}
	return keep
}

// recordChunk makes a new record of a chunk durable, if it still has the one
// before. With a session the chunk is open for it, without one it is closed.
func (s *Server) recordChunk(ctx context.Context, p place, before, next *chunk, session *session) error {
	return s.executor.do(ctx, func(c *change) error {
		now := c.chunk(p)
		switch {
		case now == nil || now.id != before.id:
			return refusal(codes.NotFound, "chunk %d of inode %d was removed", p.index, p.inode)
		case now.epoch != before.epoch || now.cut != before.cut || now.open != before.open || now.session != before.session:
			return refusal(codes.Unavailable, "chunk %d of inode %d has changed meanwhile: try again", p.index, p.inode)
		case session != nil && session.ended:
			return errBadSession
		}
		for _, server := range before.servers {
			if !slices.Contains(next.servers, server) {
				c.putStray(next.id, server)
			}
		}
		for _, server := range next.servers {
			if _, stray := load(c, strayKey(next.id, server), decodeMark); stray {
				c.delete(strayKey(next.id, server))
			}
		}
		c.putChunk(p, next)
		if next.open {
			c.put(leaseKey(p), holder(next.session))
		} else {
			c.delete(leaseKey(p))
		}
		return nil
	})
}

// makeChunk makes a chunk where there is none, open for a session. The replicas
// are made first: if that is interrupted they belong to nobody, and are deleted
// when their servers report them.
func (s *Server) makeChunk(ctx context.Context, session *session, n *inode, p place) (*control.LeaseReply, error) {
	if err := s.space.room(); err != nil {
		return nil, err
	}
	id, err := s.newChunkID(ctx)
	if err != nil {
		return nil, err
	}
	chosen := s.servers.choose(int(n.Replication), nil)
	if len(chosen) == 0 {
		return nil, refusal(codes.Unavailable, "no chunk server is alive: start one, or wait until it has registered")
	}
	s.making.add(id, chosen)
	defer s.making.remove(id, chosen)
	created := &chunk{id: id, epoch: 1, session: session.id, writer: session.id, open: true, cut: noCut}
	created.servers, err = s.createReplicas(ctx, created, chosen)
	if err == nil {
		err = s.executor.do(ctx, func(c *change) error { return c.addChunk(session, p, created) })
	}
	if err != nil {
		s.dropReplicas(id, chosen)
		return nil, err
	}
	return s.leaseReply(p, created, 1, 0), nil
}

// addChunk adds a new chunk to a file.
func (c *change) addChunk(session *session, p place, added *chunk) error {
	n := c.inode(p.inode)
	switch {
	case n == nil:
		return refusal(codes.NotFound, "inode %d does not exist", p.inode)
	case session.ended:
		return errBadSession
	case c.chunk(p) != nil:
		return refusal(codes.Unavailable, "chunk %d of inode %d was made meanwhile: try again", p.index, p.inode)
	}
	n.chunks++
	c.put(inodeKey(n.Inode), n)
	c.putChunk(p, added)
	c.put(ownerKey(added.id), owner(p))
	c.put(leaseKey(p), holder(session.id))
	c.totals.chunks++
	c.putTotals()
	return nil
}

// newChunkID returns a number that no chunk ever had.
func (s *Server) newChunkID(ctx context.Context) (uint64, error) {
	s.chunkIDs.Lock()
	defer s.chunkIDs.Unlock()
	if s.chunkIDs.next == s.chunkIDs.end {
		err := s.executor.do(ctx, func(c *change) error {
			s.chunkIDs.next = c.totals.nextChunk
			c.totals.nextChunk += chunkIDBlock
			c.putTotals()
			return nil
		})
		if err != nil {
			s.chunkIDs.next = s.chunkIDs.end
			return 0, err
		}
		s.chunkIDs.end = s.chunkIDs.next + chunkIDBlock
	}
	s.chunkIDs.next++
	return s.chunkIDs.next - 1, nil
}

// dropReplicas leaves replicas to be deleted that no file ever had.
func (s *Server) dropReplicas(id uint64, servers []uint32) {
	err := s.executor.do(s.background, func(c *change) error {
		for _, server := range servers {
			c.putStray(id, server)
		}
		return nil
	})
	if err != nil {
		s.log.Warn("replicas of a chunk that could not be made stay until their servers report them", "chunk", id, "error", err)
	}
}

// ReportFailure implements control.MetaServer.
func (s *Server) ReportFailure(ctx context.Context, q *control.FailureRequest) (*control.LeaseReply, error) {
	session, err := s.sessions.get(q.Session)
	if err != nil {
		return nil, err
	}
	p := place{q.Inode, q.Index}
	unlock, err := s.places.lock(ctx, p)
	if err != nil {
		return nil, err
	}
	defer unlock()
	n, c, err := s.file(p)
	if err != nil {
		return nil, err
	}
	if c == nil || !c.open || c.session != session.id || c.epoch < q.Epoch {
		return nil, leaseLost(p)
	}
	failed := q.Servers
	if c.epoch > q.Epoch {
		// The answer to an earlier report was lost: what it named is gone by now.
		failed = nil
	}
	return s.reopen(ctx, session, n, p, c, failed)
}

func leaseLost(p place) error {
	return refuse("ESTALE", "the lease of chunk %d of inode %d is lost", p.index, p.inode)
}

// Release implements control.MetaServer.
func (s *Server) Release(ctx context.Context, q *control.ReleaseRequest) (*control.Empty, error) {
	session, err := s.sessions.get(q.Session)
	if err != nil {
		return nil, err
	}
	p := place{q.Inode, q.Index}
	err = s.executor.do(ctx, func(c *change) error {
		open := c.chunk(p)
		switch {
		case open == nil: // removed meanwhile
			return nil
		case open.epoch == q.Epoch && !open.open && open.writer == session.id: // released before
			return nil
		case open.epoch != q.Epoch || open.session != session.id:
			return leaseLost(p)
		case !q.Settled:
			c.abandonLease(p)
			return nil
		}
		open.open, open.session = false, 0
		c.putChunk(p, open)
		c.delete(leaseKey(p))
		if n := c.inode(p.inode); n != nil && len(open.servers) < int(n.Replication) {
			c.chores.mend = append(c.chores.mend, p)
		}
		return nil
	})
	return &control.Empty{}, err
}

func (s *Server) locationMessage(p place, c *chunk) *control.Location {
	message := &control.Location{Index: p.index}
	if c == nil {
		return message
	}
	message.Chunk, message.Epoch = c.id, c.epoch
	for _, r := range s.servers.replicas(make([]wire.Replica, 0, wire.MaxReplicas), c.servers) {
		message.Replicas = append(message.Replicas, &control.Replica{Server: r.Server, Address: r.Address.String()})
	}
	return message
}
