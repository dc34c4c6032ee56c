package replica

import (
	"log/slog"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"waggle/dfs/datapath/read"
	"waggle/dfs/wire"
)

// failingDisk fails one sync as the kernel does: once, and the next one succeeds.
type failingDisk struct {
	realDisk
	fail bool
}

func (d *failingDisk) sync(f *os.File) error {
	if d.fail {
		d.fail = false
		return unix.EIO
	}
	return d.realDisk.sync(f)
}

func TestAFailedSyncIsNeverForgotten(t *testing.T) {
	directory, d := t.TempDir(), &failingDisk{}
	s, err := open(directory, Options{Log: slog.New(slog.DiscardHandler)}, d)
	require.NoError(t, err)
	r := newReplica(t, s)
	_, err = r.Write(makeWrite(1, 0, pattern(1, 9000)))
	require.NoError(t, err)
	d.fail = true
	require.ErrorIs(t, r.Sync(), unix.EIO)
	require.ErrorIs(t, r.Sync(), ErrDoubtful, "the pages are not on the disk")
	_, err = r.Write(makeWrite(2, 0, []byte("more")))
	require.ErrorIs(t, err, ErrDoubtful)
	_, err = r.View(0, 1, nil, func(read.Range) error { return nil })
	require.ErrorIs(t, err, ErrDoubtful)
	require.ErrorIs(t, r.Adopt(r.State(), r.State()), ErrChanged)

	require.NoError(t, s.Close())
	s = openStore(t, directory)
	r, err = s.Get(chunk)
	require.NoError(t, err)
	require.True(t, r.State().Doubtful, "also after a restart")
	_, err = r.Write(makeWrite(2, 0, []byte("more")))
	require.ErrorIs(t, err, ErrDoubtful)

	// New files are made of it only where somebody says that there is nothing better.
	state, err := r.Rebuild(epoch + 1)
	require.NoError(t, err)
	require.Equal(t, State{Chunk: chunk, Epoch: epoch + 1, Sequence: 1, Length: 9000}, state)
	require.Equal(t, pattern(1, 9000), content(t, r))
	w := makeWrite(2, 100, []byte("more"))
	w.Epoch = epoch + 1
	_, err = r.Write(w)
	require.NoError(t, err)
	require.NoError(t, r.Sync())
}

func TestRebuildKeepsDamageFound(t *testing.T) {
	s := openStore(t, t.TempDir())
	r := newReplica(t, s)
	_, err := r.Write(makeWrite(1, 0, pattern(1, 20_000)))
	require.NoError(t, err)
	damage(t, s, 9000)
	_, err = r.Rebuild(epoch - 1)
	require.ErrorIs(t, err, ErrStaleEpoch)
	_, err = r.Rebuild(epoch)
	require.NoError(t, err)
	_, corrupt := contentWithDamage(t, r)
	require.Equal(t, []uint64{2}, corrupt)
}

func TestTheOldFormatIsRefusedInOneLine(t *testing.T) {
	directory := t.TempDir()
	s := openStore(t, directory)
	newReplica(t, s)
	require.NoError(t, s.Close())
	old := make([]byte, 16<<10)
	copy(old, "WGLR\x01") // as version 1 began
	require.NoError(t, os.WriteFile(s.path(chunk, sumsSuffix), old, 0o644))
	_, err := Open(directory, Options{})
	require.ErrorIs(t, err, ErrFormat)
	require.ErrorContains(t, err, "read them with the version that wrote them")
	require.NotContains(t, err.Error(), "\n")
	kept, err := os.ReadFile(s.path(chunk, sumsSuffix))
	require.NoError(t, err)
	require.Equal(t, old, kept)
}

// A sync behind another one, with nothing between them, has nothing to do.
func TestASyncOfWhatIsDurableIsFree(t *testing.T) {
	d := &countingDisk{}
	s, err := open(t.TempDir(), Options{}, d)
	require.NoError(t, err)
	r := newReplica(t, s)
	for _, write := range []bool{true, false, true} {
		if write {
			_, err := r.Write(makeWrite(r.State().Sequence+1, 0, pattern(1, wire.BlockSize)))
			require.NoError(t, err)
		}
		before := d.syncs
		require.NoError(t, r.Sync())
		require.Equal(t, write, d.syncs > before)
	}
	require.NoError(t, s.Close())
}

type countingDisk struct {
	realDisk
	syncs int
}

func (d *countingDisk) sync(f *os.File) error { d.syncs++; return d.realDisk.sync(f) }
