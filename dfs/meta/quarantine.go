package meta

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"waggle/dfs/wire"
	"waggle/dfs/wire/control"
)

// A check throws no bytes away that somebody may want back. What it can't leave where
// it is goes into the directory of lost inodes.

// quarantine makes a file there of what is left of an inode whose record can't be
// read, or is gone while it has chunks: of its chunks if it has some, and of the damaged
// record otherwise. why says what is wrong with it.
func (c *checker) quarantine(number uint64, record []byte, why string) {
	c.quarantined[number] = true
	saved := append([]byte(nil), record[:min(len(record), wire.MaxInline)]...)
	mend := func() error {
		left, err := c.leftOf(number)
		if err != nil {
			return err
		}
		if left.chunks == 0 {
			left.content, left.InlineSize, left.Size = saved, uint16(len(saved)), uint64(len(saved))
		}
		var failed error
		err = c.s.executor.do(c.ctx, func(ch *change) error {
			failed = c.s.intoLostAndFound(ch, left, fmt.Sprintf("#%d", number))
			return failed
		})
		if err != nil {
			return err
		}
		c.inodes[number] = &facts{mode: left.Mode, links: 1, foundLinks: 1, chunks: left.chunks, size: left.Size}
		c.counted.nextInode = max(c.counted.nextInode, number+1)
		c.counted.files++
		c.counted.bytes += left.Size
		return nil
	}
	c.problem(mend, "inode %d: %s", number, why)
}

// rebuildChunk makes the record of a chunk anew that can't be read: of who owns which
// chunk, and of what the chunk servers hold. The chunk is settled then.
func (c *checker) rebuildChunk(p place) error {
	id, err := c.chunkOf(p)
	if err != nil {
		return err
	}
	rebuilt := &chunk{id: id, open: true, cut: noCut}
	for _, server := range c.s.servers.ids() {
		state, err := c.s.replicaState(c.ctx, id, server)
		switch {
		case status.Code(err) == codes.NotFound:
		case err != nil:
			return fmt.Errorf("ask chunk server %d for a replica of chunk %d: %w", server, id, err)
		case state.Epoch > rebuilt.epoch:
			rebuilt.epoch, rebuilt.servers = state.Epoch, []uint32{server}
		case state.Epoch == rebuilt.epoch:
			rebuilt.servers = append(rebuilt.servers, server)
		}
	}
	return c.change(func(ch *change) {
		if len(rebuilt.servers) == 0 { // no server has a replica: there is nothing to be kept
			ch.delete(chunkKey(p))
			ch.delete(leaseKey(p))
			return
		}
		ch.putChunk(p, rebuilt)
		ch.abandonLease(p)
	})()
}

// chunkOf returns the chunk that is on record for a place; 0 if none is.
func (c *checker) chunkOf(p place) (id uint64, err error) {
	err = scanTable(c.state, tableOwner, func(k key, value []byte) bool {
		if o, bad := decodeOwner(value); bad == nil && place(o) == p {
			id = k.number()
		}
		return id == 0
	})
	return id, err
}

// leftOf returns an inode for the chunks of one that is lost. Their sizes tell how
// large a chunk of the file can be, and how large the file was.
func (c *checker) leftOf(number uint64) (*inode, error) {
	left := &inode{Attributes: wire.Attributes{Inode: number, Mode: unix.S_IFREG | 0o600, Links: 1, Version: 1,
		ChunkSize: c.s.config.ChunkSize, Replication: c.s.servers.defaultReplication()}}
	type piece struct {
		index  uint32
		length uint64
	}
	var pieces []piece
	var failed error
	err := c.state.Scan(prefix(tableChunk, number), prefix(tableChunk, number+1), func(b, value []byte) bool {
		var r *chunk
		if r, failed = decodeChunk(value); failed != nil {
			failed = nil // reported where chunks are checked
			return true
		}
		k := keyOf(b)
		var length uint64
		if length, failed = c.s.lengthOf(c.ctx, r); failed != nil {
			return false
		}
		left.chunks++
		left.Replication = max(left.Replication, uint16(len(r.servers)))
		pieces = append(pieces, piece{k.second(), length})
		return c.ctx.Err() == nil
	})
	if err := errors.Join(err, failed, c.ctx.Err()); err != nil {
		return nil, fmt.Errorf("ask how much is left of inode %d: %w", number, err)
	}
	size := uint64(wire.MinChunkSize)
	for _, p := range pieces {
		for size < p.length {
			size *= 2
		}
	}
	if len(pieces) < 2 { // nothing says that it is smaller than usual
		size = max(size, uint64(c.s.config.ChunkSize))
	}
	left.ChunkSize = uint32(size)
	for _, p := range pieces {
		left.Size = max(left.Size, uint64(p.index)*size+p.length)
	}
	return left, nil
}

// lengthOf asks for the length of a chunk, in bytes.
func (s *Server) lengthOf(ctx context.Context, r *chunk) (uint64, error) {
	failed := errors.New("it has no replicas")
	for _, server := range r.servers {
		length, err := s.replicaLength(ctx, r.id, server)
		if err == nil {
			return length, nil
		}
		failed = err
	}
	return 0, fmt.Errorf("chunk %d: %w", r.id, failed)
}

func (s *Server) replicaLength(ctx context.Context, chunk uint64, server uint32) (uint64, error) {
	state, err := s.replicaState(ctx, chunk, server)
	return state.GetLength(), err
}

func (s *Server) replicaState(ctx context.Context, chunk uint64, server uint32) (*control.ReplicaState, error) {
	ctx, cancel := context.WithTimeout(ctx, sealTimeout)
	defer cancel()
	service, err := s.servers.chunk(server)
	if err != nil {
		return nil, err
	}
	return service.State(ctx, &control.ReplicaEpoch{Chunk: chunk})
}

// intoLostAndFound puts an inode, as a new one or in the place of a damaged one, and
// gives it a name in the directory of lost inodes. What it adds to the totals is the
// caller's.
func (s *Server) intoLostAndFound(ch *change, n *inode, name string) error {
	m := &mutation{change: ch, walker: walker{tables: ch, hash: s.hash, who: &credentials{}}, config: &s.config}
	found, err := m.lostAndFound()
	if err != nil {
		return err
	}
	if n.Inode == 0 {
		n.Inode = m.totals.nextInode
		m.totals.nextInode++
		m.putTotals()
	}
	if there, err := m.child(found, []byte(name)); err != nil || there != nil {
		return fmt.Errorf("%q is in /%s already", name, lostAndFound)
	}
	n.ModifiedNs = m.nowNs
	m.put(inodeKey(n.Inode), n)
	m.addEntry(found, []byte(name), n)
	return nil
}

// lostAndFound returns the directory of lost inodes, made if need be.
func (m *mutation) lostAndFound() (*inode, error) {
	root := m.inode(wire.RootInode)
	if root == nil {
		return nil, errDangling
	}
	found, err := m.child(root, []byte(lostAndFound))
	if err != nil {
		return nil, err
	}
	if found == nil {
		return m.make(root, []byte(lostAndFound), unix.S_IFDIR|0o700), nil
	}
	if !isDirectory(found) {
		return nil, fmt.Errorf("/%s is no directory: rename it", lostAndFound)
	}
	return found, nil
}

// keepReplica makes a file in the directory of lost inodes of what one replica of a
// chunk holds.
func (s *Server) keepReplica(ctx context.Context, p place, r *chunk, server uint32) error {
	n, _, err := s.file(p)
	if err != nil {
		return err
	}
	length, err := s.replicaLength(ctx, r.id, server)
	if err != nil {
		return err
	}
	id, err := s.newChunkID(ctx)
	if err != nil {
		return err
	}
	s.making.add(id, []uint32{server})
	defer s.making.remove(id, []uint32{server})
	kept := &chunk{id: id, epoch: 1, cut: noCut, servers: []uint32{server}}
	err = s.copyAs(ctx, server, server, &control.CopyRequest{Chunk: id, Epoch: kept.epoch, SourceChunk: r.id, CarryDamage: true})
	if err == nil {
		err = s.executor.do(ctx, func(ch *change) error { return s.addKept(ch, p, n, kept, length) })
	}
	if err != nil {
		s.dropReplicas(id, kept.servers)
	}
	return err
}

// addKept makes the file of a replica that is kept.
func (s *Server) addKept(ch *change, p place, like *inode, kept *chunk, length uint64) error {
	n := &inode{Attributes: wire.Attributes{Mode: unix.S_IFREG | like.Mode&permissionBits, UID: like.UID, GID: like.GID,
		Links: 1, Version: 1, ChunkSize: like.ChunkSize, Replication: like.Replication, Size: length}, chunks: 1}
	name := fmt.Sprintf("#%d.%d.server%d", p.inode, p.index, kept.servers[0])
	if err := s.intoLostAndFound(ch, n, name); err != nil {
		return err
	}
	ch.putChunk(place{n.Inode, 0}, kept)
	ch.put(ownerKey(kept.id), owner{n.Inode, 0})
	ch.totals.files++
	ch.totals.chunks++
	ch.totals.bytes += length
	ch.putTotals()
	return nil
}
