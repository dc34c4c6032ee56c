package meta

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/codes"

	"waggle/dfs/meta/store"
	"waggle/dfs/wire"
	"waggle/dfs/wire/control"
)

const (
	expireBatch = 512     // files that one commit takes out of the trash
	expireEvery = 1       // looked at so often, in seconds
	maxPath     = 4 << 10 // bytes of the path that a removed file is listed by
	// crowded is the share of its disk below which a chunk server's free space ends
	// the time of what is in the trash.
	crowded = 0.05
)

// A file that loses its last name goes into the trash: its inode and its chunks stay,
// so whoever has it open goes on reading, and it can be given a name again. It is
// removed for good when its time is over, or when there is no room: as more files
// than allowed are in the trash, or a disk is nearly full.
//
// The table of the trash is in the order of removal; what is in it is known in memory
// too, so that nobody searches for what has expired.

// trashed is a file in the trash.
type trashed struct {
	inode     uint64
	removedNs int64
	size      uint64 // bytes, when it was removed
}

// trash are the files in the trash, as far as they are durable.
type trash struct {
	mu     sync.Mutex
	queue  []trashed // the one removed first comes first; some were restored since
	inodes map[uint64]trashed
	bytes  uint64
}

func loadTrash(r store.Reader) (*trash, error) {
	t := &trash{inodes: make(map[uint64]trashed)}
	var failed error
	err := scanTable(r, tableTrash, func(k key, value []byte) bool {
		var record *trashRecord
		if record, failed = decodeTrash(value); failed == nil {
			t.note([]trashed{{k.trashedInode(), int64(k.number()), record.size}}, nil)
		}
		return failed == nil
	})
	if err == nil {
		err = failed
	}
	return t, err
}

// note takes files in and out.
func (t *trash) note(in []trashed, out []uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, f := range in {
		t.queue = append(t.queue, f)
		t.inodes[f.inode] = f
		t.bytes += f.size
	}
	for _, inode := range out {
		t.bytes -= t.inodes[inode].size
		delete(t.inodes, inode)
	}
}

func (t *trash) find(inode uint64) (trashed, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f, found := t.inodes[inode]
	return f, found
}

func (t *trash) size() (files int, bytes uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.inodes), t.bytes
}

// oldest returns a batch of the files that were removed before some time, or that are
// more than allowed.
func (t *trash) oldest(before int64, allowed int) (batch []trashed) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for len(t.queue) > 0 && t.inodes[t.queue[0].inode] != t.queue[0] { // restored
		t.queue = t.queue[1:]
	}
	excess := len(t.inodes) - allowed
	for _, f := range t.queue {
		if len(batch) == expireBatch || f.removedNs >= before && len(batch) >= excess {
			break
		}
		if t.inodes[f.inode] == f {
			batch = append(batch, f)
		}
	}
	return batch
}

// discard puts a file that has lost its last name into the trash, if there is one.
func (m *mutation) discard(n *inode, node *control.Node) bool {
	if m.config.TrashTime == 0 || !isFile(n) {
		return false
	}
	m.put(trashKey(m.nowNs, n.Inode), &trashRecord{path: pathOf(node), size: n.Size, uid: n.UID})
	m.chores.trashed = append(m.chores.trashed, trashed{n.Inode, m.nowNs, n.Size})
	return true
}

// pathOf is a node as a person would name it.
func pathOf(node *control.Node) string {
	var path strings.Builder
	if node.Start == 0 || node.Start == wire.RootInode {
		path.WriteByte('/')
	}
	for i, name := range node.Names {
		if i > 0 {
			path.WriteByte('/')
		}
		path.Write(name)
	}
	return path.String()[:min(path.Len(), maxPath)]
}

// expireTrash removes files for good whose time in the trash is over, until ctx ends.
func (s *Server) expireTrash(ctx context.Context) {
	every(ctx, min(expireEvery*time.Second, max(s.config.TrashTime/4, time.Millisecond)), func() {
		for ctx.Err() == nil {
			expired := s.expired()
			if len(expired) == 0 {
				return
			}
			if err := s.executor.do(ctx, func(c *change) error { c.expire(expired); return nil }); err != nil {
				if ctx.Err() == nil {
					s.log.Error("remove files from the trash", "error", err)
				}
				return
			}
		}
	})
}

// expired returns a batch of files that have to leave the trash.
func (s *Server) expired() []trashed {
	before := time.Now().Add(-s.config.TrashTime).UnixNano()
	if s.space.room() != nil || s.servers.crowded() {
		before = time.Now().UnixNano()
	}
	return s.trash.oldest(before, s.config.TrashFiles)
}

func (c *change) expire(files []trashed) {
	for _, f := range files {
		k := trashKey(f.removedNs, f.inode)
		if _, there := load(c, k, decodeTrash); !there {
			continue // restored meanwhile
		}
		c.delete(k)
		c.chores.restored = append(c.chores.restored, f.inode)
		if n := c.inode(f.inode); n != nil && n.Links == 0 {
			c.forgetInode(n)
		}
	}
}

// forgetInode removes an inode that has no name any more, and leaves its chunks to be
// deleted.
func (c *change) forgetInode(n *inode) {
	c.delete(inodeKey(n.Inode))
	c.delete(xattrKey(n.Inode))
	if n.chunks > 0 {
		c.put(garbageKey(n.Inode), mark{})
		c.chores.garbage = append(c.chores.garbage, n.Inode)
	}
}

// Trash implements control.MetaServer.
func (s *Server) Trash(_ context.Context, q *control.TrashRequest) (*control.TrashReply, error) {
	session, err := s.sessions.get(q.Session)
	if err != nil {
		return nil, err
	}
	limit := int(q.Limit)
	if limit == 0 {
		limit = maxPage
	}
	if limit > maxPage || len(q.After) > len(key{}.b) {
		return nil, refusal(codes.InvalidArgument, "%d entries of the trash: at most %d can be asked for", limit, maxPage)
	}
	from := []byte{tableTrash}
	if len(q.After) > 0 {
		from = append(slices.Clone(q.After), 0)
	}
	view := s.published.acquire()
	defer view.release()
	reply := &control.TrashReply{}
	var failed error
	err = view.Scan(from, []byte{tableTrash + 1}, func(b, value []byte) bool {
		var record *trashRecord
		if record, failed = decodeTrash(value); failed != nil {
			return false
		}
		if session.uid != 0 && session.uid != record.uid {
			return true
		}
		k := keyOf(b)
		removed := int64(k.number())
		reply.Entries = append(reply.Entries, &control.TrashEntry{Inode: k.trashedInode(), Path: strings.ToValidUTF8(record.path, "\uFFFD"),
			Size: record.size, Uid: record.uid, RemovedNs: removed, ExpiresNs: removed + s.config.TrashTime.Nanoseconds()})
		if len(reply.Entries) == limit {
			reply.Next = slices.Clone(b)
		}
		return len(reply.Entries) < limit
	})
	if err == nil {
		err = failed
	}
	if err != nil {
		return nil, storeFailed(err)
	}
	return reply, nil
}

// Undelete implements control.MetaServer.
func (s *Server) Undelete(ctx context.Context, q *control.UndeleteRequest) (*control.Attributes, error) {
	session, err := s.sessions.get(q.Session)
	if err != nil {
		return nil, err
	}
	f, found := s.trash.find(q.Inode)
	if !found {
		return nil, refusal(codes.NotFound, "inode %d is not in the trash: `waggle trash` lists what is", q.Inode)
	}
	var restored *inode
	err = s.executor.do(ctx, func(c *change) error {
		m := &mutation{change: c, walker: walker{tables: c, hash: s.hash, who: &session.credentials}, session: session, config: &s.config}
		var err error
		restored, err = m.undelete(f, q.To)
		return err
	})
	if err != nil {
		return nil, err
	}
	return attributesMessage(&restored.Attributes), nil
}

func (m *mutation) undelete(f trashed, to *control.Node) (*inode, error) {
	k := trashKey(f.removedNs, f.inode)
	record, there := load(m.change, k, decodeTrash)
	n := m.inode(f.inode)
	if !there || n == nil {
		return nil, refusal(codes.NotFound, "inode %d has left the trash", f.inode)
	}
	if m.who.uid != 0 && m.who.uid != record.uid {
		return nil, refusal(codes.PermissionDenied, "inode %d is not yours", f.inode)
	}
	directory, name, err := m.newEntry(to)
	if err != nil {
		return nil, err
	}
	m.delete(k)
	m.chores.restored = append(m.chores.restored, f.inode)
	n.Links = 1
	m.totals.files++
	m.totals.bytes += n.Size
	m.putTotals()
	m.addEntry(directory, name, n)
	m.putInode(n)
	return n, nil
}
