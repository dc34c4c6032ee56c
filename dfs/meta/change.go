package meta

import (
	"bytes"
	"slices"

	"waggle/dfs/meta/store"
)

// change is the state of the metadata while a group of mutations is carried
// out: all that was committed, and on top of it what the group has changed so
// far. Only the executor's goroutine uses it.
//
// A mutation looks at everything first and changes records last, so one that is
// refused leaves nothing behind. A failure of the store stays in err, and the
// group it happened in is never committed: so what a mutation does after one,
// with records that seem to be missing, is of no consequence.
type change struct {
	store store.Store
	// latest holds records that were read or changed lately. Records are changed
	// in place and then put.
	latest      map[key]slot
	latestBytes int
	touched     []key // changed by this group
	// chores are left by this group for the mender.
	chores chores
	totals *totals
	nowNs  int64
	err    error
}

// slot is what is known of a key; no record says that there is none.
type slot struct {
	record  record
	touched bool
}

// maxLatestBytes bounds the encoded size of the records in change.latest.
const maxLatestBytes = 16 << 20

// begin starts a group.
func (c *change) begin(nowNs int64) {
	if c.latest == nil || c.latestBytes > maxLatestBytes {
		c.latest = make(map[key]slot)
		c.latestBytes = 0
		c.totals = nil
	}
	if c.totals == nil {
		c.totals, _ = load(c, totalsKey(), decodeTotals)
	}
	c.touched = nil
	c.chores = chores{}
	c.nowNs = nowNs
}

// encode writes what the group has changed to a batch.
func (c *change) encode(batch store.Batch) error {
	var buffer []byte
	for i := range c.touched {
		k := &c.touched[i]
		s := c.latest[*k]
		s.touched = false
		c.latest[*k] = s
		if s.record == nil {
			if err := batch.Delete(k.bytes()); err != nil {
				return err
			}
			continue
		}
		buffer = s.record.append(buffer[:0])
		c.latestBytes += len(buffer)
		if err := batch.Set(k.bytes(), buffer); err != nil {
			return err
		}
	}
	return nil
}

// load returns the record of a key.
func load[R record](c *change, k key, decode func([]byte) (R, error)) (r R, found bool) {
	if s, known := c.latest[k]; known {
		if s.record == nil {
			return r, false
		}
		return s.record.(R), true
	}
	if c.err != nil {
		return r, false
	}
	value, found, err := c.store.Get(k.bytes())
	if err == nil && found {
		r, err = decode(value)
	}
	if err != nil {
		c.err = err
		return r, false
	}
	c.latestBytes += len(k.b) + len(value)
	if !found {
		c.latest[k] = slot{}
		return r, false
	}
	c.latest[k] = slot{record: r}
	return r, true
}

// put changes a record; a nil one is deleted.
func (c *change) put(k key, r record) {
	if !c.latest[k].touched {
		c.touched = append(c.touched, k)
	}
	c.latest[k] = slot{record: r, touched: true}
}

func (c *change) delete(k key) { c.put(k, nil) }

// putTotals is called after c.totals was changed.
func (c *change) putTotals() { c.put(totalsKey(), c.totals) }

// keys returns the first keys with a prefix, in order and at most limit of them.
func (c *change) keys(prefix []byte, limit int) []key {
	if c.err != nil {
		return nil
	}
	var found []key
	c.err = c.store.Scan(prefix, store.PrefixEnd(prefix), func(b, _ []byte) bool {
		if k := keyOf(b); !c.latest[k].touched {
			found = append(found, k)
		}
		return len(found) < limit
	})
	for _, k := range c.touched {
		if bytes.HasPrefix(k.bytes(), prefix) && c.latest[k].record != nil {
			found = append(found, k)
		}
	}
	slices.SortFunc(found, func(a, b key) int { return bytes.Compare(a.bytes(), b.bytes()) })
	return found[:min(len(found), limit)]
}

func (c *change) inode(number uint64) *inode {
	n, _ := load(c, inodeKey(number), decodeInode)
	return n
}

func (c *change) entries(k key) entries {
	list, _ := load(c, k, decodeEntries)
	return list
}

func (c *change) chunk(p place) *chunk {
	found, _ := load(c, chunkKey(p), decodeChunk)
	return found
}

// putInode changes an inode: the caller has changed n, which c.inode returned,
// and has yet to say so.
func (c *change) putInode(n *inode) {
	n.Version++
	n.ChangedNs = c.nowNs
	c.put(inodeKey(n.Inode), n)
}

func (c *change) putChunk(p place, r *chunk) { c.put(chunkKey(p), r) }

// dropChunk takes a chunk from its file and leaves its replicas to be deleted.
// The file's own record is changed, but not yet put.
func (c *change) dropChunk(n *inode, p place) {
	dropped := c.chunk(p)
	if dropped == nil {
		return
	}
	for _, server := range dropped.servers {
		c.putStray(dropped.id, server)
	}
	c.delete(chunkKey(p))
	c.delete(ownerKey(dropped.id))
	c.delete(leaseKey(p))
	n.chunks--
	c.totals.chunks--
	c.putTotals()
}

// putStray leaves a replica to be deleted.
func (c *change) putStray(chunk uint64, server uint32) {
	c.put(strayKey(chunk, server), mark{})
	c.chores.strays = append(c.chores.strays, replica{chunk, server})
}

// abandonLease takes the lease of an open chunk from its session. The chunk has
// to be settled before anybody else may write to it.
func (c *change) abandonLease(p place) {
	if open := c.chunk(p); open != nil {
		open.session = 0
		c.putChunk(p, open)
	}
	c.put(leaseKey(p), holder(0))
	c.chores.mend = append(c.chores.mend, p)
}
