package wire

import (
	"fmt"
	"hash/crc32"
	"io"
)

// Sizes of a data frame's parts in bytes.
const (
	HeaderSize = 64
	// MaxExtra bounds what may stand between a frame's header and its data.
	MaxExtra = 8 << 10
	// MaxData bounds the data of one frame, and so one read or write.
	MaxData = 4 << 20
)

const frameMagic = "WGLD"

// FrameIDAt is where a frame's ID is in its header.
const FrameIDAt = 8

// FrameType says what a frame asks for. The answer to a frame has its type.
type FrameType uint8

// What a frame can ask for. Frames of one connection are answered in the order
// they were sent in; a client may send several before it reads an answer.
const (
	// FrameSelect chooses the data paths of this connection: Extra is
	// "read=NAME" or "write=NAME"; a space and what the path needs to know from
	// the client may follow. The Extra of the answer is what the path needs
	// to say to the client. It is answered with StatusUnsupported, and
	// the reason in Extra, where this machine can't take the path.
	FrameSelect FrameType = iota + 1
	// FrameRead asks for Length bytes at Offset of a chunk. The answer's Offset
	// and Length are those of the block-aligned range that covers the request,
	// clipped to the replica's end; its Extra is the stored checksum of each of
	// its blocks, its data the blocks. The range may not exceed MaxData. An
	// older Epoch than the replica's is served: the replica is still in use.
	// Sequence is how many bytes the replica must have at least: what is asked for
	// below that is there, or the answer is StatusTooShort. Epoch 0 is for copies
	// between servers: they get whatever the replica holds.
	FrameRead
	// FrameWrite carries Length bytes for Offset of a chunk under a lease's
	// Epoch with the lease's next Sequence. Its Extra is AppendWriteExtra's.
	// It is answered once every replica behind this one has acknowledged it. With
	// FlagUnsummed its Extra has no checksums, and that of the answer has them.
	FrameWrite
	// FrameSync asks that a chunk be made durable on every replica of the chain;
	// its Extra is AppendWriteExtra's with no checksums. A Sequence above 0 is
	// that of the last write that must be in it.
	FrameSync

	frameTypeEnd
)

// Flags of a frame.
const (
	// FlagLocked asks for a read that is copied while writers wait: never torn.
	FlagLocked uint16 = 1 << iota
	// FlagSync asks that a write be made durable before it is acknowledged.
	FlagSync
	// FlagAnswer marks an answer.
	FlagAnswer
	// FlagUnsummed marks a write whose sender has not seen the data: the first
	// server that receives it computes the checksums of its pieces.
	FlagUnsummed
	// FlagDoubtful asks for a read although the replica may be doubtful, that is have
	// lost writes: for whoever compares what its blocks hold with another one.
	FlagDoubtful

	knownFrameFlags = FlagLocked | FlagSync | FlagAnswer | FlagUnsummed | FlagDoubtful
)

// Status says how a frame's request ended.
type Status uint32

// How a frame's request can end. In an answer that is not StatusOK, Extra is
// one line of text for a person, and there is no data.
const (
	StatusOK Status = iota
	// StatusNotFound: this server has no replica of the chunk.
	StatusNotFound
	// StatusStaleEpoch: the request's epoch is not the replica's (or is newer
	// than it, for a read); the answer's Epoch is. To a write also where this holds for a
	// replica further down the chain, which has not failed.
	StatusStaleEpoch
	// StatusOutOfOrder: Sequence is neither the next nor one already applied;
	// the answer's Sequence is the last one applied. As StatusStaleEpoch, it may be said of
	// a replica further down the chain.
	StatusOutOfOrder
	// StatusCorrupt: a block does not match its checksum; the answer's Offset
	// is the block's.
	StatusCorrupt
	// StatusInvalid: the request breaks a rule.
	StatusInvalid
	// StatusNoSpace: the disk is full.
	StatusNoSpace
	// StatusIO: the disk failed.
	StatusIO
	// StatusUnsupported: this machine can't take the data path.
	StatusUnsupported
	// StatusChainBroken: a replica further down the chain did not acknowledge;
	// the answer's Sequence is the position in the chain of the one that failed,
	// counted from this server as 0.
	StatusChainBroken
	// StatusTooShort: the replica lacks bytes that the reader knows to be there.
	StatusTooShort
	// StatusNotServing: the replica must not be read from now, because its server is
	// out of touch with the metadata server, or it was left behind. Others may be.
	StatusNotServing

	statusEnd
)

// Frame is the header of a data frame. Extra and then Length bytes of data
// follow it on the connection, the data only in a write and in the answer to a
// read.
type Frame struct {
	Type     FrameType
	Flags    uint16
	ID       uint64 // chosen by the asker; the answer repeats it
	Chunk    uint64
	Epoch    uint64
	Offset   uint64 // bytes from the chunk's start
	Length   uint32 // bytes
	Sequence uint64 // of a write; in a read, see FrameRead
	Status   Status
	Extra    []byte
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Checksum is the CRC32C (Castagnoli) of b.
func Checksum(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

// UpdateChecksum is the CRC32C of what sum is the CRC32C of, followed by b.
func UpdateChecksum(sum uint32, b []byte) uint32 { return crc32.Update(sum, castagnoli, b) }

// Append appends the frame's header and Extra to b. The header's checksum
// covers both.
func (f *Frame) Append(b []byte) []byte {
	start := len(b)
	b = append(b, frameMagic...)
	b = append(b, Version, byte(f.Type))
	b = le.AppendUint16(b, f.Flags)
	b = le.AppendUint64(b, f.ID)
	b = le.AppendUint64(b, f.Chunk)
	b = le.AppendUint64(b, f.Epoch)
	b = le.AppendUint64(b, f.Offset)
	b = le.AppendUint32(b, f.Length)
	b = le.AppendUint32(b, uint32(len(f.Extra)))
	b = le.AppendUint64(b, f.Sequence)
	b = le.AppendUint32(b, uint32(f.Status))
	sum := crc32.Update(Checksum(b[start:]), castagnoli, f.Extra)
	b = le.AppendUint32(b, sum)
	return append(b, f.Extra...)
}

// Receive reads a frame's header and Extra from r, which is left at the first
// byte of the data. Extra is read into buf if that is large enough. It returns
// io.EOF if r ends before the frame's first byte.
func (f *Frame) Receive(r io.Reader, buf []byte) error {
	var h [HeaderSize]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		if err == io.ErrUnexpectedEOF {
			return fmt.Errorf("read frame header: %w", err)
		}
		return err
	}
	extra, err := f.parseHeader(h[:])
	if err != nil {
		return err
	}
	if cap(buf) < extra {
		buf = make([]byte, extra)
	}
	f.Extra = buf[:extra]
	if _, err := io.ReadFull(r, f.Extra); err != nil {
		return fmt.Errorf("read the %d bytes behind a frame's header: %w", extra, err)
	}
	if sum := crc32.Update(Checksum(h[:HeaderSize-4]), castagnoli, f.Extra); sum != le.Uint32(h[HeaderSize-4:]) {
		return malformed("frame header's checksum is %#x, computed %#x", le.Uint32(h[HeaderSize-4:]), sum)
	}
	return nil
}

// parseHeader reads the fixed part and returns the length of Extra.
func (f *Frame) parseHeader(h []byte) (int, error) {
	if string(h[:4]) != frameMagic {
		return 0, malformed("frame starts with %q, must start with %q", h[:4], frameMagic)
	}
	if h[4] != Version {
		return 0, malformed("frame has version %d, this side speaks %d", h[4], Version)
	}
	*f = Frame{
		Type: FrameType(h[5]), Flags: le.Uint16(h[6:]), ID: le.Uint64(h[8:]), Chunk: le.Uint64(h[16:]),
		Epoch: le.Uint64(h[24:]), Offset: le.Uint64(h[32:]), Length: le.Uint32(h[40:]),
		Sequence: le.Uint64(h[48:]), Status: Status(le.Uint32(h[56:])),
	}
	extra := le.Uint32(h[44:])
	switch {
	case f.Type == 0 || f.Type >= frameTypeEnd:
		return 0, malformed("frame has unknown type %d", f.Type)
	case f.Flags&^knownFrameFlags != 0:
		return 0, malformed("frame has unknown flags %#x", f.Flags&^knownFrameFlags)
	case f.Status >= statusEnd:
		return 0, malformed("frame has unknown status %d", f.Status)
	case f.Length > MaxData:
		return 0, malformed("frame has %d bytes of data, at most %d are allowed", f.Length, MaxData)
	case extra > MaxExtra:
		return 0, malformed("frame has %d bytes behind its header, at most %d are allowed", extra, MaxExtra)
	case f.Offset+uint64(f.Length) > MaxChunkSize || f.Offset > MaxChunkSize:
		return 0, malformed("frame's range of %d bytes at %d ends behind the largest chunk, %d bytes", f.Length, f.Offset, MaxChunkSize)
	}
	return int(extra), nil
}

// Pieces returns how many blocks the range of length bytes at offset touches.
func Pieces(offset uint64, length uint32) int {
	if length == 0 {
		return 0
	}
	return int((offset+uint64(length)-1)/BlockSize - offset/BlockSize + 1)
}

// TooShort says whether a replica of some bytes lacks a part of a range of the
// chunk that it is expected to hold.
func TooShort(offset, length, has, expected uint64) bool {
	return has < expected && min(offset+length, expected) > max(has, offset)
}

// AppendChecksums appends the checksum of each piece that the blocks of a chunk
// cut data into, when data lies at offset.
func AppendChecksums(b []byte, offset uint64, data []byte) []byte {
	for len(data) > 0 {
		n := min(len(data), BlockSize-int(offset%BlockSize))
		b = le.AppendUint32(b, Checksum(data[:n]))
		data, offset = data[n:], offset+uint64(n)
	}
	return b
}

// CheckChecksums compares data at offset with the checksums of its pieces. It
// returns the offset in the chunk of the first piece that differs, or -1.
func CheckChecksums(sums []byte, offset uint64, data []byte) int64 {
	for len(data) > 0 {
		n := min(len(data), BlockSize-int(offset%BlockSize))
		if len(sums) < 4 || le.Uint32(sums) != Checksum(data[:n]) {
			return int64(offset)
		}
		data, offset, sums = data[n:], offset+uint64(n), sums[4:]
	}
	return -1
}

// AppendWriteExtra appends the Extra of a write or a sync: the replicas that
// the frame must still be passed on to, and the checksums of the data's pieces.
func AppendWriteExtra(b []byte, next []Replica, sums []byte) []byte {
	b = append(b, byte(len(next)))
	for _, r := range next {
		b = r.append(b)
	}
	return append(b, sums...)
}

// ParseWriteExtra reads what AppendWriteExtra wrote for f's range.
func (f *Frame) ParseWriteExtra() (next []Replica, sums []byte, err error) {
	b := f.Extra
	if len(b) == 0 || b[0] > MaxReplicas {
		return nil, nil, malformed("write of chunk %d names no chain, or one of more than %d replicas", f.Chunk, MaxReplicas)
	}
	count := int(b[0])
	if b = b[1:]; len(b) < count*addressSize {
		return nil, nil, malformed("write of chunk %d has %d bytes for a chain of %d replicas", f.Chunk, len(b), count)
	}
	for i := range count {
		next = append(next, parseReplica(b[i*addressSize:]))
	}
	sums = b[count*addressSize:]
	want := 4 * Pieces(f.Offset, f.Length)
	if f.Flags&FlagUnsummed != 0 {
		want = 0
	}
	if len(sums) != want {
		return nil, nil, malformed("write of chunk %d has %d bytes of checksums, its range needs %d", f.Chunk, len(sums), want)
	}
	return next, sums, nil
}
