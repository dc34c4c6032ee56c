package storm

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"time"

	"waggle/dfs/client"
)

const (
	sharedFiles   = 2
	cellsPerFile  = 128 // two chunks of 64 KiB
	maxRun        = 12  // cells of one operation
	hotCells      = 16  // the first of a file, that half of the operations are on, so that clients meet
	operationTime = 20 * time.Second
)

// load is what the clients of a storm do, and what they have seen.
type load struct {
	cluster   *cluster
	seed      uint64
	directory string
	clock     *clock
	files     []*cells
	history   *namespaceHistory

	appending sync.Mutex // appends come strictly one after the other
	appended  [][]byte   // acknowledged, in order
	mu        sync.Mutex
	made      map[string][]byte // files that were acknowledged, by name
	wrong     []string
	counted   map[string]int // operations, by how they ended
	example   map[string]error
}

func newLoad(c *cluster, seed uint64) *load {
	l := &load{cluster: c, seed: seed, directory: fmt.Sprintf("/storm-%d", seed), clock: &clock{time.Now()},
		made: make(map[string][]byte), counted: make(map[string]int), example: make(map[string]error)}
	for i := range sharedFiles {
		l.files = append(l.files, newCells(l.clock, seed, uint32(i), cellsPerFile))
	}
	l.history = newNamespaceHistory(l)
	return l
}

func (l *load) shared(i int) string { return fmt.Sprintf("%s/shared-%d", l.directory, i) }
func (l *load) log() string         { return l.directory + "/log" }

// prepare makes what the storm begins with, while all is well.
func (l *load) prepare(ctx context.Context) error {
	c := l.cluster.watcher
	for _, directory := range []string{l.directory, l.directory + "/names"} {
		if err := c.Mkdir(ctx, directory, 0o755); err != nil {
			return err
		}
	}
	for i, file := range l.files {
		data, writes := file.begin(0, cellsPerFile)
		if err := c.WriteFile(ctx, l.shared(i), data, 0o644); err != nil {
			return err
		}
		file.end(writes, true)
		file.sync(writes)
	}
	return c.WriteFile(ctx, l.log(), nil, 0o644)
}

// fault notes something that must never be.
func (l *load) fault(format string, arguments ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wrong = append(l.wrong, fmt.Sprintf("at %s ms: ", ms(l.clock.now()))+fmt.Sprintf(format, arguments...))
}

func (l *load) count(kind string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		kind += " failed"
		l.example[kind] = err
	}
	l.counted[kind]++
}

// user is one client's doings.
type user struct {
	*load
	client *client.Client
	random *rand.Rand
	number int
	made   int
}

// run uses files until ctx ends; what is under way then is finished.
func (u *user) run(ctx context.Context) {
	for ctx.Err() == nil {
		switch kind := u.random.IntN(10); {
		case kind < 5:
			u.useShared(ctx)
		case kind < 7:
			u.useLog(ctx)
		case kind < 8:
			u.create()
		default:
			u.createSlowly(ctx)
		}
	}
}

// useShared opens a shared file, reads and writes for a while, and closes it.
func (u *user) useShared(stop context.Context) {
	ctx, cancel := context.WithTimeout(context.Background(), operationTime)
	defer cancel()
	i := u.random.IntN(sharedFiles)
	f, err := u.client.OpenFile(ctx, u.shared(i), os.O_RDWR, client.FileOptions{})
	u.count("open", err)
	if errors.Is(err, fs.ErrNotExist) {
		u.fault("%s is gone: %v", u.shared(i), err)
	}
	if err != nil {
		return
	}
	h := &handle{user: u, file: f, cells: u.files[i]}
	slow := u.random.IntN(3) == 0 // so that sessions and leases end while it is in use
	for range 1 + u.random.IntN(12) {
		if slow {
			u.wait(stop, 200)
		}
		if stop.Err() != nil {
			break
		}
		switch kind := u.random.IntN(10); {
		case kind < 5:
			h.write()
		case kind < 9:
			h.read()
		default:
			h.settle("sync", f.Sync)
		}
	}
	h.settle("close", f.Close)
}

// handle is an open file, and what was written by it.
type handle struct {
	*user
	file    *client.File
	cells   *cells
	written []*cellWrite // acknowledged, and not said to be durable
}

func (h *handle) run() (first, count int) {
	count = 1 + h.random.IntN(maxRun)
	room := cellsPerFile
	if h.random.IntN(2) == 0 {
		room = hotCells
	}
	return h.random.IntN(room - count + 1), count
}

func (h *handle) write() {
	first, count := h.run()
	data, writes := h.cells.begin(first, count)
	_, err := h.file.WriteAt(data, int64(first*cellSize))
	h.cells.end(writes, err == nil)
	h.count("write", err)
	if err == nil {
		h.written = append(h.written, writes...)
	} else {
		h.told(err)
	}
}

// told heeds an error that says that earlier writes are lost.
func (h *handle) told(err error) {
	if errors.Is(err, client.ErrLost) {
		h.cells.tellLost(h.written)
		h.written = nil
	}
}

func (h *handle) read() {
	first, count := h.run()
	data := make([]byte, count*cellSize)
	call := h.clock.now()
	_, err := h.file.ReadAt(data, int64(first*cellSize))
	h.count("read", err)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		h.fault("%s ends before cell %d: %v", h.file.Name(), first+count, err)
	}
	if err != nil {
		return
	}
	if wrong := h.cells.judge(call, h.clock.now(), first, data); wrong != "" {
		h.fault("client %d, a read from %s ms on: %s", h.number, ms(call), wrong)
	}
}

// settle has all that was written made durable.
func (h *handle) settle(kind string, do func() error) {
	err := do()
	h.count(kind, err)
	if err != nil {
		h.told(err)
		return
	}
	h.cells.sync(h.written)
	h.written = nil
}

// useLog appends records to the log that all clients append to, one after the
// other, and all of which have it open.
func (u *user) useLog(stop context.Context) {
	ctx, cancel := context.WithTimeout(context.Background(), operationTime)
	defer cancel()
	f, err := u.client.OpenFile(ctx, u.log(), os.O_WRONLY|os.O_APPEND, client.FileOptions{})
	u.count("open log", err)
	if err != nil {
		return
	}
	for range 1 + u.random.IntN(5) {
		if stop.Err() != nil || u.appendRecord(f) != nil {
			break
		}
		u.wait(stop, 20)
	}
	u.count("close log", f.Close())
}

// appendRecord appends when nobody else does.
func (u *user) appendRecord(f *client.File) error {
	u.appending.Lock()
	defer u.appending.Unlock()
	u.made++
	record := u.record(uint32(u.made), 700+u.random.IntN(2000))
	_, err := f.Write(record)
	if err == nil {
		err = f.Sync()
	}
	u.count("append", err)
	if err == nil {
		u.appended = append(u.appended, record)
	}
	return err
}

// wait waits for up to so many ms.
func (u *user) wait(stop context.Context, most int) {
	select {
	case <-stop.Done():
	case <-time.After(time.Duration(u.random.IntN(most)) * time.Millisecond):
	}
}

// record is bytes that nobody else writes.
func (u *user) record(number uint32, size int) []byte {
	b := binary.LittleEndian.AppendUint64(nil, u.seed)
	b = binary.LittleEndian.AppendUint32(b, uint32(u.number))
	b = binary.LittleEndian.AppendUint32(b, number)
	random := rand.New(rand.NewPCG(u.seed, uint64(u.number)<<32|uint64(number)))
	for len(b) < size {
		b = append(b, byte(1+random.IntN(255))) // no zeros
	}
	return b
}

// create makes a file of a name that is used once.
func (u *user) create() {
	ctx, cancel := context.WithTimeout(context.Background(), operationTime)
	defer cancel()
	u.made++
	name := fmt.Sprintf("%s/made-%d-%d", u.directory, u.number, u.made)
	size := 100 + u.random.IntN(800)
	if u.random.IntN(3) > 0 {
		size = 1 + u.random.IntN(100<<10)
	}
	content := u.record(uint32(u.made), size)
	err := u.client.WriteFile(ctx, name, content, 0o644)
	u.count("make", err)
	if err == nil {
		u.mu.Lock()
		u.load.made[name] = content
		u.mu.Unlock()
	}
}

// createSlowly makes a file piece by piece. What happens between the pieces must
// not be forgotten when the file is closed.
func (u *user) createSlowly(stop context.Context) {
	ctx, cancel := context.WithTimeout(context.Background(), operationTime)
	defer cancel()
	u.made++
	name := fmt.Sprintf("%s/made-%d-%d", u.directory, u.number, u.made)
	content := u.record(uint32(u.made), 2000+u.random.IntN(150<<10))
	options := client.FileOptions{Mode: 0o644, Replication: uint32(1 + 2*u.random.IntN(2))}
	f, err := u.client.OpenFile(ctx, name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, options)
	if err != nil {
		u.count("make slowly", err)
		return
	}
	for rest := content; len(rest) > 0 && err == nil; {
		n := min(len(rest), 1+u.random.IntN(80<<10))
		// Acknowledged by the chunk servers, and the metadata server does not know.
		_, err = f.WriteAt(rest[:n], int64(len(content)-len(rest)))
		if err == nil && u.random.IntN(3) == 0 {
			err = f.Sync()
		}
		rest = rest[n:]
		u.wait(stop, 600)
	}
	err = errors.Join(err, f.Close())
	u.count("make slowly", err)
	if err == nil {
		u.mu.Lock()
		u.load.made[name] = content
		u.mu.Unlock()
	}
}

// verify reads everything when all is well again.
func (l *load) verify(ctx context.Context) {
	c := l.cluster.watcher
	for i, file := range l.files {
		l.verifyShared(ctx, l.shared(i), file)
	}
	for name, want := range l.made {
		got, err := c.ReadFile(ctx, name)
		if err != nil || !bytes.Equal(got, want) {
			l.fault("%s was acknowledged with %d bytes and reads as %s (%v)", name, len(want), difference(got, want), err)
		}
	}
	l.verifyLog(ctx)
	l.removeDoubtful(ctx)
}

// removeDoubtful removes what nobody was told is there: it may be damaged where
// power was lost.
func (l *load) removeDoubtful(ctx context.Context) {
	entries, err := l.cluster.watcher.ReadDir(ctx, l.directory)
	if err != nil {
		l.fault("list %s at the end: %v", l.directory, err)
		return
	}
	for _, e := range entries {
		name := l.directory + "/" + e.Name()
		if _, acknowledged := l.made[name]; acknowledged || !strings.HasPrefix(e.Name(), "made-") {
			continue
		}
		if err := l.cluster.watcher.Remove(ctx, name); err != nil {
			l.fault("remove %s at the end: %v", name, err)
		}
	}
}

func (l *load) verifyShared(ctx context.Context, name string, file *cells) {
	f, err := l.cluster.watcher.OpenFile(ctx, name, os.O_RDWR, client.FileOptions{})
	if err != nil {
		l.fault("open %s at the end: %v", name, err)
		return
	}
	defer f.Close()
	for first := 0; first < cellsPerFile; first += cellsPerBlock {
		data := make([]byte, cellsPerBlock*cellSize)
		call := l.clock.now()
		_, err := f.ReadAt(data, int64(first*cellSize))
		if err == nil {
			if wrong := file.judge(call, l.clock.now(), first, data); wrong != "" {
				l.fault("at the end: %s", wrong)
			}
			continue
		}
		if !file.mayBeDamaged(first) {
			l.fault("read cell %d of %s at the end: %v", first, name, err)
			continue
		}
		// What was being written when power was lost may be damaged until somebody
		// writes it again.
		l.count("damaged block", nil)
		data, writes := file.begin(first, cellsPerBlock)
		_, err = f.WriteAt(data, int64(first*cellSize))
		file.end(writes, err == nil)
		if err != nil {
			l.fault("write a damaged block of %s again: %v", name, err)
		}
	}
	l.writeAgain(f, file)
}

// writeAgain writes to each chunk, which nobody else has open any more.
func (l *load) writeAgain(f *client.File, file *cells) {
	for first := 0; first < cellsPerFile; first += cellsPerFile / 2 {
		data, writes := file.begin(first, 1)
		_, err := f.WriteAt(data, int64(first*cellSize))
		file.end(writes, err == nil)
		if err != nil {
			l.fault("write to %s when all is well: %v", f.Name(), err)
		}
	}
	if err := f.Sync(); err != nil {
		l.fault("sync %s at the end: %v", f.Name(), err)
	}
}

// verifyLog demands all acknowledged records, whole and in order.
func (l *load) verifyLog(ctx context.Context) {
	got, err := l.cluster.watcher.ReadFile(ctx, l.log())
	if errors.Is(err, client.ErrCorrupt) && l.lostPower() {
		// Its last block was being written.
		l.count("damaged log", nil)
		if err := l.cluster.watcher.WriteFile(ctx, l.log(), nil, 0o644); err != nil {
			l.fault("empty a damaged log: %v", err)
		}
		return
	}
	if err != nil {
		l.fault("read the log at the end: %v", err)
		return
	}
	at := 0
	for i, record := range l.appended {
		next := bytes.Index(got[at:], record)
		if next < 0 {
			l.fault("record %d of %d, of client %d, of %d bytes, is not in the log behind %d of %d bytes", i+1, len(l.appended), record[8], len(record), at, len(got))
			return
		}
		at += next + len(record)
	}
}

// lostPower says whether what was not synced may have been lost.
func (l *load) lostPower() bool {
	l.files[0].mu.Lock()
	defer l.files[0].mu.Unlock()
	return len(l.files[0].losses) > 0
}

func difference(got, want []byte) string {
	if len(got) != len(want) {
		return fmt.Sprintf("%d bytes", len(got))
	}
	for i := range got {
		if got[i] != want[i] {
			return fmt.Sprintf("others from byte %d on, first %#x", i, got[i])
		}
	}
	return "the same"
}
