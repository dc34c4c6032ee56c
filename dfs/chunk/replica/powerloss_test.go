package replica

import (
	"bytes"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"waggle/dfs/wire"
)

const (
	pageSize   = 4096
	sectorSize = 512
)

// volatileDisk does every change to real files at once, as the page cache does, and
// knows what of it the disk may have when the machine loses power: of each page what
// was synced last, or what it has held at any time since; and any size since.
type volatileDisk struct {
	realDisk
	files map[string]*volatileFile // by path
}

// volatileFile is what is durable of a file, and what may be.
type volatileFile struct {
	now   []byte
	pages map[int][][]byte // that were changed since the last sync: what they have held, oldest first
	sizes []int            // the last one synced first
}

func newVolatileDisk() *volatileDisk { return &volatileDisk{files: make(map[string]*volatileFile)} }

func (d *volatileDisk) file(path string) *volatileFile {
	f := d.files[path]
	if f == nil {
		f = &volatileFile{}
		f.sync()
		d.files[path] = f
	}
	return f
}

func (f *volatileFile) sync() { f.pages, f.sizes = make(map[int][][]byte), []int{len(f.now)} }

// page returns what a page holds now.
func (f *volatileFile) page(n int) []byte {
	page := make([]byte, pageSize)
	if n*pageSize < len(f.now) {
		copy(page, f.now[n*pageSize:])
	}
	return page
}

// change carries out do, which changes the bytes from first on up to end.
func (f *volatileFile) change(first, end int, do func()) {
	for n := first / pageSize; n*pageSize < end; n++ {
		if f.pages[n] == nil {
			f.pages[n] = [][]byte{f.page(n)}
		}
	}
	do()
	for n := first / pageSize; n*pageSize < end; n++ {
		f.pages[n] = append(f.pages[n], f.page(n))
	}
	f.sizes = append(f.sizes, len(f.now))
}

func (d *volatileDisk) writeAt(file *os.File, b []byte, offset int64) error {
	f, end := d.file(file.Name()), int(offset)+len(b)
	f.change(int(offset), end, func() {
		f.now = append(f.now, make([]byte, max(0, end-len(f.now)))...)
		copy(f.now[offset:], b)
	})
	return d.realDisk.writeAt(file, b, offset)
}

func (d *volatileDisk) truncate(file *os.File, size int64) error {
	f := d.file(file.Name())
	f.change(min(int(size), len(f.now)), max(int(size), len(f.now)), func() {
		f.now = append(f.now, make([]byte, max(0, int(size)-len(f.now)))...)[:size]
	})
	return d.realDisk.truncate(file, size)
}

func (d *volatileDisk) sync(file *os.File) error     { d.file(file.Name()).sync(); return nil }
func (d *volatileDisk) syncDirectory(string) error   { return nil } // names are not lost here
func (d *volatileDisk) rename(from, to string) error { panic("no copies are made here") }

// pick chooses one of n.
type pick func(n int) int

// losePower leaves in the files what pick chooses for each page, or for each sector
// of it.
func (d *volatileDisk) losePower(t *testing.T, choose pick, sectors bool) {
	t.Helper()
	for _, path := range slices.Sorted(maps.Keys(d.files)) {
		f := d.files[path]
		size := f.sizes[choose(len(f.sizes))]
		image := append(bytes.Clone(f.now), make([]byte, max(0, size+pageSize-len(f.now)))...)
		for _, n := range slices.Sorted(maps.Keys(f.pages)) {
			image = append(image, make([]byte, max(0, (n+1)*pageSize-len(image)))...)
			versions := f.pages[n]
			whole := versions[choose(len(versions))]
			for at := 0; at < pageSize; at += sectorSize {
				if sectors {
					whole = versions[choose(len(versions))]
				}
				copy(image[n*pageSize+at:], whole[at:at+sectorSize])
			}
		}
		f.now = image[:size]
		f.sync()
		require.NoError(t, os.WriteFile(path, f.now, 0o644))
	}
}

// clone returns what is known now, for another loss of the same pages.
func (d *volatileDisk) clone() map[string]*volatileFile {
	files := make(map[string]*volatileFile)
	for path, f := range d.files {
		copied := *f
		files[path] = &copied
	}
	return files
}

// unsynced returns how many pages may be lost.
func (d *volatileDisk) unsynced() (pages int) {
	for _, f := range d.files {
		pages += len(f.pages)
	}
	return pages
}

// machine is a store with one replica, and what it was told.
type machine struct {
	t        *testing.T
	disk     *volatileDisk
	store    *Store
	replica  *Replica
	versions []version // since the last sync, that of the sync first
}

// version is what the replica held after a change.
type version struct {
	sequence uint64
	content  []byte
}

func newMachine(t *testing.T, directory string) *machine {
	t.Helper()
	m := &machine{t: t, disk: newVolatileDisk(), versions: []version{{}}}
	var err error
	m.store, err = open(directory, Options{Log: slog.New(slog.DiscardHandler)}, m.disk)
	require.NoError(t, err)
	return m
}

// begin makes a new replica, whose files are durable and empty.
func (m *machine) begin() {
	require.NoError(m.t, m.store.Delete(chunk))
	clear(m.disk.files)
	var err error
	m.replica, err = m.store.Create(chunk, epoch)
	require.NoError(m.t, err)
	m.versions = []version{{}}
	m.sync()
}

func (m *machine) last() version { return m.versions[len(m.versions)-1] }

func (m *machine) write(offset, length int) {
	v := m.last()
	w := makeWrite(v.sequence+1, uint64(offset), pattern(byte(v.sequence), length))
	_, err := m.replica.Write(w)
	require.NoError(m.t, err)
	m.versions = append(m.versions, version{w.Sequence, applyTo(v.content, w)})
}

// truncate cuts the replica as Replica.Truncate does before its sync. Nothing is
// written before that.
func (m *machine) truncate(length int) {
	v := m.last()
	require.NoError(m.t, m.replica.lock())
	require.NoError(m.t, m.replica.truncate(epoch, uint64(length)))
	m.replica.unlock()
	m.versions = append(m.versions, version{v.sequence, v.content[:min(length, len(v.content))]})
}

func (m *machine) sync() {
	require.NoError(m.t, m.replica.Sync())
	m.versions = m.versions[len(m.versions)-1:]
}

// restart ends the process, and starts it on what the files hold.
func (m *machine) restart() {
	m.replica.closeFiles()
	m.store.replicas = make(map[uint64]*Replica)
	m.store.bytes.Store(0)
	m.store.opened.Purge()
	m.store.evicted = nil
	require.NoError(m.t, m.store.scanReplica(chunk, map[string]bool{dataSuffix: true, sumsSuffix: true}))
	r, err := m.store.Get(chunk)
	require.NoError(m.t, err, "what was synced is gone")
	m.replica = r
}

// check says whether the replica claims to be whole, and fails if it claims more
// than it has, or shows bytes that are older than the last sync.
func (m *machine) check(what string) (whole bool) {
	m.t.Helper()
	state := m.replica.State()
	got, corrupt := contentWithDamage(m.t, m.replica)
	if !state.Torn && !state.Doubtful {
		for _, v := range m.versions {
			if v.sequence == state.Sequence && equalBut(corrupt, v.content, got) {
				return len(corrupt) == 0
			}
		}
		m.t.Fatalf("%s: the replica says that it is as after write %d, and is not", what, state.Sequence)
	}
	for start := 0; start < len(got); start += wire.BlockSize {
		block := got[start:min(start+wire.BlockSize, len(got))]
		seen := slices.Contains(corrupt, uint64(start/wire.BlockSize))
		for _, v := range m.versions {
			end := min(start+wire.BlockSize, len(v.content))
			seen = seen || start < end && bytes.HasPrefix(v.content[start:end], block) // it may be cut
		}
		if !seen {
			m.t.Fatalf("%s: the block at %d matches its checksum, and is nothing that was there since the last sync", what, start)
		}
	}
	return false
}

// equalBut compares all blocks but those which are corrupt.
func equalBut(corrupt []uint64, a, b []byte) bool {
	if len(a) != len(b) {
		return false
	}
	a, b = bytes.Clone(a), bytes.Clone(b)
	for _, block := range corrupt {
		for _, c := range [][]byte{a, b} {
			clear(c[block*wire.BlockSize : min((block+1)*wire.BlockSize, uint64(len(c)))])
		}
	}
	return bytes.Equal(a, b)
}

// keepsWhatWasSynced fails if a block that was not written since the last sync is
// not as it was.
func (m *machine) keepsWhatWasSynced(what string) {
	m.t.Helper()
	got, corrupt := contentWithDamage(m.t, m.replica)
	synced := m.versions[0].content
	for start := 0; start < len(synced); start += wire.BlockSize {
		end := min(start+wire.BlockSize, len(synced))
		same := func(v version) bool {
			return len(v.content) >= end && bytes.Equal(v.content[start:min(start+wire.BlockSize, len(v.content))], synced[start:end])
		}
		if !slices.ContainsFunc(m.versions, func(v version) bool { return !same(v) }) {
			require.True(m.t, len(got) >= end && bytes.Equal(got[start:end], synced[start:end]) && !slices.Contains(corrupt, uint64(start/wire.BlockSize)),
				"%s: the block at %d was synced and not touched since, and is lost", what, start)
		}
	}
}

// The order of the issue: the headers reach the disk, the checksums and the data of
// an earlier write do not. And every other one: each page on the disk or not.
func TestPowerLossLeavesAnyOfThePages(t *testing.T) {
	m := newMachine(t, t.TempDir())
	orders, claimed := 0, 0
	m.begin()
	m.write(0, 3*pageSize)
	m.sync()
	m.write(0, pageSize)
	m.write(2*pageSize, pageSize+100)
	m.write(pageSize+10, 20)
	written := m.disk.clone()
	for subset := range 1 << m.disk.unsynced() {
		m.disk.files = written
		m.disk.files = m.disk.clone()
		bit := 0
		m.disk.losePower(t, func(n int) int { // the newest or the oldest of a page
			if subset>>bit&1 == 1 {
				bit++
				return n - 1
			}
			bit++
			return 0
		}, false)
		m.restart()
		what := fmt.Sprintf("pages %b", subset)
		if m.check(what) {
			claimed++
		}
		m.keepsWhatWasSynced(what)
		orders++
	}
	t.Logf("%d orders; in %d of them the replica was whole", orders, claimed)
	require.Greater(t, claimed, 1)
	require.Less(t, claimed, orders)
	require.NoError(t, m.store.Close())
}

func TestPowerLossAtRandom(t *testing.T) {
	m := newMachine(t, t.TempDir())
	const ordersOfOne = 8 // of one history
	whole, seeds := 0, 400
	if testing.Short() {
		seeds = 100
	}
	for seed := range seeds {
		random := rand.New(rand.NewPCG(uint64(seed), 1))
		what := fmt.Sprintf("seed %d", seed)
		m.begin()
		for left := random.IntN(14); left > 0; left-- {
			switch random.IntN(8) {
			case 0, 1:
				m.sync()
			case 2:
				m.truncate(random.IntN(len(m.last().content) + 1))
				if left > 1 {
					m.sync()
				}
			case 3:
				m.write(random.IntN(12)*pageSize, (1+random.IntN(3))*pageSize)
			default:
				m.write(random.IntN(40_000), 1+random.IntN(9000))
			}
		}
		good, written := false, m.disk.clone()
		for loss := 0; loss < ordersOfOne || random.IntN(3) == 0; loss++ {
			if loss < ordersOfOne { // the others while it recovers
				m.disk.files = written
				m.disk.files = m.disk.clone()
			}
			m.disk.losePower(t, random.IntN, random.IntN(2) == 0)
			m.restart()
			if good = m.check(what); good {
				whole++
			}
			m.keepsWhatWasSynced(what)
		}
		if good { // and it can be written again
			state := m.replica.State()
			i := slices.IndexFunc(m.versions, func(v version) bool {
				return v.sequence == state.Sequence && uint64(len(v.content)) == state.Length
			})
			m.versions = m.versions[:i+1]
			m.write(random.IntN(20_000), 5000)
			m.sync()
			m.disk.losePower(t, random.IntN, false)
			m.restart()
			require.True(t, m.check(what), what)
		}
	}
	require.Greater(t, whole, seeds/2)
	require.NoError(t, m.store.Close())
}
