package meta

import (
	"encoding/binary"

	"waggle/dfs/wire"
)

// Tables. Every key begins with its table and has a fixed size, so that a table
// can also live in a Go map or in a BPF map.
const (
	tableTrash   = 'b' // time of removal, inode: files in the trash
	tableChunk   = 'c' // inode, chunk index: where a chunk of a file is
	tableEntry   = 'd' // parent inode, hash of the name: directory entries
	tableGarbage = 'g' // inode: removed, but its chunks are not yet
	tableInode   = 'i' // inode
	tableLease   = 'l' // inode, chunk index: chunks that are open for writing
	tableResult  = 'm' // session, slot: what a mutation was answered
	tableNonce   = 'n' // nonce of a chunk server: its number
	tableOwner   = 'o' // chunk: which inode and index it belongs to
	tableSession = 's' // session
	tableStray   = 't' // chunk, server: a replica that must be deleted
	tableServer  = 'v' // chunk server
	tableMember  = 'w' // chunk server: whether it is drained
	tableXattr   = 'x' // inode: extended attributes
	tableSystem  = 'z' // identity and totals
)

// key is a key of any table, in a form that can be compared and hashed.
type key struct {
	length uint8
	b      [25]byte
}

func (k *key) bytes() []byte { return k.b[:k.length] }
func (k *key) table() byte   { return k.b[0] }

// number returns the first number behind the table; second the 32-bit one that
// follows it in keys that have one.
func (k *key) number() uint64 { return be.Uint64(k.b[1:]) }
func (k *key) second() uint32 { return be.Uint32(k.b[9:]) }

func keyOf(b []byte) key {
	var k key
	k.length = uint8(copy(k.b[:], b))
	return k
}

// Big-endian, so that keys sort as their numbers do.
var be = binary.BigEndian

func numberKey(table byte, number uint64) key {
	k := key{length: 9}
	k.b[0] = table
	be.PutUint64(k.b[1:], number)
	return k
}

func pairKey(table byte, number uint64, second uint32) key {
	k := key{length: 13}
	k.b[0] = table
	be.PutUint64(k.b[1:], number)
	be.PutUint32(k.b[9:], second)
	return k
}

// nonceKey is the key of a chunk server's nonce, which has nonceSize bytes.
func nonceKey(nonce []byte) key {
	k := key{length: 1 + nonceSize}
	k.b[0] = tableNonce
	copy(k.b[1:], nonce)
	return k
}

const nonceSize = 16

func trashKey(removedNs int64, inode uint64) key {
	k := key{length: 17}
	k.b[0] = tableTrash
	be.PutUint64(k.b[1:], uint64(removedNs))
	be.PutUint64(k.b[9:], inode)
	return k
}

// trashedInode returns the inode of a key of the trash.
func (k *key) trashedInode() uint64 { return be.Uint64(k.b[9:]) }

func entryKey(parent uint64, hash wire.NameHash) key {
	k := key{length: 25}
	k.b[0] = tableEntry
	be.PutUint64(k.b[1:], parent)
	copy(k.b[9:], hash[:])
	return k
}

func inodeKey(inode uint64) key                 { return numberKey(tableInode, inode) }
func xattrKey(inode uint64) key                 { return numberKey(tableXattr, inode) }
func garbageKey(inode uint64) key               { return numberKey(tableGarbage, inode) }
func ownerKey(chunk uint64) key                 { return numberKey(tableOwner, chunk) }
func sessionKey(session uint64) key             { return numberKey(tableSession, session) }
func serverKey(server uint32) key               { return numberKey(tableServer, uint64(server)) }
func memberKey(server uint32) key               { return numberKey(tableMember, uint64(server)) }
func strayKey(chunk uint64, server uint32) key  { return pairKey(tableStray, chunk, server) }
func resultKey(session uint64, slot uint32) key { return pairKey(tableResult, session, slot) }
func chunkKey(p place) key                      { return pairKey(tableChunk, p.inode, p.index) }
func leaseKey(p place) key                      { return pairKey(tableLease, p.inode, p.index) }
func totalsKey() key                            { return key{length: 2, b: [25]byte{tableSystem, 't'}} }
func identityKey() key                          { return key{length: 2, b: [25]byte{tableSystem, 'i'}} }
func prefix(table byte, number uint64) []byte   { k := numberKey(table, number); return k.bytes() }

// place is a chunk's place in a file.
type place struct {
	inode uint64
	index uint32
}
