package meta

import (
	"slices"

	"google.golang.org/grpc/codes"

	"waggle/dfs/weaken"
	"waggle/dfs/wire"
	"waggle/dfs/wire/control"
)

// maxChunkCount bounds the chunks of a file, and with them its size.
const maxChunkCount = 1 << 32

// A file is small or chunked. A small one has all its bytes in its record:
// InlineSize is Size. A chunked one has InlineSize 0 and a Size above 0; where it
// has no chunk it has a hole. An empty file is both.
//
// A small file may have chunks as well: those of a writer that is about to
// spill it, or of one that went away before its first write, which are the bytes
// of the record. They don't count.
//
// All else that was settled counts: what a writer has written and not said the
// size of, because its session ended or it has released the chunk already, makes
// the file grow when the chunk is settled or released (claim). So a file ends
// behind the last byte of its settled chunks, or where it was truncated to.

func isSmall(n *inode) bool { return n.Size == uint64(n.InlineSize) }

// setContent makes n a small file. The caller puts it.
func (m *mutation) setContent(n *inode, content []byte) {
	n.content = append([]byte(nil), content...)
	n.InlineSize = uint16(len(content))
	m.resize(n, uint64(len(content)))
}

// resize sets a file's size and no more.
func (c *change) resize(n *inode, size uint64) {
	if n.Links > 0 { // what is in the trash does not count
		c.totals.bytes += size - n.Size
		c.putTotals()
	}
	n.Size = size
}

// claim makes what was settled of an open chunk part of its file.
func (c *change) claim(p place, open, settled *chunk) error {
	n := c.inode(p.inode)
	if n == nil || weaken.On(weaken.KeepSettledLength) {
		return nil
	}
	start := uint64(p.index) * uint64(n.ChunkSize)
	end := start + uint64(settled.length)
	spilled := n.InlineSize > 0 && open.spill && p.index == 0 && settled.sequence > open.sequence && settled.length >= uint32(n.InlineSize)
	if n.InlineSize > 0 && !spilled || settled.length == 0 {
		return nil
	}
	if spilled { // what its writer has in further chunks counts from now on
		for _, k := range c.keys(prefix(tableChunk, n.Inode), maxChunkCount) {
			if other := c.chunk(place{n.Inode, k.second()}); other != nil && k.second() > 0 && other.length > 0 {
				end = max(end, uint64(k.second())*uint64(n.ChunkSize)+uint64(other.length))
			}
		}
	}
	if end <= n.Size && !spilled {
		return nil
	}
	end = max(end, n.Size)
	boundary := place{n.Inode, uint32(n.Size / uint64(n.ChunkSize))}
	if b := c.chunk(boundary); boundary != p && b != nil && b.cut != noCut && end > n.Size {
		return refusal(codes.Unavailable, "chunk %d of inode %d must be cut before the file grows: try again", boundary.index, n.Inode)
	}
	if spilled {
		n.content, n.InlineSize = nil, 0
	}
	c.resize(n, end)
	n.ModifiedNs = c.nowNs
	c.putInode(n)
	return nil
}

// fileToWrite returns the file that a node names, if it may be written.
func (m *mutation) fileToWrite(node *control.Node) (*inode, error) {
	n, err := m.node(node)
	if err != nil {
		return nil, err
	}
	return n, mayWriteFile(m.who, n)
}

func mayWriteFile(who *credentials, n *inode) error {
	if !isFile(n) {
		return refuse("EISDIR", "inode %d is no regular file", n.Inode)
	}
	if !who.mayUse(&n.Attributes, mayWrite) {
		return refusal(codes.PermissionDenied, "no permission to write inode %d", n.Inode)
	}
	return nil
}

func (m *mutation) writeInline(q *control.WriteInline) (*inode, error) {
	n, err := m.fileToWrite(q.Node)
	if err != nil {
		return nil, err
	}
	if q.Append {
		q.Offset = n.Size
	}
	end := q.Offset + uint64(len(q.Data))
	if end < q.Offset || end > wire.MaxInline {
		return nil, refuse("EFBIG", "%d bytes at %d don't fit into the record of inode %d: spill it", len(q.Data), q.Offset, n.Inode)
	}
	if !isSmall(n) {
		return nil, refuse("EFBIG", "inode %d has its bytes in chunks", n.Inode)
	}
	if c := m.chunk(place{n.Inode, 0}); c != nil && c.open {
		return nil, refuse("EFBIG", "the bytes of inode %d are being moved to a chunk", n.Inode)
	}
	content := make([]byte, max(end, n.Size))
	copy(content, n.content)
	copy(content[q.Offset:], q.Data)
	m.setContent(n, content)
	m.modify(n)
	return n, nil
}

func (m *mutation) setSize(q *control.SetSize) (*inode, error) {
	n, err := m.fileToWrite(q.Node)
	if err != nil {
		return nil, err
	}
	if limit := uint64(n.ChunkSize) * maxChunkCount; q.Size > limit {
		return nil, refuse("EFBIG", "inode %d can have %d bytes at most, with chunks of %d", n.Inode, limit, n.ChunkSize)
	}
	switch {
	case q.OnlyFrom != nil && *q.OnlyFrom != n.Size:
		err = refuse("EAGAIN", "inode %d has %d bytes, not %d", n.Inode, n.Size, *q.OnlyFrom)
	case q.Spill:
		err = m.spill(n, q)
	case q.GrowOnly:
		err = m.grow(n, max(q.Size, n.Size))
	default:
		err = m.truncate(n, q.Size)
	}
	if err != nil {
		return nil, err
	}
	m.modify(n)
	if q.ModifiedNs != nil {
		n.ModifiedNs = *q.ModifiedNs
	}
	return n, nil
}

// spill makes a small file a chunked one. A spill of a file that is chunked by
// now only sets its size.
func (m *mutation) spill(n *inode, q *control.SetSize) error {
	size := q.Size
	if q.GrowOnly || !isSmall(n) {
		size = max(size, n.Size)
	}
	if size < n.Size {
		return refusal(codes.InvalidArgument, "a spill can't shorten inode %d from %d to %d bytes", n.Inode, n.Size, size)
	}
	if n.InlineSize > 0 && m.chunk(place{n.Inode, 0}) == nil {
		return refuse("EINVAL", "inode %d has no chunk that its %d bytes could be in", n.Inode, n.InlineSize)
	}
	if err := m.checkCut(n, n.Size, size); err != nil {
		return err
	}
	n.content, n.InlineSize = nil, 0
	m.resize(n, size)
	return nil
}

// grow makes room for what a writer has written to chunks.
func (m *mutation) grow(n *inode, size uint64) error {
	if size == n.Size {
		return nil
	}
	if n.chunks == 0 {
		return m.truncate(n, size)
	}
	if n.InlineSize > 0 {
		return refuse("EFBIG", "inode %d has its bytes in its record: spill it", n.Inode)
	}
	if err := m.checkCut(n, n.Size, size); err != nil {
		return err
	}
	m.resize(n, size)
	return nil
}

// truncate sets a file's size as POSIX has it: what is cut off is gone, and what
// is added is zeros.
func (m *mutation) truncate(n *inode, size uint64) error {
	if isSmall(n) && size > wire.MaxInline && n.InlineSize > 0 {
		return refuse("EFBIG", "inode %d has its bytes in its record: spill it", n.Inode)
	}
	kept := min(size, n.Size)
	if isSmall(n) {
		kept = 0 // its chunks don't count
	}
	if err := m.cutAt(n, kept, size); err != nil {
		return err
	}
	if (isSmall(n) || n.chunks == 0) && size <= wire.MaxInline {
		content := make([]byte, size)
		copy(content, n.content)
		m.setContent(n, content)
		return nil
	}
	m.resize(n, size)
	return nil
}

// cutAt drops everything that a file's chunks hold behind the first kept bytes,
// before the file's size is set.
func (m *mutation) cutAt(n *inode, kept, size uint64) error {
	if n.chunks == 0 {
		return nil
	}
	last, rest := kept/uint64(n.ChunkSize), uint32(kept%uint64(n.ChunkSize))
	first := last
	if rest > 0 {
		first++
	}
	boundary := place{n.Inode, uint32(last)}
	c := m.chunk(boundary)
	if rest == 0 || c == nil || m.cuts[boundary] == rest {
		return m.dropChunksFrom(n, first)
	}
	if err := m.mayDrop(n, uint32(last)); err != nil {
		return err
	}
	c.cut = min(c.cut, rest)
	m.putChunk(boundary, c)
	if c.open {
		m.abandonLease(boundary)
	}
	if size > kept {
		return cutNeeded{boundary, rest}
	}
	m.chores.mend = append(m.chores.mend, boundary)
	return m.dropChunksFrom(n, first)
}

// checkCut stops a file from growing over bytes that were cut off and may still
// be on the chunk servers.
func (m *mutation) checkCut(n *inode, from, to uint64) error {
	if to <= from || n.chunks == 0 {
		return nil
	}
	boundary := place{n.Inode, uint32(from / uint64(n.ChunkSize))}
	if c := m.chunk(boundary); c != nil && c.cut != noCut {
		return cutNeeded{boundary, c.cut}
	}
	return nil
}

// dropChunksFrom drops a file's chunks from an index on.
func (m *mutation) dropChunksFrom(n *inode, first uint64) error {
	if n.chunks == 0 || first >= maxChunkCount {
		return nil
	}
	if err := m.mayDrop(n, uint32(first)); err != nil {
		return err
	}
	dropped := m.keys(prefix(tableChunk, n.Inode), maxChunkCount)
	dropped = slices.DeleteFunc(dropped, func(k key) bool { return k.second() < uint32(first) })
	if len(dropped) > dropBatch && !m.whole {
		return dropNeeded{place{n.Inode, uint32(first)}}
	}
	for _, k := range dropped {
		m.dropChunk(n, place{n.Inode, k.second()})
	}
	return nil
}

// dropBatch is how many chunks one commit drops at most, so that others don't wait
// for long.
const dropBatch = 1024

// dropNeeded stops a mutation that would drop too many chunks at once: the last ones
// go first, each batch with the end of the file that they are.
type dropNeeded struct{ place }

func (dropNeeded) Error() string { return "chunks must be dropped first" }

// dropTail drops the last chunks of a file, from an index on, and cuts the file
// where they began. More says that there are more than the mutation may drop.
func (c *change) dropTail(from place) (more bool) {
	n := c.inode(from.inode)
	if n == nil {
		return false
	}
	chunks := c.keys(prefix(tableChunk, n.Inode), maxChunkCount)
	last := chunks[max(0, len(chunks)-dropBatch):]
	small := isSmall(n) // then its chunks don't count
	for _, k := range last {
		if k.second() < from.index {
			continue
		}
		if start := uint64(k.second()) * uint64(n.ChunkSize); !small && n.Size > start {
			c.resize(n, start)
		}
		c.dropChunk(n, place{n.Inode, k.second()})
	}
	c.putInode(n)
	left := len(chunks) - len(last)
	return left > dropBatch && chunks[left-1].second() >= from.index
}

// mayDrop refuses to take chunks from under another session that writes to them.
func (m *mutation) mayDrop(n *inode, first uint32) error {
	for _, k := range m.keys(prefix(tableLease, n.Inode), maxLeases) {
		h, _ := load(m.change, k, decodeHolder)
		if k.second() >= first && h != 0 && h != holder(m.session.id) {
			return busy(place{n.Inode, k.second()})
		}
	}
	return nil
}
