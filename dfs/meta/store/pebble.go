package store

import (
	"errors"
	"fmt"
	"log/slog"
	"os"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// What the embedded store may use beside its block cache. The memtables bound
// the log that a restart has to read: about a second's worth.
const (
	memtableSize = 32 << 20 // bytes
	memtables    = 3
	openFiles    = 500
)

// Embedded is a Store in a directory of this machine.
type Embedded struct {
	db   *pebble.DB
	lock *pebble.Lock
}

// OpenEmbedded opens the store in a directory, which is made if need be, with a
// block cache of cacheBytes. One process at a time can have it open.
//
// If the disk fails or is full when a batch has to be made durable, the process
// is ended, with a line in the log: what was promised can't be kept, and the
// state after the next start is the last one that was durable.
func OpenEmbedded(directory string, cacheBytes int64, log *slog.Logger) (*Embedded, error) {
	if err := os.MkdirAll(directory, 0o700); err != nil {
		return nil, fmt.Errorf("make the metadata directory: %w", err)
	}
	lock, err := pebble.LockDirectory(directory, vfs.Default)
	if err != nil {
		return nil, fmt.Errorf("metadata directory %s is in use: stop the server that uses it, or choose another directory (%w)", directory, err)
	}
	options := &pebble.Options{
		FS:                          logsAhead{vfs.Default},
		FormatMajorVersion:          pebble.FormatNewest,
		CacheSize:                   cacheBytes,
		Lock:                        lock,
		Logger:                      logger{log},
		MaxOpenFiles:                openFiles,
		MemTableSize:                memtableSize,
		MemTableStopWritesThreshold: memtables,
		L0CompactionThreshold:       2,
		L0StopWritesThreshold:       1000,
	}
	for i := range options.Levels {
		// Most lookups before a create find nothing: a filter says so for a
		// fraction of the price.
		options.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
	}
	db, err := pebble.Open(directory, options)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open the metadata in %s: %w", directory, err), lock.Close())
	}
	return &Embedded{db: db, lock: lock}, nil
}

// Get implements Reader.
func (s *Embedded) Get(key []byte) ([]byte, bool, error) { return get(s.db, key) }

// Scan implements Reader.
func (s *Embedded) Scan(from, to []byte, visit func(key, value []byte) bool) error {
	return scan(s.db, from, to, visit)
}

// NewBatch implements Store.
func (s *Embedded) NewBatch() Batch { return embeddedBatch{s.db.NewBatch()} }

// Commit implements Store.
func (s *Embedded) Commit(b Batch) (Pending, error) {
	batch := b.(embeddedBatch)
	if err := s.db.ApplyNoSyncWait(batch.Batch, pebble.Sync); err != nil {
		return nil, fmt.Errorf("commit metadata: %w", err)
	}
	return batch, nil
}

// View implements Store.
func (s *Embedded) View() View { return embeddedView{s.db.NewSnapshot()} }

// Close closes the store. All views must be closed before.
func (s *Embedded) Close() error {
	return errors.Join(s.db.Close(), s.lock.Close())
}

type embeddedBatch struct{ *pebble.Batch }

func (b embeddedBatch) Set(key, value []byte) error { return b.Batch.Set(key, value, nil) }
func (b embeddedBatch) Delete(key []byte) error     { return b.Batch.Delete(key, nil) }

func (b embeddedBatch) Wait() error {
	if err := b.SyncWait(); err != nil {
		return fmt.Errorf("make metadata durable: %w", err)
	}
	return b.Batch.Close()
}

type embeddedView struct{ *pebble.Snapshot }

func (v embeddedView) Get(key []byte) ([]byte, bool, error) { return get(v.Snapshot, key) }

func (v embeddedView) Scan(from, to []byte, visit func(key, value []byte) bool) error {
	return scan(v.Snapshot, from, to, visit)
}

func get(r pebble.Reader, key []byte) ([]byte, bool, error) {
	value, closer, err := r.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("read metadata: %w", err)
	}
	return append([]byte{}, value...), true, closer.Close()
}

func scan(r pebble.Reader, from, to []byte, visit func(key, value []byte) bool) error {
	i, err := r.NewIter(&pebble.IterOptions{LowerBound: from, UpperBound: to})
	if err != nil {
		return fmt.Errorf("scan metadata: %w", err)
	}
	for more := i.First(); more; more = i.Next() {
		value, err := i.ValueAndErr()
		if err != nil {
			return errors.Join(fmt.Errorf("scan metadata: %w", err), i.Close())
		}
		if !visit(i.Key(), value) {
			break
		}
	}
	if err := i.Close(); err != nil {
		return fmt.Errorf("scan metadata: %w", err)
	}
	return nil
}

// logger hands on what the key-value store has to say.
type logger struct{ log *slog.Logger }

func (l logger) Infof(format string, args ...any)  { l.log.Debug(fmt.Sprintf(format, args...)) }
func (l logger) Errorf(format string, args ...any) { l.log.Error(fmt.Sprintf(format, args...)) }

func (l logger) Fatalf(format string, args ...any) {
	l.log.Error("metadata can't be made durable, stopping: " + fmt.Sprintf(format, args...))
	os.Exit(1)
}
