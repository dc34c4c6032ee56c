package meta

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"waggle/dfs/weaken"
	"waggle/dfs/wire/control"
)

// A replica that is left behind by its chunk must not be read from any more
// before a writer is told that something newer is acknowledged, because clients
// remember where chunks are. So its server is told of a fence, and the new epoch
// opens when
//
//   - the server has confirmed the fence, or
//   - the server's lease to serve has certainly lapsed. Every answer that extends
//     the lease carries the fences that are not confirmed, and the server puts them
//     up first: so the lease that counts is the one from before the fence.
//
// A server that has lost its lease, or starts, serves nothing until it has
// reported its replicas and was told which of them are behind.

// fences are what chunk servers are to be told, and how long they may serve.
type fences struct {
	term    time.Duration // for which a server may serve at most after it was answered
	started time.Time

	mu      sync.Mutex
	servers map[uint32]*fencedServer
}

type fencedServer struct {
	incarnation uint64
	serves      time.Time // until when at most
	last        uint64    // number of the last fence
	up          []*fence  // in the order of their numbers
}

type fence struct {
	number, chunk, epoch uint64
	made                 time.Time
	lapses               time.Time // the server's lease from before it was told
	confirmed            chan struct{}
	once                 sync.Once
}

func (p *fence) confirm() { p.once.Do(func() { close(p.confirmed) }) }

func (p *fence) isConfirmed() bool {
	select {
	case <-p.confirmed:
		return true
	default:
		return false
	}
}

// keepFences is for how long a fence is told to a server that reports its
// replicas: longer than it takes to record the epoch that the fence is for, which
// says the same from then on.
const keepFences = 10 * time.Minute

func newFences(term time.Duration) *fences {
	return &fences{term: term, started: time.Now(), servers: make(map[uint32]*fencedServer)}
}

// of returns a server; one that this metadata server has not heard of may have a
// lease from the one before.
func (f *fences) of(id uint32) *fencedServer {
	s := f.servers[id]
	if s == nil {
		s = &fencedServer{serves: f.started.Add(f.term)}
		f.servers[id] = s
	}
	return s
}

// registers notes that a server serves nothing now, if it is a process that was
// not heard of before: then the one before it has ended.
func (f *fences) registers(id uint32, incarnation uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.of(id)
	if s.incarnation != incarnation {
		s.incarnation = incarnation
		s.end()
	}
}

// leaves notes that a server has stopped serving.
func (f *fences) leaves(id uint32) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.of(id).end()
}

func (s *fencedServer) end() {
	s.serves = time.Now()
	for _, p := range s.up {
		p.confirm()
	}
}

// beats is called when a server is about to be answered that it may go on serving.
// It returns the fences that the answer has to carry.
func (f *fences) beats(id uint32, confirmed uint64) []*control.Fence {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.of(id)
	for _, p := range s.up {
		if p.number <= confirmed {
			p.confirm()
		}
	}
	return s.extend(f.term, false)
}

// begins is beats for a server that has reported its replicas.
func (f *fences) begins(id uint32) []*control.Fence {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.of(id).extend(f.term, true)
}

func (s *fencedServer) extend(term time.Duration, all bool) (list []*control.Fence) {
	s.serves = time.Now().Add(term)
	for _, p := range s.up {
		if all || !p.isConfirmed() {
			list = append(list, &control.Fence{Number: p.number, Chunk: p.chunk, Epoch: p.epoch})
		}
	}
	return list
}

// put forbids a server to serve reads of a chunk from replicas of an epoch before
// the one given.
func (f *fences) put(id uint32, chunk, epoch uint64) *fence {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.of(id)
	now := time.Now()
	s.up = slices.DeleteFunc(s.up, func(p *fence) bool {
		return now.Sub(p.made) > keepFences && (p.isConfirmed() || s.serves.Before(now))
	})
	for _, p := range s.up {
		if p.chunk == chunk && p.epoch == epoch {
			return p
		}
	}
	s.last++
	made := &fence{number: s.last, chunk: chunk, epoch: epoch, made: now, lapses: s.serves, confirmed: make(chan struct{})}
	s.up = append(s.up, made)
	return made
}

// await waits until nobody can read from the replica behind a fence.
func (p *fence) await(ctx context.Context) error {
	lapsed := time.NewTimer(time.Until(p.lapses))
	defer lapsed.Stop()
	select {
	case <-p.confirmed:
	case <-lapsed.C:
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// leaveBehind makes sure that no replica of a chunk on some servers is read from
// any more.
func (s *Server) leaveBehind(ctx context.Context, chunk, epoch uint64, servers []uint32) error {
	if weaken.On(weaken.FenceLeftBehind) {
		return nil
	}
	failed := forEach(servers, func(id uint32) (error, error) {
		made := s.fences.put(id, chunk, epoch)
		ctx, cancel := context.WithCancel(ctx)
		told := make(chan struct{})
		go func() {
			defer close(told)
			if s.tellFence(ctx, id, chunk, epoch) == nil {
				made.confirm()
			}
		}()
		err := made.await(ctx)
		cancel()
		<-told
		return err, nil
	}, nil)
	return errors.Join(failed...)
}

// tellFence tells a server of a fence without waiting for its next heartbeat.
func (s *Server) tellFence(ctx context.Context, id uint32, chunk, epoch uint64) error {
	ctx, cancel := context.WithTimeout(ctx, sealTimeout)
	defer cancel()
	service, err := s.servers.chunk(id)
	if err == nil {
		_, err = service.Fence(ctx, &control.ReplicaEpoch{Chunk: chunk, Epoch: epoch})
	}
	return err
}

// isBehind says whether a replica that its server has reported may lack something
// that was acknowledged. Of a chunk that is being written the writer alone knows
// what was, so after a restart of the server, by which unsynced writes may have been
// lost, it has to be compared.
func isBehind(state *control.ReplicaState, c *chunk, fresh bool) bool {
	return fresh && c.open || state.Fenced || state.Epoch < c.epoch || state.Torn || state.Sequence < c.sequence || state.Length < uint64(c.expected())
}

// servingTime is for how long a chunk server may serve after it has sent a
// heartbeat. It counts from an earlier moment than this server does, and its clock
// may be slower.
func (s *Server) servingTime() time.Duration { return s.config.DeadAfter * 3 / 4 }
