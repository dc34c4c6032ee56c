// Package store is where metadata is durable: ordered keys and values, changed
// in atomic batches by one writer, read by many.
//
// The interfaces are as small as the metadata server allows, so that a store
// shared by several machines (etcd, say) can stand in for the embedded one: a
// batch is a transaction, a view is a revision.
package store

// Reader reads one state of the store.
type Reader interface {
	// Get returns the value of key, which the caller may keep, and whether there
	// is one.
	Get(key []byte) (value []byte, found bool, err error)
	// Scan visits the keys from from up to but without to in order, until visit
	// returns false. Key and value are valid only during the visit. A nil to is
	// the end of all keys.
	Scan(from, to []byte, visit func(key, value []byte) bool) error
}

// Store is read and written by one goroutine, but for Close and what it returns.
// Its own Reader sees every batch that was committed, durable or not.
type Store interface {
	Reader
	NewBatch() Batch
	// Commit applies a batch at once and makes it durable in the background;
	// batches become durable in the order they were committed in. The batch is of
	// no more use.
	Commit(Batch) (Pending, error)
	// View returns the state as it is now. It must be closed.
	View() View
	Close() error
}

// Batch collects changes. Keys and values may be changed by the caller
// afterwards.
type Batch interface {
	Set(key, value []byte) error
	Delete(key []byte) error
}

// Pending is a committed batch on its way to the disk.
type Pending interface {
	// Wait returns when the batch, and every one before it, is durable. It must
	// be called once.
	Wait() error
}

// View is a state that does not change. It may be used by many goroutines.
type View interface {
	Reader
	Close() error
}

// PrefixEnd returns the first key behind all keys that begin with prefix, or nil
// if there is none.
func PrefixEnd(prefix []byte) []byte {
	end := append([]byte(nil), prefix...)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i]++; end[i] != 0 {
			return end[:i+1]
		}
	}
	return nil
}
