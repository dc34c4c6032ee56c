package meta

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"waggle/dfs/wire"
	"waggle/dfs/wire/control"
)

// checkReplicas compares the records of chunks with what the chunk servers hold.
// What is open for writing, or changes meanwhile, is passed over: it is settled
// anyway.
func (c *checker) checkReplicas() {
	c.renew()
	known := c.s.servers.ids()
	slices.Sort(known)
	held := make(map[replica]*control.ReplicaState)
	var answered []uint32
	for _, id := range known {
		if err := c.list(id, held); err != nil {
			c.problem(nil, "chunk server %d can't be asked what it holds: %v", id, err)
			continue
		}
		answered = append(answered, id)
	}
	c.scan(tableChunk, func(k key, value []byte) {
		c.step()
		r, err := decodeChunk(value)
		p := place{k.number(), k.second()}
		n, found := get(c, inodeKey(p.inode), decodeInode)
		if err != nil || !found {
			return // reported before, or being removed
		}
		c.compare(p, n, r, answered, held)
		for _, server := range r.servers {
			delete(held, replica{r.id, server})
		}
		if c.query.Data && !r.open {
			c.checkData(p, r, answered)
		}
	})
	for at := range held {
		c.checkOrphan(at)
	}
}

// renew goes on to the newest state.
func (c *checker) renew() {
	c.state.release()
	c.state = c.s.published.acquire()
}

// list asks a server what it holds.
func (c *checker) list(id uint32, held map[replica]*control.ReplicaState) error {
	service, err := c.s.servers.chunk(id)
	if err != nil {
		return err
	}
	stream, err := service.List(c.ctx, &control.Empty{})
	if err != nil {
		return err
	}
	for {
		state, err := stream.Recv()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		held[replica{state.Chunk, id}] = state
	}
}

// compare looks at the replicas of one chunk.
func (c *checker) compare(p place, n *inode, r *chunk, answered []uint32, held map[replica]*control.ReplicaState) {
	if r.open {
		return
	}
	mend := func() error { return c.mendChunk(p, int(n.Replication)) }
	report := func(format string, args ...any) {
		if c.unchanged(p, r) {
			c.problem(mend, format, args...)
		}
	}
	var first *control.ReplicaState
	for _, server := range r.servers {
		state := held[replica{r.id, server}]
		switch {
		case !slices.Contains(answered, server):
		case state == nil:
			if c.missing(r.id, server) {
				report("chunk %d has no replica on server %d", r.id, server)
			}
		case state.Torn || state.Epoch < r.epoch:
			report("chunk %d: its replica on server %d is torn or old (epoch %d of %d)", r.id, server, state.Epoch, r.epoch)
		case first == nil:
			first = state
		case state.Sequence != first.Sequence || state.Length != first.Length:
			report("chunk %d: its replicas differ: %d writes and %d bytes, %d writes and %d bytes",
				r.id, first.Sequence, first.Length, state.Sequence, state.Length)
		}
	}
}

// mendChunk settles a chunk and makes the replicas that it lacks.
func (c *checker) mendChunk(p place, replicas int) error {
	if err := c.s.mender.mend(c.ctx, p); err != nil {
		return err
	}
	now := c.s.published.snapshot()
	defer now.close()
	if r := now.chunk(p); r != nil && len(r.servers) < replicas {
		return fmt.Errorf("only %d chunk servers could take a replica", len(r.servers))
	}
	return now.err
}

// unchanged says whether a chunk still has the record that was looked at.
func (c *checker) unchanged(p place, r *chunk) bool {
	now := c.s.published.snapshot()
	defer now.close()
	found := now.chunk(p)
	return found != nil && found.id == r.id && found.epoch == r.epoch && found.open == r.open && slices.Equal(found.servers, r.servers)
}

// missing asks a server again: the replica may have been made behind the list.
func (c *checker) missing(chunk uint64, server uint32) bool {
	ctx, cancel := context.WithTimeout(c.ctx, sealTimeout)
	defer cancel()
	service, err := c.s.servers.chunk(server)
	if err != nil {
		return false
	}
	_, err = service.State(ctx, &control.ReplicaEpoch{Chunk: chunk})
	return status.Code(err) == codes.NotFound
}

// checkOrphan looks at a replica that no record counted on.
func (c *checker) checkOrphan(at replica) {
	inMaking := c.s.making.has(at.chunk, at.server)
	now := c.s.published.snapshot()
	defer now.close()
	_, r := now.findChunk(at.chunk)
	_, stray := read(now, strayKey(at.chunk, at.server), decodeMark)
	if inMaking || stray || c.missing(at.chunk, at.server) || (r != nil && slices.Contains(r.servers, at.server)) || now.err != nil {
		return
	}
	c.problem(c.change(func(ch *change) { ch.putStray(at.chunk, at.server) }),
		"server %d holds a replica of chunk %d that nobody references", at.server, at.chunk)
}

// checkData has every block of a chunk's replicas read and compared.
func (c *checker) checkData(p place, r *chunk, answered []uint32) {
	sums := make(map[uint32]uint32)
	for _, server := range r.servers {
		if !slices.Contains(answered, server) {
			continue
		}
		if err := c.verify(p, r, server); err != nil {
			if c.unchanged(p, r) {
				c.problem(nil, "chunk %d: its replica on server %d can't be verified: %v", r.id, server, err)
			}
			continue
		}
		sum, err := c.sum(r.id, server)
		if err == nil {
			sums[server] = sum
		}
	}
	c.compareData(p, r, sums)
}

// compareData compares the replicas of a chunk by their checksums. Those that differ
// are made equal to what most of them hold; if no content has a majority, each that
// differs from the first is kept in the directory of lost inodes before.
func (c *checker) compareData(p place, r *chunk, sums map[uint32]uint32) {
	votes := make(map[uint32]int)
	var most uint32
	for _, server := range r.servers { // of equal numbers the first
		if sum, answered := sums[server]; answered {
			if votes[sum]++; votes[sum] > votes[most] {
				most = sum
			}
		}
	}
	majority := 2*votes[most] > len(r.servers)
	good := slices.IndexFunc(r.servers, func(id uint32) bool { sum, answered := sums[id]; return answered && sum == most })
	for _, server := range r.servers {
		sum, answered := sums[server]
		if !answered || sum == most || !c.unchanged(p, r) {
			continue
		}
		mend := func() error {
			if !majority {
				if err := c.s.keepReplica(c.ctx, p, r, server); err != nil {
					return fmt.Errorf("keep its content in /%s: %w", lostAndFound, err)
				}
			}
			return c.s.overwrite(c.ctx, p, r, r.servers[good], server)
		}
		c.problem(mend, "chunk %d: its replicas on servers %d and %d hold different bytes%s", r.id, r.servers[good], server,
			map[bool]string{true: ", and most are as the first", false: ", and none has a majority"}[majority])
	}
}

// verify has a server compare a replica's blocks with their checksums.
func (c *checker) verify(p place, r *chunk, server uint32) error {
	ctx, cancel := context.WithTimeout(c.ctx, copyTimeout)
	defer cancel()
	service, err := c.s.servers.chunk(server)
	if err != nil {
		return err
	}
	reply, err := service.Verify(ctx, &control.ReplicaEpoch{Chunk: r.id})
	if err != nil || len(reply.CorruptOffsets) == 0 || !c.unchanged(p, r) {
		return err
	}
	c.problem(func() error { return c.s.rewriteBlocks(c.ctx, r.id, server, reply.CorruptOffsets) },
		"chunk %d: %d blocks of its replica on server %d are corrupt, the first at byte %d", r.id, len(reply.CorruptOffsets), server, reply.CorruptOffsets[0])
	return nil
}

// sum is a checksum of a replica's checksums.
func (c *checker) sum(chunk uint64, server uint32) (uint32, error) {
	ctx, cancel := context.WithTimeout(c.ctx, sealTimeout)
	defer cancel()
	service, err := c.s.servers.chunk(server)
	if err != nil {
		return 0, err
	}
	stream, err := service.Checksums(ctx, &control.ReplicaEpoch{Chunk: chunk})
	if err != nil {
		return 0, err
	}
	var all []byte
	for {
		part, err := stream.Recv()
		if err == io.EOF {
			return wire.Checksum(all), nil
		}
		if err != nil {
			return 0, err
		}
		if all = append(all, part.Checksums...); len(all) > 4*wire.MaxChunkSize/wire.BlockSize {
			return 0, fmt.Errorf("chunk server %d sends more checksums than a chunk can have", server)
		}
	}
}

// overwrite makes a closed chunk's replica equal to another, whatever the numbers of
// their writes say.
func (s *Server) overwrite(ctx context.Context, p place, r *chunk, from, to uint32) error {
	unlock, err := s.places.lock(ctx, p)
	if err != nil {
		return err
	}
	defer unlock()
	_, now, err := s.file(p)
	if err != nil {
		return err
	}
	if now == nil || now.open || now.epoch != r.epoch {
		return errors.New("it has changed meanwhile")
	}
	return s.copyReplica(ctx, r.id, r.epoch, from, to, nil)
}
