package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"

	"waggle/dfs/dataconn"
	"waggle/dfs/datapath"
	"waggle/dfs/datapath/read"
	"waggle/dfs/datapath/read/afxdp"
	"waggle/dfs/wire"
)

const datagramPath = string(datapath.Read) + "=" + read.AFXDP

const (
	// datagramPiece is how many bytes one frame asks for at most on read=afxdp, and
	// datagramAhead how many are asked for ahead: what one reader has under way fits
	// into the receiver's memory several times.
	datagramPiece = 256 << 10
	datagramAhead = 2 * datagramPiece
	// datagramRounds is how often what was lost is asked for again.
	datagramRounds = 10
)

// blocks is how a connection's data comes in datagrams.
type blocks struct {
	receiver *afxdp.Receiver
	piece    int // bytes of data in each
}

// chooseDatagrams selects read=afxdp on a new connection.
func (c *dataConn) chooseDatagrams(ctx context.Context) error {
	receiver, err := c.pool.servers.receiver(c.TCPConn)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnsupported, err)
	}
	if err := c.Extend(ctx, dataconn.DialTimeout); err != nil {
		return err
	}
	if err := c.Select(fmt.Sprintf("%s %d", datagramPath, receiver.Port())); err != nil {
		return err
	}
	piece, err := strconv.Atoi(c.Greeting)
	if err != nil || piece < afxdp.MinPiece || piece > afxdp.MaxPiece {
		return fmt.Errorf("%w: server sends %q bytes in a datagram", wire.ErrMalformed, c.Greeting)
	}
	c.blocks = blocks{receiver, piece}
	return nil
}

// receiver returns what receives datagrams through the interface that a
// connection goes through.
func (s *servers) receiver(conn *net.TCPConn) (*afxdp.Receiver, error) {
	from, to := conn.LocalAddr().(*net.TCPAddr).AddrPort(), conn.RemoteAddr().(*net.TCPAddr).AddrPort()
	route, err := afxdp.Find(from.Addr(), to.Addr())
	if err != nil {
		return nil, err
	}
	s.receiving.Lock()
	defer s.receiving.Unlock()
	if r := s.receivers[route.Interface]; r != nil {
		return r, nil
	}
	r, err := afxdp.OpenReceiver(route, s.client.options.Counters)
	if err == nil {
		s.receivers[route.Interface] = r
	}
	return r, err
}

func (s *servers) closeReceivers() error {
	s.receiving.Lock()
	defer s.receiving.Unlock()
	var failed error
	for i, r := range s.receivers {
		failed = errors.Join(failed, r.Close())
		delete(s.receivers, i)
	}
	return failed
}

// awaited is a part of a span that was asked for.
type awaited struct {
	asked  wire.Frame
	p      []byte
	rounds int // that it was lost in before
	room   *room
	data   *afxdp.Transfer
}

// datagramReader fetches one span.
type datagramReader struct {
	*dataConn
	ctx      context.Context
	location *wire.Location
	span     span
	sent     int        // bytes of the span that were asked for
	waiting  []*awaited // in the order of their answers
}

// fetchDatagrams is fetch for a connection whose data comes in datagrams.
func (c *dataConn) fetchDatagrams(ctx context.Context, location *wire.Location, s span) (int, error) {
	r := &datagramReader{dataConn: c, ctx: ctx, location: location, span: s}
	defer r.end()
	for {
		if err := r.askAhead(); err != nil {
			return r.got(), err
		}
		if len(r.waiting) == 0 {
			return len(s.p), nil
		}
		if err := r.next(); err != nil {
			return r.got(), err
		}
	}
}

// got is how many bytes from the span's start on are there and verified.
func (r *datagramReader) got() int {
	got := r.sent
	for _, a := range r.waiting {
		got = min(got, int(a.asked.Offset-r.span.offset))
	}
	return got
}

func (r *datagramReader) end() {
	for _, a := range r.waiting {
		a.end()
	}
}

func (a *awaited) end() {
	a.data.End()
	rooms.Put(a.room)
}

func (r *datagramReader) askAhead() error {
	for r.sent < len(r.span.p) && r.sent-r.got() < datagramAhead {
		offset := r.span.offset + uint64(r.sent)
		n := int(min(uint64(len(r.span.p)-r.sent), datagramPiece-offset%datagramPiece))
		if err := r.await(r.span.p[r.sent:r.sent+n], offset, 0); err != nil {
			return err
		}
		r.sent += n
	}
	return nil
}

// await asks for p, which is at offset of the chunk.
func (r *datagramReader) await(p []byte, offset uint64, rounds int) error {
	a := &awaited{p: p, rounds: rounds, room: rooms.Get().(*room)}
	a.asked = wire.Frame{Type: wire.FrameRead, Chunk: r.location.Chunk, Epoch: r.location.Epoch,
		Sequence: uint64(r.location.Length), Offset: offset, Length: uint32(len(p))}
	first, last := blocksAround(offset, uint64(len(p)))
	parts := cut(p, offset, first, last, &a.room.blocks)
	r.Number(&a.asked)
	var err error
	if a.data, err = r.blocks.receiver.Expect(a.asked.ID, first, r.blocks.piece, parts[:]); err != nil {
		rooms.Put(a.room)
		return err
	}
	r.waiting = append(r.waiting, a)
	if err := r.Extend(r.ctx, dataconn.ReadTimeout); err != nil {
		return err
	}
	return r.Send(&a.asked)
}

// blocksAround is the block-aligned range that covers length bytes at offset.
func blocksAround(offset, length uint64) (first, last uint64) {
	last = offset + length
	return offset - offset%wire.BlockSize, last + -last%wire.BlockSize
}

// next receives the answer to what was asked first: its header says that all was
// sent. What was lost is asked for again.
func (r *datagramReader) next() error {
	a := r.waiting[0]
	if err := r.Extend(r.ctx, dataconn.ReadTimeout); err != nil {
		return err
	}
	var answer wire.Frame
	if err := r.Answer(&a.asked, &answer); err != nil {
		return err
	}
	if err := dataconn.AnswerError(&answer); err != nil {
		return err
	}
	if err := checkRange(&a.asked, &answer); err != nil {
		return err
	}
	whole, err := a.data.Wait(r.ctx, uint64(answer.Length))
	if err != nil {
		return fmt.Errorf("receive datagrams: %w", err)
	}
	var lost []afxdp.Run
	if !whole {
		lost = a.data.Missing(uint64(answer.Length), wire.BlockSize)
	}
	a.data.End() // or what comes late would be written over what was verified
	parts := cut(a.p, a.asked.Offset, answer.Offset, answer.Offset+uint64(answer.Length), &a.room.blocks)
	if at := checkBetween(&answer, parts[:], lost); at >= 0 {
		return errTorn{uint64(at)}
	}
	if err := r.askAgain(a, lost); err != nil {
		return err
	}
	a.end()
	r.waiting = r.waiting[1:]
	return nil
}

// checkBetween verifies the blocks of an answer that were not lost.
func checkBetween(answer *wire.Frame, parts [][]byte, lost []afxdp.Run) int64 {
	from, end := answer.Offset, answer.Offset+uint64(answer.Length)
	for _, run := range append(lost, afxdp.Run{Offset: end}) {
		if run.Offset > from {
			sums := answer.Extra[(from-answer.Offset)/wire.BlockSize*4:]
			if at := checkParts(sums, from, within(parts, from-answer.Offset, run.Offset-from)); at >= 0 {
				return at
			}
		}
		from = run.Offset + run.Length
	}
	return -1
}

// within returns what length bytes at offset of the parts are.
func within(parts [][]byte, offset, length uint64) (list [][]byte) {
	for _, p := range parts {
		skip := min(offset, uint64(len(p)))
		p, offset = p[skip:], offset-skip
		p = p[:min(length, uint64(len(p)))]
		length -= uint64(len(p))
		list = append(list, p)
	}
	return list
}

// askAgain asks for what was lost of a part.
func (r *datagramReader) askAgain(a *awaited, lost []afxdp.Run) error {
	if len(lost) > 0 && a.rounds == datagramRounds {
		return fmt.Errorf("datagrams from %s were lost %d times in a row", r.pool.key.address, datagramRounds+1)
	}
	for _, run := range lost {
		from := max(run.Offset, a.asked.Offset)
		to := min(run.Offset+run.Length, a.asked.Offset+uint64(len(a.p)))
		if to <= from {
			continue
		}
		r.pool.servers.client.options.Counters.Counter("read_afxdp_repaired_bytes").Add(int64(to - from))
		if err := r.await(a.p[from-a.asked.Offset:to-a.asked.Offset], from, a.rounds+1); err != nil {
			return err
		}
	}
	return nil
}
