package replica

import (
	"encoding/binary"
	"errors"
	"fmt"

	"waggle/dfs/wire"
)

var le = binary.LittleEndian

// Layout of a sums file in bytes: two header slots that are written in turn, and
// behind them the CRC32C of each block of the data file. A header that is torn
// while it is written leaves the one before it in the other slot.
const (
	slotSize   = 8 << 10
	sumsStart  = 2 * slotSize
	headerSize = 84
	// maxIntentSums is how many blocks the largest write touches.
	maxIntentSums = wire.MaxData/wire.BlockSize + 1

	headerMagic   = "WGLR"
	headerVersion = 1
	flagTorn      = 1
	flagIntent    = 2
)

// ErrHeader is wrapped by the error for a header slot that can't be used.
var ErrHeader = errors.New("bad replica header")

// State is what a replica holds.
type State struct {
	Chunk    uint64
	Epoch    uint64
	Sequence uint64 // of the last write that was applied whole
	Length   uint64 // bytes
	// Torn: a write after Sequence was interrupted, and its blocks may hold old
	// and new bytes. Their checksums match what they hold.
	Torn bool
}

// intent says what a change is about to do, so that the next start can tell
// whether it was done.
type intent struct {
	Sequence  uint64 // the replica's once the change is done
	NewLength uint64 // bytes; the replica's once the change is done
	Offset    uint64 // bytes; the range that changes
	Length    uint32
	Sums      []byte // the new checksum of each block that the range touches
}

// header is the content of a slot: what was applied, and the change after it.
type header struct {
	Generation uint64 // grows with every header; its last bit chooses the slot
	State      State
	Intent     *intent
}

// append appends the header's slot, without padding, to b.
func (h *header) append(b []byte) []byte {
	start := len(b)
	var flags byte
	if h.State.Torn {
		flags |= flagTorn
	}
	var i intent
	if h.Intent != nil {
		flags |= flagIntent
		i = *h.Intent
	}
	b = append(b, headerMagic...)
	b = append(b, headerVersion, flags, 0, 0)
	b = le.AppendUint64(b, h.Generation)
	b = le.AppendUint64(b, h.State.Chunk)
	b = le.AppendUint64(b, h.State.Epoch)
	b = le.AppendUint64(b, h.State.Sequence)
	b = le.AppendUint64(b, h.State.Length)
	b = le.AppendUint64(b, i.Sequence)
	b = le.AppendUint64(b, i.NewLength)
	b = le.AppendUint64(b, i.Offset)
	b = le.AppendUint32(b, i.Length)
	b = le.AppendUint32(b, uint32(len(i.Sums)))
	b = append(b, 0, 0, 0, 0)
	b = append(b, i.Sums...)
	le.PutUint32(b[start+headerSize-4:], slotChecksum(b[start:]))
	return b
}

// slotChecksum is computed with the checksum's own field as zero.
func slotChecksum(b []byte) uint32 {
	sum := wire.UpdateChecksum(0, b[:headerSize-4])
	sum = wire.UpdateChecksum(sum, []byte{0, 0, 0, 0})
	return wire.UpdateChecksum(sum, b[headerSize:])
}

// parse reads a slot. The intent's Sums point into b.
func (h *header) parse(b []byte) error {
	if len(b) < headerSize {
		return fmt.Errorf("%w: %d bytes, at least %d are needed", ErrHeader, len(b), headerSize)
	}
	if string(b[:4]) != headerMagic || b[4] != headerVersion {
		return fmt.Errorf("%w: starts with %q version %d, must be %q version %d", ErrHeader, b[:4], b[4], headerMagic, headerVersion)
	}
	sums := uint64(le.Uint32(b[headerSize-8:]))
	if sums > 4*maxIntentSums || sums > uint64(len(b)-headerSize) {
		return fmt.Errorf("%w: %d bytes of checksums", ErrHeader, sums)
	}
	if sum := slotChecksum(b[:headerSize+sums]); sum != le.Uint32(b[headerSize-4:]) {
		return fmt.Errorf("%w: checksum is %#x, computed %#x", ErrHeader, le.Uint32(b[headerSize-4:]), sum)
	}
	flags := b[5]
	*h = header{
		Generation: le.Uint64(b[8:]),
		State: State{Chunk: le.Uint64(b[16:]), Epoch: le.Uint64(b[24:]), Sequence: le.Uint64(b[32:]),
			Length: le.Uint64(b[40:]), Torn: flags&flagTorn != 0},
	}
	if h.State.Length > wire.MaxChunkSize {
		return fmt.Errorf("%w: length of %d bytes, at most %d are allowed", ErrHeader, h.State.Length, wire.MaxChunkSize)
	}
	if flags&flagIntent == 0 {
		return nil
	}
	i := &intent{Sequence: le.Uint64(b[48:]), NewLength: le.Uint64(b[56:]), Offset: le.Uint64(b[64:]),
		Length: le.Uint32(b[72:]), Sums: b[headerSize : headerSize+sums]}
	switch {
	case i.NewLength > wire.MaxChunkSize, i.Offset > i.NewLength, uint64(i.Length) > i.NewLength-i.Offset:
		return fmt.Errorf("%w: change of %d bytes at %d of a replica of %d", ErrHeader, i.Length, i.Offset, i.NewLength)
	case len(i.Sums) != 4*wire.Pieces(i.Offset, i.Length):
		return fmt.Errorf("%w: %d bytes of checksums for a change of %d bytes at %d", ErrHeader, len(i.Sums), i.Length, i.Offset)
	}
	h.Intent = i
	return nil
}

// newest returns the header that holds: of two good slots the later one. b is
// the start of a sums file. Slots that were never written are zero.
func newest(b []byte) (header, error) {
	var found header
	var first error
	good := false
	for slot := 0; slot < 2 && slot*slotSize < len(b); slot++ {
		var h header
		err := h.parse(b[slot*slotSize : min(len(b), (slot+1)*slotSize)])
		if err == nil && h.Generation%2 != uint64(slot) {
			err = fmt.Errorf("%w: generation %d is in slot %d", ErrHeader, h.Generation, slot)
		}
		switch {
		case err != nil && first == nil:
			first = err
		case err == nil && (!good || h.Generation > found.Generation):
			found, good = h, true
		}
	}
	switch {
	case good:
		return found, nil
	case first == nil:
		return found, fmt.Errorf("%w: the file is empty", ErrHeader)
	}
	return found, first
}
