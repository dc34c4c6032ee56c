package client

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"waggle/dfs/dataconn"
	"waggle/dfs/datapath/read"
	"waggle/dfs/wire"
	"waggle/dfs/wire/control"
)

const (
	// readPiece is how many bytes one frame asks for at most. Each frame costs
	// both sides system calls and wake-ups.
	readPiece = 1 << 20
	// readAhead bounds the bytes asked for, but not yet answered, on one connection.
	readAhead = 4 << 20
	// verifiedAtOnce is how many bytes are received before they are checked: few
	// enough to be in the processor's cache still, a multiple of the block, and so
	// many that most calls find a whole message of what a sockmap redirects.
	verifiedAtOnce = 512 << 10
	// parallelChunks is how many chunks one big read asks for at once.
	parallelChunks = 4
)

// errTorn says that a block does not match its checksum: it was overwritten on
// its way, or it is corrupt.
type errTorn struct{ offset uint64 } // in the chunk

func (e errTorn) Error() string {
	return fmt.Sprintf("the block at %d does not match its checksum", e.offset)
}

// span is a part of a chunk and where its bytes go.
type span struct {
	index  uint32
	offset uint64 // in the chunk
	p      []byte
}

// spans cuts p, which lies at offset of a file, at the borders of chunks.
func spans(p []byte, offset uint64, chunkSize uint32) []span {
	var list []span
	for len(p) > 0 {
		at := offset % uint64(chunkSize)
		n := min(uint64(len(p)), uint64(chunkSize)-at)
		list = append(list, span{uint32(offset / uint64(chunkSize)), at, p[:n]})
		p, offset = p[n:], offset+n
	}
	return list
}

// readRange fills p from offset; the caller has made sure that the file is as
// long. Chunks are read at once.
func (f *File) readRange(ctx context.Context, p []byte, offset uint64) error {
	list := spans(p, offset, f.chunkSize)
	if len(list) == 1 {
		return f.readSpan(ctx, list[0])
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(parallelChunks)
	for _, s := range list {
		group.Go(func() error { return f.readSpan(ctx, s) })
	}
	return group.Wait()
}

// readSpan reads a part of a chunk, and tries every replica before it fails.
func (f *File) readSpan(ctx context.Context, s span) error {
	tries := newRetry(f.c.options.Patience)
	trial := replicaTrial{f: f}
	for {
		n, err := trial.read(ctx, s)
		if err == nil {
			return nil
		}
		s.p, s.offset = s.p[n:], s.offset+uint64(n)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, errClosed), errors.Is(err, ErrCorrupt), errors.Is(err, ErrUnsupported), errors.As(err, new(*remoteError)):
			return err
		case trial.hurry && trial.hurried < maxHurried:
			trial.hurried++
			continue
		}
		if err := tries.again(ctx, err); err != nil {
			return err
		}
		trial.hurried = 0
	}
}

// maxHurried is more attempts than it takes to find out about every replica.
const maxHurried = 4 * wire.MaxReplicas

// replicaTrial is the state of a read that goes from replica to replica.
type replicaTrial struct {
	f       *File
	refused []uint32     // servers of replicas that served corrupt blocks
	torn    int          // how often the replica at hand has served a torn block
	again   wire.Replica // to be asked again after that
	hurry   bool         // the next attempt need not wait
	hurried int          // attempts since one that did
}

// read makes one attempt. It returns how many bytes are there and verified.
func (t *replicaTrial) read(ctx context.Context, s span) (int, error) {
	f := t.f
	location, err := f.location(ctx, s.index)
	if err != nil {
		return 0, err
	}
	if location.Chunk == 0 {
		clear(s.p)
		return len(s.p), nil
	}
	replica, ok := t.again, true
	if t.torn == 0 {
		replica, ok = f.c.servers.avoided.Choose(location.Replicas, t.refused)
	}
	if !ok && len(t.refused) > 0 {
		return 0, fmt.Errorf("%w: chunk %d at %d", ErrCorrupt, location.Chunk, s.offset)
	}
	if !ok {
		f.forget(s.index)
		return 0, fmt.Errorf("chunk %d has no replica that is up", location.Chunk)
	}
	var flags uint16
	if t.torn >= 2 {
		flags = wire.FlagLocked
	}
	n, err := f.c.fetch(ctx, replica, &location, flags, s)
	if err != nil {
		t.failed(ctx, &location, replica, s.index, err)
		return n, fmt.Errorf("read chunk %d from %s: %w", location.Chunk, replica.Address, err)
	}
	return n, nil
}

// failed decides what the next attempt does.
func (t *replicaTrial) failed(ctx context.Context, location *wire.Location, replica wire.Replica, index uint32, err error) {
	var torn errTorn
	var stale *staleConn
	c := t.f.c
	switch status := dataconn.StatusOf(err); {
	case errors.As(err, &torn) && t.torn < 2:
		t.torn++
		t.again, t.hurry = replica, true
	case errors.As(err, &torn), status == wire.StatusCorrupt:
		var answered *dataconn.StatusError
		if errors.As(err, &answered) {
			torn.offset = answered.Offset
		}
		c.reportCorrupt(ctx, location.Chunk, replica.Server, torn.offset)
		t.refused = append(t.refused, replica.Server)
		t.torn, t.hurry = 0, true
	case status == wire.StatusNotServing, status == wire.StatusTooShort:
		c.options.Counters.Counter("client_replicas_passed_over").Add(1)
		c.servers.avoided.Note(replica.Address)
		t.f.forget(index)
		t.torn, t.hurry = 0, t.hurried < len(location.Replicas)-1
	case status == wire.StatusNotFound, status == wire.StatusStaleEpoch:
		t.f.forget(index)
		t.torn, t.hurry = 0, false
	case errors.As(err, &stale):
		t.hurry = true
	case ctx.Err() == nil:
		c.servers.avoided.Note(replica.Address)
		t.f.forget(index)
		t.torn, t.hurry = 0, t.hurried < len(location.Replicas)-1
	}
}

// reportCorrupt tells the metadata server, which has the block rewritten.
func (c *Client) reportCorrupt(ctx context.Context, chunk uint64, server uint32, offset uint64) {
	c.options.Counters.Counter("client_corrupt_blocks").Add(1)
	s := c.session.Load()
	attempt(ctx, s, func(ctx context.Context, s *session) (*control.Empty, error) {
		return c.control.ReportCorrupt(ctx, &control.CorruptRequest{Session: s.id, Chunk: chunk, Server: server, Offset: offset})
	}) // whoever reads it next reports it again
}

// staleConn is an error on a connection that had been idle, of which nothing
// follows but that another must be used.
type staleConn struct{ err error }

func (e *staleConn) Error() string { return e.err.Error() }
func (e *staleConn) Unwrap() error { return e.err }

// fetch reads a span from one replica. It returns how many bytes are there and
// verified.
func (c *Client) fetch(ctx context.Context, replica wire.Replica, location *wire.Location, flags uint16, s span) (int, error) {
	if c.options.ReadPath == read.ShortCircuit && flags&wire.FlagLocked == 0 {
		return c.readBorrowed(ctx, replica.Address, location, s)
	}
	conn, err := c.servers.take(ctx, replica.Address, c.readPath)
	if err != nil {
		return 0, err
	}
	fetched, err := conn.fetchOn(ctx, location, flags, s)
	conn.give(err == nil)
	if err != nil && fetched == 0 && conn.Reused && dataconn.StatusOf(err) == wire.StatusOK && !errors.As(err, new(errTorn)) {
		err = &staleConn{err}
	}
	return fetched, err
}

// streams says whether data comes by the connection that it is asked for on, as
// streams need it.
func (c *Client) streams() bool {
	return c.options.ReadPath != read.ShortCircuit && c.options.ReadPath != read.AFXDP
}

// fetchOn fetches a span in the way of the connection's path.
func (c *dataConn) fetchOn(ctx context.Context, location *wire.Location, flags uint16, s span) (int, error) {
	if c.blocks.receiver != nil && flags&wire.FlagLocked == 0 {
		return c.fetchDatagrams(ctx, location, s)
	}
	return c.fetch(ctx, location, flags, s)
}

// fetch asks for all pieces of a span, some ahead, and receives them in order.
func (c *dataConn) fetch(ctx context.Context, location *wire.Location, flags uint16, s span) (int, error) {
	asked := make([]wire.Frame, 0, readAhead/readPiece+1)
	sent, got := 0, 0
	for got < len(s.p) {
		for sent < len(s.p) && sent-got < readAhead {
			f := pieceFrame(location, s.offset+uint64(sent), len(s.p)-sent)
			f.Flags = flags
			if err := c.Extend(ctx, dataconn.ReadTimeout); err != nil {
				return got, err
			}
			if err := c.Ask(&f); err != nil {
				return got, err
			}
			asked = append(asked, f)
			sent += int(f.Length)
		}
		if err := c.Extend(ctx, dataconn.ReadTimeout); err != nil {
			return got, err
		}
		n := int(asked[0].Length)
		if err := c.receivePiece(&asked[0], s.p[got:got+n]); err != nil {
			return got, err
		}
		asked = asked[1:]
		got += n
	}
	return got, nil
}

// pieceFrame asks for the first piece of length bytes at offset. Pieces end at
// multiples of their size, so that all but the first and last are aligned.
func pieceFrame(location *wire.Location, offset uint64, length int) wire.Frame {
	n := min(uint64(length), readPiece-offset%readPiece)
	return wire.Frame{Type: wire.FrameRead, Chunk: location.Chunk, Epoch: location.Epoch, Sequence: uint64(location.Length),
		Offset: offset, Length: uint32(n)}
}

// receivePiece receives the answer to asked into p. What the blocks hold in
// front of p and behind it goes to the connection's scratch space.
func (c *dataConn) receivePiece(asked *wire.Frame, p []byte) error {
	var answer wire.Frame
	if err := c.Answer(asked, &answer); err != nil {
		return err
	}
	if err := dataconn.AnswerError(&answer); err != nil {
		return err
	}
	if err := checkRange(asked, &answer); err != nil {
		return err
	}
	first, end := answer.Offset, answer.Offset+uint64(answer.Length)
	if first == asked.Offset && answer.Length == uint32(len(p)) {
		return c.receiveVerified(answer.Extra, first, p)
	}
	parts := cut(p, asked.Offset, first, end, &c.scratch)
	if err := c.receiveParts(parts[:]); err != nil {
		return err
	}
	if at := checkParts(answer.Extra, first, parts[:]); at >= 0 {
		return errTorn{uint64(at)}
	}
	return nil
}

// receiveVerified receives whole blocks, at offset of the chunk, into p. It checks
// what is there while the next bytes come.
func (c *dataConn) receiveVerified(sums []byte, offset uint64, p []byte) error {
	for len(p) > 0 {
		n := min(len(p), verifiedAtOnce)
		if err := c.Receive(p[:n]); err != nil {
			return err
		}
		if at := wire.CheckChecksums(sums, offset, p[:n]); at >= 0 {
			return errTorn{uint64(at)}
		}
		p, offset, sums = p[n:], offset+uint64(n), sums[wire.Pieces(offset, uint32(n))*4:]
	}
	return nil
}

// cut says where the bytes of the blocks from first to end go: what lies in front
// of p, which is at offset, and behind it to scratch, and what the replica does
// not have is a hole.
func cut(p []byte, offset, first, end uint64, scratch *[2 * wire.BlockSize]byte) [3][]byte {
	head := min(end, offset) - first
	body := max(end, offset) - offset
	tail := body - min(body, uint64(len(p)))
	body -= tail
	clear(p[body:])
	return [3][]byte{scratch[:head], p[:body], scratch[wire.BlockSize : wire.BlockSize+tail]}
}

// checkRange says whether an answer to a read has a range that it can have.
func checkRange(asked, answer *wire.Frame) error {
	first := asked.Offset - asked.Offset%wire.BlockSize
	last := asked.Offset + uint64(asked.Length)
	last += -last % wire.BlockSize
	if answer.Length > 0 && (answer.Offset != first || answer.Offset+uint64(answer.Length) > last) {
		return fmt.Errorf("%w: answer with %d bytes at %d to a read of %d bytes at %d",
			wire.ErrMalformed, answer.Length, answer.Offset, asked.Length, asked.Offset)
	}
	if answer.Length == 0 {
		answer.Offset = first
	}
	if want := 4 * wire.Pieces(answer.Offset, answer.Length); len(answer.Extra) != want {
		return fmt.Errorf("%w: %d bytes of checksums for %d bytes at %d, must be %d",
			wire.ErrMalformed, len(answer.Extra), answer.Length, answer.Offset, want)
	}
	return nil
}

// receiveParts fills the parts, one after the other, with as few calls as
// possible.
func (c *dataConn) receiveParts(parts [][]byte) error {
	rest := make([][]byte, 0, 3)
	for _, part := range parts {
		if len(part) > 0 {
			rest = append(rest, part)
		}
	}
	for len(rest) > 1 {
		n, err := c.readv(rest)
		if err != nil {
			return err
		}
		for n > 0 {
			k := min(n, len(rest[0]))
			n -= k
			if rest[0] = rest[0][k:]; len(rest[0]) == 0 {
				rest = rest[1:]
			}
		}
	}
	if len(rest) == 1 {
		return c.Receive(rest[0])
	}
	return nil
}

func (c *dataConn) readv(parts [][]byte) (n int, err error) {
	failed := c.raw.Read(func(fd uintptr) bool {
		n, err = unix.Readv(int(fd), parts)
		return err != unix.EAGAIN && err != unix.EINTR
	})
	if failed != nil {
		return 0, failed
	}
	if n == 0 && err == nil {
		err = io.ErrUnexpectedEOF
	}
	return max(n, 0), err
}

// checkParts is wire.CheckChecksums for data, at a block's start, that lies in
// several parts.
func checkParts(sums []byte, offset uint64, parts [][]byte) int64 {
	var sum uint32
	inBlock := 0
	for _, part := range parts {
		for len(part) > 0 {
			n := min(len(part), wire.BlockSize-inBlock)
			if inBlock == 0 && n == wire.BlockSize {
				whole := len(part) - len(part)%wire.BlockSize
				if at := wire.CheckChecksums(sums, offset, part[:whole]); at >= 0 {
					return at
				}
				part, offset, sums = part[whole:], offset+uint64(whole), sums[whole/wire.BlockSize*4:]
				continue
			}
			sum = wire.UpdateChecksum(sum, part[:n])
			part = part[n:]
			if inBlock += n; inBlock == wire.BlockSize {
				if sum != binary.LittleEndian.Uint32(sums) {
					return int64(offset)
				}
				sum, inBlock, offset, sums = 0, 0, offset+wire.BlockSize, sums[4:]
			}
		}
	}
	if inBlock > 0 && sum != binary.LittleEndian.Uint32(sums) {
		return int64(offset)
	}
	return -1
}
