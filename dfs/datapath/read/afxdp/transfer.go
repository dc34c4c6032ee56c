package afxdp

import (
	"context"
	"net"
	"time"
)

// Transfer is a range that is on its way. All but Wait and End is done with its
// receiver's lock.
type Transfer struct {
	receiver *Receiver
	id       uint64
	offset   uint64 // of the range in the chunk
	room     uint64 // bytes of parts
	piece    uint64
	parts    [][]byte
	have     []bool // which pieces came
	count    int    // of them
	want     int    // 0 until it is known
	done     chan struct{}
}

// take takes in a piece, unless it does not belong to the range or came before.
func (t *Transfer) take(d Datagram) bool {
	if d.Offset < t.offset || d.Offset-t.offset+uint64(len(d.Data)) > t.room {
		return false
	}
	at := d.Offset - t.offset
	index := at / t.piece
	if at%t.piece != 0 || uint64(len(d.Data)) > t.piece || t.have[index] {
		return false
	}
	t.put(at, d.Data)
	t.have[index] = true
	t.count++
	if t.count == t.want {
		t.done <- struct{}{}
	}
	return true
}

// put copies data to where its offset is in the parts.
func (t *Transfer) put(at uint64, data []byte) {
	for _, p := range t.parts {
		if at >= uint64(len(p)) {
			at -= uint64(len(p))
			continue
		}
		n := copy(p[at:], data)
		if data = data[n:]; len(data) == 0 {
			return
		}
		at = 0
	}
}

// lossTime is how long nothing must come, after the server has said that all was
// sent, for the rest to be lost.
const lossTime = 10 * time.Millisecond

// Wait waits until the first length bytes have come, which the server has said
// to have sent, or their rest must be lost. It returns whether they are whole.
func (t *Transfer) Wait(ctx context.Context, length uint64) (bool, error) {
	before, err := t.expect(length)
	for err == nil && before < t.want {
		select {
		case <-t.done:
			return true, nil
		case <-ctx.Done():
			return false, context.Cause(ctx)
		case <-t.receiver.ended:
			return false, net.ErrClosed
		case <-time.After(lossTime):
		}
		now := 0
		if now, err = t.progress(); now == before {
			return false, err
		}
		before = now
	}
	return err == nil, err
}

// expect sets how much is wanted and returns how many pieces have come.
func (t *Transfer) expect(length uint64) (int, error) {
	t.receiver.mu.Lock()
	t.want = int((min(length, t.room) + t.piece - 1) / t.piece)
	t.receiver.mu.Unlock()
	return t.progress()
}

func (t *Transfer) progress() (int, error) {
	err := t.receiver.drain()
	t.receiver.mu.Lock()
	defer t.receiver.mu.Unlock()
	return t.count, err
}

// Run is a part of a range, in bytes from the chunk's start.
type Run struct{ Offset, Length uint64 }

// Missing returns the runs of blocks of the first length bytes that lack a
// piece; a block is of that size.
func (t *Transfer) Missing(length, block uint64) (runs []Run) {
	t.receiver.mu.Lock()
	defer t.receiver.mu.Unlock()
	end := uint64(0) // of the last run
	for i, have := range t.have[:t.want] {
		if have {
			continue
		}
		from := uint64(i) * t.piece / block * block
		to := min(length, (uint64(i+1)*t.piece+block-1)/block*block)
		if len(runs) > 0 && from <= end {
			runs[len(runs)-1].Length += to - end
		} else {
			runs = append(runs, Run{t.offset + from, to - from})
		}
		end = to
	}
	return runs
}

// End ends a transfer: what comes for it after is not written anywhere.
func (t *Transfer) End() {
	t.receiver.mu.Lock()
	defer t.receiver.mu.Unlock()
	delete(t.receiver.transfers, t.id)
}
