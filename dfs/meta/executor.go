package meta

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"waggle/dfs/meta/store"
)

// Limits of a group.
const (
	maxQueued = 1024 // jobs that wait for the executor
	maxGroup  = 512  // jobs that share a commit
)

// executor carries out all changes of the metadata, one after another, in
// groups that share a commit. It has two goroutines: one executes a group and
// commits it, the other waits until the commit is durable, publishes the new
// state, and then acknowledges. So the next group is executed while the disk is
// at work, on top of a state that nobody else has seen yet.
type executor struct {
	store     store.Store
	published *published
	chores    func(chores) // is told of the work that durable changes leave
	change    change
	queue     chan *job
	groups    chan group
	stop      chan struct{} // closed: take no more jobs
	stopOnce  sync.Once
	finished  chan struct{} // closed: no job is acknowledged any more

	mu      sync.Mutex
	failure error // why the executor ended, if it had to
}

// job is a function that changes the metadata. Its error is a refusal: then it
// has changed nothing.
type job struct {
	ctx  context.Context
	run  func(*change) error
	err  error
	done chan struct{}
}

// group is what shares a commit.
type group struct {
	jobs    []*job
	pending store.Pending // nil if nothing was changed
	state   store.View
	touched []key
	chores  chores
}

func newExecutor(s store.Store, p *published, do func(chores)) *executor {
	return &executor{
		store:     s,
		published: p,
		chores:    do,
		change:    change{store: s},
		queue:     make(chan *job, maxQueued),
		groups:    make(chan group), // no room: a group grows while the one before syncs
		stop:      make(chan struct{}),
		finished:  make(chan struct{}),
	}
}

// start starts the executor's goroutines. They end after close, or when the
// store fails.
func (e *executor) start() {
	go e.execute()
	go e.acknowledge()
}

// close lets the group under way be acknowledged, refuses the jobs that wait,
// and returns the failure that ended the executor, if one did.
func (e *executor) close() error {
	e.stopOnce.Do(func() { close(e.stop) })
	<-e.finished
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.failure
}

var errStopping = status.Error(codes.Unavailable, "the metadata server is stopping")

// do has a job carried out and returns when what it did is durable and seen by
// every reader. If ctx ends before, the job may or may not be carried out.
func (e *executor) do(ctx context.Context, run func(*change) error) error {
	j := &job{ctx: ctx, run: run, done: make(chan struct{})}
	select {
	case e.queue <- j:
	case <-ctx.Done():
		return status.FromContextError(ctx.Err()).Err()
	case <-e.stop:
		return errStopping
	}
	select {
	case <-j.done:
		return j.err
	case <-ctx.Done():
		return status.FromContextError(ctx.Err()).Err()
	case <-e.finished:
	}
	select {
	case <-j.done:
		return j.err
	default:
		return errStopping
	}
}

func (e *executor) execute() {
	defer close(e.groups)
	for {
		select {
		case <-e.stop:
			return
		case j := <-e.queue:
			g, err := e.executeGroup(j)
			if err != nil {
				e.fail(err)
				return
			}
			e.groups <- g
		}
	}
}

// executeGroup carries out a job and those that wait behind it, and commits them.
func (e *executor) executeGroup(j *job) (group, error) {
	c := &e.change
	c.begin(time.Now().UnixNano())
	var g group
	for waiting := true; waiting; {
		if j.ctx.Err() == nil {
			j.err = j.run(c)
		} else {
			j.err = status.FromContextError(j.ctx.Err()).Err()
		}
		g.jobs = append(g.jobs, j)
		if len(g.jobs) == maxGroup {
			break
		}
		select {
		case j = <-e.queue:
		default:
			waiting = false
		}
	}
	if c.err != nil {
		return g, c.err
	}
	g.chores = c.chores
	if g.touched = c.touched; len(g.touched) == 0 {
		return g, nil
	}
	batch := e.store.NewBatch()
	if err := c.encode(batch); err != nil {
		return g, fmt.Errorf("encode a group of changes: %w", err)
	}
	var err error
	if g.pending, err = e.store.Commit(batch); err != nil {
		return g, err
	}
	g.state = e.store.View()
	return g, nil
}

func (e *executor) acknowledge() {
	defer close(e.finished)
	for g := range e.groups {
		if g.pending != nil {
			if err := g.pending.Wait(); err != nil {
				e.fail(errors.Join(err, g.state.Close()))
				break
			}
			e.published.advance(g.state, g.touched)
		}
		e.chores(g.chores)
		for _, j := range g.jobs {
			close(j.done)
		}
	}
	for g := range e.groups { // after a failure: nothing behind it may be acknowledged
		if g.pending != nil {
			g.pending.Wait()
			g.state.Close()
		}
	}
}

func (e *executor) fail(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.failure = errors.Join(e.failure, fmt.Errorf("metadata store: %w", err))
	e.stopOnce.Do(func() { close(e.stop) })
}
