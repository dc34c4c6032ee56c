package meta

import (
	"context"
	"hash/maphash"
	"log/slog"
	"sync"
	"time"

	"waggle/dfs/datapath/lookup"
	"waggle/dfs/wire"
)

const (
	// maxMisses is how many lookups that the kernel's tables lacked may wait to
	// be put there; the others have to be asked again.
	maxMisses = 1024
	// missMemory is how many of the last misses are remembered.
	missMemory = 1 << 14
)

// mirror keeps the tables of a lookup path in the kernel true. They are a cache
// of the published state like the one in published.go, and follow the same rule:
// what a change touches is forgotten before the new state is published, and
// nothing that was read from an older state is taken after that.
type mirror struct {
	tables *lookup.Tables
	server *Server
	log    *slog.Logger
	misses chan wire.LookupRequest
	seed   maphash.Seed
	delay  time.Duration // see Config.forgetDelay

	// remembered are hashes of what was missed lately. A path is put into the
	// tables when it was missed twice: names that are asked for once would only
	// cost time and push out others.
	rememberedMu sync.Mutex
	remembered   [missMemory]uint64

	mu sync.Mutex
	// forgotten is the newest state that anything was forgotten for, and moves
	// how often a chunk server has changed its address.
	forgotten uint64
	moves     uint64
	// broken: something could not be removed from the tables.
	broken bool
}

// newMirror returns the mirror of a server's tables, or nil if its lookup path
// has none. The methods of a nil mirror do nothing.
func newMirror(s *Server, tables *lookup.Tables) *mirror {
	if tables == nil {
		return nil
	}
	return &mirror{tables: tables, server: s, log: s.log, misses: make(chan wire.LookupRequest, maxMisses),
		seed: maphash.MakeSeed(), delay: s.config.forgetDelay}
}

// forget removes touched keys before the state of that sequence is published.
// It returns the inodes among them that were in the tables.
func (m *mirror) forget(touched []key, sequence uint64) (present []uint64) {
	if m == nil {
		return nil
	}
	var r lookup.Records
	for i := range touched {
		switch k := &touched[i]; k.table() {
		case tableEntry:
			r.Entries = append(r.Entries, lookup.Entry{Parent: k.number(), Name: wire.NameHash(k.b[9:25])})
		case tableInode:
			r.Inodes = append(r.Inodes, lookup.Inode{Attributes: wire.Attributes{Inode: k.number()}})
		case tableChunk:
			r.Locations = append(r.Locations, lookup.Located{Place: lookup.Place{Inode: k.number(), Index: k.second()}})
		}
	}
	if m.delay > 0 {
		time.AfterFunc(m.delay, func() { m.forgetNow(&r, sequence) })
		return nil
	}
	return m.forgetNow(&r, sequence)
}

func (m *mirror) forgetNow(r *lookup.Records, sequence uint64) (present []uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.forgotten = max(m.forgotten, sequence)
	if len(r.Entries)+len(r.Inodes)+len(r.Locations) == 0 {
		return nil
	}
	present, err := m.tables.Forget(r)
	m.check(err)
	return present
}

// restore puts inodes back that a change has touched, from the state that it
// made: a directory in which files are made all the time would else never be in
// the tables.
func (m *mirror) restore(inodes []uint64, p *published) {
	if m == nil || len(inodes) == 0 {
		return
	}
	r := p.snapshot()
	defer r.close()
	var records lookup.Records
	for _, number := range inodes {
		if n := r.inode(number); n != nil {
			records.Inodes = append(records.Inodes, lookup.Inode{Attributes: n.Attributes, Content: n.content})
		}
	}
	if r.err == nil {
		m.put(&records, r.state().sequence, m.movesNow())
	}
}

// missed notes that a lookup came to user space.
func (m *mirror) missed(q *wire.LookupRequest) {
	if m == nil || !m.again(q) {
		return
	}
	select {
	case m.misses <- *q:
	default:
	}
}

// again says whether the same lookup was missed before, and remembers it.
func (m *mirror) again(q *wire.LookupRequest) bool {
	var h maphash.Hash
	h.SetSeed(m.seed)
	maphash.WriteComparable(&h, q.Start)
	maphash.WriteComparable(&h, q.Names)
	maphash.WriteComparable(&h, q.Flags)
	maphash.WriteComparable(&h, q.ChunkIndex)
	sum := h.Sum64()
	m.rememberedMu.Lock()
	defer m.rememberedMu.Unlock()
	slot := &m.remembered[sum%missMemory]
	known := *slot == sum
	*slot = sum
	return known
}

// run puts into the tables what was missed, until ctx ends.
func (m *mirror) run(ctx context.Context) {
	if m == nil {
		return
	}
	for {
		select {
		case <-ctx.Done():
			return
		case q := <-m.misses:
			m.fill(&q)
		}
	}
}

// fill puts all that a lookup reads into the tables.
func (m *mirror) fill(q *wire.LookupRequest) {
	moves := m.movesNow()
	r := m.server.published.snapshot()
	defer r.close()
	var records lookup.Records
	r.seen = func(k key, found record) { m.collect(&records, k, found) }
	var a wire.LookupAnswer
	m.server.resolve(r, &credentials{}, q, &a)
	if r.err != nil || r.view == nil {
		return
	}
	m.put(&records, r.view.sequence, moves)
}

// collect adds what was read under a key; found is nil if there is nothing.
func (m *mirror) collect(records *lookup.Records, k key, found record) {
	switch k.table() {
	case tableEntry:
		e := lookup.Entry{Parent: k.number(), Name: wire.NameHash(k.b[9:25])}
		if names, _ := found.(entries); len(names) == 1 {
			e.Inode = names[0].inode
		} else if len(names) > 1 {
			return // names that share a hash are told apart in user space
		}
		records.Entries = append(records.Entries, e)
	case tableInode:
		if n, _ := found.(*inode); n != nil {
			records.Inodes = append(records.Inodes, lookup.Inode{Attributes: n.Attributes, Content: n.content})
		}
	case tableChunk:
		p := place{k.number(), k.second()}
		located := lookup.Located{Place: lookup.Place{Inode: p.inode, Index: p.index}}
		c, _ := found.(*chunk)
		m.server.fillLocation(p, c, &located.Location)
		records.Locations = append(records.Locations, located)
	}
}

func (m *mirror) movesNow() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.moves
}

// put adds records that were read from the state of that sequence.
func (m *mirror) put(r *lookup.Records, sequence, moves uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if sequence < m.forgotten || moves != m.moves || m.broken {
		return
	}
	if err := m.tables.Put(r); err != nil {
		// What is not there is answered in user space.
		m.log.Debug("put records into the kernel's lookup tables", "error", err)
	}
}

// serversMove calls move, which changes the addresses of chunk servers. Before,
// all locations are forgotten, so that the kernel names no old address when user
// space names a new one; and none that was read before is taken after.
func (m *mirror) serversMove(move func()) {
	if m == nil {
		move()
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.check(m.tables.ForgetLocations())
	move()
	m.moves++
}

func (m *mirror) addSession(s *session) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.tables.PutSession(s.id, s.uid, s.gid, s.groups); err != nil {
		m.log.Warn("admit a session to the kernel's lookup tables; user space answers it", "error", err)
	}
}

func (m *mirror) removeSession(id uint64) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.check(m.tables.RemoveSession(id))
}

// check takes the outcome of a removal. Tables that something could not be
// removed from may hold what is no longer true: nothing is answered from them any
// more.
func (m *mirror) check(err error) {
	if err == nil || m.broken {
		return
	}
	m.broken = true
	m.log.Error("the kernel's lookup tables can't be kept true: lookups are answered in user space from now on", "error", err)
	m.tables.Disable()
}
