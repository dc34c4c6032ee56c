package meta

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"waggle/dfs/meta/store"
	"waggle/dfs/wire/control"
)

const (
	// cleanBatch is how many records one commit of the cleaning changes at most, and
	// how many replicas a chunk server deletes in one call.
	cleanBatch = 1024
	// deletesPerSecond bounds the replicas that are deleted on all servers.
	deletesPerSecond = 8192
)

// cleaner deletes what nobody references: the chunks of removed files, and replicas
// that their chunks have left behind. What there is to be deleted it knows from those
// who leave it, and looks for it in the tables only when the server starts: so it
// never searches through what was deleted before. Nothing else waits for it.
type cleaner struct {
	s       *Server
	limiter *rate.Limiter // of replicas
	wake    chan struct{} // holds an element when there may be something to be done

	mu      sync.Mutex
	garbage []uint64                // removed inodes whose chunks are still there
	strays  map[uint32]*strayChunks // by server
	deleted uint64
}

// strayChunks are the chunks whose replicas one server has to delete.
type strayChunks struct {
	chunks []uint64
	tries  int // that have failed in a row
	due    time.Time
}

func newCleaner(s *Server) *cleaner {
	return &cleaner{s: s, limiter: rate.NewLimiter(deletesPerSecond, cleanBatch), wake: make(chan struct{}, 1),
		strays: make(map[uint32]*strayChunks)}
}

// add leaves inodes and replicas to be deleted, which are on record.
func (c *cleaner) add(garbage []uint64, strays []replica) {
	c.mu.Lock()
	c.garbage = append(c.garbage, garbage...)
	for _, r := range strays {
		of := c.strays[r.server]
		if of == nil {
			of = &strayChunks{}
			c.strays[r.server] = of
		}
		of.chunks = append(of.chunks, r.chunk)
	}
	c.mu.Unlock()
	c.signal()
}

func (c *cleaner) signal() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// load finds what an earlier server has left.
func (c *cleaner) load() error {
	view := c.s.published.acquire()
	defer view.release()
	var garbage []uint64
	var strays []replica
	err := scanTable(view, tableGarbage, func(k key, _ []byte) bool { garbage = append(garbage, k.number()); return true })
	if err == nil {
		err = scanTable(view, tableStray, func(k key, _ []byte) bool {
			strays = append(strays, replica{k.number(), k.second()})
			return true
		})
	}
	c.add(garbage, strays)
	return err
}

// run deletes until ctx ends.
func (c *cleaner) run(ctx context.Context) {
	if err := c.load(); err != nil {
		c.s.log.Error("find what is to be deleted; run fsck", "error", err)
	}
	ticker := time.NewTicker(c.s.config.Heartbeat) // servers come back
	defer ticker.Stop()
	for ctx.Err() == nil {
		garbage, err := c.cleanGarbage(ctx)
		strays := c.cleanStrays(ctx)
		if err != nil && ctx.Err() == nil {
			c.s.log.Error("take the chunks of removed files", "error", err)
		}
		if garbage && err == nil || strays {
			continue
		}
		select {
		case <-ctx.Done():
		case <-c.wake:
		case <-ticker.C:
		}
	}
}

// cleanGarbage takes a batch of chunks from files that were removed. It says whether
// there may be more.
func (c *cleaner) cleanGarbage(ctx context.Context) (more bool, err error) {
	c.mu.Lock()
	inodes := slices.Clone(c.garbage[:min(len(c.garbage), cleanBatch)])
	c.mu.Unlock()
	if len(inodes) == 0 {
		return false, nil
	}
	places, finished, err := c.chunksOf(inodes)
	if err != nil {
		return false, err
	}
	err = c.s.executor.do(ctx, func(ch *change) error {
		removed := &inode{}
		for _, p := range places {
			ch.dropChunk(removed, p)
		}
		for _, inode := range inodes[:finished] {
			ch.delete(garbageKey(inode))
		}
		return nil
	})
	if err != nil {
		return false, err
	}
	c.mu.Lock()
	c.garbage = c.garbage[finished:]
	more = len(c.garbage) > 0
	c.mu.Unlock()
	return more, nil
}

// chunksOf returns at most cleanBatch chunks of inodes, and of how many of the inodes
// these are all. It looks at what is published: nobody gives chunks to inodes that
// were removed.
func (c *cleaner) chunksOf(inodes []uint64) (places []place, finished int, err error) {
	view := c.s.published.acquire()
	defer view.release()
	for _, inode := range inodes {
		first := prefix(tableChunk, inode)
		err := view.Scan(first, store.PrefixEnd(first), func(b, _ []byte) bool {
			k := keyOf(b)
			places = append(places, place{inode, k.second()})
			return len(places) <= cleanBatch
		})
		if err != nil {
			return nil, 0, err
		}
		if len(places) > cleanBatch {
			return places[:cleanBatch], finished, nil
		}
		finished++
	}
	return places, finished, nil
}

// cleanStrays deletes a batch of replicas on each server that is alive and does not
// wait after a failure. It says whether there may be more at once.
func (c *cleaner) cleanStrays(ctx context.Context) (more bool) {
	for id, chunks := range c.batches() {
		if err := c.limiter.WaitN(ctx, len(chunks)); err != nil {
			return false
		}
		err := c.deleteReplicas(ctx, id, chunks)
		if err != nil && ctx.Err() == nil {
			c.s.log.Warn("delete replicas; trying again later", "server", id, "error", err)
		}
		more = c.deletedOn(id, len(chunks), err) || more
	}
	return more
}

func (c *cleaner) batches() map[uint32][]uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	batches := make(map[uint32][]uint64)
	for id, of := range c.strays {
		if len(of.chunks) > 0 && time.Now().After(of.due) && c.s.servers.alive(id) {
			batches[id] = slices.Clone(of.chunks[:min(len(of.chunks), cleanBatch)])
		}
	}
	return batches
}

// deletedOn notes how a batch has ended, and says whether its server has more.
func (c *cleaner) deletedOn(id uint32, count int, err error) (more bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	of := c.strays[id]
	if of == nil {
		return false // its server was removed meanwhile
	}
	if err != nil {
		of.due = time.Now().Add(retryAfter(of.tries))
		of.tries++
		return false
	}
	c.deleted += uint64(count)
	of.tries = 0
	if of.chunks = of.chunks[count:]; len(of.chunks) == 0 {
		delete(c.strays, id)
		return false
	}
	return true
}

// straysOn returns the chunks whose replicas a server has to delete.
func (c *cleaner) straysOn(server uint32) []uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if of := c.strays[server]; of != nil {
		return slices.Clone(of.chunks)
	}
	return nil
}

// forget is called when a server was removed from the cluster.
func (c *cleaner) forget(server uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.strays, server)
}

// state says how many removed files and replicas wait, and how many replicas were
// deleted.
func (c *cleaner) state() (files, replicas int, deleted uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, of := range c.strays {
		replicas += len(of.chunks)
	}
	return len(c.garbage), replicas, c.deleted
}

// deleteReplicas deletes replicas on one server.
func (c *cleaner) deleteReplicas(ctx context.Context, id uint32, chunks []uint64) error {
	r := c.s.published.snapshot()
	defer r.close()
	var orphans []uint64
	for _, chunk := range chunks {
		at, owned := r.findChunk(chunk)
		if owned == nil {
			orphans = append(orphans, chunk) // and for ever: numbers are not used twice
			continue
		}
		if err := c.deleteLeftBehind(ctx, id, at, chunk); err != nil {
			return err
		}
	}
	if r.err != nil {
		return r.err
	}
	return c.deleteOn(ctx, id, orphans)
}

// deleteLeftBehind deletes a replica of a chunk that has others, unless the
// chunk counts on it again.
func (c *cleaner) deleteLeftBehind(ctx context.Context, id uint32, at place, chunk uint64) error {
	unlock, err := c.s.places.lock(ctx, at)
	if err != nil {
		return err
	}
	defer unlock()
	r := c.s.published.snapshot()
	defer r.close()
	_, owned := r.findChunk(chunk)
	switch {
	case r.err != nil:
		return r.err
	case owned != nil && slices.Contains(owned.servers, id):
		return c.forgetStrays(ctx, id, []uint64{chunk})
	}
	return c.deleteOn(ctx, id, []uint64{chunk})
}

func (c *cleaner) deleteOn(ctx context.Context, id uint32, chunks []uint64) error {
	if len(chunks) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, deleteTimeout)
	defer cancel()
	service, err := c.s.servers.chunk(id)
	if err != nil {
		return err
	}
	if _, err := service.Delete(ctx, &control.ChunkIDs{Chunks: chunks}); err != nil {
		return fmt.Errorf("delete %d replicas on chunk server %d: %w", len(chunks), id, err)
	}
	return c.forgetStrays(ctx, id, chunks)
}

func (c *cleaner) forgetStrays(ctx context.Context, id uint32, chunks []uint64) error {
	return c.s.executor.do(ctx, func(ch *change) error {
		for _, chunk := range chunks {
			ch.delete(strayKey(chunk, id))
		}
		return nil
	})
}
