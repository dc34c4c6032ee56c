package station

import (
	"fmt"

	"waggle/experiments/sim/engine"
)

// Cache is a page cache: blocks by number, the least recently used one goes. A
// read of a block that is there skips the steps that would bring it (Step.Skip).
// A write is a visit of [Dirty].
type Cache struct {
	basis
	room         int
	before, next []int32 // by block; block count is the end of the list
	present      []bool
	used         int
	Hits, Misses int64
}

// MaxBlocks is how many blocks a cache can know.
const MaxBlocks = 1 << 24

// NewCache returns an empty cache with room for some of so many blocks.
func NewCache(blocks, room int) (*Cache, error) {
	if blocks < 1 || blocks > MaxBlocks || room < 1 {
		return nil, fmt.Errorf("a cache for %d of %d blocks: 1 to %d are possible", room, blocks, MaxBlocks)
	}
	c := &Cache{room: room, before: make([]int32, blocks+1), next: make([]int32, blocks+1), present: make([]bool, blocks)}
	end := int32(blocks)
	c.before[end], c.next[end] = end, end
	return c, nil
}

func (c *Cache) arrive(job int32, _ int64, step *Step) {
	key := c.n.jobs[job].Key
	if c.use(key) {
		c.Hits++
		c.n.leave(job, step.Skip)
		return
	}
	c.Misses++
	c.n.leave(job, 0)
}

// use makes a block the most recently used one, and says whether it was there.
func (c *Cache) use(key int32) bool {
	hit := c.present[key]
	switch {
	case hit:
		c.unlink(key)
	case c.used == c.room:
		oldest := c.before[len(c.present)]
		c.unlink(oldest)
		c.present[oldest] = false
	default:
		c.used++
	}
	end := int32(len(c.present))
	first := c.next[end]
	c.next[end], c.before[key], c.next[key], c.before[first] = key, end, first, key
	c.present[key] = true
	return hit
}

func (c *Cache) unlink(key int32) {
	c.next[c.before[key]], c.before[c.next[key]] = c.next[key], c.before[key]
}

// Handle is never called: a cache takes no time.
func (c *Cache) Handle(*engine.Engine, engine.Event) { panic("station: a cache has no events") }

// Dirty is the part of a page cache that waits to be written back. A write
// leaves at once while there is room, and else waits for the disk, which writes
// back all the time.
type Dirty struct {
	basis
	limit int64
	rate  float64 // bytes a nanosecond
	dirty float64
	since int64
	queue line
}

// NewDirty returns room for so many dirty bytes, written back at a rate.
func NewDirty(limit int64, bytesPerSecond float64) (*Dirty, error) {
	if limit < 1 || !(bytesPerSecond > 0) {
		return nil, fmt.Errorf("room for %d dirty bytes, written back at %v B/s: both must be above 0", limit, bytesPerSecond)
	}
	return &Dirty{limit: limit, rate: bytesPerSecond / 1e9}, nil
}

func (d *Dirty) advance() {
	now := d.n.Engine.Now()
	d.dirty = max(0, d.dirty-float64(float64(now-d.since)*d.rate))
	d.since = now
}

func (d *Dirty) arrive(job int32, bytes int64, _ *Step) {
	d.advance()
	if d.queue.count == 0 && d.dirty < float64(d.limit) {
		d.dirty += float64(bytes)
		d.n.leave(job, 0)
		return
	}
	d.queue.push(waiter{job: job, amount: bytes})
	if d.queue.count == 1 {
		d.wait()
	}
}

// wait comes back when there is room again.
func (d *Dirty) wait() {
	d.schedule(1+int64(max(0, d.dirty-float64(d.limit))/d.rate), -1)
}

// Handle lets a waiting writer go on.
func (d *Dirty) Handle(*engine.Engine, engine.Event) {
	d.advance()
	if d.dirty >= float64(d.limit) {
		d.wait()
		return
	}
	w := d.queue.pop()
	d.dirty += float64(w.amount)
	if d.queue.count > 0 {
		d.wait()
	}
	d.n.leave(w.job, 0)
}
