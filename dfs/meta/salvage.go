package meta

import (
	"context"
	"errors"
	"slices"

	"google.golang.org/grpc/codes"

	"waggle/dfs/wire/control"
)

// salvage makes the best of a chunk whose replicas, all that can be reached, are torn
// or doubtful: each may lack writes, and blocks may not match their checksums. The
// best one gets the blocks that are damaged from the others, and is taken for the
// chunk's content from then on. So nothing that was synced is lost.
func (s *Server) salvage(ctx context.Context, c *chunk, epoch uint64, best replicaState, states []replicaState) (replicaState, error) {
	if away := s.mayComeBack(c, states); len(away) > 0 {
		return best, refusal(codes.Unavailable, "chunk %d: the replicas that can be reached have lost writes, those on servers %v may not have: try again", c.id, away)
	}
	s.log.Error("all replicas of a chunk have lost writes: taking the best one", "chunk", c.id, "server", best.server, "sequence", best.Sequence)
	if err := s.mendDamaged(ctx, c.id, epoch, best, states); err != nil {
		s.warn("take damaged blocks from other replicas", c.id)(err)
	}
	return s.rebuildReplica(ctx, c.id, epoch, best.server)
}

// mayComeBack returns the servers of a chunk that have not answered, and are not
// given up yet.
func (s *Server) mayComeBack(c *chunk, states []replicaState) []uint32 {
	return slices.DeleteFunc(slices.Clone(c.servers), func(id uint32) bool {
		answered := slices.ContainsFunc(states, func(r replicaState) bool { return r.server == id })
		return answered || s.servers.silence(id) > s.config.RepairDelay || s.servers.alive(id)
	})
}

// mendDamaged has the damaged blocks of a torn replica rewritten from others.
func (s *Server) mendDamaged(ctx context.Context, chunk, epoch uint64, best replicaState, states []replicaState) error {
	ctx, cancel := context.WithTimeout(ctx, copyTimeout)
	defer cancel()
	service, err := s.servers.chunk(best.server)
	if err != nil {
		return err
	}
	damaged, err := service.Verify(ctx, &control.ReplicaEpoch{Chunk: chunk})
	if err != nil {
		return err
	}
	var failed error
	for _, offset := range damaged.CorruptOffsets {
		for _, other := range states {
			if other.server == best.server {
				continue
			}
			err := s.copyReplica(ctx, chunk, epoch, other.server, best.server, []uint64{offset})
			if err == nil {
				break
			}
			failed = errors.Join(failed, err)
		}
	}
	return failed
}

// rebuildReplica has a replica made anew of what it holds.
func (s *Server) rebuildReplica(ctx context.Context, chunk, epoch uint64, server uint32) (replicaState, error) {
	ctx, cancel := context.WithTimeout(ctx, copyTimeout)
	defer cancel()
	service, err := s.servers.chunk(server)
	if err != nil {
		return replicaState{}, err
	}
	state, err := service.Seal(ctx, &control.ReplicaEpoch{Chunk: chunk, Epoch: epoch, Rebuild: true})
	return replicaState{server, state}, err
}

// rebuildAny is for a chunk none of whose replicas can be sealed, as when the disk of
// the last one could not sync: the first that can be made anew is the chunk's.
func (s *Server) rebuildAny(ctx context.Context, c *chunk, epoch uint64) (replicaState, bool) {
	if len(s.mayComeBack(c, nil)) > 0 {
		return replicaState{}, false
	}
	for _, server := range c.servers {
		if !s.servers.alive(server) {
			continue
		}
		state, err := s.rebuildReplica(ctx, c.id, epoch, server)
		if err == nil {
			s.log.Error("the only replica of a chunk was made anew: it may have lost writes", "chunk", c.id, "server", server)
			return state, true
		}
		s.warn("make a replica anew", c.id)(err)
	}
	return replicaState{}, false
}
