package store

import (
	"fmt"
	"log/slog"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t *testing.T, directory string) *Embedded {
	s, err := OpenEmbedded(directory, 1<<20, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	return s
}

func set(t *testing.T, s Store, keys ...string) Pending {
	b := s.NewBatch()
	for _, k := range keys {
		require.NoError(t, b.Set([]byte(k), []byte("value of "+k)))
	}
	p, err := s.Commit(b)
	require.NoError(t, err)
	return p
}

func keys(t *testing.T, r Reader, from, to string) (found []string) {
	var start, end []byte
	if from != "" {
		start = []byte(from)
	}
	if to != "" {
		end = []byte(to)
	}
	require.NoError(t, r.Scan(start, end, func(k, v []byte) bool {
		require.Equal(t, "value of "+string(k), string(v))
		found = append(found, string(k))
		return true
	}))
	return found
}

func TestBatchesAreSeenAtOnceAndViewsStay(t *testing.T) {
	directory := t.TempDir()
	s := open(t, directory)
	before := s.View()
	pending := set(t, s, "b", "a", "c")
	require.Equal(t, []string{"a", "b", "c"}, keys(t, s, "", ""))
	require.Equal(t, []string{"b"}, keys(t, s, "b", "c"))
	require.Empty(t, keys(t, before, "", ""))
	_, found, err := before.Get([]byte("a"))
	require.NoError(t, err)
	require.False(t, found)
	require.NoError(t, pending.Wait())

	b := s.NewBatch()
	require.NoError(t, b.Delete([]byte("b")))
	require.NoError(t, b.Set([]byte("empty"), nil))
	pending, err = s.Commit(b)
	require.NoError(t, err)
	require.NoError(t, pending.Wait())
	require.NoError(t, before.Close())
	require.NoError(t, s.Close())

	s = open(t, directory)
	defer s.Close()
	require.Equal(t, []string{"a", "c"}, keys(t, s, "", "d"))
	value, found, err := s.Get([]byte("empty"))
	require.NoError(t, err)
	require.True(t, found)
	require.Empty(t, value)
}

func TestScanStops(t *testing.T) {
	s := open(t, t.TempDir())
	defer s.Close()
	require.NoError(t, set(t, s, "a", "b").Wait())
	visits := 0
	require.NoError(t, s.Scan(nil, nil, func(_, _ []byte) bool { visits++; return false }))
	require.Equal(t, 1, visits)
}

func TestASecondServerOnTheDirectoryIsRefused(t *testing.T) {
	directory := t.TempDir()
	s := open(t, directory)
	defer s.Close()
	_, err := OpenEmbedded(directory, 1<<20, slog.New(slog.DiscardHandler))
	require.ErrorContains(t, err, fmt.Sprintf("metadata directory %s is in use: stop the server", directory))
}

func TestPrefixEnd(t *testing.T) {
	require.Equal(t, []byte{1, 3}, PrefixEnd([]byte{1, 2}))
	require.Equal(t, []byte{2}, PrefixEnd([]byte{1, 255}))
	require.Nil(t, PrefixEnd([]byte{255}))
}
