package meta

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"

	"waggle/dfs/meta/store"
	"waggle/dfs/wire"
	"waggle/dfs/wire/control"
)

// Limits of a page of a directory.
const (
	maxPage      = 4096    // entries
	maxPageBytes = 2 << 20 // about; gRPC's own limit is 4 MiB
)

// walkFor calls f with what a session sees at a node.
func (s *Server) walkFor(session uint64, node *control.Node, f func(r *reader, who *credentials, n *inode) error) error {
	asking, err := s.sessions.get(session)
	if err != nil {
		return err
	}
	r := s.published.snapshot()
	defer r.close()
	w := walker{tables: r, hash: s.hash, who: &asking.credentials}
	n, err := w.node(node)
	if err == nil {
		err = f(r, w.who, n)
	}
	switch {
	case r.err != nil:
		return storeFailed(r.err)
	case errors.Is(err, errDangling):
		return storeFailed(err)
	}
	return err
}

// Walk implements control.MetaServer.
func (s *Server) Walk(_ context.Context, q *control.WalkRequest) (*control.WalkReply, error) {
	reply := &control.WalkReply{}
	err := s.walkFor(q.Session, q.Node, func(r *reader, who *credentials, n *inode) error {
		reply.Attributes = attributesMessage(&n.Attributes)
		if isSymlink(n) {
			reply.Target = n.content
		}
		if !isFile(n) || (!q.WantInline && q.ChunkIndex == nil) {
			return nil
		}
		if !who.mayUse(&n.Attributes, mayRead) {
			return refusal(codes.PermissionDenied, "no permission to read inode %d", n.Inode)
		}
		if q.WantInline {
			reply.Inline = n.content
		}
		if q.ChunkIndex != nil {
			p := place{n.Inode, *q.ChunkIndex}
			if n.InlineSize > 0 {
				reply.Location = s.locationMessage(p, nil)
			} else {
				reply.Location = s.locationMessage(p, r.chunk(p))
			}
		}
		return nil
	})
	return reply, err
}

// ReadDirectory implements control.MetaServer. Entries come in the order of
// their hashes, which does not change while others come and go.
func (s *Server) ReadDirectory(_ context.Context, q *control.ReadDirectoryRequest) (*control.ReadDirectoryReply, error) {
	limit := int(q.Limit)
	if limit == 0 {
		limit = maxPage
	}
	if limit > maxPage {
		return nil, refusal(codes.InvalidArgument, "%d entries of a directory: at most %d can be asked for", limit, maxPage)
	}
	reply := &control.ReadDirectoryReply{}
	err := s.walkFor(q.Session, q.Node, func(r *reader, who *credentials, n *inode) error {
		w := walker{tables: r, hash: s.hash, who: who}
		if err := w.search(n, mayRead); err != nil {
			return err
		}
		return s.readPage(r, who, n, q, limit, reply)
	})
	return reply, err
}

func (s *Server) readPage(r *reader, who *credentials, directory *inode, q *control.ReadDirectoryRequest, limit int, reply *control.ReadDirectoryReply) error {
	from := entryKey(directory.Inode, wire.NameHash{})
	if len(q.After) > 0 {
		from = entryKey(directory.Inode, s.hash(q.After))
	}
	first, size := from, 0
	var failed error
	err := r.state().Scan(from.bytes(), store.PrefixEnd(prefix(tableEntry, directory.Inode)), func(b, value []byte) bool {
		var names entries
		if names, failed = decodeEntries(value); failed != nil {
			return false
		}
		for _, e := range names {
			if keyOf(b) == first && e.name <= string(q.After) || directory.Inode == wire.RootInode && e.name == wire.UploadsName {
				continue
			}
			if reply.More = len(reply.Entries) == limit || size > maxPageBytes; reply.More {
				return false
			}
			n := r.inode(e.inode)
			if n == nil {
				failed = errDangling
				return false
			}
			listed := &control.DirectoryEntry{Name: []byte(e.name), Attributes: attributesMessage(&n.Attributes)}
			if isSymlink(n) {
				listed.Target = n.content
			}
			if q.Xattr != "" {
				listed.Xattr = xattrsFor(r, who, n)[q.Xattr]
			}
			reply.Entries = append(reply.Entries, listed)
			size += len(e.name) + len(listed.Target) + len(listed.Xattr) + 100
		}
		return true
	})
	return errors.Join(err, failed)
}

// GetXattrs implements control.MetaServer.
func (s *Server) GetXattrs(_ context.Context, q *control.NodeRequest) (*control.Xattrs, error) {
	reply := &control.Xattrs{}
	err := s.walkFor(q.Session, q.Node, func(r *reader, who *credentials, n *inode) error {
		if !who.may(&n.Attributes, mayRead) {
			return refusal(codes.PermissionDenied, "no permission to read inode %d", n.Inode)
		}
		reply.Values = xattrsFor(r, who, n)
		return nil
	})
	return reply, err
}

// xattrsFor are the extended attributes of an inode that somebody may see, which
// are none if he may not read it.
func xattrsFor(r *reader, who *credentials, n *inode) map[string][]byte {
	values := make(map[string][]byte)
	if !who.may(&n.Attributes, mayRead) {
		return values
	}
	all, _ := read(r, xattrKey(n.Inode), decodeXattrs)
	for _, x := range all {
		if who.uid == 0 || strings.HasPrefix(x.name, "user.") {
			values[x.name] = x.value
		}
	}
	return values
}

// ReportCorrupt implements control.MetaServer.
func (s *Server) ReportCorrupt(ctx context.Context, q *control.CorruptRequest) (*control.Empty, error) {
	if q.Session != 0 {
		if _, err := s.sessions.get(q.Session); err != nil {
			return nil, err
		}
	}
	if q.Offset >= wire.MaxChunkSize {
		return nil, refusal(codes.InvalidArgument, "offset %d is behind the largest chunk", q.Offset)
	}
	if q.Failing {
		s.log.Warn("replica can't be counted on", "chunk", q.Chunk, "server", q.Server)
		s.mender.do(chores{failing: []replica{{q.Chunk, q.Server}}})
		return &control.Empty{}, nil
	}
	s.log.Warn("corrupt block", "chunk", q.Chunk, "server", q.Server, "offset", q.Offset)
	block := q.Offset / wire.BlockSize * wire.BlockSize
	return &control.Empty{}, s.rewriteBlocks(ctx, q.Chunk, q.Server, []uint64{block})
}

// rewriteBlocks has blocks of a replica rewritten from another one.
func (s *Server) rewriteBlocks(ctx context.Context, id uint64, server uint32, blocks []uint64) error {
	r := s.published.snapshot()
	p, found := r.findChunk(id)
	r.close()
	if r.err != nil {
		return storeFailed(r.err)
	}
	if found == nil {
		return refusal(codes.NotFound, "chunk %d does not exist", id)
	}
	unlock, err := s.places.lock(ctx, p)
	if err != nil {
		return err
	}
	defer unlock()
	_, c, err := s.file(p)
	switch {
	case err != nil:
		return err
	case c == nil || c.id != id || !slices.Contains(c.servers, server):
		return refusal(codes.NotFound, "chunk %d has no replica on server %d", id, server)
	case c.open:
		return refusal(codes.Unavailable, "chunk %d is being written: report again when it is released", id)
	}
	var failed error
	for _, other := range c.servers {
		if other == server {
			continue
		}
		if err := s.copyReplica(ctx, id, c.epoch, other, server, blocks); err != nil {
			failed = errors.Join(failed, err)
			continue
		}
		s.config.Counters.Counter("meta_corrupt_blocks_rewritten").Add(int64(len(blocks)))
		return nil
	}
	if failed == nil {
		failed = errors.New("there is no other replica")
	}
	s.log.Error("blocks are lost: no other replica has them intact", "chunk", id, "server", server, "offsets", blocks, "error", failed)
	return refusal(codes.DataLoss, "%d blocks of chunk %d from offset %d on could not be rewritten: %v", len(blocks), id, blocks[0], failed)
}

// Cluster implements control.MetaServer.
func (s *Server) Cluster(ctx context.Context, _ *control.Empty) (*control.ClusterReply, error) {
	r := s.published.snapshot()
	defer r.close()
	t, _ := read(r, totalsKey(), decodeTotals)
	reply := &control.ClusterReply{Cluster: s.identity.cluster[:], Sessions: uint64(s.sessions.count()), Servers: s.servers.status()}
	if t != nil {
		reply.Files, reply.Directories, reply.Chunks, reply.LogicalBytes = t.files, t.directories, t.chunks, t.bytes
	}
	reply.Queues = s.mender.queues()
	trashed, trashedBytes := s.trash.size()
	reply.TrashFiles, reply.TrashBytes = uint64(trashed), trashedBytes
	countedOn := make(map[uint32]uint64)
	err := s.scanChunks(r, func(p place, c *chunk) {
		for _, server := range c.servers {
			countedOn[server]++
		}
		n := r.inode(p.inode)
		alive := slices.DeleteFunc(c.servers, func(id uint32) bool { return !s.servers.alive(id) })
		if n != nil && len(alive) < int(n.Replication) {
			reply.ChunksUnderreplicated++
		}
		r.forgive()
	})
	if err := errors.Join(err, r.err); err != nil {
		return nil, storeFailed(err)
	}
	for _, server := range reply.Servers {
		if server.Draining {
			server.CountedOn = countedOn[server.Server]
		}
	}
	return reply, ctx.Err()
}

// reachable returns the address of lookups for whoever makes this call. A server
// that listens at any address is where it was called.
func (s *Server) reachable(ctx context.Context) string {
	at := s.LookupAddress()
	if !at.Addr().IsUnspecified() {
		return at.String()
	}
	if caller, ok := peer.FromContext(ctx); ok {
		if local, ok := caller.LocalAddr.(*net.TCPAddr); ok {
			return netip.AddrPortFrom(local.AddrPort().Addr().Unmap(), at.Port()).String()
		}
	}
	return at.String()
}

// admin is the service that every role has.
type admin struct {
	control.UnimplementedAdminServer
	s *Server
}

// Status implements control.AdminServer.
func (a admin) Status(context.Context, *control.Empty) (*control.RoleStatus, error) {
	return &control.RoleStatus{Role: "meta", Version: a.s.config.Version, Counters: a.s.config.Counters.Snapshot(),
		Settings: map[string]string{"min_replicas": strconv.Itoa(a.s.config.MinReplicas)}}, nil
}
