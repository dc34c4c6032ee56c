package dataconn

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"time"

	"waggle/dfs/wire"
)

// maxAvoided is how many servers are remembered. With more, all are forgotten:
// then each is tried once more.
const maxAvoided = 4096

// Avoided remembers servers that have failed, for AvoidTime each. The zero value
// is ready.
type Avoided struct {
	mu    sync.Mutex
	until map[netip.AddrPort]time.Time
}

// Note notes that a server has failed.
func (a *Avoided) Note(address netip.AddrPort) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.until == nil || len(a.until) >= maxAvoided {
		a.until = make(map[netip.AddrPort]time.Time)
	}
	a.until[address] = time.Now().Add(AvoidTime)
}

// Order returns replicas in the order in which to try them: at random, to spread
// the load, those on servers that have failed lately last.
func (a *Avoided) Order(replicas []wire.Replica) []wire.Replica {
	ordered := slices.Clone(replicas)
	rand.Shuffle(len(ordered), func(i, j int) { ordered[i], ordered[j] = ordered[j], ordered[i] })
	if avoided := a.among(replicas); len(avoided) > 0 {
		slices.SortStableFunc(ordered, func(x, y wire.Replica) int {
			return rank(avoided, x) - rank(avoided, y)
		})
	}
	return ordered
}

// Choose picks one of the replicas as Order would put it first, but none on a
// server that is refused.
func (a *Avoided) Choose(replicas []wire.Replica, refused []uint32) (wire.Replica, bool) {
	avoided := a.among(replicas)
	var chosen wire.Replica
	candidates, best := 0, 1
	for _, r := range replicas {
		at := rank(avoided, r)
		if slices.Contains(refused, r.Server) || at > best {
			continue
		}
		if at < best { // better than all before it
			candidates, best = 0, at
		}
		candidates++
		if rand.IntN(candidates) == 0 {
			chosen = r
		}
	}
	return chosen, candidates > 0
}

// among returns which of the replicas' servers are avoided now.
func (a *Avoided) among(replicas []wire.Replica) []netip.AddrPort {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.until) == 0 {
		return nil
	}
	var avoided []netip.AddrPort
	now := time.Now()
	for _, r := range replicas {
		until, noted := a.until[r.Address]
		switch {
		case noted && now.Before(until):
			avoided = append(avoided, r.Address)
		case noted:
			delete(a.until, r.Address)
		}
	}
	return avoided
}

// rank is 1 for a replica on a server that is avoided, else 0.
func rank(avoided []netip.AddrPort, r wire.Replica) int {
	if slices.Contains(avoided, r.Address) {
		return 1
	}
	return 0
}
