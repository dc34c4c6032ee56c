package afxdp

import (
	"encoding/binary"
	"fmt"

	"waggle/dfs/wire"
)

var le = binary.LittleEndian

const (
	magic      = "WGLB"
	headerSize = 28
	// MinPiece and MaxPiece bound the data of one datagram, in bytes.
	MinPiece = 512
	MaxPiece = 4096
)

// Datagram carries a piece of a chunk that was asked for by a read.
type Datagram struct {
	ID     uint64 // of the frame that asked
	Offset uint64 // bytes from the chunk's start
	Data   []byte
}

// putHeader writes the header of a datagram whose data stands behind it in b.
// Its checksum covers all but itself.
func putHeader(b []byte, id, offset uint64) {
	copy(b, magic)
	b[4], b[5] = wire.Version, 0
	le.PutUint16(b[6:], uint16(len(b)-headerSize))
	le.PutUint64(b[8:], id)
	le.PutUint64(b[16:], offset)
	le.PutUint32(b[24:], wire.UpdateChecksum(wire.Checksum(b[:24]), b[headerSize:]))
}

// Parse reads a datagram; its Data is part of b.
func Parse(b []byte) (Datagram, error) {
	if len(b) < headerSize {
		return Datagram{}, fmt.Errorf("%w: datagram of %d bytes, must have %d", wire.ErrMalformed, len(b), headerSize)
	}
	d := Datagram{ID: le.Uint64(b[8:]), Offset: le.Uint64(b[16:]), Data: b[headerSize:]}
	switch {
	case string(b[:4]) != magic || b[4] != wire.Version || b[5] != 0:
		return Datagram{}, fmt.Errorf("%w: datagram starts with % x", wire.ErrMalformed, b[:6])
	case int(le.Uint16(b[6:])) != len(d.Data) || len(d.Data) == 0 || len(d.Data) > MaxPiece:
		return Datagram{}, fmt.Errorf("%w: datagram says %d bytes of data, has %d, at most %d are allowed", wire.ErrMalformed, le.Uint16(b[6:]), len(d.Data), MaxPiece)
	case d.Offset >= wire.MaxChunkSize:
		return Datagram{}, fmt.Errorf("%w: datagram for offset %d behind the largest chunk", wire.ErrMalformed, d.Offset)
	}
	if sum := wire.UpdateChecksum(wire.Checksum(b[:24]), d.Data); sum != le.Uint32(b[24:]) {
		return Datagram{}, fmt.Errorf("%w: datagram's checksum is %#x, computed %#x", wire.ErrMalformed, le.Uint32(b[24:]), sum)
	}
	return d, nil
}

// Sizes of what stands before a datagram on the network, in bytes.
const (
	ethernetSize = 14
	ipSize       = 20
	udpSize      = 8
	packetSize   = ethernetSize + ipSize + udpSize // of all headers
)

// payload is what a UDP datagram in a packet carries, or nil. The packet has
// passed the redirecting program: IPv4 without options, no fragment.
func payload(packet []byte) []byte {
	if len(packet) < packetSize {
		return nil
	}
	length := int(binary.BigEndian.Uint16(packet[ethernetSize+ipSize+4:]))
	if length < udpSize || length > len(packet)-ethernetSize-ipSize {
		return nil
	}
	return packet[packetSize:][:length-udpSize]
}
