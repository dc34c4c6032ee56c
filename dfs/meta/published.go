package meta

import (
	"errors"
	"hash/maphash"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"waggle/dfs/meta/store"
)

// published is the state that readers see: all that is durable, and nothing
// else, so that a crash can't take back what somebody saw. In front of it is a
// cache of decoded records.
type published struct {
	cache  *cache
	mirror *mirror // nil: lookups are answered in user space only
	// sequence is that of the state whose changes the cache knows of. It runs
	// ahead of the current view for a moment: see advance.
	sequence atomic.Uint64

	mu      sync.RWMutex
	current *view
}

// view is one published state. Its sequence grows with every group.
type view struct {
	store.View
	sequence uint64
	users    atomic.Int64
}

func newPublished(state store.View, cachedRecords int) *published {
	p := &published{cache: newCache(cachedRecords), current: &view{View: state}}
	p.current.users.Store(1)
	return p
}

// advance publishes the state after a group that touched some keys. Every copy
// of a touched key is removed first, while readers still get the old state: so
// from one moment on all of them get the new one, and nobody puts an old record
// back. The tables in the kernel lose the touched keys first of all, because
// whoever walks through them looks at nothing else.
//
// What the cache holds is true in the new state from then on; a reader that
// looks at both can tell from the view's sequence that they don't match yet.
func (p *published) advance(state store.View, touched []key) {
	next := &view{View: state, sequence: p.current.sequence + 1}
	next.users.Store(1)
	mirrored := p.mirror.forget(touched, next.sequence)
	p.cache.forget(touched, next.sequence)
	p.sequence.Store(next.sequence)
	p.mu.Lock()
	last := p.current
	p.current = next
	p.mu.Unlock()
	last.release()
	p.mirror.restore(mirrored, p)
}

func (p *published) close() { p.current.release() }

// acquire returns the current view, to be released.
func (p *published) acquire() *view {
	p.mu.RLock()
	defer p.mu.RUnlock()
	p.current.users.Add(1)
	return p.current
}

func (v *view) release() {
	if v.users.Add(-1) == 0 {
		v.View.Close()
	}
}

// reader reads the published state. Records that it returns are shared and must
// not be changed. The first failure of the store stays in err.
type reader struct {
	published *published
	cached    bool
	view      *view // acquired with the first read that the cache does not answer
	err       error
	// seen, if set, is called with everything that is read; nil: there is nothing.
	seen func(k key, found record)
}

// snapshot returns a reader of one state, without the cache. It must be closed.
func (p *published) snapshot() *reader { return &reader{published: p} }

// readCached calls f with a reader that may use the cache, and calls it again
// with one that may not if the state moved on meanwhile: so what f has read in
// the end is from one state.
func (p *published) readCached(f func(*reader)) error {
	r := reader{published: p, cached: true}
	sequence := p.sequence.Load()
	f(&r)
	moved := p.sequence.Load() != sequence || (r.view != nil && r.view.sequence != sequence)
	r.close()
	if !moved {
		return r.err
	}
	r = reader{published: p}
	defer r.close()
	f(&r)
	return r.err
}

func (r *reader) close() {
	if r.view != nil {
		r.view.release()
		r.view = nil
	}
}

// forgive goes on after a record that can't be read: it is as if there were
// none. It says whether there was one.
func (r *reader) forgive() bool {
	damaged := errors.Is(r.err, errDamaged)
	if damaged {
		r.err = nil
	}
	return damaged
}

func (r *reader) state() *view {
	if r.view == nil {
		r.view = r.published.acquire()
	}
	return r.view
}

// read returns the record of a key.
func read[R record](r *reader, k key, decode func([]byte) (R, error)) (found R, exists bool) {
	if r.cached {
		if record, known := r.published.cache.get(k); known {
			if record == nil {
				return found, false
			}
			return record.(R), true
		}
	}
	if r.err != nil {
		return found, false
	}
	v := r.state()
	value, exists, err := v.Get(k.bytes())
	if err == nil && exists {
		found, err = decode(value)
	}
	if err != nil {
		r.err = err
		return found, false
	}
	var got record
	if exists {
		got = found
	}
	if r.cached {
		r.published.cache.fill(k, got, v.sequence)
	}
	if r.seen != nil {
		r.seen(k, got)
	}
	return found, exists
}

func (r *reader) inode(number uint64) *inode {
	n, _ := read(r, inodeKey(number), decodeInode)
	return n
}

func (r *reader) entries(k key) entries {
	list, _ := read(r, k, decodeEntries)
	return list
}

func (r *reader) chunk(p place) *chunk {
	c, _ := read(r, chunkKey(p), decodeChunk)
	return c
}

// cache holds decoded records, and the knowledge that there is none, for many
// readers.
type cache struct {
	seed   maphash.Seed
	shards [cacheShards]cacheShard
}

const cacheShards = 64

type cacheShard struct {
	mu      sync.Mutex
	records *simplelru.LRU[key, record]
	// forgotten is the newest state that a key of this shard was forgotten for.
	// What was read from an older state may be old, and is not taken.
	forgotten uint64
	_         [64]byte // a cache line of its own
}

func newCache(records int) *cache {
	c := &cache{seed: maphash.MakeSeed()}
	for i := range c.shards {
		lru, err := simplelru.NewLRU[key, record](max(records/cacheShards, 1), nil)
		if err != nil {
			panic(err) // only a size below one is refused
		}
		c.shards[i].records = lru
	}
	return c
}

func (c *cache) shard(k *key) *cacheShard {
	return &c.shards[maphash.Bytes(c.seed, k.bytes())%cacheShards]
}

func (c *cache) get(k key) (record, bool) {
	s := c.shard(&k)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.records.Get(k)
}

// fill takes a record that was read from the state of that sequence.
func (c *cache) fill(k key, r record, sequence uint64) {
	s := c.shard(&k)
	s.mu.Lock()
	defer s.mu.Unlock()
	if sequence >= s.forgotten {
		s.records.Add(k, r)
	}
}

// forget removes keys that the state of that sequence has changed.
func (c *cache) forget(keys []key, sequence uint64) {
	for i := range keys {
		s := c.shard(&keys[i])
		s.mu.Lock()
		s.records.Remove(keys[i])
		s.forgotten = sequence
		s.mu.Unlock()
	}
}
