// Package wire defines every message that crosses a process of the DFS: the
// lookup datagrams (lookup.go), the data frames (frame.go) and, in package
// control below, the protobufs of the gRPC services.
//
// Lookup datagrams and data frames have fixed layouts of little-endian fields,
// so that a BPF program can read and write them too. A parser here accepts
// nothing that it does not understand: wrong magic, version, length, count or
// checksum is an error that names the field and what was found in it.
package wire

import (
	"errors"
	"fmt"

	"github.com/dchest/siphash"
)

// Version is the version of the datagrams and frames. Both sides must agree.
const Version = 1

// Limits that hold everywhere in the system.
const (
	// MaxName is the longest name of a directory entry in bytes.
	MaxName = 255
	// MaxComponents is how many path components one lookup can walk.
	MaxComponents = 16
	// MaxInline is the largest file in bytes that lives in its inode record.
	MaxInline = 1024
	// MaxReplicas is the largest replication factor.
	MaxReplicas = 8
	// BlockSize is the unit of checksums in bytes.
	BlockSize = 4096
	// MinChunkSize, MaxChunkSize and DefaultChunkSize bound the chunks that a
	// file is cut into, in bytes. A chunk size is a power of two.
	MinChunkSize     = 64 << 10
	MaxChunkSize     = 64 << 20
	DefaultChunkSize = 16 << 20
)

// RootInode is the inode number of the root directory.
const RootInode = 1

// WritesLost stands for the session that wrote to a chunk last, where its servers
// may have lost what was not durable. It is the number of no session.
const WritesLost = 2

// ErrMalformed is wrapped by every error of a parser in this package.
var ErrMalformed = errors.New("malformed message")

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrMalformed}, args...)...)
}

// HashKey is the key under which a cluster hashes names. Clients get it when
// they open a session.
type HashKey [16]byte

// NameHash is the keyed 128-bit hash of a directory entry's name.
type NameHash [16]byte

// Hash returns the hash of name: SipHash-2-4 with a 128-bit result.
func (k HashKey) Hash(name []byte) NameHash {
	lo, hi := siphash.Hash128(le.Uint64(k[:8]), le.Uint64(k[8:]), name)
	var h NameHash
	le.PutUint64(h[:8], lo)
	le.PutUint64(h[8:], hi)
	return h
}

// UploadsName is the entry of the root in which gateways keep what is being
// uploaded. No listing shows it: what it holds is not whole. Who knows the name
// finds it.
const UploadsName = ".waggle-uploads"

// CheckChunkSize says whether files can be cut into chunks of size bytes.
func CheckChunkSize(size uint32) error {
	if size < MinChunkSize || size > MaxChunkSize || size&(size-1) != 0 {
		return fmt.Errorf("chunk size %d: a power of two from %d to %d bytes is allowed", size, MinChunkSize, MaxChunkSize)
	}
	return nil
}

// CheckName says whether name can be the name of a directory entry. Any bytes
// can, UTF-8 or not, but for the empty name, ".", "..", a slash or a NUL.
func CheckName(name []byte) error {
	switch {
	case len(name) == 0:
		return errors.New("name is empty")
	case len(name) > MaxName:
		return fmt.Errorf("name has %d bytes: at most %d are allowed", len(name), MaxName)
	case string(name) == "." || string(name) == "..":
		return fmt.Errorf("name %q is reserved", name)
	}
	for _, c := range name {
		if c == 0 || c == '/' {
			return fmt.Errorf("name %q holds a NUL or a slash", name)
		}
	}
	return nil
}
