package replica

import (
	"errors"
	"fmt"
	"io"
	"os"

	"waggle/dfs/wire"
)

// recover completes or undoes the change whose intent is in the newest header:
// after a crash, and after a change that failed half way. It can itself be
// interrupted anywhere and done again.
func (r *Replica) recover() error {
	r.takeBack() // it may become shorter
	h, err := readHeader(r.files.sums)
	if err != nil {
		return fmt.Errorf("recover chunk %d: %w", r.id, err)
	}
	r.generation = h.Generation
	r.store.bytes.Add(int64(h.State.Length) - int64(r.state.Length))
	r.state = h.State
	r.unsettled = h.Intent != nil
	if h.Intent != nil {
		whole, err := r.wasDone(h.Intent)
		if err != nil {
			return err
		}
		if whole {
			err = r.complete(h.Intent)
		} else {
			err = r.undo(h.Intent)
		}
		if err != nil {
			return fmt.Errorf("recover chunk %d: %w", r.id, err)
		}
	}
	r.broken = false
	return r.settle()
}

// readHeader returns the newest header of a sums file.
func readHeader(f *os.File) (header, error) {
	slots := make([]byte, sumsStart)
	n, err := f.ReadAt(slots, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return header{}, err
	}
	return newest(slots[:n])
}

// wasDone says whether all blocks of an intent's range hold the new bytes.
func (r *Replica) wasDone(i *intent) (bool, error) {
	for n, sums := uint64(0), i.Sums; len(sums) > 0; n, sums = n+1, sums[4:] {
		data, err := r.blockOnDisk(i.Offset/wire.BlockSize+n, i.NewLength)
		if err != nil {
			return false, err
		}
		if wire.Checksum(data) != le.Uint32(sums) {
			return false, nil
		}
	}
	return true, nil
}

// blockOnDisk returns what the data file holds of a block in a replica of the
// given length. It is shorter if the file is.
func (r *Replica) blockOnDisk(block, length uint64) ([]byte, error) {
	start := block * wire.BlockSize
	data := make([]byte, min(wire.BlockSize, length-start))
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
	first, gap, err := r.gapSums(i.Offset)
	var corrupt *CorruptError
	if errors.As(err, &corrupt) {
		// The last block before the write was damaged by something else. Its
		// checksum stays, and so the damage is still found.
		first, gap, err = corrupt.Offset/wire.BlockSize, nil, nil
		stored, readErr := r.readSums(nil, first, 1)
		if readErr != nil {
			return readErr
		}
		gap = append(gap, stored...)
		for block := first + 1; block < i.Offset/wire.BlockSize; block++ {
			gap = le.AppendUint32(gap, zeroBlockSum)
		}
	}
	if err != nil {
		return err
	}
	if err := r.writeSums(first, append(gap, i.Sums...)); err != nil {
		return err
	}
	r.become(i)
	return nil
}

// undo goes back to the state before a change: bytes behind the old end go, and
// blocks that were overwritten get the checksum of what they hold now. Then the
// replica is torn, until it is made equal to another or written again.
func (r *Replica) undo(i *intent) error {
	if err := r.fitData(r.files, r.state.Length); err != nil {
		return err
	}
	first := i.Offset / wire.BlockSize
	var sums []byte
	torn := false
	for block := first; block < first+uint64(len(i.Sums)/4) && block*wire.BlockSize < r.state.Length; block++ {
		data, err := r.blockOnDisk(block, r.state.Length)
		if err != nil {
			return err
		}
		stored, err := r.readSums(nil, block, 1)
		if err != nil {
			return err
		}
		sum := wire.Checksum(data)
		torn = torn || sum != le.Uint32(stored)
		sums = le.AppendUint32(sums, sum)
	}
	if !torn {
		return nil
	}
	// The header says so before a checksum is made to match: the next recovery
	// could not tell any more.
	r.state.Torn = true
	if err := r.writeHeader(r.state, i); err != nil {
		return err
	}
	return r.writeSums(first, sums)
}
