package replica

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"waggle/dfs/wire"
)

// recover completes or undoes the change whose intent is in the newest header:
// after a change that failed half way. It can itself be interrupted anywhere and
// done again.
func (r *Replica) recover() error {
	h, err := r.reload()
	if err == nil && h.Intent != nil {
		_, err = r.finish(h.Intent, h.Inside)
	}
	// What is torn keeps the header that says where.
	if err == nil && !(r.state.Torn && h.Intent != nil) {
		err = r.writeState(r.state)
	}
	if err != nil {
		return fmt.Errorf("recover chunk %d: %w", r.id, err)
	}
	r.broken = false
	return nil
}

// recoverStart is recover for a replica whose process ended without a sync. If the
// machine did as well, anything that was written since the last sync may be missing:
// so it looks whether the checksums are those of the header, and the blocks those of
// the checksums.
func (r *Replica) recoverStart() error {
	h, err := r.reload()
	if err != nil {
		return fmt.Errorf("recover chunk %d: %w", r.id, err)
	}
	lost, err := r.recoverHeader(&h.header)
	if err == nil {
		err = r.cutSums()
	}
	if err == nil && !lost {
		lost, err = r.differs(h.Intent)
	}
	if err == nil && lost {
		r.state.Doubtful = true
		var sums []byte
		if sums, err = r.readSums(nil, 0, blocks(r.state.Length)); err == nil {
			r.digest = digestOf(0, sums)
		}
	}
	if err == nil && (lost || !(r.state.Torn && h.Intent != nil)) {
		err = r.writeState(r.state)
	}
	if err != nil {
		return fmt.Errorf("recover chunk %d: %w", r.id, err)
	}
	r.broken, r.unverified = false, false
	return nil
}

// reload takes the state of the newest header.
func (r *Replica) reload() (newest, error) {
	r.takeBack() // it may become shorter
	h, err := readHeader(r.files.sums)
	if err != nil {
		return h, err
	}
	r.generation, r.digest = h.Generation, h.Outside
	r.syncSlot = h.syncSlot
	r.store.bytes.Add(int64(h.State.Length) - int64(r.state.Length))
	r.state = h.State
	return h, nil
}

// recoverHeader completes or undoes what the header intends. It says whether
// checksums are older than the header.
func (r *Replica) recoverHeader(h *header) (lost bool, err error) {
	length, first, end := h.State.Length, uint64(0), uint64(0)
	if i := h.Intent; i != nil {
		first = i.firstBlock(length)
		end = i.Offset/wire.BlockSize + uint64(len(i.Sums)/4)
		length = min(length, i.NewLength)
	}
	before, err := r.digestIn(0, min(first, blockCount(length)))
	if err != nil {
		return false, err
	}
	behind, err := r.digestIn(end, blockCount(length))
	if err != nil {
		return false, err
	}
	lost = before+behind != h.Outside
	if h.Intent == nil {
		return lost, r.fitData(r.files, h.State.Length)
	}
	inside, err := r.digestIn(first, min(end, blockCount(length)))
	if err != nil {
		return false, err
	}
	undone, err := r.finish(h.Intent, h.Inside)
	return lost || undone && inside != h.Inside, err
}

// differs says whether a block does not match its checksum. The blocks of a change
// that was undone may.
func (r *Replica) differs(i *intent) (bool, error) {
	var buf [wire.BlockSize]byte
	sums, err := r.readSums(nil, 0, blocks(r.state.Length))
	if err != nil {
		return false, err
	}
	for block := uint64(0); block < blockCount(r.state.Length); block++ {
		if r.state.Torn && i != nil && block >= i.firstBlock(r.state.Length) && block*wire.BlockSize < i.Offset+uint64(i.Length) {
			continue
		}
		data, err := r.blockOnDisk(&buf, block, r.state.Length)
		if errors.Is(err, unix.EIO) || err == nil && wire.Checksum(data) != le.Uint32(sums[4*block:]) {
			return true, nil
		}
		if err != nil {
			return false, err
		}
	}
	return false, nil
}

// cutSums takes checksums away that lie behind the replica's end, for good: a block
// that is there again later must not match one of them.
func (r *Replica) cutSums() error {
	info, err := r.files.sums.Stat()
	if err != nil {
		return err
	}
	size := sumsStart + 4*int64(blockCount(r.state.Length))
	if info.Size() <= size {
		return nil
	}
	if err := r.store.disk.truncate(r.files.sums, size); err != nil {
		return err
	}
	return r.store.disk.sync(r.files.sums)
}

// finish completes a change, or undoes it if the blocks of its range do not hold
// what they should. r.digest is that of the checksums which it does not touch.
func (r *Replica) finish(i *intent, inside digest) (undone bool, err error) {
	done := i.Redo
	if !done {
		if done, err = r.wasDone(i); err != nil {
			return false, err
		}
	}
	if done {
		return false, r.complete(i)
	}
	return true, r.undo(i, inside)
}

// readHeader returns the newest header of a sums file.
func readHeader(f *os.File) (newest, error) {
	slots := make([]byte, sumsStart)
	n, err := f.ReadAt(slots, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return newest{}, err
	}
	return findNewest(slots[:n])
}

// wasDone says whether all blocks of an intent's range hold the new bytes.
func (r *Replica) wasDone(i *intent) (bool, error) {
	var buf [wire.BlockSize]byte
	for n, sums := uint64(0), i.Sums; len(sums) > 0; n, sums = n+1, sums[4:] {
		data, err := r.blockOnDisk(&buf, i.Offset/wire.BlockSize+n, i.NewLength)
		if err != nil {
			return false, err
		}
		if wire.Checksum(data) != le.Uint32(sums) {
			return false, nil
		}
	}
	return true, nil
}

// blockOnDisk reads what the data file holds of a block in a replica of the
// given length into buf. It is shorter if the file is.
func (r *Replica) blockOnDisk(buf *[wire.BlockSize]byte, block, length uint64) ([]byte, error) {
	start := block * wire.BlockSize
	data := buf[:min(wire.BlockSize, length-start)]
	n, err := r.files.data.ReadAt(data, int64(start))
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read block %d of chunk %d: %w", block, r.id, err)
	}
	return data[:n], nil
}

// complete does what may be missing behind the data of a change.
func (r *Replica) complete(i *intent) error {
	if err := r.fitData(r.files, i.NewLength); err != nil {
		return err
	}
	if i.NewLength < r.state.Length {
		if err := r.store.disk.truncate(r.files.sums, sumsStart+4*int64(blockCount(i.NewLength))); err != nil {
			return err
		}
	}
	first := i.firstBlock(r.state.Length)
	sums := append(i.appendGap(nil, r.state.Length), i.Sums...)
	if err := r.writeSums(first, sums); err != nil {
		return err
	}
	r.digest += digestOf(first, sums)
	torn := r.state.Torn && i.Redo
	r.become(i)
	r.state.Torn = torn
	return nil
}

// undo goes back to the state before a change: bytes behind the old end go. Blocks
// that hold what was there before, or all of what was to be written, match their
// checksums then; others do not. If one is not as before, the replica is torn until
// it is made equal to another or written again.
func (r *Replica) undo(i *intent, inside digest) error {
	back := &intent{Sequence: r.state.Sequence, NewLength: r.state.Length, Offset: i.Offset - i.Offset%wire.BlockSize, Redo: true, GapSum: zeroBlockSum}
	torn := false
	for n := range uint64(len(i.Sums) / 4) {
		block := i.Offset/wire.BlockSize + n
		if block*wire.BlockSize >= r.state.Length {
			break
		}
		sum, asBefore, err := r.undoneSum(block, i.NewLength, le.Uint32(i.Sums[4*n:]))
		if err != nil {
			return err
		}
		torn = torn || !asBefore
		back.Sums = le.AppendUint32(back.Sums, sum)
		back.Length = uint32(min((block+1)*wire.BlockSize, r.state.Length) - back.Offset)
	}
	if !torn {
		r.digest += inside
		return r.fitData(r.files, r.state.Length)
	}
	// From this header on the replica is torn, and its checksums are these.
	r.state.Torn = true
	if err := r.writeHeader(header{State: r.state, Intent: back, Outside: r.digest}); err != nil {
		return err
	}
	return r.complete(back)
}

// undoneSum returns the checksum that a block of a change that is undone gets, and
// whether the block is as before the change. sum is its checksum after the change.
func (r *Replica) undoneSum(block, newLength uint64, sum uint32) (undone uint32, asBefore bool, err error) {
	var buf [wire.BlockSize]byte
	stored, err := r.readSums(nil, block, 1)
	if err != nil {
		return 0, false, err
	}
	data, err := r.blockOnDisk(&buf, block, newLength)
	if err != nil {
		return 0, false, err
	}
	before := data[:min(uint64(len(data)), r.state.Length-block*wire.BlockSize)]
	switch {
	case wire.Checksum(before) == le.Uint32(stored):
		return le.Uint32(stored), true, nil
	case wire.Checksum(data) == sum:
		return wire.Checksum(before), false, nil
	}
	return le.Uint32(stored), false, nil
}
