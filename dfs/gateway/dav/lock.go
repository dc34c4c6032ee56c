package dav

import (
	"crypto/rand"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"sync"
	"time"
)

// Lock is a write lock. Its root is the clean path of what was locked.
type Lock struct {
	Token   string // a URI
	Root    string
	Shared  bool
	Deep    bool  // holds for all below Root, too
	Owner   *Node // what the client says about itself; may be nil
	Timeout time.Duration
	ends    time.Time
}

// Covers says whether the lock holds for a path.
func (l *Lock) Covers(p string) bool { return l.Root == p || l.Deep && IsBelow(p, l.Root) }

// IsBelow says whether a clean path lies in the tree below another, not at it.
func IsBelow(p, root string) bool {
	return p != root && strings.HasPrefix(p, strings.TrimSuffix(root, "/")+"/")
}

// Errors of locks.
var (
	ErrTooManyLocks = errors.New("there are too many locks: wait until some have ended")
	ErrNoSuchLock   = errors.New("there is no such lock here")
)

// ConflictError says which locks stand against a new one.
type ConflictError struct{ Locks []Lock }

func (e *ConflictError) Error() string {
	return "locked at " + e.Locks[0].Root
}

// Locks are the locks of all clients, in memory. It is used by many goroutines.
type Locks struct {
	most int
	now  func() time.Time

	mu      sync.Mutex
	byToken map[string]*Lock
	byRoot  map[string][]*Lock
}

// NewLocks makes room for so many locks.
func NewLocks(most int) *Locks {
	return &Locks{most: most, now: time.Now, byToken: make(map[string]*Lock), byRoot: make(map[string][]*Lock)}
}

// Create adds a lock and gives it a token. The error is a *ConflictError if other
// locks are in the way.
func (l *Locks) Create(lock Lock) (Lock, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dropEnded()
	if len(l.byToken) >= l.most {
		return Lock{}, ErrTooManyLocks
	}
	conflicts := l.covering(lock.Root)
	if lock.Deep {
		conflicts = append(conflicts, l.below(lock.Root)...)
	}
	conflicts = slices.DeleteFunc(conflicts, func(other Lock) bool { return lock.Shared && other.Shared })
	if len(conflicts) > 0 {
		return Lock{}, &ConflictError{conflicts}
	}
	lock.Token = newToken()
	lock.ends = l.now().Add(lock.Timeout)
	kept := lock
	l.byToken[lock.Token] = &kept
	l.byRoot[lock.Root] = append(l.byRoot[lock.Root], &kept)
	return lock, nil
}

// newToken is a random UUID as a URI (RFC 9562).
func newToken() string {
	var b [16]byte
	rand.Read(b[:])
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("urn:uuid:%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// Covering returns the locks that hold for a path.
func (l *Locks) Covering(p string) []Lock {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dropEnded()
	return l.covering(p)
}

func (l *Locks) covering(p string) (list []Lock) {
	for root := p; len(l.byToken) > 0; root = path.Dir(root) {
		for _, lock := range l.byRoot[root] {
			if lock.Covers(p) {
				list = append(list, *lock)
			}
		}
		if root == "/" || root == "." {
			break
		}
	}
	return list
}

// Below returns the locks of what lies in the tree below a path.
func (l *Locks) Below(p string) []Lock {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dropEnded()
	return l.below(p)
}

func (l *Locks) below(p string) (list []Lock) {
	for root, locks := range l.byRoot {
		if !IsBelow(root, p) {
			continue
		}
		for _, lock := range locks {
			list = append(list, *lock)
		}
	}
	slices.SortFunc(list, func(a, b Lock) int { return strings.Compare(a.Root, b.Root) })
	return list
}

// Refresh starts the time of a lock again, which must hold for the path.
func (l *Locks) Refresh(token, p string, timeout time.Duration) (Lock, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dropEnded()
	lock := l.byToken[token]
	if lock == nil || !lock.Covers(p) {
		return Lock{}, ErrNoSuchLock
	}
	lock.Timeout, lock.ends = timeout, l.now().Add(timeout)
	return *lock, nil
}

// Unlock ends a lock, which must hold for the path.
func (l *Locks) Unlock(token, p string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dropEnded()
	lock := l.byToken[token]
	if lock == nil || !lock.Covers(p) {
		return ErrNoSuchLock
	}
	l.drop(lock)
	return nil
}

// Removed ends the locks of what is no more: a path, unless only what is below it
// was removed, and all below it.
func (l *Locks) Removed(p string, onlyBelow bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, lock := range l.byToken {
		if IsBelow(lock.Root, p) || !onlyBelow && lock.Root == p {
			l.drop(lock)
		}
	}
}

// dropEnded ends the locks whose time is over.
func (l *Locks) dropEnded() {
	now := l.now()
	for _, lock := range l.byToken {
		if now.After(lock.ends) {
			l.drop(lock)
		}
	}
}

func (l *Locks) drop(lock *Lock) {
	delete(l.byToken, lock.Token)
	rest := slices.DeleteFunc(l.byRoot[lock.Root], func(other *Lock) bool { return other == lock })
	if len(rest) == 0 {
		delete(l.byRoot, lock.Root)
		return
	}
	l.byRoot[lock.Root] = rest
}
