package meta

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"waggle/dfs/wire/control"
)

const (
	// balanced is by how much of its disk a server may hold more than the mean of all
	// before a rebalance takes replicas from it.
	balanced = 0.05
	// minSurplus is how many bytes that must be at least.
	minSurplus = 64 << 20
	// maxMoves bounds the chunks of one rebalance, so that the next one starts from
	// what the servers say then.
	maxMoves = 10_000
)

// moveOne moves one replica of a chunk: off a server that is drained, or to one that
// is emptier. The new replica is counted on before the old one is given up.
func (m *mender) moveOne(ctx context.Context, r *repair) error {
	if err := m.moving.Wait(ctx); err != nil {
		return err
	}
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
	from, to := m.move(n, c)
	switch {
	case from == 0:
		return nil // it is well where it is
	case c.open || c.cut != noCut:
		return fmt.Errorf("chunk %d is being written", c.id)
	case len(c.servers) > int(n.Replication):
	case to == 0:
		return fmt.Errorf("chunk %d: no other chunk server can take the replica of server %d", c.id, from)
	default:
		if c, err = m.addOne(ctx, r.place, c, to); err != nil {
			return err
		}
	}
	if c, err = m.giveUp(ctx, r.place, c, from); err != nil {
		return err
	}
	m.s.config.Counters.Counter("meta_replicas_moved").Add(1)
	if m.s.servers.drains(c.servers) {
		return fmt.Errorf("chunk %d has another replica on a server that is drained", c.id)
	}
	return nil
}

// addOne gives a chunk one more replica, and returns its record.
func (m *mender) addOne(ctx context.Context, p place, c *chunk, to uint32) (*chunk, error) {
	next, err := m.settled(ctx, c, nil)
	if err != nil {
		return nil, err
	}
	m.s.making.add(c.id, []uint32{to})
	defer m.s.making.remove(c.id, []uint32{to})
	err = m.copyTo(ctx, next, slices.Clone(next.servers), to)
	if err == nil {
		next.servers = append(next.servers, to)
		err = m.s.recordChunk(ctx, p, c, next, nil)
	}
	if err != nil {
		m.s.dropReplicas(c.id, []uint32{to})
		return nil, err
	}
	return next, nil
}

// giveUp takes a replica from a chunk that has others, and returns its record. Nobody
// is served from the replica any more by then.
func (m *mender) giveUp(ctx context.Context, p place, c *chunk, from uint32) (*chunk, error) {
	next, err := m.settled(ctx, c, []uint32{from})
	if err != nil {
		return nil, err
	}
	return next, m.s.recordChunk(ctx, p, c, next, nil)
}

// move chooses a chunk's replica that is better elsewhere, and where; 0 for none.
func (m *mender) move(n *inode, c *chunk) (from, to uint32) {
	avoided := slices.Concat(c.servers, m.targets.avoided())
	for _, server := range c.servers {
		if m.s.servers.drains([]uint32{server}) {
			if chosen := m.s.servers.choose(1, avoided); len(chosen) > 0 {
				to = chosen[0]
			}
			return server, to
		}
	}
	fullest, emptiest := m.s.servers.uneven(c.servers, avoided, m.s.config.minSurplus)
	switch {
	case len(c.servers) > int(n.Replication): // a move was interrupted
		return cmp.Or(fullest, c.servers[0]), 0
	case fullest == 0 || emptiest == 0:
		return 0, 0
	}
	return fullest, emptiest
}

// drains says whether one of some servers is being drained.
func (s *servers) drains(ids []uint32) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return slices.ContainsFunc(ids, func(id uint32) bool { return s.known[id] != nil && s.known[id].draining })
}

// crowded says whether an alive server's disk is nearly full.
func (s *servers) crowded() bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, server := range s.known {
		if s.aliveLocked(server) && server.usage.capacity > 0 && float64(server.usage.free) < crowded*float64(server.usage.capacity) {
			return true
		}
	}
	return false
}

// fill is which part of its disk a server's replicas take.
func (u usage) fill() float64 {
	if u.capacity == 0 {
		return 0
	}
	return float64(u.used) / float64(u.capacity)
}

// over is by how many bytes a server holds more than the mean.
func (u usage) over(mean float64) uint64 {
	return uint64(max(u.fill()-mean, 0) * float64(u.capacity))
}

// meanFill is the mean of the live servers that are not drained, and how many they are.
func (s *servers) meanFill() (mean float64, count int) {
	for _, server := range s.known {
		if s.aliveLocked(server) && !server.draining && server.usage.capacity > 0 {
			mean += server.usage.fill()
			count++
		}
	}
	if count > 0 {
		mean /= float64(count)
	}
	return mean, count
}

// uneven returns the fullest of some live servers, if it holds much more than the
// mean, and the emptiest that is not excluded, if it holds less; 0 for none.
func (s *servers) uneven(of, excluded []uint32, least uint64) (fullest, emptiest uint32) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	mean, _ := s.meanFill()
	highest, lowest := mean*(1+balanced), mean*(1-balanced)
	for id, server := range s.known {
		if !s.aliveLocked(server) || server.draining || server.usage.capacity == 0 {
			continue
		}
		fill := server.usage.fill()
		if slices.Contains(of, id) && fill > highest && server.usage.over(mean) >= least {
			fullest, highest = id, fill
		}
		if !slices.Contains(excluded, id) && fill < lowest {
			emptiest, lowest = id, fill
		}
	}
	return fullest, emptiest
}

// rebalance puts chunks into the queue of moves, as many as bring the servers that
// hold more than the mean down to it, and returns how many these are.
func (m *mender) rebalance() (moves uint64, err error) {
	surplus := m.s.servers.surplus(m.s.config.minSurplus)
	if len(surplus) == 0 {
		return 0, nil
	}
	r := m.s.published.snapshot()
	defer r.close()
	err = m.s.scanChunks(r, func(p place, c *chunk) {
		n := r.inode(p.inode)
		r.forgive()
		if n == nil || c.open || moves >= maxMoves {
			return
		}
		bytes := min(uint64(n.ChunkSize), n.Size-min(n.Size, uint64(p.index)*uint64(n.ChunkSize)))
		for _, server := range c.servers {
			if left := surplus[server]; left > 0 && bytes > 0 {
				surplus[server] = left - min(left, bytes)
				m.moves.add(repair{place: p, urgency: 1})
				moves++
				return
			}
		}
	})
	return moves, err
}

// surplus is how many bytes servers hold above the mean, if that is much.
func (s *servers) surplus(least uint64) map[uint32]uint64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	mean, count := s.meanFill()
	if count < 2 {
		return nil
	}
	over := make(map[uint32]uint64)
	for id, server := range s.known {
		if fill := server.usage.fill(); s.aliveLocked(server) && !server.draining && fill > mean*(1+balanced) && server.usage.over(mean) >= least {
			over[id] = server.usage.over(mean)
		}
	}
	return over
}

// watchBalance rebalances a while after a server was added, until ctx ends: when
// heartbeats have said what it holds.
func (m *mender) watchBalance(ctx context.Context) {
	for {
		select {
		case <-m.added:
		case <-ctx.Done():
			return
		}
		select {
		case <-time.After(3 * m.s.config.Heartbeat):
		case <-ctx.Done():
			return
		}
		moves, err := m.rebalance()
		if err != nil {
			m.s.log.Error("rebalance", "error", err)
		} else if moves > 0 {
			m.s.log.Info("a chunk server was added: moving replicas to emptier servers", "chunks", moves)
		}
	}
}

// Rebalance implements control.MetaServer.
func (s *Server) Rebalance(context.Context, *control.Empty) (*control.RebalanceReply, error) {
	moves, err := s.mender.rebalance()
	if err != nil {
		return nil, storeFailed(err)
	}
	return &control.RebalanceReply{Moves: moves}, nil
}

// Decommission implements control.MetaServer.
func (s *Server) Decommission(q *control.DecommissionRequest, stream grpc.ServerStreamingServer[control.DrainProgress]) error {
	ctx := stream.Context()
	if err := s.setDraining(ctx, q.Server, !q.Cancel); err != nil {
		return err
	}
	if q.Cancel {
		return stream.Send(&control.DrainProgress{ReplicasLeft: s.countedOn(q.Server)})
	}
	s.log.Info("chunk server is being drained", "server", q.Server)
	s.mender.do(chores{everything: true})
	for {
		progress, err := s.drained(q.Server)
		if err != nil {
			return err
		}
		if err := stream.Send(progress); err != nil || progress.Removed {
			return err
		}
		select {
		case <-time.After(s.config.Heartbeat):
		case <-ctx.Done():
			return status.FromContextError(ctx.Err()).Err()
		}
	}
}

// setDraining makes durable that a server is drained, or is not any more.
func (s *Server) setDraining(ctx context.Context, id uint32, draining bool) error {
	if draining && !s.servers.others(id) {
		return refuse("EBUSY", "chunk server %d is the only one that is alive and not being drained: add another one first", id)
	}
	err := s.executor.do(ctx, func(c *change) error {
		if _, known := load(c, serverKey(id), decodeServer); !known {
			return refusal(codes.InvalidArgument, "no chunk server %d has joined this cluster: `waggle df` lists them", id)
		}
		m, _ := load(c, memberKey(id), decodeMember)
		if m == nil {
			m = &member{}
		}
		m.draining = draining
		c.put(memberKey(id), m)
		return nil
	})
	if err == nil {
		s.servers.drain(id, draining)
	}
	return err
}

// others says whether there is a live server besides one that is not drained.
func (s *servers) others(id uint32) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for other, server := range s.known {
		if other != id && s.aliveLocked(server) && !server.draining {
			return true
		}
	}
	return false
}

func (s *servers) drain(id uint32, draining bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if server := s.known[id]; server != nil {
		server.draining = draining
	}
}

// drained says how far a server is, and whether it was removed.
func (s *Server) drained(id uint32) (*control.DrainProgress, error) {
	r := s.published.snapshot()
	defer r.close()
	m, known := read(r, memberKey(id), decodeMember)
	_, joined := read(r, serverKey(id), decodeServer)
	switch {
	case r.err != nil:
		return nil, storeFailed(r.err)
	case !joined:
		return &control.DrainProgress{Removed: true}, nil
	case !known || !m.draining:
		return nil, refuse("ECANCELED", "chunk server %d is not being drained any more", id)
	}
	return &control.DrainProgress{ReplicasLeft: s.countedOn(id)}, nil
}

// countedOn returns how many chunks count on a server.
func (s *Server) countedOn(id uint32) (count uint64) {
	r := s.published.snapshot()
	defer r.close()
	err := s.scanChunks(r, func(_ place, c *chunk) {
		if slices.Contains(c.servers, id) {
			count++
		}
	})
	if err != nil {
		s.log.Error("count the replicas of a chunk server", "server", id, "error", err)
		return 1 // it is not removed
	}
	return count
}

// watchDrains removes servers that are drained once no chunk counts on them, until ctx
// ends, and has what is left looked at again.
func (m *mender) watchDrains(ctx context.Context) {
	every(ctx, m.s.config.Heartbeat, func() {
		for _, id := range m.s.servers.ids() {
			if !m.s.servers.drains([]uint32{id}) {
				continue
			}
			if m.s.countedOn(id) > 0 {
				if waiting, _, running, _, _ := m.moves.state(); waiting+running == 0 {
					m.do(chores{everything: true})
				}
				continue
			}
			if err := m.s.removeServer(ctx, id); err != nil && ctx.Err() == nil {
				m.s.log.Error("remove a drained chunk server", "server", id, "error", err)
			}
		}
	})
}

// removeServer forgets a server that no chunk counts on. What it still holds is
// nobody's.
func (s *Server) removeServer(ctx context.Context, id uint32) error {
	strays := s.mender.cleaner.straysOn(id)
	err := s.executor.do(ctx, func(c *change) error {
		m, _ := load(c, memberKey(id), decodeMember)
		if m == nil || !m.draining {
			return nil // cancelled meanwhile
		}
		m.removed = true
		c.put(memberKey(id), m) // it is told so if it comes back
		c.delete(serverKey(id))
		for _, chunk := range strays {
			c.delete(strayKey(chunk, id))
		}
		return nil
	})
	if err != nil {
		return err
	}
	s.mender.cleaner.forget(id)
	s.mirror.serversMove(func() { err = s.servers.remove(id) })
	s.log.Info("chunk server was removed", "server", id)
	return err
}

func (s *servers) remove(id uint32) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	removed := s.known[id]
	delete(s.known, id)
	if removed == nil || removed.connected == nil {
		return nil
	}
	return removed.connected.Close()
}
