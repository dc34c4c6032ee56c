package meta

import (
	"context"
	"sync"

	"google.golang.org/grpc/status"
)

// placeLocks are held by whoever changes the epoch or the servers of a chunk,
// over calls to chunk servers.
type placeLocks struct {
	mu    sync.Mutex
	locks map[place]*placeLock
}

type placeLock struct {
	slot  chan struct{} // holds one element while the lock is held
	users int           // that hold it or wait for it
}

// lock waits for the lock of a place and returns what gives it back.
func (l *placeLocks) lock(ctx context.Context, p place) (unlock func(), err error) {
	lock := l.use(p)
	select {
	case lock.slot <- struct{}{}:
		return func() { <-lock.slot; l.leave(p, lock) }, nil
	case <-ctx.Done():
		l.leave(p, lock)
		return nil, status.FromContextError(ctx.Err()).Err()
	}
}

func (l *placeLocks) use(p place) *placeLock {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.locks == nil {
		l.locks = make(map[place]*placeLock)
	}
	lock := l.locks[p]
	if lock == nil {
		lock = &placeLock{slot: make(chan struct{}, 1)}
		l.locks[p] = lock
	}
	lock.users++
	return lock
}

func (l *placeLocks) leave(p place, lock *placeLock) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if lock.users--; lock.users == 0 {
		delete(l.locks, p)
	}
}

// making are the replicas that are being made and are not on record yet: they
// must not be taken for ones that nobody wants.
type making struct {
	mu       sync.Mutex
	replicas map[replica]int
}

type replica struct {
	chunk  uint64
	server uint32
}

func (m *making) add(chunk uint64, servers []uint32) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.replicas == nil {
		m.replicas = make(map[replica]int)
	}
	for _, server := range servers {
		m.replicas[replica{chunk, server}]++
	}
}

func (m *making) remove(chunk uint64, servers []uint32) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, server := range servers {
		r := replica{chunk, server}
		if m.replicas[r]--; m.replicas[r] == 0 {
			delete(m.replicas, r)
		}
	}
}

func (m *making) has(chunk uint64, server uint32) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.replicas[replica{chunk, server}] > 0
}
