package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"waggle/dfs/wire"
	"waggle/dfs/wire/control"
)

const (
	// mutationSenders is how many calls with mutations may be under way. What
	// comes while all of them are waits, and goes together in the next one.
	mutationSenders = 3
	maxMutations    = 256     // in one call
	maxMutateBytes  = 1 << 20 // of the mutations in one call, unless it is a single one
	// answerWindow is for how many numbers above the first that was not answered
	// the server can keep answers.
	answerWindow = 4096
)

// mutator gathers the mutations of all goroutines into few calls, numbers them,
// and repeats a call under the same numbers until it is answered.
type mutator struct {
	client *Client

	mu      sync.Mutex
	wake    sync.Cond // a sender has something to do
	queue   []*mutation
	next    uint64                  // number of the next mutation
	sending [mutationSenders]uint64 // number of the first mutation under way, or 0
	held    bool                    // a sender waits because the window is full
	stopped bool
}

type mutation struct {
	change *control.Mutation
	taken  bool // by a sender
	done   chan struct{}
	result *control.MutationResult
	err    error
}

func (m *mutator) init(c *Client) {
	m.client, m.next = c, 1
	m.wake.L = &m.mu
}

// stop makes the senders return; what waits fails.
func (m *mutator) stop() {
	m.mu.Lock()
	m.stopped = true
	m.mu.Unlock()
	m.wake.Broadcast()
}

// mutate carries out one change and returns the attributes of what it touched.
// Change must not be used afterwards.
func (c *Client) mutate(ctx context.Context, change *control.Mutation) (wire.Attributes, error) {
	result, err := c.change(ctx, change)
	if err != nil {
		return wire.Attributes{}, err
	}
	return fromAttributes(result.Attributes), nil
}

// change is mutate for those who need all of the answer.
func (c *Client) change(ctx context.Context, change *control.Mutation) (*control.MutationResult, error) {
	tries, busy := newRetry(c.options.Patience), newRetry(c.options.LeaseWait)
	for {
		result, err := c.mutations.do(ctx, change)
		if err != nil {
			return nil, err
		}
		code := codes.Code(result.Code)
		if code == codes.OK {
			c.changed(result.Attributes.GetInode())
			return result, nil
		}
		err = fromCode(code, result.Message)
		wait := &tries
		if errors.Is(err, ErrBusy) {
			wait = &busy
		} else if code != codes.Unavailable {
			return nil, err
		}
		if err := wait.again(ctx, err); err != nil {
			return nil, err
		}
		change = &control.Mutation{Change: change.Change} // a new one: this one was answered
	}
}

func (m *mutator) do(ctx context.Context, change *control.Mutation) (*control.MutationResult, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	p := &mutation{change: change, done: make(chan struct{})}
	m.mu.Lock()
	if m.stopped {
		m.mu.Unlock()
		return nil, errClosed
	}
	m.queue = append(m.queue, p)
	m.mu.Unlock()
	m.wake.Signal()
	select {
	case <-p.done:
		return p.result, p.err
	case <-ctx.Done():
		return nil, m.forget(ctx, p)
	}
}

// forget takes a mutation back if it was not sent yet.
func (m *mutator) forget(ctx context.Context, p *mutation) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if p.taken {
		return &leftError{context.Cause(ctx), p.done}
	}
	m.queue = slices.DeleteFunc(m.queue, func(q *mutation) bool { return q == p })
	return context.Cause(ctx)
}

// leftError is ErrUncertain for a mutation that was sent, and whose answer nobody
// waits for any more.
type leftError struct {
	cause    error
	answered <-chan struct{}
}

func (e *leftError) Error() string   { return ErrUncertain.Error() + ": " + e.cause.Error() }
func (e *leftError) Unwrap() []error { return []error{ErrUncertain, e.cause} }

// AwaitLeft waits, if err says that a change was left to itself because its context
// ended, until the server has answered that change after all. From then on the
// caller can see, and undo, what it did. It returns early when ctx ends.
func AwaitLeft(ctx context.Context, err error) {
	if left := (*leftError)(nil); errors.As(err, &left) {
		select {
		case <-left.answered:
		case <-ctx.Done():
		}
	}
}

// send is the loop of one sender.
func (m *mutator) send(sender int) {
	for {
		batch := m.take(sender)
		if batch == nil {
			return
		}
		m.deliver(sender, batch)
	}
}

// take waits for mutations and numbers them.
func (m *mutator) take(sender int) []*mutation {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.sending[sender] = 0; m.held {
		m.held = false
		m.wake.Broadcast()
	}
	for len(m.queue) == 0 || m.windowFull() {
		if m.stopped {
			return nil
		}
		m.held = len(m.queue) > 0
		m.wake.Wait()
	}
	batch := m.takeBatch()
	m.sending[sender] = m.next
	for _, p := range batch {
		p.taken = true
		p.change.Number = m.next
		m.next++
	}
	return batch
}

// takeBatch takes what fits into one call. The rest of the queue is for another
// sender.
func (m *mutator) takeBatch() []*mutation {
	n, size := 0, 0
	for n < min(len(m.queue), maxMutations) {
		if size += proto.Size(m.queue[n].change); size > maxMutateBytes && n > 0 {
			break
		}
		n++
	}
	batch := slices.Clone(m.queue[:n])
	if m.queue = slices.Delete(m.queue, 0, n); len(m.queue) > 0 {
		m.wake.Signal()
	}
	return batch
}

// windowFull says whether the server might not be able to keep the answers of
// another batch: one before it has waited for its own for long.
func (m *mutator) windowFull() bool { return m.next+maxMutations-m.oldest() > answerWindow }

// answeredBelow is the number below which no mutation waits for its answer.
func (m *mutator) answeredBelow() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.oldest()
}

func (m *mutator) oldest() uint64 {
	below := m.next
	for _, first := range m.sending {
		if first != 0 {
			below = min(below, first)
		}
	}
	return below
}

// deliver sends a batch until it is answered, and hands out the answers.
func (m *mutator) deliver(sender int, batch []*mutation) {
	for len(batch) > 0 {
		request := &control.MutateRequest{Mutations: make([]*control.Mutation, len(batch))}
		for i, p := range batch {
			request.Mutations[i] = p.change
		}
		reply, uncertain, err := m.exchange(request)
		if codeOf(err) == codes.Unauthenticated {
			batch = m.underNewSession(sender, batch, uncertain)
			continue
		}
		if err == nil && len(reply.Results) != len(batch) {
			err = fmt.Errorf("metadata server answered %d mutations with %d results", len(batch), len(reply.Results))
		}
		if err == nil && ended(reply) {
			batch = m.goOn(sender, batch, reply.Results)
			continue
		}
		for i, p := range batch {
			if p.err = err; err == nil {
				p.result = reply.Results[i]
			}
			close(p.done)
		}
		return
	}
}

// ended says whether the session has ended in the middle of a batch.
func ended(reply *control.MutateReply) bool {
	last := len(reply.Results) - 1
	return last >= 0 && codes.Code(reply.Results[last].Code) == codes.Unauthenticated
}

// goOn hands out the answers of what was carried out before the session ended,
// and returns the rest of the batch for a new session.
func (m *mutator) goOn(sender int, batch []*mutation, results []*control.MutationResult) []*mutation {
	var rest []*mutation
	for i, p := range batch {
		if codes.Code(results[i].Code) == codes.Unauthenticated {
			rest = append(rest, p)
			continue
		}
		p.result = results[i]
		close(p.done)
	}
	return m.underNewSession(sender, rest, false)
}

// exchange repeats a call until the server answers. Uncertain says that an
// attempt before the last may have reached the server.
func (m *mutator) exchange(request *control.MutateRequest) (reply *control.MutateReply, uncertain bool, err error) {
	c := m.client
	s := c.session.Load()
	request.Session = s.id
	tries := newRetry(c.options.Patience)
	for {
		request.AnsweredBelow = m.answeredBelow()
		reply, err := attempt(c.ctx, s, func(ctx context.Context, _ *session) (*control.MutateReply, error) {
			return c.control.Mutate(ctx, request, wait)
		})
		switch code := codeOf(err); {
		case err == nil:
			return reply, uncertain, nil
		case c.ctx.Err() != nil:
			return nil, uncertain, fmt.Errorf("%w: %w", ErrUncertain, errClosed)
		case code == codes.Unauthenticated:
			if renewed := c.renewSession(c.ctx, s); renewed != nil {
				return nil, uncertain, renewed
			}
			return nil, uncertain, err
		case code != codes.Unavailable && code != codes.DeadlineExceeded:
			return nil, uncertain, fromStatus(err)
		}
		uncertain = true
		if err := tries.again(c.ctx, fromStatus(err)); err != nil {
			return nil, uncertain, fmt.Errorf("%w: %w", ErrUncertain, err)
		}
	}
}

// underNewSession numbers a batch again. A change that may have been made under
// the old session, and can't be made twice, fails instead.
func (m *mutator) underNewSession(sender int, batch []*mutation, uncertain bool) []*mutation {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sending[sender] = m.next
	return slices.DeleteFunc(batch, func(p *mutation) bool {
		if uncertain && !repeatable(p.change) {
			p.err = fmt.Errorf("%w: the session ended before it was answered", ErrUncertain)
			close(p.done)
			return true
		}
		p.change.Number = m.next
		m.next++
		return false
	})
}

// repeatable says whether a change made twice is the same as made once.
func repeatable(change *control.Mutation) bool {
	switch c := change.Change.(type) {
	case *control.Mutation_SetAttributes:
		return true
	case *control.Mutation_SetSize:
		return c.SetSize.OnlyFrom == nil
	case *control.Mutation_WriteInline:
		return !c.WriteInline.Append
	case *control.Mutation_Create:
		return !c.Create.Exclusive
	case *control.Mutation_SetXattr:
		return !c.SetXattr.Remove && !c.SetXattr.Create
	}
	return false
}
