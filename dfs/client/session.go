package client

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"waggle/dfs/datapath/lookup"
	"waggle/dfs/wire"
	"waggle/dfs/wire/control"
)

// session is one session with the metadata server. It is never changed: when
// the server has forgotten it, another one takes its place.
type session struct {
	id      uint64
	key     wire.HashKey
	lookups *lookup.Transport
	live    time.Duration // how long it lives when it is not kept alive
	chunk   uint64        // default chunk size in bytes
}

// attemptTime bounds one attempt of a control call.
const attemptTime = 10 * time.Second

// openSession tries until ctx ends.
func (c *Client) openSession(ctx context.Context) (*session, error) {
	who := c.options.Identity
	request := &control.OpenSessionRequest{Client: c.options.Name, Uid: who.UID, Gid: who.GID, Groups: who.Groups}
	tries := newRetry(c.options.Patience)
	for {
		reply, err := c.control.OpenSession(ctx, request)
		switch {
		case err == nil:
			return c.newSession(reply)
		case codeOf(err) != codes.Unavailable:
			return nil, fromStatus(err)
		}
		if failed := tries.again(ctx, fromStatus(err)); failed != nil {
			return nil, failed
		}
	}
}

func (c *Client) newSession(reply *control.Session) (*session, error) {
	s := &session{id: reply.Session, chunk: reply.DefaultChunkSize, live: time.Duration(reply.TimeToLiveMs) * time.Millisecond}
	if copy(s.key[:], reply.HashKey) != len(s.key) || s.live < 10*time.Millisecond {
		return nil, fmt.Errorf("metadata server opened a session with a key of %d bytes that lives %v", len(reply.HashKey), s.live)
	}
	var err error
	if s.lookups, err = lookup.Dial(reply.LookupAddress); err != nil {
		return nil, err
	}
	s.lookups.Spin = c.options.SpinLookups
	return s, nil
}

// renewSession takes the place of a session that the server does not know any
// more, once for all who ask.
func (c *Client) renewSession(ctx context.Context, old *session) error {
	c.sessionMu.Lock()
	defer c.sessionMu.Unlock()
	if c.session.Load() != old {
		return nil
	}
	s, err := c.openSession(ctx)
	if err != nil {
		return fmt.Errorf("open a new session, because the old one has ended: %w", err)
	}
	c.session.Store(s)
	return old.lookups.Close()
}

// keepAlive keeps the session and its leases.
func (c *Client) keepAlive() {
	for {
		s := c.session.Load()
		if !c.pause(s.live / 3) {
			return
		}
		ctx, cancel := context.WithTimeout(c.ctx, s.live/3)
		_, err := c.control.KeepAlive(ctx, &control.KeepAliveRequest{Session: s.id, Leases: c.writers.held(s)})
		if codeOf(err) == codes.Unauthenticated {
			c.renewSession(ctx, s) // or the next call does
		}
		cancel()
	}
}

// tidyTime is how often what nobody uses is given back.
const tidyTime = time.Second

// tidy gives back what nobody has used for long. It is apart from keepAlive,
// because it can have to wait for servers.
func (c *Client) tidy() {
	for c.pause(min(tidyTime, c.options.LeaseIdle)) {
		c.writers.releaseIdle(c.ctx)
		c.writers.releaseAgain(c.ctx)
		c.servers.idle.CloseOld()
	}
}

// pause waits. It says whether the client is still open.
func (c *Client) pause(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-c.ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// call carries out a control call that may be repeated: it waits for a server
// that is away, and opens a new session where the old one has ended.
func call[A any](ctx context.Context, c *Client, do func(context.Context, *session) (A, error)) (A, error) {
	tries := newRetry(c.options.Patience)
	for {
		s := c.session.Load()
		answer, err := attempt(ctx, s, do)
		if err == nil {
			return answer, nil
		}
		failed := fromStatus(err)
		switch code := codeOf(err); {
		case ctx.Err() != nil:
			return answer, context.Cause(ctx)
		case code == codes.Unauthenticated:
			if err := c.renewSession(ctx, s); err != nil {
				return answer, err
			}
		case code != codes.Unavailable && code != codes.DeadlineExceeded, errors.Is(failed, ErrBusy):
			return answer, failed
		}
		if err := tries.again(ctx, failed); err != nil {
			return answer, err
		}
	}
}

func attempt[A any](ctx context.Context, s *session, do func(context.Context, *session) (A, error)) (A, error) {
	ctx, cancel := context.WithTimeout(ctx, attemptTime)
	defer cancel()
	return do(ctx, s)
}

// wait makes a call wait for the connection instead of failing at once.
var wait = grpc.WaitForReady(true)

func fromStatus(err error) error {
	s := status.Convert(err)
	return fromCode(s.Code(), s.Message())
}
