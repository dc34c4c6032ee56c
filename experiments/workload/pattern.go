package workload

import (
	"bytes"
	"fmt"
	"math/rand/v2"

	"waggle/dfs/wire"
)

// patternLength is the period of a file's content in bytes. It is prime, so
// that no block of a file is equal to another one less than 256 MiB away, and
// small enough to stay in a processor's second-level cache: comparing a read
// with it costs a small part of the read.
const patternLength = 65537

// pattern is what all files are made of: one seeded random sequence, repeated,
// that starts at another place in each generation of each file. Bytes of the
// wrong place are found unless they happen to start at the same place of the
// sequence, 1 in 65537.
type pattern struct {
	// The sequence, repeated, so that any piece of at most wire.MaxData bytes is
	// one slice and writing it needs no copy.
	bytes []byte
}

func newPattern() *pattern {
	p := &pattern{bytes: make([]byte, patternLength+wire.MaxData)}
	rand.NewChaCha8([32]byte{'w', 'a', 'g', 'g', 'l', 'e'}).Read(p.bytes[:patternLength])
	for n := patternLength; n < len(p.bytes); n *= 2 {
		copy(p.bytes[n:], p.bytes[:n])
	}
	return p
}

// source says which content: that of one generation of one file.
type source struct {
	file       uint64
	generation uint64
}

// start is where in the sequence the byte at offset of a source is.
func (s source) start(offset int64) int {
	h := (s.file+1)*0x9e3779b97f4a7c15 ^ (s.generation+1)*0xd1b54a32d192ed03
	h = (h ^ h>>31) * 0xbf58476d1ce4e5b9
	return int((h>>20 + uint64(offset)) % patternLength)
}

// piece is the content of n bytes at offset. It must not be changed.
func (p *pattern) piece(s source, offset int64, n int) []byte {
	start := s.start(offset)
	return p.bytes[start : start+n : start+n]
}

// check compares b with the content at offset, every byte.
func (p *pattern) check(s source, offset int64, b []byte) error {
	at := s.start(offset)
	for done := 0; done < len(b); {
		n := min(len(b)-done, patternLength-at)
		if !bytes.Equal(b[done:done+n], p.bytes[at:at+n]) {
			return p.differs(s, offset+int64(done), b[done:done+n])
		}
		done, at = done+n, 0
	}
	return nil
}

func (p *pattern) differs(s source, offset int64, b []byte) error {
	want := p.piece(s, offset, len(b))
	for i := range b {
		if b[i] != want[i] {
			return fmt.Errorf("%w: file %d, byte %d is %#02x and not %#02x", errWrongContent, s.file, offset+int64(i), b[i], want[i])
		}
	}
	return nil
}
