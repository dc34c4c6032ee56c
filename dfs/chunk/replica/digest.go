package replica

import "waggle/dfs/wire"

// digest stands for the checksums of many blocks, and so for all that the blocks
// hold. It is a sum of one hash for each block and its checksum: so a change of some
// blocks changes the digest without a look at the others.
//
// A header carries the digest of all checksums. After a power failure checksums may
// be older than the header, and match data that is as old: the digest tells.
type digest uint64

// digestOf returns the digest of the checksums, 4 bytes each, of the blocks from
// first on.
func digestOf(first uint64, sums []byte) digest {
	var d digest
	for ; len(sums) >= 4; first, sums = first+1, sums[4:] {
		d += hashSum(first, le.Uint32(sums))
	}
	return d
}

// hashSum mixes a block's number and checksum as splitmix64 does (Steele, Lea and
// Flood, 2014).
func hashSum(block uint64, sum uint32) digest {
	z := (block<<32 | uint64(sum)) + 0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return digest(z ^ z>>31)
}

// digestIn returns the digest of the stored checksums of the blocks from first up
// to but without end.
func (r *Replica) digestIn(first, end uint64) (digest, error) {
	if end <= first {
		return 0, nil
	}
	sums, err := r.readSums(nil, first, int(end-first))
	return digestOf(first, sums), err
}

// blockCount returns how many blocks hold length bytes.
func blockCount(length uint64) uint64 { return (length + wire.BlockSize - 1) / wire.BlockSize }
