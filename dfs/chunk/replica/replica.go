package replica

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"waggle/dfs/datapath/read"
	"waggle/dfs/datapath/read/shortcircuit"
	"waggle/dfs/wire"
)

// Errors of replicas. The State that is returned beside them says what the
// replica has instead.
var (
	ErrNotFound   = errors.New("no replica of this chunk")
	ErrExists     = errors.New("replica exists under another epoch")
	ErrStaleEpoch = errors.New("epoch is not the replica's")
	ErrOutOfOrder = errors.New("sequence is neither the next nor one already applied")
	ErrInvalid    = errors.New("invalid request")
	ErrChanged    = errors.New("replica was changed meanwhile")
	ErrBusy       = errors.New("replica is being copied already")
	// ErrDoubtful: see State.Doubtful. Such a replica serves only copies.
	ErrDoubtful = errors.New("replica has lost writes in a power failure or a failed sync")
)

// CorruptError says that a stored block does not match its checksum.
type CorruptError struct {
	Chunk  uint64
	Offset uint64 // bytes; of the block
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("chunk %d: block at %d does not match its checksum", e.Chunk, e.Offset)
}

// zeroBlockSum is the checksum of a whole block of zeros.
var zeroBlockSum = wire.Checksum(make([]byte, wire.BlockSize))

// Replica is one replica: its data file and its sums file. It is used from any
// goroutine; writers exclude one another and readers.
type Replica struct {
	store *Store
	id    uint64

	mu         sync.RWMutex
	state      State
	digest     digest // of the checksums of all blocks
	generation uint64 // of the newest good header
	syncSlot   int    // for the header of the next sync
	clean      bool   // all is durable, and nothing was changed since
	// broken: a change failed half way. It is completed or undone, as after a
	// crash, before anything else is done.
	broken bool
	// unverified: the process that changed the replica has ended without a sync, and
	// perhaps the machine has.
	unverified bool
	// failure is why a sync failed. The kernel forgets it, and what was not written,
	// so nothing can be made durable any more: see Rebuild.
	failure error
	// switching: a copy was put in this replica's place, but its files do not
	// all have their final names yet.
	switching  bool
	installed  int // how often a copy was
	removed    bool
	nameSynced bool               // the directory was synced after the files were made
	syncing    sync.Mutex         // held by a sync; taken before mu
	loan       *shortcircuit.Loan // nil unless processes read the files by themselves
	files      *files             // nil while closed
}

// files are a replica's open files. They are closed when the cache and all
// readers have let go of them.
type files struct {
	data, sums *os.File
	users      atomic.Int32
	mapping    sync.Mutex
	mapped     []byte // data, once a read path asked for it
}

func (f *files) release() {
	if f.users.Add(-1) == 0 {
		if f.mapped != nil {
			unix.Munmap(f.mapped)
		}
		f.data.Close()
		f.sums.Close()
	}
}

// mapData is read.Range's Mapping.
func (f *files) mapData() (_ []byte, err error) {
	f.mapping.Lock()
	defer f.mapping.Unlock()
	if f.mapped == nil {
		if f.mapped, err = unix.Mmap(int(f.data.Fd()), 0, read.MappingSize, unix.PROT_READ, unix.MAP_SHARED); err != nil {
			return nil, fmt.Errorf("map a replica: %w", err)
		}
	}
	return f.mapped, nil
}

// State returns what the replica holds.
func (r *Replica) State() State {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.state
}

// lock takes the replica's lock with its files open and the last change either
// whole or undone. Unlock with unlock.
func (r *Replica) lock() error {
	r.mu.Lock()
	if err := r.ready(); err != nil {
		r.mu.Unlock()
		return err
	}
	return nil
}

// unlock gives the lock back and lets the store close files that were not used
// for long: that takes their locks, so no lock may be held here.
func (r *Replica) unlock() {
	r.mu.Unlock()
	r.store.used(r)
}

// lockShared is lock for readers.
func (r *Replica) lockShared() error {
	for {
		r.mu.RLock()
		if r.files != nil && !r.broken && !r.unverified {
			return nil
		}
		r.mu.RUnlock()
		if err := r.lock(); err != nil {
			return err
		}
		r.unlock()
	}
}

func (r *Replica) unlockShared() {
	r.mu.RUnlock()
	r.store.used(r)
}

func (r *Replica) ready() error {
	if r.removed {
		return fmt.Errorf("chunk %d: %w", r.id, ErrNotFound)
	}
	if r.files == nil {
		if err := r.open(); err != nil {
			return err
		}
	}
	switch {
	case r.unverified:
		return r.recoverStart()
	case r.broken:
		return r.recover()
	}
	return nil
}

func (r *Replica) open() error {
	if r.switching {
		if err := r.finishSwitch(); err != nil {
			return err
		}
	}
	data, err := os.OpenFile(r.store.path(r.id, dataSuffix), os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("open replica of chunk %d: %w", r.id, err)
	}
	sums, err := os.OpenFile(r.store.path(r.id, sumsSuffix), os.O_RDWR, 0)
	if err != nil {
		data.Close()
		return fmt.Errorf("open replica of chunk %d: %w", r.id, err)
	}
	f := &files{data: data, sums: sums}
	f.users.Store(1)
	if !r.broken && !r.unverified {
		// Only a power failure makes the file's size differ: bytes behind the end
		// would come back in a hole, missing ones are found by their checksums.
		if err := r.fitData(f, r.state.Length); err != nil {
			f.release()
			return err
		}
	}
	r.files = f
	return nil
}

// fitData makes the data file as long as the replica.
func (r *Replica) fitData(f *files, length uint64) error {
	info, err := f.data.Stat()
	if err == nil && info.Size() != int64(length) {
		err = r.store.disk.truncate(f.data, int64(length))
	}
	if err != nil {
		return fmt.Errorf("set data file of chunk %d to %d bytes: %w", r.id, length, err)
	}
	return nil
}

// closeFiles closes the replica's files, if they are open.
func (r *Replica) closeFiles() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.files != nil {
		r.files.release()
		r.files = nil
	}
}

// writeHeader writes the next header into the slot that does not hold the
// newest one. If that fails, the newest one is still there.
func (r *Replica) writeHeader(h header) error {
	buf := slotBuffers.Get().(*[]byte)
	defer slotBuffers.Put(buf)
	h.Generation = r.generation + 1
	*buf = h.append((*buf)[:0])
	r.clean = false
	if err := r.store.disk.writeAt(r.files.sums, *buf, h.place(r.syncSlot)); err != nil {
		return fmt.Errorf("write header of chunk %d: %w", r.id, err)
	}
	r.generation = h.Generation
	return nil
}

// writeState writes a header without an intent.
func (r *Replica) writeState(state State) error {
	return r.writeHeader(header{State: state, Outside: r.digest})
}

var slotBuffers = sync.Pool{New: func() any { b := make([]byte, 0, slotSize); return &b }}

// writeSums stores the checksums of the blocks from first on.
func (r *Replica) writeSums(first uint64, sums []byte) error {
	if len(sums) == 0 {
		return nil
	}
	if err := r.store.disk.writeAt(r.files.sums, sums, sumsStart+4*int64(first)); err != nil {
		return fmt.Errorf("write checksums of chunk %d: %w", r.id, err)
	}
	return nil
}

// readSums reads the stored checksums of count blocks into buf.
func (r *Replica) readSums(buf []byte, first uint64, count int) ([]byte, error) {
	if cap(buf) < 4*count {
		buf = make([]byte, 4*count)
	}
	buf = buf[:4*count]
	n, err := r.files.sums.ReadAt(buf, sumsStart+4*int64(first))
	if errors.Is(err, io.EOF) { // a power failure took the file's end: blocks without a checksum don't match theirs
		clear(buf[n:])
		err = nil
	}
	if err != nil {
		return nil, fmt.Errorf("read checksums of chunk %d: %w", r.id, err)
	}
	return buf, nil
}

// readBlock reads the replica's bytes of one block into buf, and zeroes the
// rest of buf. It returns how many bytes there were, and their stored checksum.
func (r *Replica) readBlock(buf *[wire.BlockSize]byte, block uint64) (n int, stored uint32, err error) {
	if start := block * wire.BlockSize; start < r.state.Length {
		n = int(min(wire.BlockSize, r.state.Length-start))
		if _, err := r.files.data.ReadAt(buf[:n], int64(start)); err != nil {
			return 0, 0, fmt.Errorf("read block %d of chunk %d: %w", block, r.id, err)
		}
		sums, err := r.readSums(nil, block, 1)
		if err != nil {
			return 0, 0, err
		}
		stored = le.Uint32(sums)
	}
	clear(buf[n:])
	return n, stored, nil
}

// intactBlock is readBlock for a block that must match its checksum, so that a
// damaged block does not get a good checksum by being changed.
func (r *Replica) intactBlock(buf *[wire.BlockSize]byte, block uint64) (n int, err error) {
	n, stored, err := r.readBlock(buf, block)
	if err == nil && n > 0 && wire.Checksum(buf[:n]) != stored {
		err = &CorruptError{Chunk: r.id, Offset: block * wire.BlockSize}
	}
	return n, err
}

// Write is one numbered write under a lease.
type Write struct {
	Epoch    uint64
	Sequence uint64
	Offset   uint64 // bytes
	Data     []byte // at most wire.MaxData
	Sums     []byte // as wire.AppendChecksums makes them for Data at Offset
}

// Admits says whether a write of this epoch and sequence would be taken now:
// ErrStaleEpoch, ErrOutOfOrder, or nil.
func (r *Replica) Admits(epoch, sequence uint64) (State, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.state, r.admits(epoch, sequence)
}

func (r *Replica) admits(epoch, sequence uint64) error {
	switch {
	case r.removed:
		return fmt.Errorf("chunk %d: %w", r.id, ErrNotFound)
	case r.failure != nil:
		return r.failure
	case r.state.Doubtful:
		return fmt.Errorf("write to chunk %d: %w", r.id, ErrDoubtful)
	case epoch != r.state.Epoch:
		return fmt.Errorf("chunk %d: %w: asked %d, the replica has %d", r.id, ErrStaleEpoch, epoch, r.state.Epoch)
	case sequence > r.state.Sequence+1:
		return fmt.Errorf("chunk %d: %w: asked %d, the last one applied is %d", r.id, ErrOutOfOrder, sequence, r.state.Sequence)
	}
	return nil
}

// Write applies w if its sequence is the next; one that was applied before is
// acknowledged again. A sequence stands for one write only, so applying the
// next write also heals a torn replica: under the same epoch it is the torn
// write itself, and before a new epoch opens all replicas were made equal.
//
// The steps are: a header with the intent, the data, the checksums. Until the
// next header the intent is what says that the write was applied.
func (r *Replica) Write(w Write) (State, error) {
	if len(w.Data) == 0 || len(w.Data) > wire.MaxData || w.Offset+uint64(len(w.Data)) > wire.MaxChunkSize {
		return r.State(), fmt.Errorf("write of %d bytes at %d of chunk %d: %w", len(w.Data), w.Offset, r.id, ErrInvalid)
	}
	if at := wire.CheckChecksums(w.Sums, w.Offset, w.Data); at >= 0 {
		return r.State(), fmt.Errorf("write to chunk %d: bytes at %d do not match the checksum sent with them: %w", r.id, at, ErrInvalid)
	}
	if err := r.lock(); err != nil {
		return r.State(), err
	}
	defer r.unlock()
	if err := r.admits(w.Epoch, w.Sequence); err != nil || w.Sequence <= r.state.Sequence {
		return r.state, err
	}
	return r.state, r.apply(&w)
}

func (r *Replica) apply(w *Write) error {
	i := &intent{Sequence: w.Sequence, Offset: w.Offset, Length: uint32(len(w.Data)),
		NewLength: max(r.state.Length, w.Offset+uint64(len(w.Data)))}
	gap, err := r.gapSums(i)
	if err != nil {
		return err
	}
	sums, err := r.appendMergedSums(gap, w, i.NewLength)
	if err != nil {
		return err
	}
	i.Sums = sums[len(gap):]
	if err := r.announce(i); err != nil {
		return err
	}
	first, after := i.firstBlock(r.state.Length), r.digest
	if err := r.store.disk.writeAt(r.files.data, w.Data, int64(w.Offset)); err != nil {
		return errors.Join(fmt.Errorf("write %d bytes at %d of chunk %d: %w", len(w.Data), w.Offset, r.id, err), r.recover())
	}
	if err := r.writeSums(first, sums); err != nil {
		return err
	}
	r.broken = false
	r.digest = after + digestOf(first, sums)
	r.become(i)
	return nil
}

// announce writes a header with the intent of a change, and leaves in r.digest the
// digest of the checksums that the change does not touch. From there on the replica
// is broken until the change is complete.
func (r *Replica) announce(i *intent) error {
	kept := blockCount(min(r.state.Length, i.NewLength))
	first := i.firstBlock(r.state.Length)
	end := min(kept, i.Offset/wire.BlockSize+uint64(len(i.Sums)/4))
	inside, err := r.digestIn(first, end)
	if err != nil {
		return err
	}
	cut, err := r.digestIn(max(kept, end), blockCount(r.state.Length))
	if err != nil {
		return err
	}
	h := header{State: r.state, Intent: i, Outside: r.digest - inside - cut, Inside: inside}
	if err := r.writeHeader(h); err != nil {
		return err
	}
	r.broken, r.digest = true, h.Outside
	return nil
}

// become takes over the state that an intent leads to.
func (r *Replica) become(i *intent) {
	r.store.bytes.Add(int64(i.NewLength) - int64(r.state.Length))
	r.state.Sequence, r.state.Length, r.state.Torn = i.Sequence, i.NewLength, false
	if r.loan != nil {
		r.loan.Grow(i.NewLength)
	}
}

// gapSums returns the checksums, from the change's first block on, that change
// because it lies behind the replica's end: the bytes between are zero. The block
// that the change's offset lies in is its own. It sets the intent's GapSum.
func (r *Replica) gapSums(i *intent) (sums []byte, err error) {
	i.GapSum = zeroBlockSum
	last := r.state.Length / wire.BlockSize
	if last < i.Offset/wire.BlockSize && r.state.Length%wire.BlockSize != 0 {
		var buf [wire.BlockSize]byte
		if _, err := r.intactBlock(&buf, last); err != nil {
			return nil, err
		}
		i.GapSum = wire.Checksum(buf[:])
	}
	return i.appendGap(nil, r.state.Length), nil
}

// appendGap appends the checksums of the blocks between the end of a replica of the
// given length and the range of the change.
func (i *intent) appendGap(sums []byte, length uint64) []byte {
	sum := i.GapSum
	for block := i.firstBlock(length); block < i.Offset/wire.BlockSize; block++ {
		sums = le.AppendUint32(sums, sum)
		sum = zeroBlockSum
	}
	return sums
}

// appendMergedSums appends the checksums that the blocks touched by w will have
// in a replica of newLength bytes. Those of whole blocks came with the write.
func (r *Replica) appendMergedSums(sums []byte, w *Write, newLength uint64) ([]byte, error) {
	end := w.Offset + uint64(len(w.Data))
	for piece := w.Sums; len(piece) > 0; piece = piece[4:] {
		block := w.Offset/wire.BlockSize + uint64(len(w.Sums)-len(piece))/4
		start, stop := block*wire.BlockSize, min((block+1)*wire.BlockSize, newLength)
		from, to := max(start, w.Offset), min(stop, end)
		if from == start && to == stop {
			sums = append(sums, piece[:4]...)
			continue
		}
		var buf [wire.BlockSize]byte
		if _, err := r.intactBlock(&buf, block); err != nil {
			return nil, err
		}
		copy(buf[from-start:], w.Data[from-w.Offset:to-w.Offset])
		sums = le.AppendUint32(sums, wire.Checksum(buf[:stop-start]))
	}
	return sums, nil
}

// Truncate cuts the replica to a length, durably. One that is not longer stays
// as it is.
func (r *Replica) Truncate(epoch, length uint64) (State, error) {
	if err := r.lock(); err != nil {
		return r.State(), err
	}
	err := r.truncate(epoch, length)
	state := r.state
	r.unlock()
	if err != nil {
		return state, err
	}
	return state, r.Sync()
}

func (r *Replica) truncate(epoch, length uint64) error {
	if epoch < r.state.Epoch {
		return fmt.Errorf("truncate chunk %d: %w: asked %d, the replica has %d", r.id, ErrStaleEpoch, epoch, r.state.Epoch)
	}
	state := r.state
	state.Epoch = epoch
	if length >= state.Length {
		if epoch == r.state.Epoch {
			return nil
		}
		return r.adopt(state)
	}
	i := &intent{Sequence: state.Sequence, NewLength: length, Redo: true,
		Offset: length - length%wire.BlockSize, Length: uint32(length % wire.BlockSize)}
	if i.Length > 0 {
		var buf [wire.BlockSize]byte
		var damaged *CorruptError
		_, err := r.intactBlock(&buf, i.Offset/wire.BlockSize)
		sum := wire.Checksum(buf[:i.Length])
		switch {
		case errors.As(err, &damaged):
			sum = ^sum // what is left of the block is as damaged as the block
		case err != nil:
			return err
		}
		i.Sums = le.AppendUint32(nil, sum)
	}
	before := r.state.Epoch
	r.state.Epoch = epoch
	if err := r.announce(i); err != nil {
		r.state.Epoch = before
		return err
	}
	return r.recover()
}

// adopt makes state the replica's, without a change of data.
func (r *Replica) adopt(state State) error {
	if err := r.writeState(state); err != nil {
		return err
	}
	r.state = state
	r.takeBack()
	return nil
}

// Adopt gives the replica, if it is still in the state old, another epoch and
// sequence, durably: its bytes are those of a replica in that state.
func (r *Replica) Adopt(old, state State) error {
	if err := r.lock(); err != nil {
		return err
	}
	var err error
	if r.state != old || state.Length != old.Length || state.Chunk != old.Chunk || old.Torn || old.Doubtful || r.failure != nil {
		err = fmt.Errorf("adopt the state of another replica of chunk %d: %w", r.id, ErrChanged)
	} else {
		err = r.adopt(state)
	}
	r.unlock()
	if err != nil {
		return err
	}
	return r.Sync()
}

// Seal makes the replica refuse epochs older than epoch from now on, also after
// a crash of the machine.
func (r *Replica) Seal(epoch uint64) (State, error) {
	if err := r.lock(); err != nil {
		return r.State(), err
	}
	err := r.seal(epoch)
	state := r.state
	r.unlock()
	if err != nil {
		return state, err
	}
	return state, r.Sync()
}

func (r *Replica) seal(epoch uint64) error {
	state := r.state
	switch {
	case epoch < state.Epoch:
		return fmt.Errorf("seal chunk %d: %w: asked %d, the replica has %d", r.id, ErrStaleEpoch, epoch, state.Epoch)
	case epoch == state.Epoch:
		return nil
	}
	state.Epoch = epoch
	return r.adopt(state)
}

// View is a block-aligned range of a replica that was made ready to be sent.
type View struct {
	State  State
	Offset uint64 // bytes
	Length int    // bytes
	Sums   []byte // stored checksum of each block
	files  *files
}

// Release lets go of the replica's files.
func (v *View) Release() {
	if v.files != nil {
		v.files.release()
		v.files = nil
	}
}

// View reads the checksums of the blocks that cover a range, clipped to the
// replica's end, into sums, and has prepare take what it needs of the data
// while writers wait. The file stays open until the view is released.
func (r *Replica) View(offset uint64, length uint32, sums []byte, prepare func(read.Range) error) (View, error) {
	return r.view(offset, length, sums, prepare, false)
}

// ViewDoubtful is View for a replica that may be doubtful: for whoever compares
// what it holds with other replicas.
func (r *Replica) ViewDoubtful(offset uint64, length uint32, sums []byte, prepare func(read.Range) error) (View, error) {
	return r.view(offset, length, sums, prepare, true)
}

func (r *Replica) view(offset uint64, length uint32, sums []byte, prepare func(read.Range) error, doubtful bool) (View, error) {
	if err := r.lockShared(); err != nil {
		return View{}, err
	}
	defer r.unlockShared()
	if r.state.Doubtful && !doubtful {
		return View{State: r.state}, fmt.Errorf("read chunk %d: %w", r.id, ErrDoubtful)
	}
	v := View{State: r.state, Offset: offset - offset%wire.BlockSize, Sums: sums[:0]}
	if end := min(alignUp(offset+uint64(length)), r.state.Length); end > v.Offset {
		v.Length = int(end - v.Offset)
	}
	if v.Length == 0 {
		return v, nil
	}
	if v.Length > wire.MaxData {
		return v, fmt.Errorf("read of chunk %d: its blocks hold %d bytes, at most %d are allowed: %w", r.id, v.Length, wire.MaxData, ErrInvalid)
	}
	var err error
	if v.Sums, err = r.readSums(sums, v.Offset/wire.BlockSize, wire.Pieces(v.Offset, uint32(v.Length))); err != nil {
		return v, err
	}
	data := read.Range{File: r.files.data, Offset: int64(v.Offset), Length: v.Length, Mapping: r.files.mapData}
	if err := prepare(data); err != nil {
		return v, fmt.Errorf("read %d bytes at %d of chunk %d: %w", v.Length, v.Offset, r.id, err)
	}
	v.files = r.files
	v.files.users.Add(1)
	return v, nil
}

func alignUp(n uint64) uint64 { return (n + wire.BlockSize - 1) / wire.BlockSize * wire.BlockSize }

// Checksums returns the stored checksums of all blocks, 4 bytes each, and the
// state that they belong to.
func (r *Replica) Checksums() (State, []byte, error) {
	if err := r.lockShared(); err != nil {
		return State{}, nil, err
	}
	defer r.unlockShared()
	sums, err := r.readSums(nil, 0, blocks(r.state.Length))
	return r.state, sums, err
}

// blocks returns how many blocks hold length bytes.
func blocks(length uint64) int { return int(alignUp(length) / wire.BlockSize) }

// VerifyWindow is how many bytes are compared under one lock; writers wait meanwhile.
const VerifyWindow = 256 << 10

// Verify compares every block with its checksum and calls corrupt with the
// offset of each that differs. Before each window of the file it calls wait
// with the bytes that it is about to read; an error of wait ends it.
func (r *Replica) Verify(wait func(bytes int) error, corrupt func(offset uint64)) error {
	buf := make([]byte, VerifyWindow)
	var sums []byte
	for offset := uint64(0); ; offset += VerifyWindow {
		length := r.State().Length
		if offset >= length {
			return nil
		}
		if err := wait(int(min(VerifyWindow, length-offset))); err != nil {
			return err
		}
		v, err := r.ViewDoubtful(offset, VerifyWindow, sums, func(data read.Range) error {
			_, err := data.File.ReadAt(buf[:data.Length], data.Offset)
			return err
		})
		if err != nil {
			return err
		}
		v.Release()
		sums = v.Sums
		for at := uint64(0); at < uint64(v.Length); at += wire.BlockSize {
			block := buf[at:min(at+wire.BlockSize, uint64(v.Length))]
			if wire.Checksum(block) != le.Uint32(v.Sums[at/wire.BlockSize*4:]) {
				corrupt(v.Offset + at)
			}
		}
	}
}

// RewriteBlock replaces a damaged block by its content on another replica that is in
// the given state: the same one, unless this replica is torn or doubtful. A crash
// leaves the block either whole or still damaged.
func (r *Replica) RewriteBlock(state State, offset uint64, data []byte) error {
	if err := r.lock(); err != nil {
		return err
	}
	defer r.unlock()
	want := min(wire.BlockSize, r.state.Length-min(offset, r.state.Length))
	switch {
	case !r.state.Torn && !r.state.Doubtful && (r.state.Sequence != state.Sequence || r.state.Length != state.Length):
		return fmt.Errorf("rewrite block at %d of chunk %d: %w", offset, r.id, ErrChanged)
	case offset%wire.BlockSize != 0 || uint64(len(data)) != want || want == 0:
		return fmt.Errorf("rewrite %d bytes at %d of chunk %d: not a block: %w", len(data), offset, r.id, ErrInvalid)
	}
	return r.rewrite(offset, data)
}

// rewrite puts a block's content in its place. Its checksum may be what is damaged.
func (r *Replica) rewrite(offset uint64, data []byte) error {
	sums, err := r.readSums(nil, 0, blocks(r.state.Length))
	if err != nil {
		return err
	}
	r.digest = digestOf(0, sums)
	i := &intent{Sequence: r.state.Sequence, NewLength: r.state.Length, Offset: offset, Length: uint32(len(data)), Redo: true,
		GapSum: zeroBlockSum, Sums: le.AppendUint32(nil, wire.Checksum(data))}
	if err := r.announce(i); err != nil {
		return err
	}
	if err := r.store.disk.writeAt(r.files.data, data, int64(offset)); err != nil {
		return errors.Join(fmt.Errorf("rewrite block at %d of chunk %d: %w", offset, r.id, err), r.recover())
	}
	return r.recover()
}
