package client

import (
	"context"
	"fmt"

	"waggle/dfs/dataconn"
	"waggle/dfs/wire"
)

// firstAhead is how many bytes the first Read asks for at least; each piece
// that arrives doubles what is asked for ahead, up to readAhead.
const firstAhead = 64 << 10

// stream reads a file from front to back. It asks for pieces before they are
// needed, and receives each into the buffers that Read is then called with, so
// nothing is copied but the blocks that a buffer cuts.
//
// A stream gives up at the first difficulty; then readRange, which knows every
// way out, reads what is next, and another stream begins behind it.
type stream struct {
	f        *File
	size     uint64 // of the file, as far as it is known
	next     uint64 // offset in the file of the next piece to ask for
	ahead    uint64 // bytes to have asked for
	underWay uint64 // bytes that were asked for, but not delivered

	conn  *dataConn // for the pieces of chunk index; nil if there is none yet
	index uint32
	asked []piece // in the order of their answers

	// Of asked[0], once its header has arrived:
	arrived bool
	stored  uint64 // bytes on their way
	wanted  uint64 // bytes to deliver; where there are more than stored, zeros
	sums    []byte // of the blocks on their way
	offset  uint64 // in the chunk, of the next block

	skip    int    // bytes of the first block that lie before the first Read
	block   []byte // the rest of a block that a buffer has cut
	scratch [wire.BlockSize]byte
}

// piece is a part of the file that was asked for, from a block's start.
type piece struct {
	frame wire.Frame
	conn  *dataConn // nil for a hole
	last  bool      // on its connection
}

// newStream begins at offset, for a reader with buffers of n bytes.
func newStream(f *File, offset, size uint64, n int) *stream {
	skip := offset % wire.BlockSize
	return &stream{f: f, next: offset - skip, size: size, skip: int(skip), ahead: max(uint64(n), firstAhead)}
}

// read fills p as far as the file goes. After an error the stream is of no more
// use.
func (s *stream) read(ctx context.Context, p []byte) (n int, err error) {
	for n < len(p) {
		if len(s.block) > 0 {
			k := copy(p[n:], s.block)
			s.block = s.block[k:]
			s.f.c.copied.Add(int64(k))
			n += k
			continue
		}
		if err := s.ask(ctx); err != nil {
			return n, err
		}
		if len(s.asked) == 0 {
			return n, nil // the end of the file
		}
		k, err := s.receive(ctx, p[n:])
		if n += k; err != nil {
			return n, err
		}
	}
	return n, nil
}

// ask asks for pieces when less than half of what should be is under way.
func (s *stream) ask(ctx context.Context) error {
	if s.underWay > s.ahead/2 {
		return nil
	}
	for s.next < s.size && s.underWay < s.ahead {
		if err := s.askPiece(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (s *stream) askPiece(ctx context.Context) error {
	size := uint64(s.f.chunkSize)
	index, offset := uint32(s.next/size), s.next%size
	location, err := s.f.location(ctx, index)
	if err != nil {
		return err
	}
	if index != s.index {
		s.leaveConn()
		s.index = index
	}
	if s.conn == nil && location.Chunk != 0 {
		if err := s.connect(ctx, &location); err != nil {
			return err
		}
	}
	// A reader that takes little at first is not sent much.
	ahead := max(s.ahead-s.ahead%wire.BlockSize, wire.BlockSize)
	frame := pieceFrame(&location, offset, int(min(s.size-s.next, size-offset, ahead)))
	if s.conn != nil {
		if err := s.conn.Extend(ctx, dataconn.ReadTimeout); err != nil {
			return err
		}
		if err := s.conn.Ask(&frame); err != nil {
			return err
		}
	}
	s.asked = append(s.asked, piece{frame: frame, conn: s.conn})
	s.next += uint64(frame.Length)
	s.underWay += uint64(frame.Length)
	return nil
}

func (s *stream) connect(ctx context.Context, location *wire.Location) error {
	c := s.f.c
	replica, ok := c.servers.avoided.Choose(location.Replicas, nil)
	if !ok {
		return fmt.Errorf("chunk %d has no replica that is up", location.Chunk)
	}
	conn, err := c.servers.take(ctx, replica.Address, c.readPath)
	s.conn = conn
	return err
}

// leaveConn has the connection given back after its last answer.
func (s *stream) leaveConn() {
	if s.conn == nil {
		return
	}
	if last := len(s.asked) - 1; last >= 0 && s.asked[last].conn == s.conn {
		s.asked[last].last = true
	} else {
		s.conn.give(true)
	}
	s.conn = nil
}

// receive delivers a part of the first piece into p.
func (s *stream) receive(ctx context.Context, p []byte) (n int, err error) {
	first := &s.asked[0]
	if first.conn != nil {
		if err := first.conn.Extend(ctx, dataconn.ReadTimeout); err != nil {
			return 0, err
		}
	}
	if !s.arrived {
		if err := s.receiveHeader(first); err != nil {
			return 0, err
		}
	}
	if s.stored > 0 {
		n, err = s.receiveBlocks(first.conn, p)
	} else {
		n = s.deliverZeros(p)
	}
	if err == nil && s.wanted == 0 {
		s.arrived = false
		if first.last {
			first.conn.give(true)
		}
		s.asked = s.asked[1:]
	}
	return n, err
}

func (s *stream) receiveHeader(first *piece) error {
	if first.conn == nil {
		s.stored, s.wanted, s.arrived = 0, uint64(first.frame.Length), true
		return nil
	}
	var answer wire.Frame
	if err := first.conn.Answer(&first.frame, &answer); err != nil {
		return err
	}
	if err := dataconn.AnswerError(&answer); err != nil {
		return err
	}
	if err := checkRange(&first.frame, &answer); err != nil {
		return err
	}
	s.stored, s.wanted, s.arrived = uint64(answer.Length), uint64(first.frame.Length), true
	s.sums, s.offset = answer.Extra, answer.Offset
	s.ahead = min(2*s.ahead, readAhead)
	return nil
}

// receiveBlocks receives whole blocks into p, or else one into the scratch block.
func (s *stream) receiveBlocks(conn *dataConn, p []byte) (int, error) {
	n := min(s.stored, s.wanted, uint64(len(p)))
	if n < s.stored {
		n -= n % wire.BlockSize
	}
	into := p[:n]
	if n == 0 || s.skip > 0 {
		into = s.scratch[:min(s.stored, wire.BlockSize)]
	}
	if err := conn.Receive(into); err != nil {
		return 0, err
	}
	if at := wire.CheckChecksums(s.sums, s.offset, into); at >= 0 {
		return 0, errTorn{uint64(at)}
	}
	k := uint64(len(into))
	s.stored, s.offset = s.stored-k, s.offset+k
	s.sums = s.sums[4*((k+wire.BlockSize-1)/wire.BlockSize):]
	delivered := min(k, s.wanted)
	s.wanted -= delivered
	s.underWay -= delivered
	if n > 0 && s.skip == 0 {
		return int(n), nil
	}
	s.block = into[min(uint64(s.skip), delivered):delivered]
	s.skip -= min(s.skip, int(delivered))
	return 0, nil
}

// deliverZeros delivers what lies behind the end of a replica, or in a hole.
func (s *stream) deliverZeros(p []byte) int {
	skipped := min(uint64(s.skip), s.wanted)
	n := min(s.wanted-skipped, uint64(len(p)))
	clear(p[:n])
	s.skip -= int(skipped)
	s.wanted -= skipped + n
	s.underWay -= skipped + n
	return int(n)
}

// close gives back the connections. One with answers on their way is closed.
func (s *stream) close() {
	var before *dataConn
	for _, p := range s.asked {
		if p.conn != nil && p.conn != before {
			p.conn.give(false)
			before = p.conn
		}
	}
	if s.conn != nil && s.conn != before {
		s.conn.give(true)
	}
	s.asked, s.conn = nil, nil
}
