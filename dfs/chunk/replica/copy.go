package replica

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"waggle/dfs/wire"
)

// Copy builds a replica's files anew, beside the old ones if there are any. End
// it with Install or Discard.
type Copy struct {
	store *Store
	id    uint64
	files *files
}

// NewCopy starts a copy of a chunk. Only one a chunk can be under way; for
// another one the error wraps ErrBusy.
func (s *Store) NewCopy(id uint64) (*Copy, error) {
	if r, err := s.Get(id); err == nil {
		if err := r.lock(); err != nil { // a copy before this one may have to be finished
			return nil, err
		}
		r.unlock()
	}
	s.mu.Lock()
	busy := s.copying[id]
	s.copying[id] = true
	s.mu.Unlock()
	if busy {
		return nil, fmt.Errorf("chunk %d: %w", id, ErrBusy)
	}
	f, err := s.createFiles(id, newDataSuffix, newSumsPartSuffix)
	if err != nil {
		s.endCopy(id)
		return nil, fmt.Errorf("copy chunk %d: %w", id, err)
	}
	return &Copy{store: s, id: id, files: f}, nil
}

func (s *Store) endCopy(id uint64) {
	s.mu.Lock()
	delete(s.copying, id)
	s.mu.Unlock()
}

// WriteAt writes bytes that the caller has verified.
func (c *Copy) WriteAt(b []byte, offset int64) error {
	if err := c.store.disk.writeAt(c.files.data, b, offset); err != nil {
		return fmt.Errorf("copy %d bytes at %d of chunk %d: %w", len(b), offset, c.id, err)
	}
	return nil
}

// Discard removes what was copied. After Install it does nothing.
func (c *Copy) Discard() error {
	if c.files == nil {
		return nil
	}
	c.files.release()
	c.files = nil
	err := c.store.removeFiles(c.id, newDataSuffix, newSumsPartSuffix)
	c.store.endCopy(c.id)
	return err
}

// Install makes the copy durable and puts it, with the given state and block
// checksums, in the place of the replica, which must still be in the state old;
// nil means that there was none. Otherwise the error wraps ErrChanged.
func (c *Copy) Install(old *State, state State, sums []byte) error {
	if err := c.complete(state, sums); err != nil {
		return fmt.Errorf("copy chunk %d: %w", c.id, err)
	}
	fresh := &Replica{store: c.store, id: c.id, state: State{Chunk: c.id, Epoch: state.Epoch}}
	fresh.mu.Lock()
	defer fresh.mu.Unlock()
	if old == nil {
		if r := c.store.getOrAdd(fresh); r != fresh {
			return fmt.Errorf("copy chunk %d: %w", c.id, ErrChanged)
		}
		err := c.replace(fresh, state, digestOf(0, sums))
		if err != nil && !fresh.switching {
			c.store.drop(fresh)
		}
		return err
	}
	r, err := c.store.Get(c.id)
	if err != nil {
		return fmt.Errorf("copy chunk %d: %w", c.id, ErrChanged)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.removed || r.state != *old {
		return fmt.Errorf("copy chunk %d: %w", c.id, ErrChanged)
	}
	return c.replace(r, state, digestOf(0, sums))
}

// complete writes the new files' header and checksums, and makes both durable.
func (c *Copy) complete(state State, sums []byte) error {
	if len(sums) != 4*blocks(state.Length) {
		return fmt.Errorf("%d bytes of checksums for %d bytes: %w", len(sums), state.Length, ErrInvalid)
	}
	h := header{Generation: 1, Sync: true, State: state, Outside: digestOf(0, sums)}
	if err := c.store.disk.truncate(c.files.data, int64(state.Length)); err != nil {
		return err
	}
	if err := c.store.disk.writeAt(c.files.sums, h.append(nil), h.place(0)); err != nil {
		return err
	}
	if err := c.store.disk.writeAt(c.files.sums, sums, sumsStart); err != nil {
		return err
	}
	if err := errors.Join(c.store.disk.sync(c.files.data), c.store.disk.sync(c.files.sums)); err != nil {
		return err
	}
	return c.store.disk.writeAt(c.files.sums, appendClean(nil, h.Generation), syncPage+cleanAt)
}

// replace switches to the new files. The first rename decides: from there on
// the next start would finish the switch.
func (c *Copy) replace(r *Replica, state State, digest digest) error {
	s := c.store
	if err := s.disk.rename(s.path(c.id, newSumsPartSuffix), s.path(c.id, newSumsSuffix)); err != nil {
		return fmt.Errorf("copy chunk %d: %w", c.id, err)
	}
	r.takeBack()
	c.files.release()
	c.files = nil
	defer s.endCopy(c.id)
	if r.files != nil {
		r.files.release()
		r.files = nil
	}
	s.bytes.Add(int64(state.Length) - int64(r.state.Length))
	r.state, r.digest, r.generation, r.syncSlot, r.clean = state, digest, 1, 1, true
	r.broken, r.unverified, r.failure = false, false, nil
	r.installed++
	r.switching = true
	return r.finishSwitch()
}

// finishSwitch puts the new files in their place. If it fails it is tried again
// before the replica is next used.
func (r *Replica) finishSwitch() error {
	if err := r.store.switchFiles(r.id); err != nil {
		return fmt.Errorf("put the copy of chunk %d in its place: %w", r.id, err)
	}
	r.switching, r.nameSynced = false, true
	return nil
}

// switchFiles gives complete new files their final names.
func (s *Store) switchFiles(id uint64) error {
	if err := s.disk.syncDirectory(s.shard(id)); err != nil {
		return err
	}
	err := s.disk.rename(s.path(id, newDataSuffix), s.path(id, dataSuffix))
	if err != nil && !errors.Is(err, os.ErrNotExist) { // it was renamed before a crash
		return err
	}
	if err := s.disk.rename(s.path(id, newSumsSuffix), s.path(id, sumsSuffix)); err != nil {
		return err
	}
	return s.disk.syncDirectory(s.shard(id))
}

// finishCopy switches to a copy that was complete when the process ended, and
// removes one that was not. It brings the set of the replica's files up to date.
func (s *Store) finishCopy(id uint64, files map[string]bool) error {
	if files[newSumsSuffix] {
		if err := s.switchFiles(id); err != nil {
			return err
		}
		files[dataSuffix], files[sumsSuffix] = true, true
		return nil
	}
	if files[newDataSuffix] || files[newSumsPartSuffix] {
		return s.removeFiles(id, newDataSuffix, newSumsPartSuffix)
	}
	return nil
}

// Intact reads the replica's bytes at a block-aligned offset into buf, and says
// for each block whether it matches the checksum in want.
func (r *Replica) Intact(offset uint64, buf []byte, want []byte) ([]bool, error) {
	if err := r.lockShared(); err != nil {
		return nil, err
	}
	defer r.unlockShared()
	n := 0
	if offset < r.state.Length {
		n = int(min(uint64(len(buf)), r.state.Length-offset))
		if err := r.readDamaged(buf[:n], int64(offset)); err != nil {
			return nil, err
		}
	}
	intact := make([]bool, len(want)/4)
	for i := range intact {
		start, stop := i*wire.BlockSize, min((i+1)*wire.BlockSize, len(buf))
		intact[i] = stop <= n && wire.Checksum(buf[start:stop]) == le.Uint32(want[4*i:])
	}
	return intact, nil
}

// readDamaged reads a range that starts with a block. A block that the disk can't
// read is zeros, which don't match its checksum.
func (r *Replica) readDamaged(buf []byte, offset int64) error {
	_, err := r.files.data.ReadAt(buf, offset)
	for at := 0; errors.Is(err, unix.EIO) && at < len(buf); at += wire.BlockSize {
		block := buf[at:min(at+wire.BlockSize, len(buf))]
		if _, one := r.files.data.ReadAt(block, offset+int64(at)); errors.Is(one, unix.EIO) {
			clear(block)
		} else if one != nil {
			return fmt.Errorf("read block at %d of chunk %d: %w", offset+int64(at), r.id, one)
		}
	}
	if err != nil && !errors.Is(err, unix.EIO) {
		return fmt.Errorf("read %d bytes at %d of chunk %d: %w", len(buf), offset, r.id, err)
	}
	return nil
}

// Rebuild puts what a torn, doubtful or failed replica holds into new files, and
// takes that for the replica's content from then on: for a chunk that has no better
// replica. Blocks that do not match their checksums still don't.
func (r *Replica) Rebuild(epoch uint64) (State, error) {
	c, err := r.store.NewCopy(r.id)
	if err != nil {
		return r.State(), err
	}
	defer c.Discard()
	old, sums, err := r.Checksums()
	if err != nil {
		return old, err
	}
	if epoch < old.Epoch {
		return old, fmt.Errorf("rebuild chunk %d: %w: asked %d, the replica has %d", r.id, ErrStaleEpoch, epoch, old.Epoch)
	}
	buf := make([]byte, VerifyWindow)
	for offset := uint64(0); offset < old.Length; offset += VerifyWindow {
		window := buf[:min(VerifyWindow, old.Length-offset)]
		if _, err := r.Intact(offset, window, nil); err != nil {
			return old, err
		}
		if err := c.WriteAt(window, int64(offset)); err != nil {
			return old, err
		}
	}
	state := old
	state.Epoch, state.Torn, state.Doubtful = epoch, false, false
	if err := c.Install(&old, state, sums); err != nil {
		return r.State(), err
	}
	return state, nil
}
