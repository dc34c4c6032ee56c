package storm

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"time"

	"waggle/dfs/wire"
)

// The model of a file's bytes. A file is a row of cells, four to a block, each of
// which always holds one whole write: a cell says of which file and write it is.
// What may be read is judged cell by cell, by when operations began and ended.
const (
	cellSize      = wire.BlockSize / 4
	cellsPerBlock = wire.BlockSize / cellSize
)

// clock counts nanoseconds since the storm began.
type clock struct{ began time.Time }

func (c *clock) now() int64 { return time.Since(c.began).Nanoseconds() }

const never = math.MaxInt64

// cellWrite is one write of one cell.
type cellWrite struct {
	version    uint32
	call       int64
	returned   int64 // never, while it is under way
	acked      bool
	synced     int64 // when a later Sync or Close had succeeded, or never
	calledLost int64 // when the file's user was told that writes were lost, or never
}

// cells is what is known of one file's cells.
type cells struct {
	clock *clock
	seed  uint64
	file  uint32

	mu       sync.Mutex
	versions uint32
	writes   [][]*cellWrite // by cell, in the order in which they began
	losses   []int64        // when what was not synced may have been lost
}

func newCells(c *clock, seed uint64, file uint32, count int) *cells {
	return &cells{clock: c, seed: seed, file: file, writes: make([][]*cellWrite, count)}
}

// content is what a write puts into a cell.
func (c *cells) content(cell int, version uint32) []byte {
	b := binary.LittleEndian.AppendUint32(nil, version)
	b = binary.LittleEndian.AppendUint64(b, c.seed)
	b = binary.LittleEndian.AppendUint32(b, c.file)
	b = binary.LittleEndian.AppendUint32(b, uint32(cell))
	random := rand.New(rand.NewPCG(c.seed^uint64(version)<<32, uint64(c.file)<<32|uint64(cell)))
	for len(b) < cellSize {
		b = binary.LittleEndian.AppendUint32(b, random.Uint32())
	}
	return b
}

// begin notes that cells are about to be written, and returns what is to be
// written.
func (c *cells) begin(first, count int) ([]byte, []*cellWrite) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.versions++
	var data []byte
	var begun []*cellWrite
	for cell := first; cell < first+count; cell++ {
		w := &cellWrite{version: c.versions, call: c.clock.now(), returned: never, synced: never, calledLost: never}
		c.writes[cell] = append(c.writes[cell], w)
		begun = append(begun, w)
		data = append(data, c.content(cell, w.version)...)
	}
	return data, begun
}

// end notes how a write has ended.
func (c *cells) end(writes []*cellWrite, acked bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.clock.now()
	for _, w := range writes {
		w.returned, w.acked = now, acked
	}
}

// sync notes that all these writes were said to be durable.
func (c *cells) sync(writes []*cellWrite) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.clock.now()
	for _, w := range writes {
		w.synced = min(w.synced, now)
	}
}

// tellLost notes that these writes' user was told that they may be lost.
func (c *cells) tellLost(writes []*cellWrite) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.clock.now()
	for _, w := range writes {
		w.calledLost = min(w.calledLost, now)
	}
}

// lose notes that from now on what was not synced before may be lost.
func (c *cells) lose() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.losses = append(c.losses, c.clock.now())
}

// judge says what is wrong with what a read returned, or "".
func (c *cells) judge(call, returned int64, first int, data []byte) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := 0; i*cellSize < len(data); i++ {
		if wrong := c.judgeCell(call, returned, first+i, data[i*cellSize:(i+1)*cellSize]); wrong != "" {
			return fmt.Sprintf("file %d, cell %d: %s", c.file, first+i, wrong)
		}
	}
	return ""
}

func (c *cells) judgeCell(call, returned int64, cell int, data []byte) string {
	version := binary.LittleEndian.Uint32(data)
	for _, w := range c.writes[cell] {
		if w.version != version || w.call > returned || !bytes.Equal(data, c.content(cell, version)) {
			continue
		}
		if newer := c.overwritten(w, cell, call, returned); newer != nil {
			return fmt.Sprintf("read write %d, where write %d was acknowledged before (%s)", version, newer.version, c.history(cell))
		}
		return ""
	}
	what := "bytes that nobody wrote there"
	if len(bytes.Trim(data, "\x00")) == 0 {
		what = "zeros"
	}
	return fmt.Sprintf("read %s (%s)", what, c.history(cell))
}

// overwritten returns a write that a read must have seen instead of w, or nil.
func (c *cells) overwritten(w *cellWrite, cell int, call, returned int64) *cellWrite {
	for _, other := range c.writes[cell] {
		if w.returned < other.call && other.acked && other.returned < call && c.stays(other, call, returned) {
			return other
		}
	}
	return nil
}

// stays says whether an acknowledged write can't have been lost by the time of a
// read.
func (c *cells) stays(w *cellWrite, call, returned int64) bool {
	if w.synced < call {
		return true
	}
	if w.calledLost < returned {
		return false
	}
	for _, lost := range c.losses {
		if w.call <= lost && lost <= returned {
			return false
		}
	}
	return true
}

// mayBeDamaged says whether a cell's block may be unreadable for good: some of it
// was being written when what was not synced was lost.
func (c *cells) mayBeDamaged(cell int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	first := cell / cellsPerBlock * cellsPerBlock
	for _, writes := range c.writes[first : first+cellsPerBlock] {
		for _, w := range writes {
			for _, lost := range c.losses {
				if w.call <= lost && w.synced > lost {
					return true
				}
			}
		}
	}
	return false
}

// history describes the last writes of a cell.
func (c *cells) history(cell int) string {
	text := "writes in ms:"
	writes := c.writes[cell]
	for _, w := range writes[max(0, len(writes)-8):] {
		text += fmt.Sprintf(" %d %s to %s", w.version, ms(w.call), ms(w.returned))
		switch {
		case w.returned == never:
			text += " under way"
		case w.acked:
			text += " acknowledged"
		default:
			text += " failed"
		}
		if w.synced != never {
			text += " synced by " + ms(w.synced)
		}
		if w.calledLost != never {
			text += " called lost at " + ms(w.calledLost)
		}
		text += ";"
	}
	for _, lost := range c.losses {
		text += " power lost at " + ms(lost)
	}
	return text
}

func ms(t int64) string {
	if t == never {
		return "..."
	}
	return fmt.Sprintf("%.1f", float64(t)/1e6)
}
