package gateway

import (
	"context"
	"slices"
	"sync"

	"waggle/dfs/gateway/dav"
)

// claims keep changes apart that have to do with the same names, from the check of
// their conditions to their end: of two clients that replace the same version of a
// file, only one may find that version. They are no locks of WebDAV: a request
// waits for them, and holds them for a moment.
type claims struct {
	mu    sync.Mutex
	held  []*claim
	freed chan struct{} // is closed when a claim has ended
}

type claim struct{ names []claimed }

// claimed is a path that is claimed, if deep with all below it.
type claimed struct {
	path string
	deep bool
}

func newClaims() *claims { return &claims{freed: make(chan struct{})} }

// take waits until nobody else has any of the names, and takes all of them.
func (c *claims) take(ctx context.Context, names []claimed) (release func(), err error) {
	mine := &claim{names}
	for {
		freed := c.try(mine)
		if freed == nil {
			return func() { c.release(mine) }, nil
		}
		select {
		case <-freed:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// try takes a claim, or returns what to wait for.
func (c *claims) try(mine *claim) (freed <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if slices.ContainsFunc(c.held, mine.collides) {
		return c.freed
	}
	c.held = append(c.held, mine)
	return nil
}

func (c *claims) release(mine *claim) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held = slices.DeleteFunc(c.held, func(other *claim) bool { return other == mine })
	close(c.freed)
	c.freed = make(chan struct{})
}

func (c *claim) collides(other *claim) bool {
	for _, a := range c.names {
		for _, b := range other.names {
			if a.path == b.path || a.deep && dav.IsBelow(b.path, a.path) || b.deep && dav.IsBelow(a.path, b.path) {
				return true
			}
		}
	}
	return false
}
