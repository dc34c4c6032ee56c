// Package replica keeps the replicas of chunks on a real directory, safe
// against a crash at any point.
//
// A replica is two files: ID.data holds its bytes, and ID.sums a header and the
// CRC32C of each 4 KiB block. What the process was told and acknowledged is in
// the page cache, so it outlives the process; Sync makes it outlive the machine.
//
// A change is written in three steps: a header with the state so far and the
// intent of the change (its range and the new checksums), the data, the
// checksums. Headers go to two slots in turn, so one that is torn leaves the one
// before it, whose change is whole. The next start compares the range of the
// newest header's intent with the intent's checksums: if all match, the change
// was made; if not, it is undone as far as it can be, and the replica is marked
// torn where old bytes were overwritten, so that the metadata server makes it
// equal to another replica.
//
// When the machine loses power, what was not synced may be on disk in part, in
// any order. The order does not matter, because each part vouches for the next: a
// header has its own checksum and carries a digest of all checksums, a checksum
// stands for a block. A start verifies replicas whose last sync was not finished, or
// that were changed since. One that holds anything else than its header says is
// doubtful: it is served to nobody, and the metadata server makes it equal to another
// one. If there is no other one, what it holds is as before the writes that were not
// synced, as after them, or does not match its checksum.
//
// A disk that can't write what was to be synced makes the replica doubtful as well,
// for good: see Sync and Rebuild.
//
// Start with Open, then Store.Create and Replica.Write.
package replica

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// Names in a store's directory.
const (
	lockName     = "lock"
	replicasName = "replicas"
	damagedName  = "damaged" // replicas whose header can't be read are moved here

	dataSuffix = ".data"
	sumsSuffix = ".sums"
	// The files of a copy. Once the sums file has its second name, the copy is
	// complete and durable, and takes the place of the replica.
	newDataSuffix     = ".new.data"
	newSumsPartSuffix = ".new.sums.part"
	newSumsSuffix     = ".new.sums"

	shards      = 256
	scanWorkers = 8
)

// Options of a store.
type Options struct {
	// OpenFiles is how many replicas are kept open; default 512. Each takes two
	// file descriptors. Replicas in use are never closed.
	OpenFiles int
	Log       *slog.Logger
}

// Store is a directory of replicas.
type Store struct {
	directory string
	lock      *os.File
	disk      disk
	log       *slog.Logger
	bytes     atomic.Int64 // sum of all replicas' lengths

	mu       sync.RWMutex
	replicas map[uint64]*Replica
	copying  map[uint64]bool

	openMu  sync.Mutex
	opened  *simplelru.LRU[uint64, *Replica]
	evicted []*Replica // fell out of opened, and must still be closed
}

// disk makes every change of files, so that tests can stop after each.
type disk interface {
	writeAt(f *os.File, b []byte, offset int64) error
	truncate(f *os.File, size int64) error
	rename(from, to string) error
	sync(f *os.File) error
	syncDirectory(path string) error
}

type realDisk struct{}

func (realDisk) writeAt(f *os.File, b []byte, offset int64) error {
	_, err := f.WriteAt(b, offset)
	return err
}
func (realDisk) truncate(f *os.File, size int64) error { return f.Truncate(size) }
func (realDisk) rename(from, to string) error          { return os.Rename(from, to) }
func (realDisk) sync(f *os.File) error                 { return unix.Fdatasync(int(f.Fd())) }

// Open opens the store in directory, made if it does not exist, and recovers
// what a crash interrupted. Only one process can have it open.
func Open(directory string, options Options) (*Store, error) {
	return open(directory, options, realDisk{})
}

func open(directory string, options Options, d disk) (*Store, error) {
	s := &Store{directory: directory, disk: d, log: cmp.Or(options.Log, slog.Default()),
		replicas: make(map[uint64]*Replica), copying: make(map[uint64]bool)}
	var err error
	s.opened, err = simplelru.NewLRU(cmp.Or(options.OpenFiles, 512), func(_ uint64, r *Replica) { s.evicted = append(s.evicted, r) })
	if err != nil {
		return nil, fmt.Errorf("keep %d replicas open: %w", options.OpenFiles, err)
	}
	if err := s.prepareDirectory(); err != nil {
		return nil, err
	}
	if err := s.scan(); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// prepareDirectory makes the directories and takes the lock.
func (s *Store) prepareDirectory() error {
	if err := os.MkdirAll(s.directory, 0o755); err != nil {
		return fmt.Errorf("make data directory: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(s.directory, lockName), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return fmt.Errorf("open lock of data directory: %w", err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		lock.Close()
		return fmt.Errorf("data directory %s is in use by another chunk server: stop it, or choose another directory: %w", s.directory, err)
	}
	s.lock = lock
	err = errors.Join(os.MkdirAll(filepath.Join(s.directory, damagedName), 0o755),
		os.MkdirAll(filepath.Join(s.directory, replicasName), 0o755), s.disk.syncDirectory(s.directory))
	if err != nil {
		lock.Close()
		return fmt.Errorf("make data directory: %w", err)
	}
	return nil
}

func (s *Store) shard(id uint64) string {
	return filepath.Join(s.directory, replicasName, fmt.Sprintf("%02x", id%shards))
}

func (s *Store) path(id uint64, suffix string) string {
	return filepath.Join(s.shard(id), fmt.Sprintf("%016x%s", id, suffix))
}

func (realDisk) syncDirectory(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// scan finds all replicas and recovers those that a crash caught in a change.
func (s *Store) scan() error {
	directory := filepath.Join(s.directory, replicasName)
	entries, err := os.ReadDir(directory)
	if err != nil {
		return fmt.Errorf("list replicas: %w", err)
	}
	var g errgroup.Group
	g.SetLimit(scanWorkers)
	for _, shard := range entries {
		g.Go(func() error { return s.scanShard(filepath.Join(directory, shard.Name())) })
	}
	return g.Wait()
}

func (s *Store) scanShard(directory string) error {
	entries, err := os.ReadDir(directory)
	if err != nil {
		return fmt.Errorf("list replicas: %w", err)
	}
	names := make(map[uint64]map[string]bool)
	for _, e := range entries {
		hex, suffix, _ := strings.Cut(e.Name(), ".")
		id, err := strconv.ParseUint(hex, 16, 64)
		if err != nil || s.path(id, "."+suffix) != filepath.Join(directory, e.Name()) {
			s.log.Warn("unknown file among the replicas", "file", filepath.Join(directory, e.Name()))
			continue
		}
		if names[id] == nil {
			names[id] = make(map[string]bool)
		}
		names[id]["."+suffix] = true
	}
	for id, files := range names {
		if err := s.scanReplica(id, files); err != nil {
			return err
		}
	}
	return nil
}

// scanReplica takes up what it finds of one replica.
func (s *Store) scanReplica(id uint64, files map[string]bool) error {
	if err := s.finishCopy(id, files); err != nil {
		return fmt.Errorf("finish the copy of chunk %d: %w", id, err)
	}
	if !files[dataSuffix] || !files[sumsSuffix] { // a create or a delete was interrupted
		return s.removeFiles(id, dataSuffix, sumsSuffix)
	}
	h, sums, err := readSumsFile(s.path(id, sumsSuffix))
	if errors.Is(err, ErrFormat) {
		return fmt.Errorf("%s: %w: read them with the version that wrote them, or start with an empty directory", s.path(id, sumsSuffix), err)
	}
	if err == nil && h.State.Chunk != id {
		err = fmt.Errorf("%w: it is that of chunk %d", ErrHeader, h.State.Chunk)
	}
	if err != nil {
		return s.setAside(id, err)
	}
	// A write whose header is lost may have left its checksum and its data.
	clean := h.clean && h.Outside == digestOf(0, sums)
	r := &Replica{store: s, id: id, state: h.State, digest: h.Outside, generation: h.Generation,
		syncSlot: h.syncSlot, clean: clean, unverified: !clean}
	s.bytes.Add(int64(r.state.Length))
	s.mu.Lock()
	s.replicas[id] = r
	s.mu.Unlock()
	if !r.unverified {
		return nil
	}
	if err := r.lock(); err != nil { // such as a full disk: it is tried again at the next use
		s.log.Error("replica can't be recovered yet", "chunk", id, "error", err)
		return nil
	}
	r.unlock()
	return nil
}

// readSumsFile returns a replica's header and the checksums of its blocks.
func readSumsFile(path string) (newest, []byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return newest{}, nil, err
	}
	defer f.Close()
	h, err := readHeader(f)
	if err != nil {
		return h, nil, err
	}
	sums := make([]byte, 4*blocks(h.State.Length))
	if _, err := f.ReadAt(sums, sumsStart); err != nil && !errors.Is(err, io.EOF) {
		return h, nil, err
	}
	return h, sums, nil
}

// setAside moves a replica without a readable header out of the way: it is not
// served, the metadata server makes another one, and nothing is thrown away.
func (s *Store) setAside(id uint64, why error) error {
	info, err := os.Stat(s.path(id, dataSuffix))
	if err == nil && info.Size() == 0 { // a create was interrupted
		return s.removeFiles(id, dataSuffix, sumsSuffix)
	}
	s.log.Error("replica set aside", "chunk", id, "directory", damagedName, "error", why)
	for _, suffix := range []string{sumsSuffix, dataSuffix} {
		from := s.path(id, suffix)
		err = errors.Join(err, s.disk.rename(from, filepath.Join(s.directory, damagedName, filepath.Base(from))))
	}
	return err
}

func (s *Store) removeFiles(id uint64, suffixes ...string) error {
	var failed error
	for _, suffix := range suffixes {
		if err := os.Remove(s.path(id, suffix)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			failed = errors.Join(failed, err)
		}
	}
	return failed
}

// used notes that a replica was used, and closes those that were not for long.
// No replica's lock may be held.
func (s *Store) used(r *Replica) {
	s.openMu.Lock()
	s.opened.Add(r.id, r)
	evicted := s.evicted
	s.evicted = nil
	s.openMu.Unlock()
	for _, old := range evicted {
		old.closeFiles()
	}
}

// Get returns the replica of a chunk, or an error that wraps ErrNotFound.
func (s *Store) Get(id uint64) (*Replica, error) {
	s.mu.RLock()
	r := s.replicas[id]
	s.mu.RUnlock()
	if r == nil {
		return nil, fmt.Errorf("chunk %d: %w", id, ErrNotFound)
	}
	return r, nil
}

// Create makes an empty replica. One that exists under the same epoch is
// returned; under another epoch the error wraps ErrExists.
func (s *Store) Create(id, epoch uint64) (*Replica, error) {
	fresh := &Replica{store: s, id: id, state: State{Chunk: id, Epoch: epoch}}
	fresh.mu.Lock()
	defer fresh.mu.Unlock()
	if r := s.getOrAdd(fresh); r != fresh {
		if have := r.State().Epoch; have != epoch {
			return nil, fmt.Errorf("create chunk %d under epoch %d: %w, %d", id, epoch, ErrExists, have)
		}
		return r, nil
	}
	if err := fresh.create(); err != nil {
		s.drop(fresh)
		return nil, errors.Join(fmt.Errorf("create chunk %d: %w", id, err), s.removeFiles(id, sumsSuffix, dataSuffix))
	}
	return fresh, nil
}

// getOrAdd returns the replica of fresh's chunk; if there is none, fresh takes
// its place. Its files are made while fresh is locked, and not the store.
func (s *Store) getOrAdd(fresh *Replica) *Replica {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.replicas[fresh.id]; r != nil {
		return r
	}
	s.replicas[fresh.id] = fresh
	return fresh
}

// drop forgets a replica, which is locked.
func (s *Store) drop(r *Replica) {
	r.removed = true
	s.mu.Lock()
	if s.replicas[r.id] == r {
		delete(s.replicas, r.id)
	}
	s.mu.Unlock()
}

// create makes the replica's files. They are closed again: the first use opens
// them, and enters them in the cache of open files.
func (r *Replica) create() error {
	f, err := r.store.createFiles(r.id, dataSuffix, sumsSuffix)
	if err != nil {
		return err
	}
	defer f.release()
	r.files = f
	defer func() { r.files = nil }()
	return r.writeHeader(header{State: r.state, Sync: true})
}

// createFiles makes a pair of files, and their directory if they are the first
// ones in it.
func (s *Store) createFiles(id uint64, dataSuffix, sumsSuffix string) (*files, error) {
	data, err := createFile(s.path(id, dataSuffix))
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(s.shard(id), 0o755); err != nil {
			return nil, err
		}
		if err := s.disk.syncDirectory(filepath.Join(s.directory, replicasName)); err != nil {
			return nil, err
		}
		data, err = createFile(s.path(id, dataSuffix))
	}
	if err != nil {
		return nil, err
	}
	sums, err := createFile(s.path(id, sumsSuffix))
	if err != nil {
		data.Close()
		return nil, err
	}
	f := &files{data: data, sums: sums}
	f.users.Store(1)
	return f, nil
}

func createFile(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o644)
}

// Delete removes a replica; one that does not exist is no error.
func (s *Store) Delete(id uint64) error {
	s.mu.Lock()
	r := s.replicas[id]
	delete(s.replicas, id)
	s.mu.Unlock()
	if r == nil {
		return nil
	}
	s.openMu.Lock()
	s.opened.Remove(id)
	s.openMu.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.removed = true
	r.takeBack()
	s.bytes.Add(-int64(r.state.Length))
	if r.files != nil {
		r.files.release()
		r.files = nil
	}
	if err := s.removeFiles(id, newSumsSuffix, sumsSuffix, dataSuffix, newDataSuffix); err != nil {
		return fmt.Errorf("delete chunk %d: %w", id, err)
	}
	return nil
}

// IDs returns the chunks that there are replicas of, in ascending order.
func (s *Store) IDs() []uint64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return slices.Sorted(maps.Keys(s.replicas))
}

// Count returns how many replicas there are.
func (s *Store) Count() int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return len(s.replicas)
}

// Bytes returns the sum of all replicas' lengths.
func (s *Store) Bytes() int64 { return s.bytes.Load() }

// Close closes all replicas, and gives up the directory.
func (s *Store) Close() error {
	s.mu.Lock()
	replicas := s.replicas
	s.replicas = make(map[uint64]*Replica)
	s.mu.Unlock()
	for _, r := range replicas {
		r.closeFiles()
	}
	if err := s.lock.Close(); !errors.Is(err, os.ErrClosed) {
		return err
	}
	return nil
}
