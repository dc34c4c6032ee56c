package datapath

import (
	"sync"
	"sync/atomic"
)

// Counters are the named counts of one process: what its data paths did (their
// proof), and how many bytes they copied inside the process on purpose. Names
// are lower case with underscores, end in their unit, and begin with the path:
// "read_copy_bytes", "lookup_udp_answers". The names of the constants below are
// shared by all paths.
//
// The zero value is ready to use, from any goroutine.
type Counters struct {
	mu      sync.RWMutex
	counts  map[string]*atomic.Int64
	sources []func(map[string]int64)
}

// CopiedInUser is the counter of bytes that a path copied inside its process.
const CopiedInUser = "copied_in_user_bytes"

// CopiedToKernel and CopiedFromKernel are the counters of bytes that the kernel
// copied between memory which a process shares with it (AF_XDP's) and its own. No
// system call says how many that are, so the path that knows counts them.
const (
	CopiedToKernel   = "copied_user_to_kernel_bytes"
	CopiedFromKernel = "copied_kernel_to_user_bytes"
)

// Counter returns the counter of that name, to be kept by whoever counts often.
func (c *Counters) Counter(name string) *atomic.Int64 {
	c.mu.RLock()
	n := c.counts[name]
	c.mu.RUnlock()
	if n != nil {
		return n
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.counts == nil {
		c.counts = make(map[string]*atomic.Int64)
	}
	if c.counts[name] == nil {
		c.counts[name] = new(atomic.Int64)
	}
	return c.counts[name]
}

// AddSource has every snapshot call source, which adds counts that are kept
// elsewhere, in the kernel for one.
func (c *Counters) AddSource(source func(counts map[string]int64)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sources = append(c.sources, source)
}

// Snapshot returns all counts.
func (c *Counters) Snapshot() map[string]int64 {
	c.mu.RLock()
	defer c.mu.RUnlock()
	counts := make(map[string]int64, len(c.counts))
	for name, n := range c.counts {
		counts[name] = n.Load()
	}
	for _, source := range c.sources {
		source(counts)
	}
	return counts
}
