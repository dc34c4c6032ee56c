package wire

import (
	"encoding/binary"
	"net/netip"
)

var le = binary.LittleEndian

// Sizes of the lookup datagrams in bytes. A request has RequestSize bytes, and
// with WantInline InlineRequestSize: then it is padded, so that no answer is
// longer than its request. That keeps the server from being used to amplify a
// flood, and lets a driver answer that can't make a packet grow (a veth has room
// for what came in and no more). An answer is AnswerSize plus the bytes of a
// small file.
const (
	RequestSize       = 40 + MaxComponents*16
	InlineRequestSize = RequestSize + MaxInline

	AttributesSize = 64
	addressSize    = 24
	LocationSize   = 24 + MaxReplicas*addressSize
	AnswerSize     = 16 + AttributesSize + LocationSize
	MaxAnswerSize  = AnswerSize + MaxInline
)

// The first four bytes of each datagram, as they stand on the wire.
const (
	requestMagic = "WGLQ"
	answerMagic  = "WGLA"
)

// Flags of a lookup request.
const (
	// WantLocation asks for the location of the chunk at ChunkIndex.
	WantLocation uint16 = 1 << iota
	// WantInline asks for the bytes of a small file.
	WantInline

	knownLookupFlags = WantLocation | WantInline
)

// LookupStatus says how a lookup ended.
type LookupStatus uint8

// How a lookup can end.
const (
	LookupOK LookupStatus = iota
	// LookupNotFound: the component after Walked does not exist.
	LookupNotFound
	// LookupNotDirectory: a component before the last is a file.
	LookupNotDirectory
	// LookupDenied: the session may not search a directory on the path.
	LookupDenied
	// LookupSymlink: the entry at Walked is a symbolic link that must be
	// followed by the client, with a control call. Only for links before the
	// last component: a link that ends the path is answered as itself.
	LookupSymlink
	// LookupAmbiguous: two names of a directory share their hash. Ask by name,
	// with a control call.
	LookupAmbiguous
	// LookupBadSession: the session is unknown or has ended.
	LookupBadSession
	// LookupRetry: the server can't answer now.
	LookupRetry

	lookupStatusEnd
)

// LookupRequest asks for a whole path in one datagram.
type LookupRequest struct {
	ID      uint64 // chosen by the client; the answer repeats it
	Session uint64
	Start   uint64 // inode that the path starts from
	// ChunkIndex is the chunk whose location is asked for, with WantLocation.
	ChunkIndex uint32
	Flags      uint16
	Components uint8 // how many of Names are in use
	Names      [MaxComponents]NameHash
}

// Attributes are those of an inode.
type Attributes struct {
	Inode       uint64
	Size        uint64 // bytes
	ModifiedNs  int64  // nanoseconds since the Unix epoch
	ChangedNs   int64  // nanoseconds since the Unix epoch
	Mode        uint32 // as in stat(2): type and permission bits
	UID, GID    uint32
	Links       uint32
	Version     uint64 // grows with every change of the inode
	ChunkSize   uint32 // bytes
	Replication uint16
	InlineSize  uint16 // bytes of the file that the inode record holds
}

// Replica is one copy of a chunk and where it is served.
type Replica struct {
	Address netip.AddrPort // of the data port; IPv4 addresses travel as IPv4-mapped IPv6
	Server  uint32
}

// Location says where a chunk is. Chunk 0 means that nothing is stored at that
// index: a hole, or behind the end of the file.
type Location struct {
	Chunk uint64
	Epoch uint64
	Index uint32
	// Length is how many bytes every replica holds at least, so that one that lacks
	// some is not taken for one with a hole there.
	Length   uint32
	Replicas []Replica // at most MaxReplicas
}

// LookupAnswer answers a LookupRequest.
type LookupAnswer struct {
	ID         uint64
	Status     LookupStatus
	Walked     uint8 // components that were walked
	Attributes Attributes
	Location   Location
	Inline     []byte // at most MaxInline
}

// Append appends the request's datagram to b.
func (q *LookupRequest) Append(b []byte) []byte {
	b = append(b, requestMagic...)
	b = append(b, Version, q.Components)
	b = le.AppendUint16(b, q.Flags)
	b = le.AppendUint64(b, q.ID)
	b = le.AppendUint64(b, q.Session)
	b = le.AppendUint64(b, q.Start)
	b = le.AppendUint32(b, q.ChunkIndex)
	b = le.AppendUint32(b, 0)
	for i := range q.Names {
		b = append(b, q.Names[i][:]...)
	}
	if q.Flags&WantInline != 0 {
		b = append(b, padding[:]...)
	}
	return b
}

var padding [MaxInline]byte

// Parse reads a request's datagram into q. Names that are not in use must be
// zero; the padding is ignored.
func (q *LookupRequest) Parse(b []byte) error {
	if len(b) < RequestSize {
		return malformed("lookup request has %d bytes, must have %d", len(b), RequestSize)
	}
	if string(b[:4]) != requestMagic {
		return malformed("lookup request starts with %q, must start with %q", b[:4], requestMagic)
	}
	if b[4] != Version {
		return malformed("lookup request has version %d, this side speaks %d", b[4], Version)
	}
	if b[5] > MaxComponents {
		return malformed("lookup request has %d path components, at most %d are allowed", b[5], MaxComponents)
	}
	q.Components = b[5]
	if q.Flags = le.Uint16(b[6:]); q.Flags&^knownLookupFlags != 0 {
		return malformed("lookup request has unknown flags %#x", q.Flags&^knownLookupFlags)
	}
	size := RequestSize
	if q.Flags&WantInline != 0 {
		size = InlineRequestSize
	}
	if len(b) != size {
		return malformed("lookup request with flags %#x has %d bytes, must have %d", q.Flags, len(b), size)
	}
	q.ID = le.Uint64(b[8:])
	q.Session = le.Uint64(b[16:])
	q.Start = le.Uint64(b[24:])
	q.ChunkIndex = le.Uint32(b[32:])
	if reserved := le.Uint32(b[36:]); reserved != 0 {
		return malformed("lookup request has %#x in its reserved field", reserved)
	}
	for i := range q.Names {
		copy(q.Names[i][:], b[40+16*i:])
		if i >= int(q.Components) && q.Names[i] != (NameHash{}) {
			return malformed("lookup request has a name at %d behind its %d components", i, q.Components)
		}
	}
	return nil
}

// Append appends the answer's datagram to b. The caller keeps to the limits of
// replicas and inline bytes.
func (a *LookupAnswer) Append(b []byte) []byte {
	b = append(b, answerMagic...)
	b = append(b, Version, byte(a.Status))
	b = le.AppendUint16(b, uint16(a.Walked))
	b = le.AppendUint64(b, a.ID)
	b = a.Attributes.Append(b)
	b = a.Location.Append(b)
	return append(b, a.Inline...)
}

// Parse reads an answer's datagram into a. Inline points into b.
func (a *LookupAnswer) Parse(b []byte) error {
	if len(b) < AnswerSize || len(b) > MaxAnswerSize {
		return malformed("lookup answer has %d bytes, must have %d to %d", len(b), AnswerSize, MaxAnswerSize)
	}
	if string(b[:4]) != answerMagic {
		return malformed("lookup answer starts with %q, must start with %q", b[:4], answerMagic)
	}
	if b[4] != Version {
		return malformed("lookup answer has version %d, this side speaks %d", b[4], Version)
	}
	if a.Status = LookupStatus(b[5]); a.Status >= lookupStatusEnd {
		return malformed("lookup answer has unknown status %d", b[5])
	}
	walked := le.Uint16(b[6:])
	if walked > MaxComponents {
		return malformed("lookup answer walked %d components, at most %d are possible", walked, MaxComponents)
	}
	a.Walked = uint8(walked)
	a.ID = le.Uint64(b[8:])
	a.Attributes.parse(b[16:])
	if err := a.Location.parse(b[16+AttributesSize:]); err != nil {
		return err
	}
	a.Inline = b[AnswerSize:]
	if len(a.Inline) != 0 && len(a.Inline) != int(a.Attributes.InlineSize) {
		return malformed("lookup answer has %d inline bytes, its attributes say %d", len(a.Inline), a.Attributes.InlineSize)
	}
	return nil
}

// Append appends the attributes as they stand in an answer: AttributesSize bytes.
func (t *Attributes) Append(b []byte) []byte {
	b = le.AppendUint64(b, t.Inode)
	b = le.AppendUint64(b, t.Size)
	b = le.AppendUint64(b, uint64(t.ModifiedNs))
	b = le.AppendUint64(b, uint64(t.ChangedNs))
	b = le.AppendUint32(b, t.Mode)
	b = le.AppendUint32(b, t.UID)
	b = le.AppendUint32(b, t.GID)
	b = le.AppendUint32(b, t.Links)
	b = le.AppendUint64(b, t.Version)
	b = le.AppendUint32(b, t.ChunkSize)
	b = le.AppendUint16(b, t.Replication)
	return le.AppendUint16(b, t.InlineSize)
}

func (t *Attributes) parse(b []byte) {
	*t = Attributes{
		Inode: le.Uint64(b), Size: le.Uint64(b[8:]),
		ModifiedNs: int64(le.Uint64(b[16:])), ChangedNs: int64(le.Uint64(b[24:])),
		Mode: le.Uint32(b[32:]), UID: le.Uint32(b[36:]), GID: le.Uint32(b[40:]), Links: le.Uint32(b[44:]),
		Version: le.Uint64(b[48:]), ChunkSize: le.Uint32(b[56:]),
		Replication: le.Uint16(b[60:]), InlineSize: le.Uint16(b[62:]),
	}
}

// replicaCountBits is how many bits of the last number before the replicas hold
// their count; the others hold the length. Both together take the room that one
// of them had: a location must not become larger, or an answer would be longer
// than its request.
const replicaCountBits = 4

// Append appends the location as it stands in an answer: LocationSize bytes.
func (l *Location) Append(b []byte) []byte {
	b = le.AppendUint64(b, l.Chunk)
	b = le.AppendUint64(b, l.Epoch)
	b = le.AppendUint32(b, l.Index)
	b = le.AppendUint32(b, l.Length<<replicaCountBits|uint32(len(l.Replicas)))
	for i := range MaxReplicas {
		if i < len(l.Replicas) {
			b = l.Replicas[i].append(b)
		} else {
			b = append(b, make([]byte, addressSize)...)
		}
	}
	return b
}

func (l *Location) parse(b []byte) error {
	l.Chunk, l.Epoch, l.Index = le.Uint64(b), le.Uint64(b[8:]), le.Uint32(b[16:])
	count := le.Uint32(b[20:])
	l.Length, count = count>>replicaCountBits, count&(1<<replicaCountBits-1)
	if l.Length > MaxChunkSize {
		return malformed("location of chunk %d has replicas of %d bytes, at most %d are allowed", l.Chunk, l.Length, MaxChunkSize)
	}
	if count > MaxReplicas {
		return malformed("location of chunk %d has %d replicas, at most %d are allowed", l.Chunk, count, MaxReplicas)
	}
	l.Replicas = nil
	for i := range count {
		l.Replicas = append(l.Replicas, parseReplica(b[24+addressSize*i:]))
	}
	return nil
}

func (r Replica) append(b []byte) []byte {
	ip := r.Address.Addr().As16()
	b = append(b, ip[:]...)
	b = le.AppendUint16(b, r.Address.Port())
	b = le.AppendUint16(b, 0)
	return le.AppendUint32(b, r.Server)
}

func parseReplica(b []byte) Replica {
	ip := netip.AddrFrom16([16]byte(b[:16])).Unmap()
	return Replica{Address: netip.AddrPortFrom(ip, le.Uint16(b[16:])), Server: le.Uint32(b[20:])}
}
