package gateway

import (
	"encoding/binary"

	"waggle/dfs/wire"
)

// polynomial is that of CRC32C (Castagnoli), reversed.
const polynomial = 0x82f63b78

// digest is the CRC32C of bytes that nobody here has seen, put together from
// the checksums of their parts. For any a and b,
//
//	crc(a followed by b) = shift(crc(a), len(b)) ^ crc(b)
//
// where shift multiplies by x to the power of 8 len(b) modulo the polynomial.
type digest struct {
	sum     uint32
	unknown bool
}

// add appends n bytes with the checksum sum.
func (d *digest) add(sum uint32, n int64) { d.sum = shift(d.sum, n) ^ sum }

// addBlocks appends n bytes that lie in blocks with the stored checksums sums:
// behind others with the checksum head, and before tail, which ends the last.
func (d *digest) addBlocks(sums []byte, blocks int64, head uint32, n int64, tail []byte) {
	var all digest
	all.addPieces(sums, 0, blocks)
	sum := unshift(all.sum^wire.Checksum(tail), int64(len(tail)))
	d.add(sum^shift(head, n), n)
}

// addPieces appends n bytes that lie at an offset, and that blocks cut into
// pieces with the checksums sums.
func (d *digest) addPieces(sums []byte, offset, n int64) {
	for end := offset + n; offset < end; sums = sums[4:] {
		piece := min(wire.BlockSize-offset%wire.BlockSize, end-offset)
		d.add(binary.LittleEndian.Uint32(sums), piece)
		offset += piece
	}
}

// String is the digest as a value of Content-Digest or Repr-Digest (RFC 9530).
func (d *digest) String() string {
	return digestField(d.bytes())
}

func (d *digest) bytes() []byte { return binary.BigEndian.AppendUint32(nil, d.sum) }

// powers[k] is x to the power of 8 * 2^k modulo the polynomial.
var powers = func() (p [63]uint32) {
	p[0] = 1 << (31 - 8)
	for k := 1; k < len(p); k++ {
		p[k] = multiply(p[k-1], p[k-1])
	}
	return p
}()

// multiply multiplies two polynomials, of which the highest bit is the constant
// term.
func multiply(a, b uint32) (product uint32) {
	for bit := uint32(1 << 31); bit != 0; bit >>= 1 {
		if a&bit != 0 {
			product ^= b
		}
		if b&1 != 0 {
			b = b>>1 ^ polynomial
		} else {
			b >>= 1
		}
	}
	return product
}

// blockShift is shift by a block for each byte of a checksum, which is by far the
// most frequent one.
var blockShift = func() (t [4][256]uint32) {
	for place := range t {
		for b := range t[place] {
			t[place][b] = shiftBits(uint32(b)<<(8*place), wire.BlockSize)
		}
	}
	return t
}()

func shift(sum uint32, n int64) uint32 {
	if n == wire.BlockSize {
		return blockShift[0][byte(sum)] ^ blockShift[1][byte(sum>>8)] ^ blockShift[2][byte(sum>>16)] ^ blockShift[3][byte(sum>>24)]
	}
	return shiftBits(sum, n)
}

func shiftBits(sum uint32, n int64) uint32 {
	for k := 0; n > 0; k, n = k+1, n>>1 {
		if n&1 != 0 {
			sum = multiply(powers[k], sum)
		}
	}
	return sum
}

// unshift undoes shift. n is less than a block.
func unshift(sum uint32, n int64) uint32 {
	for range 8 * n {
		if sum&(1<<31) != 0 {
			sum = (sum^polynomial)<<1 | 1
		} else {
			sum <<= 1
		}
	}
	return sum
}
