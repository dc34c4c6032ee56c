package chunk

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"waggle/dfs/chunk/replica"
	"waggle/dfs/dataconn"
	"waggle/dfs/wire"
	"waggle/dfs/wire/control"
)

// copyWindow is how much of a replica is compared and fetched at a time, in bytes.
const copyWindow = 1 << 20

// copyFrom makes a replica equal to the one on another server.
func (s *Server) copyFrom(ctx context.Context, q *control.CopyRequest) (replica.State, error) {
	source, err := s.openSource(ctx, q)
	if err != nil {
		return replica.State{}, err
	}
	defer source.close()
	if q.SourceChunk != 0 && len(q.OnlyBlocks) > 0 {
		return replica.State{}, fmt.Errorf("blocks of another chunk: %w", replica.ErrInvalid)
	}
	if len(q.OnlyBlocks) > 0 {
		return s.repairBlocks(source, q)
	}
	state := source.state
	state.Chunk, state.Epoch, state.Torn, state.Doubtful = q.Chunk, q.Epoch, false, false
	local, err := s.store.Get(q.Chunk)
	if errors.Is(err, replica.ErrNotFound) {
		return state, s.copyWhole(source, nil, state)
	}
	old, sums, err := local.Checksums()
	switch {
	case err != nil:
		return state, err
	case old.Epoch > q.Epoch:
		return old, fmt.Errorf("%w: asked %d, the replica has %d", replica.ErrStaleEpoch, q.Epoch, old.Epoch)
	case old.Length == state.Length && bytes.Equal(sums, source.sums) && !old.Torn && !old.Doubtful:
		return state, local.Adopt(old, state)
	}
	return state, s.copyWhole(source, local, state)
}

// copyWhole builds new files from the blocks of local, if there is one, that are
// as they should be, and from those of the source, and puts them in its place.
func (s *Server) copyWhole(source *source, local *replica.Replica, state replica.State) error {
	var old *replica.State
	if local != nil {
		o := local.State()
		old = &o
	}
	c, err := s.store.NewCopy(state.Chunk)
	if err != nil {
		return err
	}
	defer c.Discard()
	buf := make([]byte, copyWindow)
	for offset := uint64(0); offset < state.Length; offset += copyWindow {
		window := buf[:min(copyWindow, state.Length-offset)]
		if err := source.fill(local, offset, window); err != nil {
			return err
		}
		if err := c.WriteAt(window, int64(offset)); err != nil {
			return err
		}
	}
	return c.Install(old, state, source.sums)
}

// repairBlocks rewrites single damaged blocks in place.
func (s *Server) repairBlocks(source *source, q *control.CopyRequest) (replica.State, error) {
	r, err := s.store.Get(q.Chunk)
	if err != nil {
		return replica.State{}, err
	}
	for _, offset := range q.OnlyBlocks {
		if offset%wire.BlockSize != 0 || offset >= source.state.Length {
			return r.State(), fmt.Errorf("offset %d of the %d bytes at the source: %w", offset, source.state.Length, replica.ErrInvalid)
		}
		block := make([]byte, min(wire.BlockSize, source.state.Length-offset))
		if err := source.fetch(offset, block); err != nil {
			return r.State(), err
		}
		if err := r.RewriteBlock(source.state, offset, block); err != nil {
			return r.State(), err
		}
	}
	return r.State(), r.Sync()
}

// source is a replica on another server.
type source struct {
	state   replica.State
	sums    []byte
	conn    *dataconn.Conn
	timeout time.Duration
	carry   bool // damaged blocks as they are
	fetched func(bytes int)
	release func() bool
}

// openSource asks for the source's state and checksums, and connects to its data
// port. What is under way ends with ctx.
func (s *Server) openSource(ctx context.Context, q *control.CopyRequest) (*source, error) {
	state, sums, err := sourceChecksums(ctx, q)
	if err != nil {
		return nil, err
	}
	conn, err := dataconn.Dial(ctx, q.GetSource().GetAddress(), "", dataconn.Options{Timeout: min(dialTimeout, s.config.PeerTimeout)})
	if err != nil {
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	conn.Reader = bufio.NewReader(conn.TCPConn)
	counter := s.Counters().Counter("chunk_copied_bytes")
	return &source{state: state, sums: sums, conn: conn,
		timeout: s.config.PeerTimeout, carry: q.CarryDamage, fetched: func(n int) { counter.Add(int64(n)) },
		release: context.AfterFunc(ctx, func() { conn.Close() })}, nil
}

func (f *source) close() {
	f.release()
	f.conn.Close()
}

func sourceChecksums(ctx context.Context, q *control.CopyRequest) (replica.State, []byte, error) {
	var state replica.State
	conn, err := grpc.NewClient(q.SourceControl, control.DialOptions(dialTimeout)...)
	if err != nil {
		return state, nil, status.Error(codes.InvalidArgument, err.Error())
	}
	defer conn.Close()
	chunk := q.SourceChunk
	if chunk == 0 {
		chunk = q.Chunk
	}
	stream, err := control.NewChunkClient(conn).Checksums(ctx, &control.ReplicaEpoch{Chunk: chunk})
	if err != nil {
		return state, nil, err
	}
	var sums []byte
	for {
		m, err := stream.Recv()
		if err == io.EOF {
			break
		}
		if err != nil {
			return state, nil, err
		}
		if sums = append(sums, m.Checksums...); len(sums) > 4*wire.MaxChunkSize/wire.BlockSize {
			return state, nil, fmt.Errorf("%w: %d bytes of checksums", wire.ErrMalformed, len(sums))
		}
		state = replica.State{Chunk: chunk, Epoch: m.State.GetEpoch(), Sequence: m.State.GetSequence(),
			Length: m.State.GetLength(), Torn: m.State.GetTorn()}
	}
	if blocks := (state.Length + wire.BlockSize - 1) / wire.BlockSize; uint64(len(sums)) != 4*blocks {
		return state, nil, fmt.Errorf("%w: %d bytes of checksums for %d bytes", wire.ErrMalformed, len(sums), state.Length)
	}
	return state, sums, nil
}

// sumsAt returns the checksums of the blocks of a range that starts with one.
func (f *source) sumsAt(offset uint64, length int) []byte {
	first := offset / wire.BlockSize
	return f.sums[4*first:][:4*wire.Pieces(offset, uint32(length))]
}

// fill fills window with the source's bytes at offset, taking those blocks from
// local that match.
func (f *source) fill(local *replica.Replica, offset uint64, window []byte) error {
	if local == nil {
		return f.fetch(offset, window)
	}
	intact, err := local.Intact(offset, window, f.sumsAt(offset, len(window)))
	if err != nil {
		return err
	}
	for block := 0; block < len(intact); block++ {
		if intact[block] {
			continue
		}
		end := block + 1
		for end < len(intact) && !intact[end] {
			end++
		}
		start, stop := block*wire.BlockSize, min(end*wire.BlockSize, len(window))
		if err := f.fetch(offset+uint64(start), window[start:stop]); err != nil {
			return err
		}
		block = end
	}
	return nil
}

// fetch fills buf with whole blocks of the source, verified.
func (f *source) fetch(offset uint64, buf []byte) error {
	want := f.sumsAt(offset, len(buf))
	f.conn.SetDeadline(time.Now().Add(f.timeout))
	ask := wire.Frame{Type: wire.FrameRead, Flags: wire.FlagLocked | wire.FlagDoubtful, Chunk: f.state.Chunk, Offset: offset, Length: uint32(len(buf))}
	if err := f.conn.Ask(&ask); err != nil {
		return unavailable("ask for", offset, err)
	}
	var a wire.Frame
	if err := f.conn.Answer(&ask, &a); err != nil {
		return unavailable("wait for", offset, err)
	}
	switch {
	case a.Status == wire.StatusNotFound:
		return fmt.Errorf("source: %w", replica.ErrNotFound)
	case a.Status != wire.StatusOK:
		return status.Errorf(codes.Unavailable, "source: %v", dataconn.AnswerError(&a))
	case a.Offset != offset || int(a.Length) != len(buf) || !bytes.Equal(a.Extra, want):
		return fmt.Errorf("source: %w", replica.ErrChanged)
	}
	if err := f.conn.Receive(buf); err != nil {
		return unavailable("receive", offset, err)
	}
	if at := wire.CheckChecksums(want, offset, buf); at >= 0 && !f.carry {
		return fmt.Errorf("source: %w", &replica.CorruptError{Chunk: f.state.Chunk, Offset: uint64(at)})
	}
	f.fetched(len(buf))
	return nil
}

func unavailable(doing string, offset uint64, err error) error {
	return status.Errorf(codes.Unavailable, "%s the blocks at %d: %v", doing, offset, err)
}
