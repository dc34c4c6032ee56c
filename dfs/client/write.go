package client

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"waggle/dfs/dataconn"
	"waggle/dfs/weaken"
	"waggle/dfs/wire"
	"waggle/dfs/wire/control"
)

const (
	// writePiece is how many bytes one frame carries at most. Each replica
	// passes a frame on when it has it whole, so small ones keep a chain busy.
	writePiece = 256 << 10
	// writeWindow is how many frames may wait for their acknowledgement.
	writeWindow = 16
	// lastWords bounds the calls that clean up after a context has ended.
	lastWords = 5 * time.Second
)

// writers holds the chunks that this client writes to. Files of one client that
// write to the same chunk share its lease.
type writers struct {
	client *Client
	mu     sync.Mutex
	chunks map[chunkKey]*chunkWriter
	// unreleased are releases that may have been lost.
	unreleased []*control.ReleaseRequest
}

type chunkKey struct {
	inode uint64
	index uint32
}

func (w *writers) init(c *Client) {
	w.client = c
	w.chunks = make(map[chunkKey]*chunkWriter)
}

// get returns the writer of a chunk, to be given back by put.
func (w *writers) get(key chunkKey, chunkSize uint32) *chunkWriter {
	w.mu.Lock()
	defer w.mu.Unlock()
	cw := w.chunks[key]
	if cw == nil {
		cw = &chunkWriter{c: w.client, key: key, start: uint64(key.index) * uint64(chunkSize)}
		w.chunks[key] = cw
	}
	cw.users++
	return cw
}

// put gives a writer back; the last to do so releases the lease.
func (w *writers) put(cw *chunkWriter) {
	w.mu.Lock()
	cw.users--
	w.mu.Unlock()
	cw.mu.Lock()
	defer cw.mu.Unlock()
	// A user who comes from here on waits for cw.mu, and gets a lease of its own.
	if !w.unused(cw) {
		return
	}
	ctx, cancel := context.WithTimeout(w.client.ctx, lastWords)
	defer cancel()
	cw.release(ctx)
	cw.lost = nil // everybody was told
	w.mu.Lock()
	defer w.mu.Unlock()
	if cw.users == 0 {
		delete(w.chunks, cw.key)
	}
}

func (w *writers) unused(cw *chunkWriter) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return cw.users == 0
}

// releaseIdle releases leases that nobody has written under for long.
func (w *writers) releaseIdle(ctx context.Context) {
	w.mu.Lock()
	var all []*chunkWriter
	for _, cw := range w.chunks {
		all = append(all, cw)
	}
	w.mu.Unlock()
	for _, cw := range all {
		if cw.mu.TryLock() {
			if cw.isIdle() {
				ctx, cancel := context.WithTimeout(ctx, lastWords)
				cw.release(ctx)
				cancel()
			}
			cw.mu.Unlock()
		}
	}
}

// chunkWriter writes to one chunk: it holds the lease, sends numbered writes to
// the first replica, and keeps what was not acknowledged so that it can send it
// again when a replica fails.
//
// Answers come in the order of the writes and are received by whoever waits for
// one, so no goroutine is needed.
type chunkWriter struct {
	c     *Client
	key   chunkKey
	users int // under writers.mu

	start uint64 // of the chunk in the file, in bytes

	mu       sync.Mutex
	session  *session // that the lease belongs to; nil if there is none
	location wire.Location
	sequence uint64 // of the next write
	conn     *dataConn
	sent     []*sentFrame  // not acknowledged, in order
	dirty    bool          // written since the last sync
	spill    bool          // the first write is the bytes of the file's record
	retried  bool          // the connection was lost, and nothing acknowledged since
	timer    *time.Timer   // gives the lease back early; see append.go
	hold     time.Duration // the lease is given back when it was not used for so long
	used     time.Time
	lost     error // what was written may be lost; everybody who wrote is told

	// What was acknowledged, over all leases: see kept.go.
	acknowledged
}

// sentFrame is a write or a sync that waits for its acknowledgement.
type sentFrame struct {
	frame wire.Frame
	data  []byte
	sums  []byte
	free  func() // called when data is not needed any more; may be nil
	cargo *cargo // nil unless the data is not in this process
}

// write sends data for offset, which must not cross a multiple of writePiece.
// It returns before the write is acknowledged; data must not change until free
// was called, or wait has returned.
func (w *chunkWriter) write(ctx context.Context, offset uint64, data []byte, free func()) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.open(ctx); err != nil {
		return err
	}
	f := &sentFrame{data: data, free: free, sums: wire.AppendChecksums(nil, offset, data)}
	f.frame = wire.Frame{Type: wire.FrameWrite, Chunk: w.location.Chunk, Offset: offset, Length: uint32(len(data))}
	if w.c.options.SyncWrites {
		f.frame.Flags = wire.FlagSync
	}
	w.dirty = true
	return w.push(ctx, f)
}

// sync asks for what was written to be made durable, without waiting.
func (w *chunkWriter) sync(ctx context.Context) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.askSync(ctx)
}

func (w *chunkWriter) askSync(ctx context.Context) error {
	if !w.dirty || w.lost != nil {
		return w.lost
	}
	if w.c.options.SyncWrites && len(w.unsynced) == 0 && w.session != nil { // what is on its way syncs itself
		return nil
	}
	if err := w.open(ctx); err != nil {
		return err
	}
	w.dirty = false
	return w.push(ctx, &sentFrame{frame: wire.Frame{Type: wire.FrameSync, Chunk: w.location.Chunk}})
}

// wait waits until everything was acknowledged.
func (w *chunkWriter) wait(ctx context.Context) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.drain(ctx, 0)
}

// lease gets the lease before there is something to write. With spill the first
// write will be the bytes of the file's record.
func (w *chunkWriter) lease(ctx context.Context, spill bool) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.spill = spill
	return w.open(ctx)
}

// open makes sure that there is a lease of the current session.
func (w *chunkWriter) open(ctx context.Context) error {
	w.used = time.Now()
	switch {
	case w.lost != nil:
		return w.lost
	case w.session == nil:
	case w.session == w.c.session.Load():
		return nil
	case len(w.sent) > 0: // under a session that has ended
		return w.recover(ctx, errSessionEnded)
	}
	w.leaveConn(true)
	if err := w.acquire(ctx); err != nil {
		if errors.Is(err, ErrLost) {
			return w.lose(err)
		}
		return err
	}
	return nil
}

var errSessionEnded = errors.New("the session has ended")

// acquire asks for the lease, for as long as another client may keep it.
func (w *chunkWriter) acquire(ctx context.Context) error {
	tries := newRetry(w.c.options.LeaseWait)
	for {
		var under *session
		reply, err := call(ctx, w.c, func(ctx context.Context, s *session) (*control.LeaseReply, error) {
			under = s
			return w.c.control.Lease(ctx, &control.LeaseRequest{Session: s.id, Inode: w.key.inode, Index: w.key.index, Spill: w.spill,
				WaitMs: uint64(w.c.options.LeaseWait.Milliseconds())}, wait)
		})
		if err == nil {
			return w.adopt(reply, under)
		}
		if !errors.Is(err, ErrBusy) {
			return fmt.Errorf("get the lease of chunk %d: %w", w.key.index, err)
		}
		if err := tries.again(ctx, err); err != nil {
			return err
		}
	}
}

// adopt begins to write under a lease.
func (w *chunkWriter) adopt(reply *control.LeaseReply, under *session) error {
	location, err := fromLocation(reply.GetLocation())
	if err == nil && len(location.Replicas) == 0 {
		err = fmt.Errorf("metadata server granted a lease of chunk %d without a replica", location.Chunk)
	}
	if err != nil {
		return err
	}
	w.session, w.location, w.sequence = under, location, reply.NextSequence
	if err := w.compare(reply, location.Chunk, under); err != nil {
		return err
	}
	for _, f := range w.sent {
		w.number(f)
	}
	return nil
}

// number gives a frame its place under the lease.
func (w *chunkWriter) number(f *sentFrame) {
	f.frame.Chunk, f.frame.Epoch = w.location.Chunk, w.location.Epoch
	if f.frame.Type == wire.FrameWrite {
		f.frame.Sequence = w.sequence
		w.sequence++
	} else {
		f.frame.Sequence = w.sequence - 1 // of the last write that must be in it
	}
	f.frame.Extra = wire.AppendWriteExtra(f.frame.Extra[:0], w.location.Replicas[1:], f.sums)
}

// push sends a frame, when fewer than a window of them are unacknowledged.
func (w *chunkWriter) push(ctx context.Context, f *sentFrame) error {
	if err := w.drain(ctx, writeWindow-1); err != nil {
		return err
	}
	w.number(f)
	w.sent = append(w.sent, f)
	if err := w.transmit(ctx, f); err != nil {
		return w.recover(ctx, err)
	}
	return nil
}

// drain receives answers until at most n frames wait for theirs.
func (w *chunkWriter) drain(ctx context.Context, n int) error {
	if w.lost != nil {
		return w.lost
	}
	for len(w.sent) > n {
		if err := w.receive(ctx); err != nil {
			if err := w.recover(ctx, err); err != nil {
				return err
			}
		}
	}
	if len(w.sent) == 0 {
		w.leaveConn(true)
	}
	return nil
}

func (w *chunkWriter) transmit(ctx context.Context, f *sentFrame) error {
	if w.conn == nil {
		take := w.c.servers.take
		if f.cargo != nil {
			take = w.c.servers.takeAlive
		}
		conn, err := take(ctx, w.location.Replicas[0].Address, w.c.writePath)
		if err != nil {
			return err
		}
		w.conn = conn
	}
	if err := w.conn.Extend(ctx, dataconn.WriteTimeout); err != nil {
		return err
	}
	if len(f.data) == 0 {
		if err := w.conn.Ask(&f.frame); err != nil || f.cargo == nil {
			return err
		}
		return f.cargo.deliver(w.conn.TCPConn)
	}
	return w.conn.Ask(&f.frame, f.data)
}

func (w *chunkWriter) receive(ctx context.Context) error {
	if err := w.conn.Extend(ctx, dataconn.WriteTimeout); err != nil {
		return err
	}
	f := w.sent[0]
	var answer wire.Frame
	if err := w.conn.Answer(&f.frame, &answer); err != nil {
		return err
	}
	if err := dataconn.AnswerError(&answer); err != nil {
		return err
	}
	if f.cargo != nil {
		if err := f.cargo.acknowledge(&f.frame, answer.Extra); err != nil {
			return err
		}
	}
	w.retried = false
	w.sent = w.sent[1:]
	w.note(&f.frame)
	w.spill = false
	if f.free != nil {
		f.free()
	}
	return nil
}

func (w *chunkWriter) leaveConn(whole bool) {
	if w.conn != nil {
		w.conn.give(whole)
		w.conn = nil
	}
}

// recover finds a way for the frames that were not acknowledged after a
// failure, and sends them again. When there is none they are lost.
func (w *chunkWriter) recover(ctx context.Context, cause error) error {
	tries := newRetry(w.c.options.Patience)
	for {
		if w.underWay() {
			return w.lose(fmt.Errorf("%w: a chunk server failed, and the bytes on their way to it can't be sent again: %w", ErrUnavailable, cause))
		}
		stale := w.conn != nil && w.conn.Reused
		w.leaveConn(false)
		if ctx.Err() != nil {
			return w.lose(context.Cause(ctx))
		}
		w.c.options.Counters.Counter("client_write_recoveries").Add(1)
		err := w.findWay(ctx, cause, stale)
		if err != nil {
			return w.lose(err)
		}
		if cause = w.resend(ctx); cause == nil {
			return nil
		}
		if err := tries.again(ctx, cause); err != nil {
			return w.lose(err)
		}
	}
}

// findWay decides by the cause of a failure where to write from now on. Stale
// says that the connection had been idle before, and may have been dead.
func (w *chunkWriter) findWay(ctx context.Context, cause error, stale bool) error {
	replicas := w.location.Replicas
	if cause == errSessionEnded || w.session != w.c.session.Load() {
		return w.acquire(ctx)
	}
	var answered *dataconn.StatusError
	if !errors.As(cause, &answered) {
		// Perhaps only the connection was lost.
		if stale || !w.retried {
			w.retried = w.retried || !stale
			return nil
		}
		if len(replicas) == 1 { // can't be left, but its server may come back elsewhere
			w.retried = false
			return w.acquire(ctx)
		}
		return w.leaveReplica(ctx, 0, cause)
	}
	switch answered.Status {
	case wire.StatusChainBroken:
		if answered.Sequence == 0 || answered.Sequence >= uint64(len(replicas)) {
			return fmt.Errorf("write chunk %d: a chain of %d replicas broke at %d: %w", w.location.Chunk, len(replicas), answered.Sequence, cause)
		}
		return w.leaveReplica(ctx, int(answered.Sequence), cause)
	case wire.StatusNotFound, wire.StatusNoSpace, wire.StatusIO:
		return w.leaveReplica(ctx, 0, cause)
	case wire.StatusStaleEpoch, wire.StatusOutOfOrder:
		return w.acquire(ctx)
	case wire.StatusCorrupt: // damaged on its way
		return nil
	}
	return fmt.Errorf("write chunk %d: %w", w.location.Chunk, cause)
}

// leaveReplica goes on with the other replicas.
func (w *chunkWriter) leaveReplica(ctx context.Context, position int, cause error) error {
	failed := w.location.Replicas[position]
	if len(w.location.Replicas) == 1 {
		return fmt.Errorf("write chunk %d: its only replica, on server %d, failed: %w", w.location.Chunk, failed.Server, cause)
	}
	w.c.servers.avoided.Note(failed.Address)
	before := w.session
	reply, err := call(ctx, w.c, func(ctx context.Context, s *session) (*control.LeaseReply, error) {
		if s != before {
			return nil, status.Error(codes.Aborted, errSessionEnded.Error())
		}
		return w.c.control.ReportFailure(ctx, &control.FailureRequest{
			Session: s.id, Inode: w.key.inode, Index: w.key.index, Epoch: w.location.Epoch, Servers: []uint32{failed.Server}}, wait)
	})
	if isErrno(err, syscall.ESTALE) || w.c.session.Load() != before {
		return w.acquire(ctx) // the lease is another one by now
	}
	if err != nil {
		return fmt.Errorf("write chunk %d without server %d, which failed (%w): %w", w.location.Chunk, failed.Server, cause, err)
	}
	w.retried = false
	return w.adopt(reply, before)
}

// resend sends everything again that was not acknowledged. What a replica has
// applied by now under the same number it only acknowledges.
func (w *chunkWriter) resend(ctx context.Context) error {
	for _, f := range w.sent {
		if err := w.transmit(ctx, f); err != nil {
			return err
		}
	}
	return nil
}

// lose gives up what was not acknowledged.
func (w *chunkWriter) lose(cause error) error {
	w.lost = fmt.Errorf("%d writes to chunk %d of inode %d are lost: %w", len(w.sent), w.key.index, w.key.inode, cause)
	for _, f := range w.sent {
		if f.free != nil {
			f.free()
		}
	}
	w.sent = nil
	w.leaveConn(false)
	return w.lost
}

// isIdle says whether the lease can be given back meanwhile.
func (w *chunkWriter) isIdle() bool {
	return w.session != nil && len(w.sent) == 0 && time.Since(w.used) > cmp.Or(w.hold, w.c.options.LeaseIdle)
}

// release gives the lease back. What was written is synced first: it is settled
// then, and lost by no crash. Where that fails the metadata server hears that it
// is not, and settles the chunk itself.
func (w *chunkWriter) release(ctx context.Context) {
	if w.session == nil {
		return
	}
	if len(w.unsynced) > 0 && w.lost == nil && w.session == w.c.session.Load() && !weaken.On(weaken.SyncBeforeRelease) {
		if w.askSync(ctx) == nil {
			w.drain(ctx, 0) // if it fails, the writers are told by w.lost
		}
	}
	w.leaveConn(len(w.sent) == 0)
	s := w.session
	if s == nil {
		return
	}
	w.session = nil
	w.holder.Store(0)
	request := &control.ReleaseRequest{Session: s.id, Inode: w.key.inode, Index: w.key.index, Epoch: w.location.Epoch,
		Sequence: w.sequence - 1, Length: w.length, Synced: w.synced}
	if weaken.On(weaken.SyncBeforeRelease) {
		request.Synced = request.Sequence
	}
	if err := w.c.sendRelease(ctx, s, request); err != nil {
		w.c.writers.releaseLater(request)
	}
}

// sendRelease returns an error if it is unknown whether the lease was given back.
func (c *Client) sendRelease(ctx context.Context, s *session, request *control.ReleaseRequest) error {
	_, err := attempt(ctx, s, func(ctx context.Context, _ *session) (*control.Empty, error) {
		return c.control.Release(ctx, request)
	})
	switch codeOf(err) {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled:
		return err
	}
	return nil // the lease is somebody else's, or nobody's, by now
}

// maxReleases bounds the releases that are tried again. The leases of others lapse.
const maxReleases = 1024

func (w *writers) releaseLater(request *control.ReleaseRequest) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.unreleased) < maxReleases {
		w.unreleased = append(w.unreleased, request)
	}
}

// releaseAgain tries again what has failed.
func (w *writers) releaseAgain(ctx context.Context) {
	w.mu.Lock()
	due := w.unreleased
	w.unreleased = nil
	w.mu.Unlock()
	s := w.client.session.Load()
	for _, request := range due {
		if request.Session == s.id && w.client.sendRelease(ctx, s, request) != nil {
			w.releaseLater(request)
		}
	}
}

// held returns the leases of a session, to be kept alive.
func (w *writers) held(s *session) (list []*control.HeldLease) {
	w.mu.Lock()
	all := slices.Collect(maps.Values(w.chunks))
	w.mu.Unlock()
	for _, cw := range all {
		if cw.holder.Load() == s.id {
			list = append(list, &control.HeldLease{Inode: cw.key.inode, Index: cw.key.index})
		}
	}
	return list
}
