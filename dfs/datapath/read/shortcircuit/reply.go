package shortcircuit

import (
	"encoding/binary"
	"fmt"
	"math"

	"waggle/dfs/wire"
)

var le = binary.LittleEndian

const (
	replySize = 32
	maxText   = 1 << 10 // of a reason, bytes
)

// reply says what a server lends; two files travel beside it.
type reply struct {
	slot       uint32
	generation uint64
	epoch      uint64
	sumsStart  int64 // bytes
}

func (r reply) append(b []byte) []byte {
	b = le.AppendUint32(b, uint32(wire.StatusOK))
	b = le.AppendUint32(b, r.slot)
	b = le.AppendUint64(b, r.generation)
	b = le.AppendUint64(b, r.epoch)
	return le.AppendUint64(b, uint64(r.sumsStart))
}

// appendRefusal appends the reply with which nothing is lent: the reason stands
// behind it.
func appendRefusal(b []byte, status wire.Status, reason string) []byte {
	b = le.AppendUint32(b, uint32(status))
	b = append(b, make([]byte, replySize-4)...)
	return append(b, reason[:min(len(reason), maxText)]...)
}

// parseReply reads a reply beside which so many files came. A refusal is a
// RefusedError; anything that breaks a rule wraps wire.ErrMalformed.
func parseReply(text []byte, files int) (reply, error) {
	if len(text) < replySize {
		return reply{}, fmt.Errorf("%w: reply of %d bytes, must have %d", wire.ErrMalformed, len(text), replySize)
	}
	if status := wire.Status(le.Uint32(text)); status != wire.StatusOK {
		return reply{}, &RefusedError{status, string(text[replySize:])}
	}
	start := le.Uint64(text[24:])
	r := reply{slot: le.Uint32(text[4:]), generation: le.Uint64(text[8:]), epoch: le.Uint64(text[16:]), sumsStart: int64(start)}
	switch {
	case files != 2:
		return reply{}, fmt.Errorf("%w: %d files beside a reply, must be 2", wire.ErrMalformed, files)
	case r.slot >= slots:
		return reply{}, fmt.Errorf("%w: slot %d of %d", wire.ErrMalformed, r.slot, slots)
	case start > math.MaxInt64-wire.MaxChunkSize:
		return reply{}, fmt.Errorf("%w: checksums that start at %d", wire.ErrMalformed, start)
	}
	return r, nil
}
