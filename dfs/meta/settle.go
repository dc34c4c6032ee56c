package meta

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"waggle/dfs/weaken"
	"waggle/dfs/wire"
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
	// salvaged: no replica could be trusted to have all that it says. What was not
	// durable may be damaged.
	salvaged bool
}

// settledAs returns the record of a chunk that was settled, closed.
func (c *chunk) settledAs(done *settled) *chunk {
	next := c.clone()
	next.epoch, next.servers, next.sequence, next.length = done.epoch, done.servers, done.sequence, uint32(done.length)
	next.cut, next.open, next.session, next.spill = noCut, false, 0, false
	if done.salvaged {
		next.writer = wire.WritesLost
	}
	return next
}

// replicaState is what a server has said about its replica.
type replicaState struct {
	server uint32
	*control.ReplicaState
}

// maxSettles bounds how often the epoch goes up until a chunk is settled: with each
// server that fails meanwhile, and past what an attempt before has left.
const maxSettles = 4 * wire.MaxReplicas

// settle makes a chunk's replicas equal under a new epoch, and durable, and cuts
// them to what is recorded to be kept. Since every write was acknowledged only
// when all of them had it, each has every acknowledged write, and the one with the
// most has what was under way too; the others are made equal to that. Replicas
// that can't be reached, and those that have failed as a writer says, are left
// behind, unless nothing else is left: their epoch is older from then on, and
// nobody reads from them any more.
func (s *Server) settle(ctx context.Context, c *chunk, failed []uint32) (*settled, error) {
	failed = slices.Clone(failed)
	for epoch := c.epoch + 1; epoch <= c.epoch+maxSettles; epoch++ {
		states, rebuilt, err := s.seal(ctx, c, epoch, failed)
		if errors.Is(err, errSealed) {
			continue
		}
		if err != nil {
			return nil, err
		}
		done, lost, err := s.equalize(ctx, c, epoch, states)
		if err != nil {
			return nil, err
		}
		done.salvaged = done.salvaged || rebuilt
		if len(lost) > 0 { // they know the epoch, and must not have it
			failed = append(failed, lost...)
			continue
		}
		left := slices.DeleteFunc(slices.Clone(c.servers), func(id uint32) bool { return slices.Contains(done.servers, id) })
		if err := s.leaveBehind(ctx, c.id, epoch, left); err != nil {
			return nil, status.FromContextError(err).Err()
		}
		return done, nil
	}
	return nil, refusal(codes.Unavailable, "chunk %d could not be settled under epochs %d to %d: try again", c.id, c.epoch+1, c.epoch+maxSettles)
}

// equalize cuts sealed replicas and makes them equal. Lost are those that it could
// not.
func (s *Server) equalize(ctx context.Context, c *chunk, epoch uint64, states []replicaState) (done *settled, lost []uint32, err error) {
	best := slices.MaxFunc(states, func(a, b replicaState) int {
		return cmp.Or(
			later(a.holds(c), b.holds(c)),
			later(!a.Torn, !b.Torn), // blocks of a torn one may be half of one write and half of another
			cmp.Compare(a.Sequence, b.Sequence), cmp.Compare(a.Length, b.Length))
	})
	salvaged := best.Torn
	if salvaged {
		if best, err = s.salvage(ctx, c, epoch, best, states); err != nil {
			return nil, nil, err
		}
	}
	if !best.holds(c) && !weaken.On(weaken.SettleOnlyWhole) {
		return nil, nil, notWhole(c, best, len(states))
	}
	cut := states
	if keep := uint64(c.cut); best.Length > keep {
		if cut, err = s.cutReplicas(ctx, c.id, epoch, keep, states); err != nil {
			return nil, nil, err
		}
		best.Length = keep
	}
	done = &settled{epoch: epoch, sequence: best.Sequence, length: best.Length, salvaged: salvaged}
	equal := forEach(cut, func(r replicaState) (uint32, error) {
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
	for _, r := range states {
		if !slices.Contains(equal, r.server) {
			lost = append(lost, r.server)
		}
	}
	if len(lost) == len(states) || slices.Contains(lost, best.server) {
		return nil, nil, refusal(codes.Unavailable, "chunk %d: the server of its best replica was lost: try again", c.id)
	}
	return done, lost, ctx.Err()
}

// later compares so that true comes behind false.
func later(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

// holds says whether a replica has all that the chunk was settled at before, which
// was durable on every one.
func (r *replicaState) holds(c *chunk) bool {
	return r.Sequence >= c.sequence && r.Length >= uint64(c.expected())
}

// notWhole refuses to go on with less than that.
func notWhole(c *chunk, best replicaState, reached int) error {
	what := fmt.Sprintf("chunk %d was settled at %d bytes with write %d, the best of %d replicas that can be reached has %d bytes with write %d",
		c.id, c.expected(), c.sequence, reached, best.Length, best.Sequence)
	if reached < len(c.servers) {
		return refusal(codes.Unavailable, "%s: start the other chunk servers of %v", what, c.servers)
	}
	return refusal(codes.DataLoss, "%s: the rest is lost; truncate or remove the file", what)
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
	settled, err := s.settle(ctx, c, nil)
	if err != nil {
		return err
	}
	return s.recordChunk(ctx, p, c, c.settledAs(settled), nil)
}

// errSealed says that a replica has a later epoch than it was to be sealed under:
// an attempt that was not recorded has left it.
var errSealed = errors.New("a replica has a later epoch")

// seal makes the replicas that can be reached refuse epochs before the new one,
// and makes all that they hold durable. Rebuilt is one that had to be made anew for
// that.
func (s *Server) seal(ctx context.Context, c *chunk, epoch uint64, failed []uint32) (states []replicaState, rebuilt bool, err error) {
	trusted := slices.DeleteFunc(slices.Clone(c.servers), func(id uint32) bool { return slices.Contains(failed, id) })
	first, rest := s.servers.split(trusted)
	rest = append(rest, slices.DeleteFunc(slices.Clone(c.servers), func(id uint32) bool { return slices.Contains(trusted, id) })...)
	var missing atomic.Int32
	for _, ids := range [][]uint32{first, rest} {
		var later atomic.Bool
		sealed := forEach(ids, func(id uint32) (replicaState, error) {
			ctx, cancel := context.WithTimeout(ctx, sealTimeout)
			defer cancel()
			service, err := s.servers.chunk(id)
			if err != nil {
				return replicaState{}, err
			}
			state, err := service.Seal(ctx, &control.ReplicaEpoch{Chunk: c.id, Epoch: epoch})
			switch status.Code(err) {
			case codes.FailedPrecondition:
				later.Store(true)
			case codes.NotFound:
				missing.Add(1)
			}
			if err != nil {
				return replicaState{}, fmt.Errorf("seal on chunk server %d: %w", id, err)
			}
			return replicaState{id, state}, nil
		}, s.warn("reach a replica", c.id))
		if later.Load() {
			return nil, false, errSealed
		}
		if len(sealed) > 0 {
			return sealed, false, nil
		}
	}
	if int(missing.Load()) == len(c.servers) && c.sequence == 0 {
		states, err = s.makeAgain(ctx, c, epoch)
		return states, false, err
	}
	if anew, done := s.rebuildAny(ctx, c, epoch); done {
		return []replicaState{anew}, true, nil
	}
	return nil, false, refusal(codes.Unavailable, "no replica of chunk %d can be reached on servers %v", c.id, c.servers)
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

// makeAgain makes the replicas of a chunk whose servers have all lost power since it
// was made, and nothing of it was durable yet. Its writer finds what is missing.
func (s *Server) makeAgain(ctx context.Context, c *chunk, epoch uint64) (states []replicaState, err error) {
	s.log.Error("no server has a new chunk any more: it is made again, empty", "chunk", c.id, "servers", c.servers)
	again := c.clone()
	again.epoch = epoch
	created, err := s.createReplicas(ctx, again, c.servers)
	for _, id := range created {
		states = append(states, replicaState{id, &control.ReplicaState{Chunk: c.id, Epoch: epoch}})
	}
	return states, err
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
		if status.Code(err) == codes.DeadlineExceeded {
			s.servers.avoid(id)
		}
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
