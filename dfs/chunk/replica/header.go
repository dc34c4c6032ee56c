package replica

import (
	"encoding/binary"
	"errors"
	"fmt"

	"waggle/dfs/wire"
)

var le = binary.LittleEndian

// Layout of a sums file in bytes: two slots for the headers of writes, which are
// written in turn; a page with two slots for the headers of syncs, written in turn
// as well; and behind them the CRC32C of each block of the data file.
//
// A header that is torn while it is written leaves the one before it in the other
// slot. Both slots of writes are written again and again between two syncs, so
// after a power failure neither may be there: then the header of the last sync is,
// because the disk had it before the slot of the sync before was written.
const (
	slotSize     = 8 << 10
	syncPage     = 2 * slotSize
	syncSlotSize = 2 << 10
	sumsStart    = syncPage + 2*syncSlotSize
	headerSize   = 104
	// cleanAt is where in a sync's slot the mark of a finished sync is: in another
	// sector than the header.
	cleanAt   = 1 << 10
	cleanSize = 16
	cleanMark = "WCLN"
	// maxIntentSums is how many blocks the largest write touches.
	maxIntentSums = wire.MaxData/wire.BlockSize + 1

	headerMagic   = "WGLR"
	headerVersion = 2
	flagTorn      = 1
	flagIntent    = 2
	flagSync      = 4
	flagRedo      = 8
	flagDoubtful  = 16
)

// ErrHeader is wrapped by the error for a header slot that can't be used, and
// ErrFormat by that for a header of another version of this program.
var (
	ErrHeader = errors.New("bad replica header")
	ErrFormat = errors.New("replicas of another format")
)

// State is what a replica holds.
type State struct {
	Chunk    uint64
	Epoch    uint64
	Sequence uint64 // of the last write that was applied whole
	Length   uint64 // bytes
	// Torn: a write after Sequence was interrupted. Its blocks are as before it, as
	// after it, or do not match their checksums.
	Torn bool
	// Doubtful: any block may be older than Sequence says, or not match its checksum,
	// because a power failure lost what was not synced, or the disk failed a sync.
	// What was synced before is there.
	Doubtful bool
}

// intent says what a change is about to do, so that the next start can tell
// whether it was done.
type intent struct {
	Sequence  uint64 // the replica's once the change is done
	NewLength uint64 // bytes; the replica's once the change is done
	Offset    uint64 // bytes; the range that changes
	Length    uint32
	// GapSum is the checksum of the last block filled up with zeros, where the range
	// lies behind it.
	GapSum uint32
	// Redo: the change is completed whatever the range's blocks hold.
	Redo bool
	Sums []byte // the new checksum of each block that the range touches
}

// firstBlock is the first block whose checksum a change of a replica of the given
// length touches: the range's, or the end's where the range lies behind it.
func (i *intent) firstBlock(length uint64) uint64 {
	return min(i.Offset/wire.BlockSize, length/wire.BlockSize)
}

// header is the content of a slot: what was applied, and the change after it.
type header struct {
	Generation uint64 // grows with every header; its last bit chooses the slot of a write
	Sync       bool   // it is in a slot for syncs
	State      State
	Intent     *intent
	// Outside is the digest of the checksums that the intent does not touch, of all
	// without an intent; Inside that of those which it touches, before it.
	Outside, Inside digest
}

// append appends the header's slot, without padding, to b.
func (h *header) append(b []byte) []byte {
	start := len(b)
	var i intent
	if h.Intent != nil {
		i = *h.Intent
	}
	b = append(b, headerMagic...)
	b = append(b, headerVersion, h.flags(), 0, 0)
	b = le.AppendUint64(b, h.Generation)
	b = le.AppendUint64(b, h.State.Chunk)
	b = le.AppendUint64(b, h.State.Epoch)
	b = le.AppendUint64(b, h.State.Sequence)
	b = le.AppendUint64(b, h.State.Length)
	b = le.AppendUint64(b, uint64(h.Outside))
	b = le.AppendUint64(b, uint64(h.Inside))
	b = le.AppendUint64(b, i.Sequence)
	b = le.AppendUint64(b, i.NewLength)
	b = le.AppendUint64(b, i.Offset)
	b = le.AppendUint32(b, i.Length)
	b = le.AppendUint32(b, i.GapSum)
	b = le.AppendUint32(b, uint32(len(i.Sums)))
	b = append(b, 0, 0, 0, 0)
	b = append(b, i.Sums...)
	le.PutUint32(b[start+headerSize-4:], slotChecksum(b[start:]))
	return b
}

func (h *header) flags() (flags byte) {
	for _, f := range []struct {
		set  bool
		flag byte
	}{
		{h.State.Torn, flagTorn}, {h.State.Doubtful, flagDoubtful}, {h.Sync, flagSync},
		{h.Intent != nil, flagIntent}, {h.Intent != nil && h.Intent.Redo, flagRedo},
	} {
		if f.set {
			flags |= f.flag
		}
	}
	return flags
}

// slotChecksum is computed with the checksum's own field as zero.
func slotChecksum(b []byte) uint32 {
	sum := wire.UpdateChecksum(0, b[:headerSize-4])
	sum = wire.UpdateChecksum(sum, []byte{0, 0, 0, 0})
	return wire.UpdateChecksum(sum, b[headerSize:])
}

// sumsLength is where the header has the length of an intent's checksums.
const sumsLength = headerSize - 8

// parse reads a slot. The intent's Sums point into b.
func (h *header) parse(b []byte) error {
	if len(b) < headerSize {
		return fmt.Errorf("%w: %d bytes, at least %d are needed", ErrHeader, len(b), headerSize)
	}
	if string(b[:4]) != headerMagic {
		return fmt.Errorf("%w: starts with %q, must be %q", ErrHeader, b[:4], headerMagic)
	}
	if b[4] != headerVersion {
		return fmt.Errorf("%w: %w: version %d, this program reads %d", ErrHeader, ErrFormat, b[4], headerVersion)
	}
	sums := uint64(le.Uint32(b[sumsLength:]))
	if sums > 4*maxIntentSums || sums > uint64(len(b)-headerSize) {
		return fmt.Errorf("%w: %d bytes of checksums", ErrHeader, sums)
	}
	if sum := slotChecksum(b[:headerSize+sums]); sum != le.Uint32(b[headerSize-4:]) {
		return fmt.Errorf("%w: checksum is %#x, computed %#x", ErrHeader, le.Uint32(b[headerSize-4:]), sum)
	}
	flags := b[5]
	*h = header{
		Generation: le.Uint64(b[8:]), Sync: flags&flagSync != 0,
		State: State{Chunk: le.Uint64(b[16:]), Epoch: le.Uint64(b[24:]), Sequence: le.Uint64(b[32:]),
			Length: le.Uint64(b[40:]), Torn: flags&flagTorn != 0, Doubtful: flags&flagDoubtful != 0},
		Outside: digest(le.Uint64(b[48:])), Inside: digest(le.Uint64(b[56:])),
	}
	if h.State.Length > wire.MaxChunkSize {
		return fmt.Errorf("%w: length of %d bytes, at most %d are allowed", ErrHeader, h.State.Length, wire.MaxChunkSize)
	}
	if flags&flagIntent == 0 {
		return nil
	}
	i := &intent{Sequence: le.Uint64(b[64:]), NewLength: le.Uint64(b[72:]), Offset: le.Uint64(b[80:]),
		Length: le.Uint32(b[88:]), GapSum: le.Uint32(b[92:]), Redo: flags&flagRedo != 0, Sums: b[headerSize : headerSize+sums]}
	switch {
	case i.NewLength > wire.MaxChunkSize, i.Offset > i.NewLength, uint64(i.Length) > i.NewLength-i.Offset:
		return fmt.Errorf("%w: change of %d bytes at %d of a replica of %d", ErrHeader, i.Length, i.Offset, i.NewLength)
	case len(i.Sums) != 4*wire.Pieces(i.Offset, i.Length):
		return fmt.Errorf("%w: %d bytes of checksums for a change of %d bytes at %d", ErrHeader, len(i.Sums), i.Length, i.Offset)
	}
	h.Intent = i
	return nil
}

// place returns where in the sums file the header belongs.
func (h *header) place(syncSlot int) int64 {
	if h.Sync {
		return syncPage + int64(syncSlot)*syncSlotSize
	}
	return int64(h.Generation%2) * slotSize
}

// newest is the newest good header of a sums file.
type newest struct {
	header
	// syncSlot is the slot for the next header of a sync: the one that does not hold
	// the newest of these.
	syncSlot int
	// clean: the sync that the header stands for was finished, and nothing was
	// changed behind it.
	clean bool
}

// findNewest returns the header that holds: of the good slots the latest one. b is
// the start of a sums file. Slots that were never written are zero.
func findNewest(b []byte) (newest, error) {
	var found newest
	var first error
	good := false
	var lastSync uint64
	for slot := range 4 {
		start, size := slot*slotSize, slotSize
		if slot >= 2 {
			start, size = syncPage+(slot-2)*syncSlotSize, cleanAt
		}
		if start >= len(b) {
			break
		}
		var h header
		err := h.parse(b[start:min(len(b), start+size)])
		if err == nil && h.place(slot-2) != int64(start) {
			err = fmt.Errorf("%w: generation %d is in slot %d", ErrHeader, h.Generation, slot)
		}
		if err != nil {
			if first == nil || errors.Is(err, ErrFormat) {
				first = err
			}
			continue
		}
		if h.Sync && h.Generation >= lastSync {
			lastSync, found.syncSlot = h.Generation, 1-(slot-2)
		}
		if !good || h.Generation > found.Generation {
			found.header, good = h, true
			found.clean = h.Sync && isClean(b[start:min(len(b), start+syncSlotSize)], h.Generation)
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

// appendClean appends the mark that the sync of a generation was finished.
func appendClean(b []byte, generation uint64) []byte {
	b = append(b, cleanMark...)
	b = le.AppendUint64(b, generation)
	return le.AppendUint32(b, wire.Checksum(b[len(b)-cleanSize+4:]))
}

// isClean says whether a sync's slot has the mark of its generation.
func isClean(slot []byte, generation uint64) bool {
	return len(slot) >= cleanAt+cleanSize && string(slot[cleanAt:cleanAt+cleanSize]) == string(appendClean(nil, generation))
}
