package meta

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"waggle/dfs/meta/store"
	"waggle/dfs/weaken"
	"waggle/dfs/wire/control"
)

// Limits of sessions.
const (
	maxSessions = 16384
	maxGroups   = 64  // supplementary groups of a session
	maxClient   = 255 // bytes of the client's name
	// answerWindow is how many mutations of a session can wait for an answer at
	// once: as many results are kept, in slots that are used over and over.
	answerWindow = 4096
)

// session is a client's, for as long as it is kept alive.
type session struct {
	id uint64
	sessionRecord
	expires atomic.Int64 // Unix time in nanoseconds

	// The rest belongs to the executor's goroutine.
	ended         bool
	answeredBelow uint64
	answers       map[uint64]*control.MutationResult // by number
}

// sessions are those that are alive.
type sessions struct {
	timeToLive time.Duration

	mu   sync.RWMutex
	live map[uint64]*session
}

var errBadSession = refusal(codes.Unauthenticated, "the session is unknown or has ended: open a new one")

func (s *sessions) get(id uint64) (*session, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if found := s.live[id]; found != nil {
		return found, nil
	}
	return nil, errBadSession
}

func (s *sessions) all() []*session {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return slices.Collect(maps.Values(s.live))
}

func (s *sessions) alive(id uint64) bool {
	_, err := s.get(id)
	return err == nil
}

func (s *sessions) add(added *session) {
	added.extend(s.timeToLive)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.live[added.id] = added
}

func (s *sessions) remove(id uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.live, id)
}

func (s *sessions) count() int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return len(s.live)
}

// expired returns the sessions whose time is over.
func (s *sessions) expired(now time.Time) (ids []uint64) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for id, live := range s.live {
		if live.expires.Load() < now.UnixNano() {
			ids = append(ids, id)
		}
	}
	return ids
}

func (s *session) extend(timeToLive time.Duration) {
	s.expires.Store(time.Now().Add(timeToLive).UnixNano())
}

// loadSessions reads the sessions that were alive when the server stopped, and
// the results that their clients may ask for again. All get their full time.
func loadSessions(r store.Reader, timeToLive time.Duration) (*sessions, error) {
	s := &sessions{timeToLive: timeToLive, live: make(map[uint64]*session)}
	var failed error
	err := scanTable(r, tableSession, func(k key, value []byte) bool {
		record, err := decodeSession(value)
		if err != nil {
			failed = fmt.Errorf("session %#x: %w", k.number(), err)
			return false
		}
		s.add(newSession(k.number(), record))
		return true
	})
	if err == nil {
		err = failed
	}
	if err != nil {
		return nil, err
	}
	err = scanTable(r, tableResult, func(k key, value []byte) bool {
		if live := s.live[k.number()]; live != nil {
			failed = live.remember(value)
		}
		return failed == nil
	})
	if err == nil {
		err = failed
	}
	for _, live := range s.live {
		live.refuseOverwritten()
		if weaken.On(weaken.KeepAnswers) {
			clear(live.answers)
		}
	}
	return s, err
}

func newSession(id uint64, r *sessionRecord) *session {
	return &session{id: id, sessionRecord: *r, answers: make(map[uint64]*control.MutationResult)}
}

// remember takes a result from its record.
func (s *session) remember(value []byte) error {
	r, err := decodeResult(value)
	if err != nil {
		return fmt.Errorf("session %#x: %w", s.id, err)
	}
	var answer control.MutationResult
	if err := proto.Unmarshal(r.answer, &answer); err != nil {
		return fmt.Errorf("session %#x: %w: result %d: %w", s.id, errDamaged, r.number, err)
	}
	s.answers[r.number] = &answer
	return nil
}

// refuseOverwritten is called when all results that are on record were read: a
// result that is a window older than the newest was overwritten, so whether such
// a mutation was carried out can't be told any more.
func (s *session) refuseOverwritten() {
	for number := range s.answers {
		if number >= answerWindow {
			s.answeredBelow = max(s.answeredBelow, number-answerWindow+1)
		}
	}
}

// forgetBelow drops results that the client has, and no others.
func (s *session) forgetBelow(number uint64) {
	if number <= s.answeredBelow {
		return
	}
	if number-s.answeredBelow > answerWindow { // fewer are known than numbers are passed over
		maps.DeleteFunc(s.answers, func(n uint64, _ *control.MutationResult) bool { return n < number })
	} else {
		for n := s.answeredBelow; n < number; n++ {
			delete(s.answers, n)
		}
	}
	s.answeredBelow = number
}

// answer calls mutate for a mutation that comes the first time, and keeps what
// it answers; one that was answered before is answered the same again. One whose
// answer may be forgotten is refused: it may have been carried out.
func (s *session) answer(c *change, number uint64, mutate func() (*control.MutationResult, error)) (*control.MutationResult, error) {
	if known := s.answers[number]; known != nil {
		return known, nil
	}
	if number < max(s.answeredBelow, 1) && !weaken.On(weaken.RefuseForgotten) {
		return nil, refusal(codes.InvalidArgument, "mutation %d was answered before, or has no number", number)
	}
	if number-s.answeredBelow >= answerWindow {
		return nil, refusal(codes.ResourceExhausted, "mutation %d: only %d behind the last unanswered one are allowed", number, answerWindow)
	}
	r, err := mutate()
	if err != nil {
		return nil, err
	}
	encoded, err := proto.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("encode a mutation's result: %w", err)
	}
	s.answers[number] = r
	c.put(resultKey(s.id, uint32(number%answerWindow)), &result{number, encoded})
	return r, nil
}

// OpenSession implements control.MetaServer.
func (s *Server) OpenSession(ctx context.Context, q *control.OpenSessionRequest) (*control.Session, error) {
	if len(q.Groups) > maxGroups || len(q.Client) > maxClient {
		return nil, refusal(codes.InvalidArgument, "open a session: at most %d groups and a name of %d bytes are allowed", maxGroups, maxClient)
	}
	if s.sessions.count() >= maxSessions {
		return nil, refusal(codes.ResourceExhausted, "%d sessions are open: no more are allowed", maxSessions)
	}
	var random [8]byte
	rand.Read(random[:])
	opened := newSession(binary.LittleEndian.Uint64(random[:])|1, // even numbers stand for something else: wire.WritesLost, and 0 for none
		&sessionRecord{client: q.Client, credentials: credentials{uid: q.Uid, gid: q.Gid, groups: q.Groups}})
	err := s.executor.do(ctx, func(c *change) error {
		c.put(sessionKey(opened.id), &opened.sessionRecord)
		return nil
	})
	if err != nil {
		return nil, err
	}
	s.mirror.addSession(opened) // first, so that its end can't be overtaken
	s.sessions.add(opened)
	return &control.Session{
		Session:          opened.id,
		HashKey:          s.identity.hashKey[:],
		LookupAddress:    s.reachable(ctx),
		TimeToLiveMs:     uint64(s.sessions.timeToLive.Milliseconds()),
		DefaultChunkSize: uint64(s.config.ChunkSize),
	}, nil
}

// CloseSession implements control.MetaServer.
func (s *Server) CloseSession(ctx context.Context, q *control.SessionID) (*control.Empty, error) {
	return &control.Empty{}, s.endSession(ctx, q.Session)
}
