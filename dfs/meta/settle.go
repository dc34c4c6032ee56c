package meta

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"waggle/dfs/wire/control"
)

// How long chunk servers may take.
const (
	sealTimeout   = 3 * time.Second  // for what touches no data
	copyTimeout   = 2 * time.Minute  // for a whole replica
	deleteTimeout = 20 * time.Second // for a batch
)

// settled is a chunk whose replicas are equal and refuse every older epoch.
type settled struct {
	epoch    uint64
	servers  []uint32
	sequence uint64 // of the last write that all replicas hold
	length   uint64 // bytes
}

// replicaState is what a server has said about its replica.
type replicaState struct {
	server uint32
	*control.ReplicaState
}

// settle makes a chunk's replicas equal under a new epoch and cuts them to keep
// bytes. Since every write was acknowledged only when all of them had it, each
// has every acknowledged write, and the one with the most has what was under way
// too; the others are made equal to that. Replicas that can't be reached, and
// those that have failed as a writer says, are left behind, unless nothing else
// is left: their epoch is older from then on.
func (s *Server) settle(ctx context.Context, c *chunk, keep uint64, failed []uint32) (*settled, error) {
	epoch := c.epoch + 1
	states, err := s.seal(ctx, c, epoch, failed)
	if err != nil {
		return nil, err
	}
	best := slices.MaxFunc(states, func(a, b replicaState) int {
		if a.Torn != b.Torn { // its blocks may be half of one write and half of another
			if a.Torn {
				return -1
			}
			return 1
		}
		return cmp.Compare(a.Sequence, b.Sequence)
	})
	salvaged := best.Torn
	if salvaged {
		if best, err = s.salvage(ctx, c, epoch, best, states); err != nil {
			return nil, err
		}
	}
	if best.Length > keep {
		states, err = s.cutReplicas(ctx, c.id, epoch, keep, states)
		if err != nil {
			return nil, err
		}
		best.Length = keep
	}
	done := &settled{epoch: epoch, sequence: best.Sequence, length: best.Length}
	equal := forEach(states, func(r replicaState) (uint32, error) {
		if r.server == best.server || r.Sequence == best.Sequence && r.Length == best.Length && !r.Torn && !best.Torn {
			return r.server, nil
		}
		if r.Torn && salvaged {
			return r.server, s.copyWithDamage(ctx, c.id, epoch, best.server, r.server)
		}
		return r.server, s.copyReplica(ctx, c.id, epoch, best.server, r.server, nil)
	}, s.warn("make a replica equal", c.id))
	for _, server := range c.servers { // in the order of the record
		if slices.Contains(equal, server) {
			done.servers = append(done.servers, server)
		}
	}
	if !slices.Contains(equal, best.server) {
		return nil, refusal(codes.Unavailable, "chunk %d: the server of its best replica was lost: try again", c.id)
	}
	return done, nil
}

// cutChunk cuts a chunk's replicas to the length that is recorded to be kept.
func (s *Server) cutChunk(ctx context.Context, p place) error {
	unlock, err := s.places.lock(ctx, p)
	if err != nil {
		return err
	}
	defer unlock()
	_, c, err := s.file(p)
	if err != nil || c == nil || c.cut == noCut {
		return err // removed or cut meanwhile
	}
	settled, err := s.settle(ctx, c, uint64(c.cut), nil)
	if err != nil {
		return err
	}
	next := c.clone()
	next.epoch, next.servers, next.cut = settled.epoch, settled.servers, noCut
	next.open, next.session = false, 0
	return s.recordChunk(ctx, p, c, next, nil)
}

// seal makes the replicas that can be reached refuse epochs before the new one.
func (s *Server) seal(ctx context.Context, c *chunk, epoch uint64, failed []uint32) ([]replicaState, error) {
	trusted := slices.DeleteFunc(slices.Clone(c.servers), func(id uint32) bool { return slices.Contains(failed, id) })
	first, rest := s.servers.split(trusted)
	rest = append(rest, slices.DeleteFunc(slices.Clone(c.servers), func(id uint32) bool { return slices.Contains(trusted, id) })...)
	for _, ids := range [][]uint32{first, rest} {
		sealed := forEach(ids, func(id uint32) (replicaState, error) {
			ctx, cancel := context.WithTimeout(ctx, sealTimeout)
			defer cancel()
			service, err := s.servers.chunk(id)
			if err != nil {
				return replicaState{}, err
			}
			state, err := service.Seal(ctx, &control.ReplicaEpoch{Chunk: c.id, Epoch: epoch})
			if err != nil {
				return replicaState{}, fmt.Errorf("seal on chunk server %d: %w", id, err)
			}
			return replicaState{id, state}, nil
		}, s.warn("reach a replica", c.id))
		if len(sealed) > 0 {
			return sealed, nil
		}
	}
	if rebuilt, done := s.rebuildAny(ctx, c, epoch); done {
		return []replicaState{rebuilt}, nil
	}
	return nil, refusal(codes.Unavailable, "no replica of chunk %d can be reached on servers %v", c.id, c.servers)
}

func (s *Server) cutReplicas(ctx context.Context, chunk, epoch, length uint64, states []replicaState) ([]replicaState, error) {
	cut := forEach(states, func(r replicaState) (replicaState, error) {
		if r.Length <= length {
			return r, nil
		}
		ctx, cancel := context.WithTimeout(ctx, sealTimeout)
		defer cancel()
		service, err := s.servers.chunk(r.server)
		if err != nil {
			return r, err
		}
		state, err := service.Truncate(ctx, &control.TruncateRequest{Chunk: chunk, Epoch: epoch, Length: length})
		return replicaState{r.server, state}, err
	}, s.warn("cut a replica", chunk))
	if len(cut) == 0 {
		return nil, refusal(codes.Unavailable, "no replica of chunk %d could be cut to %d bytes", chunk, length)
	}
	return cut, nil
}

// copyReplica makes a replica equal to another, or only some of its blocks.
func (s *Server) copyReplica(ctx context.Context, chunk, epoch uint64, from, to uint32, blocks []uint64) error {
	return s.copyAs(ctx, from, to, &control.CopyRequest{Chunk: chunk, Epoch: epoch, OnlyBlocks: blocks})
}

// copyWithDamage is copyReplica for a source that may have damaged blocks and is the
// best that there is: they are as damaged in the copy.
func (s *Server) copyWithDamage(ctx context.Context, chunk, epoch uint64, from, to uint32) error {
	return s.copyAs(ctx, from, to, &control.CopyRequest{Chunk: chunk, Epoch: epoch, CarryDamage: true})
}

// copyAs carries out a copy; it adds where the source is to the request.
func (s *Server) copyAs(ctx context.Context, from, to uint32, q *control.CopyRequest) error {
	ctx, cancel := context.WithTimeout(ctx, copyTimeout)
	defer cancel()
	service, err := s.servers.chunk(to)
	if err != nil {
		return err
	}
	source := s.servers.replicas(nil, []uint32{from})
	if len(source) == 0 {
		return fmt.Errorf("chunk server %d is not known", from)
	}
	q.Source = &control.Replica{Server: from, Address: source[0].Address.String()}
	q.SourceControl = s.servers.controlAddress(from)
	if _, err = service.CopyFrom(ctx, q); err != nil {
		return fmt.Errorf("copy chunk %d from server %d to %d: %w", q.Chunk, from, to, err)
	}
	return nil
}

// createReplicas makes empty replicas and returns the servers that have one: all
// that were asked, but those that failed.
func (s *Server) createReplicas(ctx context.Context, c *chunk, chosen []uint32) ([]uint32, error) {
	created := forEach(chosen, func(id uint32) (uint32, error) {
		ctx, cancel := context.WithTimeout(ctx, sealTimeout)
		defer cancel()
		service, err := s.servers.chunk(id)
		if err != nil {
			return id, err
		}
		_, err = service.Create(ctx, &control.ReplicaEpoch{Chunk: c.id, Epoch: c.epoch})
		return id, err
	}, s.warn("create a replica", c.id))
	if len(created) == 0 {
		return nil, refusal(codes.Unavailable, "no replica of a new chunk could be made on servers %v", chosen)
	}
	return created, nil
}

// warn logs what went wrong with one replica of a chunk; the others go on.
func (s *Server) warn(doing string, chunk uint64) func(error) {
	return func(err error) {
		if !errors.Is(err, context.Canceled) && status.Code(err) != codes.Canceled {
			s.log.Warn(doing, "chunk", chunk, "error", err)
		}
	}
}

// forEach calls f for all elements at once and returns the results that are no
// errors, in order.
func forEach[E, R any](elements []E, f func(E) (R, error), failed func(error)) []R {
	results := make([]R, len(elements))
	errs := make([]error, len(elements))
	var all sync.WaitGroup
	for i, e := range elements {
		all.Go(func() { results[i], errs[i] = f(e) })
	}
	all.Wait()
	var good []R
	for i := range results {
		if errs[i] != nil {
			failed(errs[i])
			continue
		}
		good = append(good, results[i])
	}
	return good
}
