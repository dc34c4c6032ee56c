package meta

import (
	"context"
	"slices"
	"time"

	"google.golang.org/grpc/codes"

	"waggle/dfs/weaken"
	"waggle/dfs/wire"
	"waggle/dfs/wire/control"
)

// chunkIDBlock is how many chunk numbers are taken at once, so that making a
// chunk costs one commit. What is left of a block when the server stops is lost.
const chunkIDBlock = 256

// maxBusyWait is how long a call waits at most for a lease that another session
// holds. The client asks again.
const maxBusyWait = 2 * time.Second

// Lease implements control.MetaServer.
func (s *Server) Lease(ctx context.Context, q *control.LeaseRequest) (*control.LeaseReply, error) {
	session, err := s.sessions.get(q.Session)
	if err != nil {
		return nil, err
	}
	p := place{q.Inode, q.Index}
	if s.holds(session, p) { // who has it does not wait for those who want it
		return s.grant(ctx, session, p, q.Spill)
	}
	next, err := s.wanted.queue.lock(ctx, p)
	if err != nil {
		return nil, err
	}
	defer next()
	reply, err := s.grant(ctx, session, p, q.Spill)
	if !isBusy(err) {
		return reply, err
	}
	end := time.Now().Add(min(time.Duration(min(q.WaitMs, 1<<32))*time.Millisecond, maxBusyWait))
	for isBusy(err) && time.Now().Before(end) && ctx.Err() == nil {
		freed := s.wanted.want(p) // before the next look, so that no release is missed
		if reply, err = s.grant(ctx, session, p, q.Spill); isBusy(err) {
			freed.wait(ctx, end)
		}
		freed.forget()
	}
	return reply, err
}

func (s *Server) holds(session *session, p place) bool {
	_, c, err := s.file(p)
	return err == nil && c != nil && c.open && c.session == session.id
}

// grant gives a session the lease of a chunk that no other session has.
func (s *Server) grant(ctx context.Context, session *session, p place, spill bool) (*control.LeaseReply, error) {
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
		return s.makeChunk(ctx, session, n, p, spill)
	case c.open && c.session != session.id && s.sessions.alive(c.session):
		return nil, busy(p)
	}
	return s.reopen(ctx, session, n, p, c, nil, spill)
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
	case c != nil && weaken.On(weaken.KeepSettledLength) && !s.sessions.alive(c.writer):
		c = c.clone()
		start := min(uint64(p.index)*uint64(n.ChunkSize), n.Size)
		c.cut = min(c.cut, uint32(min(n.Size-start, uint64(noCut))))
	}
	return n, c, nil
}

// reopen settles a chunk under a new epoch and opens it for a session.
func (s *Server) reopen(ctx context.Context, session *session, n *inode, p place, c *chunk, failed []uint32, spill bool) (*control.LeaseReply, error) {
	settled, err := s.settle(ctx, c, failed)
	if err != nil {
		return nil, err
	}
	if err := s.enough(n, settled.servers, c.servers); err != nil {
		return nil, err
	}
	next := c.settledAs(settled)
	next.open, next.session, next.writer = true, session.id, session.id
	next.spill = spill || c.open && c.session == session.id && c.spill && settled.sequence == c.sequence
	if err := s.recordChunk(ctx, p, c, next, session); err != nil {
		return nil, err
	}
	s.renewals.renew(session.id, p)
	lastWriter := c.writer
	if settled.salvaged {
		lastWriter = wire.WritesLost
	}
	return s.leaseReply(p, next, lastWriter), nil
}

// enough says whether there are as many replicas as a write needs.
func (s *Server) enough(n *inode, reached, asked []uint32) error {
	if need := min(s.config.MinReplicas, int(n.Replication)); len(reached) < need {
		return refusal(codes.Unavailable, "%d of the chunk servers %v can be reached, and a write needs %d replicas: start the others", len(reached), asked, need)
	}
	return nil
}

func (s *Server) leaseReply(p place, c *chunk, lastWriter uint64) *control.LeaseReply {
	return &control.LeaseReply{Location: s.locationMessage(p, c), NextSequence: c.sequence + 1, Length: uint64(c.length),
		Synced: c.sequence, LastWriter: lastWriter}
}

// recordChunk makes a new record of a chunk durable, if it still has the one
// before. With a session the chunk is open for it, without one it is closed.
func (s *Server) recordChunk(ctx context.Context, p place, before, next *chunk, session *session) error {
	return s.executor.do(ctx, func(c *change) error {
		now := c.chunk(p)
		switch {
		case now == nil || now.id != before.id:
			return refusal(codes.NotFound, "chunk %d of inode %d was removed", p.index, p.inode)
		case now.epoch != before.epoch || now.cut != before.cut && !weaken.On(weaken.KeepSettledLength) || now.open != before.open || now.session != before.session:
			return refusal(codes.Unavailable, "chunk %d of inode %d has changed meanwhile: try again", p.index, p.inode)
		case session != nil && session.ended:
			return errBadSession
		}
		// A writer that goes on says itself what its file has, but for what it moves
		// from the file's record.
		if before.open && (before.spill || next.session != before.session) {
			if err := c.claim(p, before, next); err != nil {
				return err
			}
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
func (s *Server) makeChunk(ctx context.Context, session *session, n *inode, p place, spill bool) (*control.LeaseReply, error) {
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
	created := &chunk{id: id, epoch: 1, session: session.id, writer: session.id, open: true, spill: spill, cut: noCut}
	created.servers, err = s.createReplicas(ctx, created, chosen)
	if err == nil {
		err = s.enough(n, created.servers, chosen)
	}
	if err == nil {
		err = s.executor.do(ctx, func(c *change) error { return c.addChunk(session, p, created) })
	}
	if err != nil {
		s.dropReplicas(id, chosen)
		return nil, err
	}
	s.renewals.renew(session.id, p)
	return s.leaseReply(p, created, 0), nil
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
	return s.reopen(ctx, session, n, p, c, failed, false)
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
	if q.Length > wire.MaxChunkSize || q.Synced > q.Sequence {
		return nil, refusal(codes.InvalidArgument, "release of a chunk of %d bytes with write %d, durable up to %d", q.Length, q.Sequence, q.Synced)
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
		case q.Synced < q.Sequence || q.Sequence < open.sequence || q.Length < uint64(open.length):
			c.abandonLease(p)
			return nil
		}
		return c.close(p, open, q)
	})
	s.wanted.free(p)
	return &control.Empty{}, err
}

// close records a chunk as settled, as its writer says that it is.
func (c *change) close(p place, open *chunk, q *control.ReleaseRequest) error {
	next := open.settledAs(&settled{epoch: open.epoch, servers: open.servers, sequence: q.Sequence, length: q.Length})
	next.cut = open.cut
	if err := c.claim(p, open, next); err != nil {
		c.abandonLease(p)
		return nil
	}
	c.putChunk(p, next)
	c.delete(leaseKey(p))
	if n := c.inode(p.inode); n != nil && len(open.servers) < int(n.Replication) {
		c.chores.mend = append(c.chores.mend, p)
	}
	return nil
}

func (s *Server) locationMessage(p place, c *chunk) *control.Location {
	message := &control.Location{Index: p.index}
	if c == nil {
		return message
	}
	message.Chunk, message.Epoch, message.Length = c.id, c.epoch, uint64(c.expected())
	for _, r := range s.servers.replicas(make([]wire.Replica, 0, wire.MaxReplicas), c.servers) {
		message.Replicas = append(message.Replicas, &control.Replica{Server: r.Server, Address: r.Address.String()})
	}
	return message
}
