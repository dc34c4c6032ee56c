package meta

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"waggle/dfs/wire"
)

// record is a value of a table. Values are little-endian; every decoder refuses
// what its encoder can't have written.
type record interface {
	append(b []byte) []byte
}

var errDamaged = errors.New("damaged metadata record")

// decoder takes fields off a value. After the first that isn't there the rest
// are zero, and end fails.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) take(n int) []byte {
	if d.bad || n > len(d.b) {
		d.bad = true
		return make([]byte, min(n, 16))
	}
	taken := d.b[:n:n]
	d.b = d.b[n:]
	return taken
}

func (d *decoder) u8() uint8   { return d.take(1)[0] }
func (d *decoder) u16() uint16 { return binary.LittleEndian.Uint16(d.take(2)) }
func (d *decoder) u32() uint32 { return binary.LittleEndian.Uint32(d.take(4)) }
func (d *decoder) u64() uint64 { return binary.LittleEndian.Uint64(d.take(8)) }

// bytes takes a length and as many bytes.
func (d *decoder) bytes() []byte {
	n := int(d.u16())
	if n > len(d.b) {
		d.bad = true
		return nil
	}
	return d.take(n)
}

func (d *decoder) u32s() []uint32 {
	n := int(d.u16())
	if 4*n > len(d.b) {
		d.bad = true
		return nil
	}
	list := make([]uint32, n)
	for i := range list {
		list[i] = d.u32()
	}
	return list
}

func (d *decoder) end(what string) error {
	if d.bad || len(d.b) != 0 {
		return fmt.Errorf("%w: %s", errDamaged, what)
	}
	return nil
}

func appendBytes[T ~[]byte | ~string](b []byte, v T) []byte {
	b = binary.LittleEndian.AppendUint16(b, uint16(len(v)))
	return append(b, v...)
}

func appendU32s(b []byte, list []uint32) []byte {
	b = binary.LittleEndian.AppendUint16(b, uint16(len(list)))
	for _, v := range list {
		b = binary.LittleEndian.AppendUint32(b, v)
	}
	return b
}

// inode is a file, directory or symbolic link.
type inode struct {
	// Attributes are served as they are. A directory's Size is its number of
	// entries.
	wire.Attributes
	// parent is the directory that a directory is in; the root's is itself.
	parent uint64
	chunks uint32 // how many records the file has in the table of chunks
	// content is a small file's bytes, or a symbolic link's target.
	content []byte
}

func (n *inode) append(b []byte) []byte {
	le := binary.LittleEndian
	b = le.AppendUint64(b, n.Inode)
	b = le.AppendUint64(b, n.Size)
	b = le.AppendUint64(b, uint64(n.ModifiedNs))
	b = le.AppendUint64(b, uint64(n.ChangedNs))
	b = le.AppendUint32(b, n.Mode)
	b = le.AppendUint32(b, n.UID)
	b = le.AppendUint32(b, n.GID)
	b = le.AppendUint32(b, n.Links)
	b = le.AppendUint64(b, n.Version)
	b = le.AppendUint32(b, n.ChunkSize)
	b = le.AppendUint16(b, n.Replication)
	b = le.AppendUint16(b, n.InlineSize)
	b = le.AppendUint64(b, n.parent)
	b = le.AppendUint32(b, n.chunks)
	return append(b, n.content...)
}

func decodeInode(b []byte) (*inode, error) {
	d := decoder{b: b}
	n := &inode{Attributes: wire.Attributes{
		Inode: d.u64(), Size: d.u64(), ModifiedNs: int64(d.u64()), ChangedNs: int64(d.u64()),
		Mode: d.u32(), UID: d.u32(), GID: d.u32(), Links: d.u32(), Version: d.u64(),
		ChunkSize: d.u32(), Replication: d.u16(), InlineSize: d.u16(),
	}, parent: d.u64(), chunks: d.u32()}
	n.content = d.take(len(d.b))
	return n, d.end("inode")
}

// entry is one name of a directory.
type entry struct {
	name  string
	inode uint64
}

// entries are the names of one directory that share a hash: nearly always one.
// They are sorted by name.
type entries []entry

func (e entries) append(b []byte) []byte {
	for i := range e {
		b = binary.LittleEndian.AppendUint64(b, e[i].inode)
		b = appendBytes(b, e[i].name)
	}
	return b
}

func decodeEntries(b []byte) (entries, error) {
	d := decoder{b: b}
	var list entries
	for len(d.b) > 0 && !d.bad {
		inode := d.u64()
		list = append(list, entry{inode: inode, name: string(d.bytes())})
	}
	return list, d.end("directory entry")
}

// find returns the inode that name stands for, or 0.
func (e entries) find(name []byte) uint64 {
	for i := range e {
		if e[i].name == string(name) {
			return e[i].inode
		}
	}
	return 0
}

// with returns the entries and one more, without those of its name before.
func (e entries) with(name []byte, inode uint64) entries {
	list := append(e.without(name), entry{string(name), inode})
	slices.SortFunc(list, func(a, b entry) int {
		if a.name < b.name {
			return -1
		}
		return 1
	})
	return list
}

func (e entries) without(name []byte) entries {
	list := make(entries, 0, len(e)+1)
	for i := range e {
		if e[i].name != string(name) {
			list = append(list, e[i])
		}
	}
	return list
}

// chunk is a piece of a file on the chunk servers.
//
// It is open while a session may write to it, and until its replicas are known
// to be equal again: then session says who writes, or is 0 if nobody does any
// more. A chunk that is not open is settled: its replicas are equal, and durable.
type chunk struct {
	id    uint64
	epoch uint64 // grows with every change of who may write and of servers
	// session is who may write, 0 for nobody; writer who last could.
	session uint64
	writer  uint64
	open    bool
	// spill says that the first write of the session is the bytes that the file has
	// in its record.
	spill bool
	// sequence and length (bytes) are those that the replicas were settled at last.
	// What comes behind, while the chunk is open, is known to its writer alone.
	sequence uint64
	length   uint32
	// cut is the length in bytes that the replicas have to be cut to before more
	// of the file is shown or written; noCut if there is nothing to cut.
	cut     uint32
	servers []uint32 // that hold a replica of this epoch
}

const noCut = ^uint32(0)

// Flags of a chunk's record.
const (
	chunkOpen byte = 1 << iota
	chunkSpill
)

// expected is how many bytes every replica of the chunk holds at least.
func (c *chunk) expected() uint32 { return min(c.length, c.cut) }

func (c *chunk) append(b []byte) []byte {
	le := binary.LittleEndian
	b = le.AppendUint64(b, c.id)
	b = le.AppendUint64(b, c.epoch)
	b = le.AppendUint64(b, c.session)
	b = le.AppendUint64(b, c.writer)
	var flags byte
	if c.open {
		flags |= chunkOpen
	}
	if c.spill {
		flags |= chunkSpill
	}
	b = append(b, flags)
	b = le.AppendUint64(b, c.sequence)
	b = le.AppendUint32(b, c.length)
	b = le.AppendUint32(b, c.cut)
	return appendU32s(b, c.servers)
}

func decodeChunk(b []byte) (*chunk, error) {
	d := decoder{b: b}
	c := &chunk{id: d.u64(), epoch: d.u64(), session: d.u64(), writer: d.u64()}
	flags := d.u8()
	c.open, c.spill = flags&chunkOpen != 0, flags&chunkSpill != 0
	d.bad = d.bad || flags > chunkOpen|chunkSpill
	c.sequence, c.length = d.u64(), d.u32()
	c.cut = d.u32()
	c.servers = d.u32s()
	return c, d.end("chunk")
}

func (c *chunk) clone() *chunk {
	copied := *c
	copied.servers = slices.Clone(c.servers)
	return &copied
}

// owner says which place of which file a chunk belongs to.
type owner place

func (o owner) append(b []byte) []byte {
	b = binary.LittleEndian.AppendUint64(b, o.inode)
	return binary.LittleEndian.AppendUint32(b, o.index)
}

func decodeOwner(b []byte) (owner, error) {
	d := decoder{b: b}
	o := owner{inode: d.u64(), index: d.u32()}
	return o, d.end("owner of a chunk")
}

// holder is the session that a chunk is open for; 0 if it is nobody's any more
// and has to be settled.
type holder uint64

func (h holder) append(b []byte) []byte { return binary.LittleEndian.AppendUint64(b, uint64(h)) }

func decodeHolder(b []byte) (holder, error) {
	d := decoder{b: b}
	h := holder(d.u64())
	return h, d.end("holder of a lease")
}

// mark is the empty value of a table whose keys say it all.
type mark struct{}

func (mark) append(b []byte) []byte { return b }

func decodeMark(b []byte) (mark, error) {
	d := decoder{b: b}
	return mark{}, d.end("mark")
}

// sessionRecord is what outlives the server of a session.
type sessionRecord struct {
	client string
	credentials
}

func (s *sessionRecord) append(b []byte) []byte {
	b = binary.LittleEndian.AppendUint32(b, s.uid)
	b = binary.LittleEndian.AppendUint32(b, s.gid)
	b = appendU32s(b, s.groups)
	return appendBytes(b, s.client)
}

func decodeSession(b []byte) (*sessionRecord, error) {
	d := decoder{b: b}
	s := &sessionRecord{credentials: credentials{uid: d.u32(), gid: d.u32()}}
	s.groups = d.u32s()
	s.client = string(d.bytes())
	return s, d.end("session")
}

// result is what a mutation was answered: a control.MutationResult in its wire
// form, behind the mutation's number.
type result struct {
	number uint64
	answer []byte
}

func (r *result) append(b []byte) []byte {
	b = binary.LittleEndian.AppendUint64(b, r.number)
	return append(b, r.answer...)
}

func decodeResult(b []byte) (*result, error) {
	d := decoder{b: b}
	r := &result{number: d.u64()}
	r.answer = d.take(len(d.b))
	return r, d.end("result of a mutation")
}

// serverRecord is a chunk server that joined the cluster.
type serverRecord struct {
	data, control string // addresses, "ip:port"
}

func (s *serverRecord) append(b []byte) []byte {
	return appendBytes(appendBytes(b, s.data), s.control)
}

func decodeServer(b []byte) (*serverRecord, error) {
	d := decoder{b: b}
	s := &serverRecord{data: string(d.bytes()), control: string(d.bytes())}
	return s, d.end("chunk server")
}

// member is what was decided about a chunk server.
type member struct {
	draining bool // it gets no new replicas, and is left by those it has
	removed  bool // it is no part of the cluster any more
}

func (m *member) append(b []byte) []byte {
	var flags byte
	if m.draining {
		flags |= 1
	}
	if m.removed {
		flags |= 2
	}
	return append(b, flags)
}

func decodeMember(b []byte) (*member, error) {
	d := decoder{b: b}
	flags := d.u8()
	d.bad = d.bad || flags > 3
	return &member{draining: flags&1 != 0, removed: flags&2 != 0}, d.end("state of a chunk server")
}

// serverNumber is the chunk server that a nonce stands for.
type serverNumber uint32

func (n serverNumber) append(b []byte) []byte { return binary.LittleEndian.AppendUint32(b, uint32(n)) }

func decodeServerNumber(b []byte) (serverNumber, error) {
	d := decoder{b: b}
	n := serverNumber(d.u32())
	return n, d.end("number of a chunk server")
}

// trashRecord is a file in the trash.
type trashRecord struct {
	path string // that it was removed by
	size uint64 // bytes, when it was removed
	uid  uint32 // owner
}

func (t *trashRecord) append(b []byte) []byte {
	b = binary.LittleEndian.AppendUint64(b, t.size)
	b = binary.LittleEndian.AppendUint32(b, t.uid)
	return appendBytes(b, t.path)
}

func decodeTrash(b []byte) (*trashRecord, error) {
	d := decoder{b: b}
	t := &trashRecord{size: d.u64(), uid: d.u32(), path: string(d.bytes())}
	return t, d.end("file in the trash")
}

// xattr is one extended attribute.
type xattr struct {
	name  string
	value []byte
}

// xattrs are all extended attributes of an inode, sorted by name.
type xattrs []xattr

func (x xattrs) append(b []byte) []byte {
	for i := range x {
		b = appendBytes(appendBytes(b, x[i].name), x[i].value)
	}
	return b
}

func decodeXattrs(b []byte) (xattrs, error) {
	d := decoder{b: b}
	var list xattrs
	for len(d.b) > 0 && !d.bad {
		name := string(d.bytes())
		list = append(list, xattr{name, d.bytes()})
	}
	return list, d.end("extended attributes")
}

// totals are kept up to date by every change.
type totals struct {
	// The next numbers to be given out. Numbers are never used twice.
	nextInode, nextChunk uint64
	nextServer           uint32
	files                uint64 // files and symbolic links
	directories          uint64
	chunks               uint64
	bytes                uint64 // sum of the sizes of all files
}

func (t *totals) append(b []byte) []byte {
	le := binary.LittleEndian
	b = le.AppendUint64(b, t.nextInode)
	b = le.AppendUint64(b, t.nextChunk)
	b = le.AppendUint32(b, t.nextServer)
	b = le.AppendUint64(b, t.files)
	b = le.AppendUint64(b, t.directories)
	b = le.AppendUint64(b, t.chunks)
	return le.AppendUint64(b, t.bytes)
}

func decodeTotals(b []byte) (*totals, error) {
	d := decoder{b: b}
	t := &totals{nextInode: d.u64(), nextChunk: d.u64(), nextServer: d.u32(),
		files: d.u64(), directories: d.u64(), chunks: d.u64(), bytes: d.u64()}
	return t, d.end("totals")
}

// identity is made once, when a metadata directory is new.
type identity struct {
	format  uint32 // of all records
	cluster [16]byte
	hashKey wire.HashKey
}

// recordFormat is the only format that this version reads and writes.
const recordFormat = 2

func (i *identity) append(b []byte) []byte {
	b = binary.LittleEndian.AppendUint32(b, i.format)
	b = append(b, i.cluster[:]...)
	return append(b, i.hashKey[:]...)
}

func decodeIdentity(b []byte) (*identity, error) {
	d := decoder{b: b}
	i := &identity{format: d.u32()}
	copy(i.cluster[:], d.take(16))
	copy(i.hashKey[:], d.take(16))
	if i.format != recordFormat && !d.bad {
		return nil, fmt.Errorf("metadata has format %d, this version reads %d", i.format, recordFormat)
	}
	return i, d.end("identity")
}
