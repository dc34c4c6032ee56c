package store

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"
)

// TestALogThatIsLongerThanItsRecords starts from what a process that was killed
// leaves: a log whose records end in the middle of zeros, after one that does
// and one that does not fit into what was written ahead.
func TestALogThatIsLongerThanItsRecords(t *testing.T) {
	directory := t.TempDir()
	s := open(t, directory)
	defer s.Close()
	for i, size := range []int{100, logAhead + 100, 100} {
		b := s.NewBatch()
		require.NoError(t, b.Set(fmt.Append(nil, i), make([]byte, size)))
		p, err := s.Commit(b)
		require.NoError(t, err)
		require.NoError(t, p.Wait())

		killed := filepath.Join(t.TempDir(), "copy")
		require.NoError(t, os.CopyFS(killed, os.DirFS(directory)))
		logs, err := filepath.Glob(filepath.Join(killed, "*.log"))
		require.NoError(t, err)
		require.NotEmpty(t, logs)
		for _, log := range logs {
			info, err := os.Stat(log)
			require.NoError(t, err)
			require.Zero(t, info.Size()%logAhead, "it was written ahead")
		}
		again := open(t, killed)
		for j := range i + 1 {
			value, found, err := again.Get(fmt.Append(nil, j))
			require.NoError(t, err)
			require.True(t, found)
			require.Len(t, value, []int{100, logAhead + 100, 100}[j])
		}
		require.NoError(t, again.Close())
	}
}

func TestOnlyLogsAreWrittenAhead(t *testing.T) {
	fs := logsAhead{vfs.Default}
	lengths := func(f vfs.File, err error) (before, after int64) {
		require.NoError(t, err)
		defer f.Close()
		info, err := f.Stat()
		require.NoError(t, err)
		before = info.Size()
		_, err = f.Write([]byte("record"))
		require.NoError(t, err)
		info, err = f.Stat()
		require.NoError(t, err)
		return before, info.Size()
	}
	name := func(s string) string { return filepath.Join(t.TempDir(), s) }
	before, after := lengths(fs.Create(name("table"), "pebble-memtable-flush"))
	require.Equal(t, []int64{0, 6}, []int64{before, after})
	old := name("log")
	before, after = lengths(fs.Create(old, logCategory))
	require.Equal(t, []int64{0, logAhead}, []int64{before, after})
	before, after = lengths(fs.ReuseForWrite(old, name("new"), logCategory))
	require.Equal(t, []int64{logAhead, logAhead}, []int64{before, after}, "it was written before")
}
