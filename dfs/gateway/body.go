package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/netip"

	"time"

	"waggle/dfs/client"
	"waggle/dfs/dataconn"
	"waggle/dfs/datapath/relay"
	"waggle/dfs/wire"
)

const (
	// rounds is how often all replicas of a chunk are tried before a body ends
	// early.
	rounds = 6
	// firstPause is waited after the first round, twice as much after each more.
	firstPause = 20 * time.Millisecond
)

// errClient is wrapped by errors after which the client's connection is of no
// more use.
var errClient = errors.New("client's connection failed")

// body is a range of a file on its way to a client.
type body struct {
	gateway *Gateway
	to      *connection
	file    *client.File
	size    uint64 // of the file
	chunk   uint64 // size of a chunk
	chunked bool   // pieces are framed as chunks of HTTP/1.1, a trailer follows
	moving  bool   // the kernel may still hold a part for the client
	digest  digest
}

// piece is a part of a body that one frame can ask for.
type piece struct {
	index  uint32
	offset uint64 // in the chunk
	n      int64
}

// send sends length bytes from offset. It may return while the kernel still moves
// the last ones.
func (b *body) send(ctx context.Context, offset, length int64) error {
	for sent := int64(0); sent < length; {
		p := b.pieceAt(uint64(offset+sent), length-sent)
		if err := b.sendPiece(ctx, p); err != nil {
			return fmt.Errorf("send %d bytes from %d, of which %d or more were sent: %w", length, offset, sent, err)
		}
		sent += p.n
		b.gateway.counts.relayed.Add(p.n)
	}
	return b.finish(ctx)
}

func (b *body) pieceAt(offset uint64, left int64) piece {
	at := offset % b.chunk
	n := min(uint64(left), b.chunk-at, relay.MaxBody-at%relay.MaxBody)
	return piece{uint32(offset / b.chunk), at, int64(n)}
}

func (b *body) sendPiece(ctx context.Context, p piece) error {
	if b.chunked {
		if err := b.write(ctx, fmt.Appendf(nil, "%x\r\n", p.n)); err != nil {
			return err
		}
	}
	for try := 0; ; try++ {
		n, err := b.tryReplicas(ctx, p, try)
		if p.offset, p.n = p.offset+uint64(n), p.n-n; p.n == 0 {
			break
		}
		if errors.Is(err, errClient) || ctx.Err() != nil || try == rounds {
			return err
		}
		b.gateway.counts.continued.Add(1)
		select {
		case <-ctx.Done():
		case <-time.After(firstPause << try):
		}
	}
	if b.chunked {
		return b.write(ctx, []byte("\r\n"))
	}
	return nil
}

// finish ends the body.
func (b *body) finish(ctx context.Context) error {
	if !b.chunked {
		return nil
	}
	end := "0\r\n\r\n"
	if !b.digest.unknown {
		end = "0\r\nContent-Digest: " + b.digest.String() + "\r\n\r\n"
	}
	return b.write(ctx, []byte(end))
}

func (b *body) settle(ctx context.Context) error {
	if !b.moving {
		return nil
	}
	b.moving = false
	if err := b.to.target.Settle(ctx); err != nil {
		return fmt.Errorf("%w: %w", errClient, err)
	}
	return nil
}

// write writes behind what was moved.
func (b *body) write(ctx context.Context, p []byte) error {
	b.moving = false
	if _, err := b.to.target.Write(ctx, p); err != nil {
		return fmt.Errorf("%w: %w", errClient, err)
	}
	return nil
}

// tryReplicas tries each replica once, and goes on where one has stopped.
func (b *body) tryReplicas(ctx context.Context, p piece, try int) (sent int64, err error) {
	location, err := b.file.Locate(ctx, p.index, try > 0)
	if err != nil {
		return 0, err
	}
	if location.Chunk == 0 {
		return b.sendZeros(ctx, p.n)
	}
	err = fmt.Errorf("chunk %d has no replica that is up", location.Chunk)
	for _, replica := range b.gateway.upstreams.avoided.Order(location.Replicas) {
		var n int64
		n, err = b.tryReplica(ctx, p, &location, replica.Address)
		sent += n
		if p.offset, p.n = p.offset+uint64(n), p.n-n; p.n == 0 {
			return sent, nil
		}
		b.gateway.warn("chunk server did not send all of a body", "server", replica.Address, "chunk", location.Chunk, "reason", err)
		b.digest.unknown = b.digest.unknown || n > 0
		if errors.Is(err, errClient) || ctx.Err() != nil {
			break
		}
	}
	return sent, err
}

// tryReplica tries once more where a connection may only have been idle too long.
func (b *body) tryReplica(ctx context.Context, p piece, location *wire.Location, server netip.AddrPort) (int64, error) {
	address := server.String()
	for fresh := false; ; fresh = true {
		u, err := b.gateway.upstreams.take(ctx, address, fresh)
		if err != nil {
			b.gateway.upstreams.avoided.Note(server)
			return 0, err
		}
		if b.mightBeMissed(u, p) {
			u.source.Close()
			if u, err = b.gateway.upstreams.take(ctx, address, true); err != nil {
				return 0, err
			}
		}
		sent, err := b.relay(ctx, u, p, location)
		var answered *dataconn.StatusError
		whole := err == nil || errors.As(err, &answered)
		stale := u.Reused && !whole && sent == 0 && !errors.Is(err, errClient)
		b.gateway.upstreams.give(u, whole)
		if !stale || fresh {
			if !whole && !errors.Is(err, errClient) {
				b.gateway.upstreams.avoided.Note(server)
			}
			return sent, err
		}
	}
}

// mightBeMissed says whether the answer on a connection that was used before is
// so small that the kernel (6.18) may not wake its reader. After a redirect the
// kernel believes that the reader is ahead by as much as the header in front of
// the body was long, and says nothing before more than that has arrived.
func (b *body) mightBeMissed(u *upstream, p piece) bool {
	want := b.expect(p, &wire.Frame{Type: wire.FrameRead, Offset: p.offset, Length: uint32(p.n)})
	return int64(wire.HeaderSize+len(want.Extra))+int64(want.Length) <= u.lastHeader
}

// relay asks for a piece and has its body moved.
func (b *body) relay(ctx context.Context, u *upstream, p piece, location *wire.Location) (int64, error) {
	if err := b.settle(ctx); err != nil {
		return 0, err
	}
	asked := wire.Frame{Type: wire.FrameRead, Chunk: location.Chunk, Epoch: location.Epoch, Sequence: uint64(location.Length),
		Offset: p.offset, Length: uint32(p.n)}
	u.Number(&asked)
	want := b.expect(p, &asked)
	skip := int64(p.offset - want.Offset)
	if err := u.source.Begin(b.to.target, headerOf(&want, skip), p.n); err != nil {
		return 0, err
	}
	u.SetDeadline(time.Now().Add(dataconn.ReadTimeout))
	if err := u.Send(&asked); err != nil {
		return 0, err
	}
	var got wire.Frame
	if err := u.Answer(&asked, &got); err != nil {
		return 0, b.headerFailed(err)
	}
	if !asExpected(&want, &got) {
		return b.declined(ctx, u, p, &got)
	}
	head := u.part(skip)
	if _, err := io.ReadFull(u.Reader, head); err != nil {
		return 0, b.headerFailed(err)
	}
	headSum := wire.Checksum(head)
	u.lastHeader = int64(wire.HeaderSize+len(got.Extra)) + skip
	b.moving = true
	moved, err := u.source.Move(ctx)
	if err != nil {
		if !errors.Is(err, relay.ErrUpstream) {
			err = fmt.Errorf("%w: %w", errClient, err)
		}
		return moved, err
	}
	tail := u.part(int64(want.Length) - skip - p.n)
	if _, err := io.ReadFull(u.Reader, tail); err != nil {
		return moved, err
	}
	if b.chunked {
		b.digest.addBlocks(got.Extra, int64(want.Length), headSum, p.n, tail)
	}
	return moved, nil
}

// headerFailed decides whether bytes of the body may still follow, and be moved
// to the client though nobody waits for them any more.
func (b *body) headerFailed(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || isReset(err) {
		return err
	}
	return fmt.Errorf("%w: answer's header: %w", errClient, err)
}

// expect is the answer to asked that a replica gives which is as long as the
// file says.
func (b *body) expect(p piece, asked *wire.Frame) wire.Frame {
	want := *asked
	want.Flags = wire.FlagAnswer
	want.Offset -= want.Offset % wire.BlockSize
	end := p.offset + uint64(p.n)
	end += -end % wire.BlockSize
	end = min(end, b.chunk, b.size-uint64(p.index)*b.chunk)
	want.Length = uint32(end - want.Offset)
	want.Extra = make([]byte, 4*wire.Pieces(want.Offset, want.Length))
	return want
}

// epochAt, sequenceAt and sumAt are where a frame's header has what can't be
// known beforehand: its epoch, sequence and checksum.
const (
	epochAt    = 24
	sequenceAt = 48
	sumAt      = 60
)

var headerMask = func() []byte {
	mask := make([]byte, wire.HeaderSize)
	for i := range mask {
		mask[i] = math.MaxUint8
	}
	clear(mask[epochAt:][:8])
	clear(mask[sequenceAt:][:8])
	clear(mask[sumAt:][:4])
	return mask
}()

// headerOf is the header in front of the body: the frame's, and the bytes of its
// first block that were not asked for.
func headerOf(want *wire.Frame, skip int64) relay.Header {
	value := want.Append(nil)
	return relay.Header{Length: uint32(len(value)) + uint32(skip), Value: value[:wire.HeaderSize], Mask: headerMask}
}

// asExpected compares what headerMask has compared.
func asExpected(want, got *wire.Frame) bool {
	return got.Status == want.Status && got.Flags == want.Flags && got.Chunk == want.Chunk &&
		got.Offset == want.Offset && got.Length == want.Length && len(got.Extra) == len(want.Extra)
}

// declined deals with an answer that was not expected: an error, or a replica
// that is shorter or longer than the file was said to be.
func (b *body) declined(ctx context.Context, u *upstream, p piece, got *wire.Frame) (int64, error) {
	if err := u.source.Decline(ctx); err != nil {
		return 0, fmt.Errorf("%w: %w", errClient, err)
	}
	if err := dataconn.AnswerError(got); err != nil {
		return 0, err
	}
	b.digest.unknown = true
	if got.Offset > p.offset || got.Length > wire.MaxData {
		return 0, fmt.Errorf("%w: answer at %d to a read at %d", wire.ErrMalformed, got.Offset, p.offset)
	}
	data := make([]byte, got.Length)
	if _, err := io.ReadFull(u.Reader, data); err != nil {
		return 0, err
	}
	if at := wire.CheckChecksums(got.Extra, got.Offset, data); at >= 0 {
		return 0, &dataconn.StatusError{Status: wire.StatusCorrupt, Text: fmt.Sprintf("block at %d", at)}
	}
	data = data[min(uint64(len(data)), p.offset-got.Offset):]
	data = data[:min(int64(len(data)), p.n)]
	if err := b.write(ctx, data); err != nil {
		return 0, err
	}
	b.gateway.counts.declined.Add(int64(len(data)))
	zeros, err := b.sendZeros(ctx, p.n-int64(len(data)))
	return int64(len(data)) + zeros, err
}

var zeros [32 << 10]byte

// sendZeros sends what lies in a hole.
func (b *body) sendZeros(ctx context.Context, n int64) (sent int64, err error) {
	for sent < n {
		part := zeros[:min(n-sent, int64(len(zeros)))]
		if err := b.write(ctx, part); err != nil {
			return sent, err
		}
		b.digest.add(wire.Checksum(part), int64(len(part)))
		sent += int64(len(part))
	}
	b.gateway.counts.zeros.Add(n)
	return sent, nil
}
