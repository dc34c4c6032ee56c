// Package floor is the floor control of the experiments: the same bytes over
// one bare socket, with no file system between. What remains between a figure
// of the DFS and the floor's is what the DFS costs.
//
// It is written in Go on the same network poller as the DFS, with one request
// under way on a connection, so that the difference is the DFS and neither the
// language nor pipelining. Reads are pread and write on the server and a read
// loop on the client, writes the reverse, in pieces so that receiving and applying
// overlap, with an acknowledgement; over UDP it is an echo. The same client asks a
// reflector in the network driver (package bpf/reflector), which is the floor of
// lookups that are answered there.
package floor

import (
	"encoding/binary"
	"errors"
	"fmt"

	"waggle/dfs/wire"
)

// Limits of a request.
const (
	maxLength = wire.MaxData
	maxOffset = 1 << 40
	maxFile   = 1 << 20
)

// operation is what a request asks for.
type operation uint8

const (
	read   operation = iota + 1 // answered with length bytes
	write                       // length bytes follow; answered with an acknowledgement
	sync                        // make the file durable; acknowledged
	remove                      // acknowledged
)

const (
	headerSize  = 24
	magic       = "WFLR"
	acknowledge = 0x06
)

// header is a request.
type header struct {
	operation operation
	file      uint32
	length    uint32 // bytes
	offset    uint64 // bytes
}

var le = binary.LittleEndian

func (h header) append(b []byte) []byte {
	b = append(b, magic...)
	b = append(b, byte(h.operation), 0, 0, 0)
	b = le.AppendUint32(b, h.file)
	b = le.AppendUint32(b, h.length)
	return le.AppendUint64(b, h.offset)
}

var errMalformed = errors.New("malformed request")

func (h *header) parse(b []byte) error {
	if len(b) != headerSize || string(b[:4]) != magic {
		return fmt.Errorf("%w: %d bytes that start with %q", errMalformed, len(b), b[:min(4, len(b))])
	}
	*h = header{operation(b[4]), le.Uint32(b[8:]), le.Uint32(b[12:]), le.Uint64(b[16:])}
	if h.operation < read || h.operation > remove || h.file > maxFile || h.length > maxLength || h.offset > maxOffset {
		return fmt.Errorf("%w: operation %d on file %d, %d bytes at %d", errMalformed, h.operation, h.file, h.length, h.offset)
	}
	return nil
}

// echoHeader is the front of a UDP request, as bpf/reflector has it, too: an id, and
// how many bytes of the request come back. The answer is never longer than the request.
const echoHeader = 12
