package replica

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"waggle/dfs/datapath/read"
	"waggle/dfs/wire"
)

const chunk, epoch = 0x1ab, 3

func openStore(t *testing.T, directory string) *Store {
	t.Helper()
	s, err := Open(directory, Options{})
	require.NoError(t, err)
	t.Cleanup(func() { s.Close() })
	return s
}

func newReplica(t *testing.T, s *Store) *Replica {
	t.Helper()
	r, err := s.Create(chunk, epoch)
	require.NoError(t, err)
	return r
}

func makeWrite(sequence, offset uint64, data []byte) Write {
	return Write{Epoch: epoch, Sequence: sequence, Offset: offset, Data: data, Sums: wire.AppendChecksums(nil, offset, data)}
}

func pattern(seed byte, n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{seed, 1}).Read(b)
	return b
}

// content reads the whole replica and fails if a block is corrupt.
func content(t *testing.T, r *Replica) []byte {
	t.Helper()
	all, corrupt := contentWithDamage(t, r)
	require.Empty(t, corrupt, "corrupt blocks")
	return all
}

// contentWithDamage reads the whole replica and returns the blocks that do not match
// their checksums beside it.
func contentWithDamage(t *testing.T, r *Replica) (all []byte, corrupt []uint64) {
	t.Helper()
	_, _, err := r.Checksums() // its files are open then
	require.NoError(t, err)
	require.NoError(t, r.Verify(func(int) error { return nil }, func(at uint64) { corrupt = append(corrupt, at/wire.BlockSize) }))
	for offset := uint64(0); offset < r.State().Length; offset += 1 << 20 {
		v, err := r.ViewDoubtful(offset, 1<<20, nil, func(data read.Range) error {
			b := make([]byte, data.Length)
			_, err := data.File.ReadAt(b, data.Offset)
			all = append(all, b...)
			return err
		})
		require.NoError(t, err)
		v.Release()
	}
	info, err := os.Stat(r.store.path(r.id, dataSuffix))
	require.NoError(t, err)
	require.EqualValues(t, len(all), info.Size(), "bytes behind the end would come back in a hole")
	return all, corrupt
}

// applyTo is what a write does, on a plain slice.
func applyTo(b []byte, w Write) []byte {
	if missing := int(w.Offset) + len(w.Data) - len(b); missing > 0 {
		b = append(bytes.Clone(b), make([]byte, missing)...)
	} else {
		b = bytes.Clone(b)
	}
	copy(b[w.Offset:], w.Data)
	return b
}

func TestWritesAreWhatAPlainSliceWouldHold(t *testing.T) {
	directory := t.TempDir()
	s := openStore(t, directory)
	r := newReplica(t, s)
	random := rand.New(rand.NewPCG(1, 2))
	var want []byte
	for sequence := uint64(1); sequence <= 300; sequence++ {
		if random.IntN(12) == 0 {
			length := random.IntN(len(want) + 1)
			_, err := r.Truncate(epoch, uint64(length))
			require.NoError(t, err)
			want = want[:length]
		}
		w := makeWrite(sequence, uint64(random.IntN(40<<10)), pattern(byte(sequence), 1+random.IntN(20<<10)))
		if random.IntN(3) == 0 {
			w = makeWrite(sequence, w.Offset&^4095, w.Data[:len(w.Data)&^4095])
			if len(w.Data) == 0 {
				w = makeWrite(sequence, uint64(len(want)), []byte("tail"))
			}
		}
		state, err := r.Write(w)
		require.NoError(t, err)
		want = applyTo(want, w)
		require.Equal(t, State{Chunk: chunk, Epoch: epoch, Sequence: sequence, Length: uint64(len(want))}, state)
		if sequence%20 == 0 {
			require.True(t, bytes.Equal(want, content(t, r)), "after write %d", sequence)
		}
		if sequence%50 == 0 {
			require.NoError(t, s.Close())
			s = openStore(t, directory)
			r, err = s.Get(chunk)
			require.NoError(t, err)
			require.Equal(t, state, r.State())
		}
	}
	require.True(t, bytes.Equal(want, content(t, r)))
	require.EqualValues(t, len(want), s.Bytes())
}

func TestLargestWriteAndReplica(t *testing.T) {
	r := newReplica(t, openStore(t, t.TempDir()))
	data := pattern(1, wire.MaxData)
	offset := uint64(wire.MaxChunkSize - wire.MaxData)
	_, err := r.Write(makeWrite(1, offset-1, data)) // touches one block more than it fills
	require.NoError(t, err)
	_, err = r.Write(makeWrite(2, offset, data))
	require.NoError(t, err)
	r.closeFiles()
	v, err := r.View(offset, wire.MaxData, nil, func(stored read.Range) error {
		got := make([]byte, stored.Length)
		_, err := stored.File.ReadAt(got, stored.Offset)
		require.True(t, bytes.Equal(data, got))
		return err
	})
	require.NoError(t, err)
	require.EqualValues(t, -1, wire.CheckChecksums(v.Sums, v.Offset, data))
	v.Release()
	_, err = r.Write(makeWrite(3, offset+1, data))
	require.ErrorIs(t, err, ErrInvalid)
	_, err = r.View(1, wire.MaxData, nil, nil)
	require.ErrorIs(t, err, ErrInvalid)
}

func TestSequencesAndEpochs(t *testing.T) {
	directory := t.TempDir()
	s := openStore(t, directory)
	r := newReplica(t, s)
	first := makeWrite(1, 0, []byte("first"))
	for range 2 { // the second time it is acknowledged again
		state, err := r.Write(first)
		require.NoError(t, err)
		require.EqualValues(t, 1, state.Sequence)
	}
	state, err := r.Write(makeWrite(3, 0, []byte("third")))
	require.ErrorIs(t, err, ErrOutOfOrder)
	require.EqualValues(t, 1, state.Sequence)

	_, err = r.Seal(epoch + 1)
	require.NoError(t, err)
	for range 2 { // before and after a restart
		state, err = r.Write(makeWrite(2, 0, []byte("second")))
		require.ErrorIs(t, err, ErrStaleEpoch)
		require.EqualValues(t, epoch+1, state.Epoch)
		_, err = r.Seal(epoch)
		require.ErrorIs(t, err, ErrStaleEpoch)
		_, err = r.Truncate(epoch, 0)
		require.ErrorIs(t, err, ErrStaleEpoch)
		_, err = s.Create(chunk, epoch)
		require.ErrorIs(t, err, ErrExists)
		crash(t, s)
		s = openStore(t, directory)
		r, err = s.Get(chunk)
		require.NoError(t, err)
	}
	same, err := s.Create(chunk, epoch+1)
	require.NoError(t, err)
	require.Same(t, r, same)
	require.Equal(t, "first", string(content(t, r)))
}

func TestBadWritesAreRefused(t *testing.T) {
	r := newReplica(t, openStore(t, t.TempDir()))
	bad := makeWrite(1, 100, pattern(1, 9000))
	bad.Data[5000] ^= 1
	for _, w := range []Write{bad, makeWrite(1, 0, nil), makeWrite(1, wire.MaxChunkSize, []byte("x"))} {
		_, err := r.Write(w)
		require.ErrorIs(t, err, ErrInvalid)
	}
	require.Equal(t, State{Chunk: chunk, Epoch: epoch}, r.State())
}

func TestDamageIsNotGivenAGoodChecksum(t *testing.T) {
	s := openStore(t, t.TempDir())
	r := newReplica(t, s)
	data := pattern(1, 10000)
	_, err := r.Write(makeWrite(1, 0, data))
	require.NoError(t, err)
	damage(t, s, 9000)

	for _, w := range []Write{makeWrite(2, 8200, []byte("inside")), makeWrite(2, 10000, []byte("behind")),
		makeWrite(2, 20000, []byte("far behind"))} {
		var corrupt *CorruptError
		_, err = r.Write(w)
		require.ErrorAs(t, err, &corrupt)
		require.EqualValues(t, 8192, corrupt.Offset)
	}
	require.EqualValues(t, 1, r.State().Sequence)
	_, err = r.Truncate(epoch, 9500)
	require.NoError(t, err)
	data = data[:9500]

	var found []uint64
	require.NoError(t, r.Verify(func(int) error { return nil }, func(at uint64) { found = append(found, at) }))
	require.Equal(t, []uint64{8192}, found)
	require.ErrorIs(t, r.RewriteBlock(State{Sequence: 7, Length: 9500}, 8192, data[8192:]), ErrChanged)
	require.ErrorIs(t, r.RewriteBlock(r.State(), 8192, data[8193:]), ErrInvalid)
	require.NoError(t, r.RewriteBlock(r.State(), 8192, data[8192:]))
	require.Equal(t, data, content(t, r))
}

// damage flips a bit of the replica's data file.
func damage(t *testing.T, s *Store, offset int64) {
	t.Helper()
	f, err := os.OpenFile(s.path(chunk, dataSuffix), os.O_RDWR, 0)
	require.NoError(t, err)
	defer f.Close()
	b := make([]byte, 1)
	_, err = f.ReadAt(b, offset)
	require.NoError(t, err)
	b[0] ^= 0x10
	_, err = f.WriteAt(b, offset)
	require.NoError(t, err)
}

func TestOneProcessOwnsADirectory(t *testing.T) {
	directory := t.TempDir()
	s := openStore(t, directory)
	_, err := Open(directory, Options{})
	require.ErrorContains(t, err, "in use by another chunk server")
	require.NoError(t, s.Close())
	openStore(t, directory)
}

func TestFullDisk(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root to mount a small file system")
	}
	directory := t.TempDir()
	require.NoError(t, unix.Mount("tmpfs", directory, "tmpfs", 0, "size=1m"))
	t.Cleanup(func() { require.NoError(t, unix.Unmount(directory, 0)) })
	s := openStore(t, directory)
	r := newReplica(t, s)
	var want []byte
	sequence := uint64(1)
	for {
		w := makeWrite(sequence, uint64(len(want)), pattern(byte(sequence), 50_001))
		state, err := r.Write(w)
		if err != nil {
			require.ErrorIs(t, err, unix.ENOSPC)
			require.Equal(t, State{Chunk: chunk, Epoch: epoch, Sequence: sequence - 1, Length: uint64(len(want))}, state)
			break
		}
		want = applyTo(want, w)
		sequence++
	}
	require.Greater(t, len(want), 500_000)
	require.True(t, bytes.Equal(want, content(t, r)), "what was acknowledged must be intact on a full disk")
	_, err := s.Create(chunk+1, epoch)
	for id := uint64(chunk + 2); err == nil; id++ { // headers need space too
		_, err = s.Create(id, epoch)
	}
	require.ErrorIs(t, err, unix.ENOSPC)
	for _, id := range s.IDs() {
		if id != chunk {
			require.NoError(t, s.Delete(id))
		}
	}
	_, err = r.Truncate(epoch, 10)
	require.NoError(t, err)
	_, err = r.Write(makeWrite(sequence, 10, []byte("again")))
	require.NoError(t, err)
	require.Equal(t, append(want[:10:10], "again"...), content(t, r))
	require.NoError(t, s.Close())
}

func TestOpenFilesAreBoundedAndSafeInUse(t *testing.T) {
	directory := t.TempDir()
	before := descriptors(t)
	s, err := Open(directory, Options{OpenFiles: 4})
	require.NoError(t, err)
	const replicas = 32
	for id := range uint64(replicas) {
		_, err := s.Create(id+1, epoch)
		require.NoError(t, err)
	}
	var group sync.WaitGroup
	for worker := range 8 {
		group.Go(func() {
			random := rand.New(rand.NewPCG(uint64(worker), 1))
			for range 300 {
				r, err := s.Get(1 + uint64(random.IntN(replicas)))
				if err != nil {
					t.Error(err)
					return
				}
				w := makeWrite(r.State().Sequence+1, uint64(random.IntN(10000)), []byte("some bytes"))
				if _, err := r.Write(w); err != nil && !errors.Is(err, ErrOutOfOrder) {
					t.Error(err)
				}
				var file *os.File
				v, err := r.View(0, 20000, nil, func(data read.Range) error { file = data.File; return nil })
				if err != nil {
					t.Error(err)
					return
				}
				if v.Length > 0 { // the file is still open, whatever the cache did meanwhile
					if _, err := file.ReadAt(make([]byte, v.Length), 0); err != nil && err != io.EOF {
						t.Error(err)
					}
				}
				v.Release()
			}
		})
	}
	group.Wait()
	require.LessOrEqual(t, descriptors(t)-before, 2*4+1)
	for _, id := range s.IDs() {
		r, err := s.Get(id)
		require.NoError(t, err)
		content(t, r)
		require.NoError(t, s.Delete(id))
	}
	require.Zero(t, s.Bytes())
	require.NoError(t, s.Close())
	require.Equal(t, before, descriptors(t), "a descriptor leaked")
	left, err := filepath.Glob(filepath.Join(directory, replicasName, "*", "*"))
	require.NoError(t, err)
	require.Empty(t, left)
}

func descriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	return len(entries)
}

func TestUnusableReplicasAreSetAside(t *testing.T) {
	directory := t.TempDir()
	s := openStore(t, directory)
	r := newReplica(t, s)
	_, err := r.Write(makeWrite(1, 0, []byte("bytes")))
	require.NoError(t, err)
	require.NoError(t, s.Close())
	require.NoError(t, os.Truncate(s.path(chunk, sumsSuffix), 10))
	require.NoError(t, os.WriteFile(s.path(chunk+256, dataSuffix), nil, 0o644)) // a create was interrupted

	s = openStore(t, directory)
	require.Empty(t, s.IDs())
	kept, err := os.ReadFile(filepath.Join(directory, damagedName, filepath.Base(s.path(chunk, dataSuffix))))
	require.NoError(t, err)
	require.Equal(t, "bytes", string(kept))
	require.NoFileExists(t, s.path(chunk+256, dataSuffix))
}

func FuzzHeader(f *testing.F) {
	plain := header{Generation: 4, State: State{Chunk: 1, Epoch: 2, Sequence: 3, Length: 5000, Torn: true}}
	change := plain
	change.Intent = &intent{Sequence: 4, NewLength: 9000, Offset: 4000, Length: 5000, Sums: make([]byte, 12)}
	f.Add(plain.append(nil))
	f.Add(change.append(nil))
	f.Add([]byte(headerMagic))
	f.Fuzz(func(t *testing.T, b []byte) {
		var h header
		if h.parse(b) != nil {
			// A checksum hides the rest from random bytes: look behind it too.
			if len(b) < headerSize || h.parse(withChecksum(b)) != nil {
				return
			}
		}
		var again header
		require.NoError(t, again.parse(h.append(nil)))
		require.Equal(t, h, again)
		if h.Intent != nil {
			require.LessOrEqual(t, h.Intent.Offset+uint64(h.Intent.Length), uint64(wire.MaxChunkSize))
		}
		_, _ = findNewest(b)
	})
}

func withChecksum(b []byte) []byte {
	b = bytes.Clone(b)
	if n := uint64(headerSize) + uint64(le.Uint32(b[headerSize-8:])); n <= uint64(len(b)) {
		le.PutUint32(b[headerSize-4:], slotChecksum(b[:n]))
	}
	return b
}
