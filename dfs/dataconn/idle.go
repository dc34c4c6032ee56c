package dataconn

import (
	"errors"
	"sync"
	"time"
)

// Idle keeps connections that nobody uses, by where they lead to. The one used
// last is taken first, so that those that are not needed grow old and are closed.
// The zero value with its limits set is ready.
type Idle[K comparable, C any] struct {
	PerKey int // connections kept of one key at most
	Keys   int // keys at most
	// Close closes a connection that is not kept.
	Close func(C) error

	mu     sync.Mutex
	lists  map[K][]kept[C]
	closed bool
}

type kept[C any] struct {
	conn  C
	since time.Time
}

// Take returns a connection that is not older than IdleTimeout, or false.
func (i *Idle[K, C]) Take(key K) (conn C, ok bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	list := i.lists[key]
	if len(list) == 0 {
		return conn, false
	}
	last := list[len(list)-1]
	if time.Since(last.since) >= IdleTimeout { // so are all below it
		i.drop(key)
		return conn, false
	}
	i.set(key, list[:len(list)-1])
	return last.conn, true
}

// Put keeps a connection, or closes it where there is no room or all is closed.
func (i *Idle[K, C]) Put(key K, conn C) {
	i.mu.Lock()
	defer i.mu.Unlock()
	list := i.lists[key]
	if i.closed || len(list) >= i.PerKey || len(list) == 0 && len(i.lists) >= i.Keys {
		i.Close(conn)
		return
	}
	if i.lists == nil {
		i.lists = make(map[K][]kept[C])
	}
	i.lists[key] = append(list, kept[C]{conn, time.Now()})
}

// Len returns how many connections are kept.
func (i *Idle[K, C]) Len() (n int) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, list := range i.lists {
		n += len(list)
	}
	return n
}

// Drop closes all connections of a key: one of them has turned out to be dead.
func (i *Idle[K, C]) Drop(key K) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.drop(key)
}

func (i *Idle[K, C]) drop(key K) {
	for _, k := range i.lists[key] {
		i.Close(k.conn)
	}
	delete(i.lists, key)
}

// CloseOld closes connections that are older than IdleTimeout.
func (i *Idle[K, C]) CloseOld() {
	i.mu.Lock()
	defer i.mu.Unlock()
	for key, list := range i.lists {
		old := 0
		for old < len(list) && time.Since(list[old].since) >= IdleTimeout {
			i.Close(list[old].conn)
			old++
		}
		i.set(key, list[old:])
	}
}

// set replaces a key's list; an empty one takes no room.
func (i *Idle[K, C]) set(key K, list []kept[C]) {
	if len(list) == 0 {
		delete(i.lists, key)
		return
	}
	i.lists[key] = list
}

// CloseAll closes all connections, and those that are put from now on.
func (i *Idle[K, C]) CloseAll() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.closed = true
	var failed error
	for _, list := range i.lists {
		for _, k := range list {
			failed = errors.Join(failed, i.Close(k.conn))
		}
	}
	i.lists = nil
	return failed
}
