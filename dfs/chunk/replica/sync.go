package replica

import (
	"fmt"
)

// syncUnderWay is a sync between its header and its end.
type syncUnderWay struct {
	files      *files
	generation uint64 // of its header
	installed  int
	named      bool
}

// Sync makes all that was applied durable. After a failure it fails for ever: the
// kernel has taken the pages that it could not write for written, and the next
// fdatasync would say that all is well. See Rebuild.
func (r *Replica) Sync() error {
	r.syncing.Lock()
	defer r.syncing.Unlock()
	u, err := r.beginSync()
	if u.files == nil || err != nil {
		return err
	}
	defer u.files.release()
	if err := r.syncFiles(&u); err != nil {
		return r.fail(&u, fmt.Errorf("sync chunk %d: %w", r.id, err))
	}
	r.endSync(&u)
	return nil
}

// beginSync writes the header of a sync. Without files there is nothing to be done.
func (r *Replica) beginSync() (u syncUnderWay, err error) {
	if err := r.lock(); err != nil {
		return u, err
	}
	defer r.unlock()
	switch {
	case r.failure != nil:
		return u, r.failure
	case r.clean && r.nameSynced:
		return u, nil
	}
	if err := r.writeHeader(header{State: r.state, Sync: true, Outside: r.digest}); err != nil {
		return u, fmt.Errorf("sync: %w", err)
	}
	r.files.users.Add(1)
	return syncUnderWay{files: r.files, generation: r.generation, installed: r.installed, named: r.nameSynced}, nil
}

func (r *Replica) syncFiles(u *syncUnderWay) error {
	if err := r.store.disk.sync(u.files.data); err != nil {
		return err
	}
	if err := r.store.disk.sync(u.files.sums); err != nil || u.named {
		return err
	}
	return r.store.disk.syncDirectory(r.store.shard(r.id))
}

// endSync notes that a sync was finished. The mark is for the next start, which
// verifies a replica that has none: without it nothing is lost but time.
func (r *Replica) endSync(u *syncUnderWay) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.installed != u.installed { // other files are in their place
		return
	}
	r.nameSynced = true
	at := syncPage + int64(r.syncSlot)*syncSlotSize + cleanAt
	r.syncSlot = 1 - r.syncSlot
	if r.generation == u.generation && r.store.disk.writeAt(u.files.sums, appendClean(nil, u.generation), at) == nil {
		r.clean = true
	}
}

// fail makes the replica refuse everything but copies from it, also after the next
// start if the disk lets it, and returns why.
func (r *Replica) fail(u *syncUnderWay, why error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.removed || r.installed != u.installed {
		return why
	}
	r.failure = fmt.Errorf("%w: %w", ErrDoubtful, why)
	r.state.Doubtful = true
	r.takeBack()
	err := r.ready()
	if err == nil {
		err = r.writeState(r.state)
	}
	if err != nil {
		r.store.log.Error("a failed replica can't be marked", "chunk", r.id, "error", err)
	}
	return r.failure
}
