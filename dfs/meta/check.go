package meta

import (
	"context"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"

	"waggle/dfs/wire"
	"waggle/dfs/wire/control"
)

// progressInterval is how often a check says how far it is.
const progressInterval = 200 * time.Millisecond

// lostAndFound is the directory of the root that a check puts inodes into that
// have lost their names.
const lostAndFound = "lost+found"

// checker looks at one published state, table by table, and then at the chunk
// servers. What it mends it mends in the newest state, which may have moved on:
// so a wrong count is corrected by how much it is wrong, and everything else is
// looked at again first.
//
// It keeps some 100 bytes in memory for each inode.
type checker struct {
	s       *Server
	ctx     context.Context
	query   *control.CheckRequest
	send    func(*control.CheckProgress) error
	state   *view
	totals  *totals // as recorded
	counted totals  // as found
	inodes  map[uint64]*facts
	garbage map[uint64]bool
	trash   map[uint64]bool
	// quarantined are inodes whose records can't be read. What is left of them is in
	// the directory of lost inodes, or stays as it is if it can't be put there.
	quarantined map[uint64]bool

	checked, total uint64
	lastSent       time.Time
	err            error // the first that ends the check
}

// facts are what the check has to know of an inode: what its record says, and
// what was found of it in other tables.
type facts struct {
	mode, links, chunks            uint32
	size, parent                   uint64
	replication                    uint16
	foundLinks, foundChunks        uint32
	foundEntries, foundDirectories uint32
	reachable                      bool
}

// Check implements control.MetaServer.
func (s *Server) Check(q *control.CheckRequest, stream grpc.ServerStreamingServer[control.CheckProgress]) error {
	if !s.checking.TryLock() {
		return refuse("EBUSY", "another check is under way")
	}
	defer s.checking.Unlock()
	c := &checker{
		s: s, ctx: stream.Context(), query: q, send: stream.Send,
		inodes: make(map[uint64]*facts), garbage: make(map[uint64]bool),
		trash: make(map[uint64]bool), quarantined: make(map[uint64]bool), state: s.published.acquire(),
	}
	defer func() { c.state.release() }()
	c.run()
	return c.err
}

func (c *checker) run() {
	c.loadTotals()
	for _, step := range []func(){
		c.checkTrash, c.checkInodes, c.checkEntries, c.checkGarbage, c.checkOwners, c.checkChunks, c.checkLeases, c.checkTheRest,
		c.checkCounts, c.checkReach, c.checkTotals,
	} {
		if c.err == nil {
			step()
		}
	}
	if c.err == nil && c.remote() {
		c.checkReplicas()
	}
	if c.err == nil {
		c.err = c.send(c.progress())
	}
}

// remote says whether the chunk servers are checked too.
func (c *checker) remote() bool { return c.query.Replicas || c.query.Data }

func (c *checker) progress() *control.CheckProgress {
	return &control.CheckProgress{Checked: c.checked, Total: max(c.total, c.checked)}
}

// step counts something that was checked.
func (c *checker) step() {
	c.checked++
	if time.Since(c.lastSent) < progressInterval {
		return
	}
	c.lastSent = time.Now()
	if err := c.send(c.progress()); err != nil {
		c.err = err
	}
}

// problem reports something, after mend has mended it if that is asked for. A
// nil mend can't mend it.
func (c *checker) problem(mend func() error, format string, args ...any) {
	p := c.progress()
	p.Problem = fmt.Sprintf(format, args...)
	if c.query.Repair && mend != nil {
		if err := mend(); err != nil {
			p.Problem += fmt.Sprintf(" (can't be mended now: %v)", err)
		} else {
			p.Repaired = true
		}
	}
	if err := c.send(p); err != nil && c.err == nil {
		c.err = err
	}
}

// change returns a mend that changes metadata.
func (c *checker) change(run func(*change)) func() error {
	return func() error {
		return c.s.executor.do(c.ctx, func(ch *change) error { run(ch); return nil })
	}
}

// remove returns a mend that deletes a record.
func (c *checker) remove(k key) func() error {
	return c.change(func(ch *change) { ch.delete(k) })
}

// scan visits a table's records until the check ends.
func (c *checker) scan(table byte, visit func(k key, value []byte)) {
	err := scanTable(c.state, table, func(k key, value []byte) bool {
		visit(k, value)
		if c.err == nil {
			c.err = c.ctx.Err()
		}
		return c.err == nil
	})
	if c.err == nil && err != nil {
		c.err = storeFailed(err)
	}
}

// get reads one record. One that can't be read is reported where its table is
// scanned, and is missing here.
func get[R record](c *checker, k key, decode func([]byte) (R, error)) (r R, found bool) {
	value, found, err := c.state.Get(k.bytes())
	if err != nil {
		c.err = storeFailed(err)
	}
	if !found {
		return r, false
	}
	r, err = decode(value)
	return r, err == nil
}

func (c *checker) loadTotals() {
	c.totals, _ = get(c, totalsKey(), decodeTotals)
	if c.totals == nil {
		c.totals = &totals{}
	}
	c.total = c.totals.files + c.totals.directories + c.totals.chunks
	if c.remote() {
		c.total += c.totals.chunks
	}
}

func (c *checker) checkInodes() {
	c.scan(tableInode, func(k key, value []byte) {
		c.step()
		number := k.number()
		n, err := decodeInode(value)
		if err != nil || n.Inode != number {
			c.quarantine(number, value, "its record can't be read")
			return
		}
		c.inodes[number] = &facts{mode: n.Mode, links: n.Links, chunks: n.chunks, size: n.Size, parent: n.parent, replication: n.Replication}
		c.counted.nextInode = max(c.counted.nextInode, number+1)
		switch {
		case c.trash[number]: // it does not count
		case isDirectory(n):
			c.counted.directories++
		case isSymlink(n):
			c.counted.files++
			if n.Size != uint64(len(n.content)) || n.Size == 0 {
				c.problem(c.setSize(n, uint64(len(n.content))), "symbolic link %d: its target has %d bytes, its size is %d", number, len(n.content), n.Size)
			}
		case isFile(n):
			c.counted.files++
			c.counted.bytes += n.Size
			if int(n.InlineSize) != len(n.content) || (n.InlineSize > 0 && n.Size != uint64(n.InlineSize)) {
				c.problem(c.setSize(n, uint64(len(n.content))), "file %d: its record holds %d bytes, its size is %d, of which %d are in the record",
					number, len(n.content), n.Size, n.InlineSize)
			}
		default:
			delete(c.inodes, number)
			c.quarantine(number, value, fmt.Sprintf("its mode %#o is of no known type", n.Mode))
		}
	})
	if root := c.inodes[wire.RootInode]; root == nil || root.mode&unix.S_IFMT != unix.S_IFDIR {
		c.problem(nil, "there is no root directory")
	}
}

func (c *checker) setSize(n *inode, size uint64) func() error {
	return c.change(func(ch *change) {
		now := ch.inode(n.Inode)
		if now == nil || now.Version != n.Version {
			return
		}
		if isFile(now) {
			now.InlineSize = uint16(size)
			ch.totals.bytes += size - now.Size
			ch.putTotals()
		}
		now.Size = size
		ch.putInode(now)
	})
}

func (c *checker) checkEntries() {
	c.scan(tableEntry, func(k key, value []byte) {
		parent := k.number()
		names, err := decodeEntries(value)
		if err != nil || len(names) == 0 {
			c.problem(c.remove(k), "directory %d: an entry can't be read", parent)
			return
		}
		for i, e := range names {
			if want := entryKey(parent, c.s.hash([]byte(e.name))); want != k || (i > 0 && e.name <= names[i-1].name) {
				c.problem(c.dropEntry(k, e), "directory %d: name %q is at the wrong place", parent, e.name)
				continue
			}
			c.checkEntry(k, e)
		}
	})
}

func (c *checker) checkEntry(k key, e entry) {
	parent, child := c.inodes[k.number()], c.inodes[e.inode]
	switch {
	case parent == nil || parent.mode&unix.S_IFMT != unix.S_IFDIR:
		c.problem(c.dropEntry(k, e), "name %q is in inode %d, which is no directory", e.name, k.number())
		return
	case c.quarantined[e.inode]:
		mend := c.dropEntry(k, e)
		if child == nil {
			mend = nil
		}
		c.problem(mend, "directory %d: %q leads to inode %d, whose record can't be read", k.number(), e.name, e.inode)
		return
	case child == nil:
		c.problem(c.dropEntry(k, e), "directory %d: %q leads to inode %d, which does not exist", k.number(), e.name, e.inode)
		return
	}
	parent.foundEntries++
	if child.mode&unix.S_IFMT != unix.S_IFDIR {
		child.foundLinks++
		return
	}
	if child.foundLinks > 0 || e.inode == wire.RootInode {
		parent.foundEntries--
		c.problem(c.dropEntry(k, e), "directory %d: %q is a second name of directory %d", k.number(), e.name, e.inode)
		return
	}
	child.foundLinks++
	parent.foundDirectories++
	if child.parent != k.number() {
		child.parent = k.number()
		c.problem(c.change(func(ch *change) {
			if n := ch.inode(e.inode); n != nil && ch.entries(k).find([]byte(e.name)) == e.inode {
				n.parent = k.number()
				ch.putInode(n)
			}
		}), "directory %d: it says that it is not in directory %d, where its name %q is", e.inode, k.number(), e.name)
	}
}

// dropEntry returns a mend that takes a name out of a record. The counts of the
// directory never had it, or are corrected later.
func (c *checker) dropEntry(k key, e entry) func() error {
	return c.change(func(ch *change) {
		names := ch.entries(k)
		if names.find([]byte(e.name)) != e.inode {
			return
		}
		if left := names.without([]byte(e.name)); len(left) > 0 {
			ch.put(k, left)
		} else {
			ch.delete(k)
		}
	})
}

// checkTrash finds what is in the trash, which has no names and does not count.
func (c *checker) checkTrash() {
	c.scan(tableTrash, func(k key, value []byte) {
		number := k.trashedInode()
		_, err := decodeTrash(value)
		n, found := get(c, inodeKey(number), decodeInode)
		if err != nil || !found || n.Links > 0 {
			c.problem(c.change(func(ch *change) {
				ch.delete(k)
				ch.chores.restored = append(ch.chores.restored, number)
			}), "inode %d is in the trash and has a name, or is not there, or its record of the trash can't be read", number)
			return
		}
		c.trash[number] = true
	})
}

func (c *checker) checkGarbage() {
	c.scan(tableGarbage, func(k key, _ []byte) {
		c.garbage[k.number()] = true
		if c.inodes[k.number()] != nil {
			c.problem(c.remove(k), "inode %d exists and is to be removed", k.number())
		}
	})
}

func (c *checker) checkChunks() {
	c.scan(tableChunk, func(k key, value []byte) {
		c.step()
		c.counted.chunks++
		p := place{k.number(), k.second()}
		r, err := decodeChunk(value)
		if err != nil {
			mend := func() error { return c.rebuildChunk(p) }
			c.problem(mend, "chunk %d of inode %d: its record can't be read", p.index, p.inode)
			if f := c.inodes[p.inode]; f != nil {
				f.foundChunks++
			}
			return
		}
		c.counted.nextChunk = max(c.counted.nextChunk, r.id+1)
		if c.inodes[p.inode] == nil && !c.garbage[p.inode] && !c.quarantined[p.inode] {
			c.quarantine(p.inode, nil, "it does not exist and has chunks")
		}
		f := c.inodes[p.inode]
		if f == nil && (c.garbage[p.inode] || c.quarantined[p.inode]) {
			return
		}
		if f == nil || f.mode&unix.S_IFMT != unix.S_IFREG {
			c.problem(c.change(func(ch *change) { ch.dropChunk(&inode{}, p) }), "chunk %d: it belongs to inode %d, which is no file", r.id, p.inode)
			return
		}
		f.foundChunks++
		c.checkChunk(p, r)
		c.checkRedundancy(p, r, int(f.replication))
	})
}

// checkRedundancy reports a chunk that lacks replicas on servers that are alive,
// as Cluster counts them.
func (c *checker) checkRedundancy(p place, r *chunk, replication int) {
	alive := 0
	for _, server := range r.servers {
		if c.s.servers.alive(server) {
			alive++
		}
	}
	if alive >= replication || !c.unchanged(p, r) {
		return
	}
	mend := func() error { return c.mendChunk(p, replication) }
	if r.open {
		mend = nil // when it is settled
	}
	c.problem(mend, "chunk %d has %d replicas on servers that are up, its file %d asks for %d", r.id, alive, p.inode, replication)
}

func (c *checker) checkChunk(p place, r *chunk) {
	if o, found := get(c, ownerKey(r.id), decodeOwner); !found || place(o) != p {
		c.problem(c.change(func(ch *change) {
			if now := ch.chunk(p); now != nil && now.id == r.id {
				ch.put(ownerKey(r.id), owner(p))
			}
		}), "chunk %d: it is not on record that it belongs to inode %d", r.id, p.inode)
	}
	if h, found := get(c, leaseKey(p), decodeHolder); found != r.open || (found && uint64(h) != r.session) {
		c.problem(c.change(func(ch *change) {
			switch now := ch.chunk(p); {
			case now == nil || now.epoch != r.epoch:
			case now.open:
				ch.abandonLease(p)
			default:
				ch.delete(leaseKey(p))
			}
		}), "chunk %d: the records of who may write to it disagree", r.id)
	}
	known := c.s.servers.ids()
	sorted := slices.Clone(r.servers)
	slices.Sort(sorted)
	unknown := slices.DeleteFunc(slices.Clone(sorted), func(id uint32) bool { return slices.Contains(known, id) })
	if len(sorted) == 0 || len(slices.Compact(sorted)) != len(r.servers) || len(unknown) > 0 || r.epoch == 0 {
		c.problem(nil, "chunk %d: its record has epoch %d and replicas on servers %v", r.id, r.epoch, r.servers)
	}
}

func (c *checker) checkOwners() {
	c.scan(tableOwner, func(k key, value []byte) {
		o, err := decodeOwner(value)
		if err != nil {
			c.problem(c.remove(k), "chunk %d: the record of its owner can't be read", k.number())
			return
		}
		if c.unreadable(chunkKey(place(o))) { // it is made anew with the help of this record
			return
		}
		if r, found := get(c, chunkKey(place(o)), decodeChunk); !found || r.id != k.number() {
			c.problem(c.remove(k), "chunk %d: inode %d, which should have it, does not", k.number(), o.inode)
		}
	})
}

// unreadable says whether there is a record of a chunk that can't be read.
func (c *checker) unreadable(k key) bool {
	value, found, err := c.state.Get(k.bytes())
	if err != nil || !found {
		return false
	}
	_, err = decodeChunk(value)
	return err != nil
}

func (c *checker) checkLeases() {
	c.scan(tableLease, func(k key, value []byte) {
		_, err := decodeHolder(value)
		if _, found := get(c, chunkKey(place{k.number(), k.second()}), decodeChunk); err != nil || !found {
			c.problem(c.remove(k), "chunk %d of inode %d is open for writing and does not exist", k.second(), k.number())
		}
	})
}

// checkTheRest looks at the tables that nothing else depends on.
func (c *checker) checkTheRest() {
	c.scan(tableXattr, func(k key, value []byte) {
		if _, err := decodeXattrs(value); err != nil || c.inodes[k.number()] == nil {
			c.problem(c.remove(k), "inode %d: its extended attributes can't be read, or it does not exist", k.number())
		}
	})
	c.scan(tableResult, func(k key, _ []byte) {
		sk := sessionKey(k.number())
		if _, found, err := c.state.Get(sk.bytes()); err == nil && !found {
			c.problem(c.remove(k), "session %#x has results and does not exist", k.number())
		}
	})
	c.scan(tableStray, func(k key, _ []byte) {
		o, found := get(c, ownerKey(k.number()), decodeOwner)
		if !found {
			return
		}
		if r, found := get(c, chunkKey(place(o)), decodeChunk); found && r.id == k.number() && slices.Contains(r.servers, k.second()) {
			c.problem(c.remove(k), "chunk %d: its replica on server %d is to be deleted and is counted on", k.number(), k.second())
		}
	})
}

// checkCounts compares what inodes say of themselves with what was found.
func (c *checker) checkCounts() {
	for number, f := range c.inodes {
		if c.err != nil {
			return
		}
		if f.foundLinks == 0 && c.trash[number] {
			if f.chunks != f.foundChunks {
				c.problem(c.correct(number, 0, 0, f.foundChunks-f.chunks), "file %d has %d chunks, its record says %d", number, f.foundChunks, f.chunks)
			}
			continue
		}
		if f.foundLinks == 0 && number != wire.RootInode {
			c.problem(c.change(func(ch *change) { c.s.adopt(ch, number, f) }), "inode %d has no name", number)
			continue
		}
		links := f.foundLinks
		if f.mode&unix.S_IFMT == unix.S_IFDIR {
			links = 2 + f.foundDirectories
			if f.size != uint64(f.foundEntries) {
				c.problem(c.correct(number, 0, uint64(f.foundEntries)-f.size, 0), "directory %d has %d entries, its record says %d", number, f.foundEntries, f.size)
			}
		}
		if f.links != links {
			c.problem(c.correct(number, links-f.links, 0, 0), "inode %d has %d links, its record says %d", number, links, f.links)
		}
		if f.chunks != f.foundChunks {
			c.problem(c.correct(number, 0, 0, f.foundChunks-f.chunks), "file %d has %d chunks, its record says %d", number, f.foundChunks, f.chunks)
		}
	}
}

// correct returns a mend that adds to an inode's counts. Unsigned numbers wrap
// around: so a negative difference is added as well.
func (c *checker) correct(number uint64, links uint32, size uint64, chunks uint32) func() error {
	return c.change(func(ch *change) {
		if n := ch.inode(number); n != nil {
			n.Links += links
			n.Size += size
			n.chunks += chunks
			ch.putInode(n)
		}
	})
}

// adopt gives an inode without a name one in the directory of lost inodes. It
// can't have got one meanwhile, because names are only made for inodes that have
// one.
func (s *Server) adopt(ch *change, number uint64, f *facts) {
	n, root := ch.inode(number), ch.inode(wire.RootInode)
	if n == nil || root == nil {
		return
	}
	m := &mutation{change: ch, walker: walker{tables: ch, hash: s.hash, who: &credentials{}}, config: &s.config}
	found, err := m.child(root, []byte(lostAndFound))
	if err != nil || (found != nil && !isDirectory(found)) {
		return
	}
	if found == nil {
		found = m.make(root, []byte(lostAndFound), unix.S_IFDIR|0o700)
	}
	n.Links = 1
	if isDirectory(n) {
		n.Links = 2 + f.foundDirectories
		n.Size = uint64(f.foundEntries)
	}
	n.chunks = f.foundChunks
	m.addEntry(found, fmt.Appendf(nil, "#%d", number), n)
	ch.putInode(n)
}

// checkReach finds directories that lead in a circle and not to the root. They
// have names, so checkCounts does not see them.
func (c *checker) checkReach() {
	if root := c.inodes[wire.RootInode]; root != nil {
		root.reachable = true
	}
	for number, f := range c.inodes {
		if f.mode&unix.S_IFMT != unix.S_IFDIR || f.foundLinks == 0 {
			continue
		}
		var way []*facts
		at := f
		for at != nil && !at.reachable && at.foundLinks > 0 && len(way) <= len(c.inodes) {
			way = append(way, at)
			at = c.inodes[at.parent]
		}
		if len(way) > len(c.inodes) {
			c.problem(nil, "directory %d can't be reached from the root", number)
			continue
		}
		for _, w := range way {
			w.reachable = true
		}
	}
}

func (c *checker) checkTotals() {
	t, f := c.totals, &c.counted
	if t.nextInode < f.nextInode || t.nextChunk < f.nextChunk {
		c.problem(c.change(func(ch *change) {
			ch.totals.nextInode, ch.totals.nextChunk = max(ch.totals.nextInode, f.nextInode), max(ch.totals.nextChunk, f.nextChunk)
			ch.putTotals()
		}), "the next inode and chunk would be %d and %d, which are in use", t.nextInode, t.nextChunk)
	}
	if t.files != f.files || t.directories != f.directories || t.chunks != f.chunks || t.bytes != f.bytes {
		c.problem(c.change(func(ch *change) {
			ch.totals.files += f.files - t.files
			ch.totals.directories += f.directories - t.directories
			ch.totals.chunks += f.chunks - t.chunks
			ch.totals.bytes += f.bytes - t.bytes
			ch.putTotals()
		}), "there are %d files, %d directories, %d chunks and %d bytes, the totals say %d, %d, %d and %d",
			f.files, f.directories, f.chunks, f.bytes, t.files, t.directories, t.chunks, t.bytes)
	}
}
