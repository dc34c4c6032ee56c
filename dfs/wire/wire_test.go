package wire

import (
	"bytes"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
)

func someRequest() LookupRequest {
	q := LookupRequest{ID: 7, Session: 8, Start: RootInode, ChunkIndex: 9, Flags: WantInline, Components: 2}
	q.Names[0] = HashKey{1}.Hash([]byte("usr"))
	q.Names[1] = HashKey{1}.Hash([]byte("bin"))
	return q
}

func someReplicas() []Replica {
	return []Replica{
		{Address: netip.MustParseAddrPort("10.1.2.3:4000"), Server: 1},
		{Address: netip.MustParseAddrPort("[fd00::1]:4001"), Server: 2},
	}
}

func someAnswer() LookupAnswer {
	return LookupAnswer{
		ID: 7, Status: LookupOK, Walked: 2,
		Attributes: Attributes{Inode: 12, Size: 3, ModifiedNs: -1, ChangedNs: 5, Mode: 0o100644, UID: 1, GID: 2,
			Links: 1, Version: 4, ChunkSize: DefaultChunkSize, Replication: 3, InlineSize: 3},
		Location: Location{Chunk: 99, Epoch: 3, Index: 9, Replicas: someReplicas()},
		Inline:   []byte("abc"),
	}
}

func TestLookupDatagramsSurviveTheWire(t *testing.T) {
	q, a := someRequest(), someAnswer()
	var gotQ LookupRequest
	require.NoError(t, gotQ.Parse(q.Append(nil)))
	require.Equal(t, q, gotQ)

	datagram := a.Append(nil)
	require.Len(t, datagram, AnswerSize+3)
	var gotA LookupAnswer
	require.NoError(t, gotA.Parse(datagram))
	require.Equal(t, a, gotA)
}

func TestBadLookupDatagramsAreRefused(t *testing.T) {
	damage := func(at int, b byte) []byte {
		q := someRequest()
		datagram := q.Append(nil)
		datagram[at] = b
		return datagram
	}
	for name, datagram := range map[string][]byte{
		"empty":         {},
		"truncated":     damage(0, 'W')[:InlineRequestSize-1],
		"oversized":     append(damage(0, 'W'), 0),
		"magic":         damage(0, 'X'),
		"version":       damage(4, Version+1),
		"components":    damage(5, MaxComponents+1),
		"flags":         damage(7, 0x80),
		"reserved":      damage(36, 1),
		"trailing name": damage(RequestSize-1, 1),
		"not padded":    damage(0, 'W')[:RequestSize],
	} {
		var q LookupRequest
		require.ErrorIs(t, q.Parse(datagram), ErrMalformed, name)
	}
}

func TestFramesSurviveTheWire(t *testing.T) {
	data := bytes.Repeat([]byte("waggle"), 2000)
	f := Frame{Type: FrameWrite, Flags: FlagSync, ID: 1, Chunk: 2, Epoch: 3, Offset: 100, Length: uint32(len(data)), Sequence: 4}
	f.Extra = AppendWriteExtra(nil, someReplicas(), AppendChecksums(nil, f.Offset, data))

	var got Frame
	require.NoError(t, got.Receive(bytes.NewReader(f.Append(nil)), nil))
	require.Equal(t, f, got)

	next, sums, err := got.ParseWriteExtra()
	require.NoError(t, err)
	require.Equal(t, someReplicas(), next)
	require.EqualValues(t, -1, CheckChecksums(sums, f.Offset, data))
	data[BlockSize] ^= 1
	require.EqualValues(t, BlockSize, CheckChecksums(sums, f.Offset, data))
}

func TestPieces(t *testing.T) {
	for _, c := range []struct{ offset, length, want int }{
		{0, 0, 0}, {0, 1, 1}, {0, BlockSize, 1}, {0, BlockSize + 1, 2}, {BlockSize - 1, 1, 1}, {BlockSize - 1, 2, 2}, {5, 2 * BlockSize, 3},
	} {
		require.Equal(t, c.want, Pieces(uint64(c.offset), uint32(c.length)), "%+v", c)
		require.Len(t, AppendChecksums(nil, uint64(c.offset), make([]byte, c.length)), 4*c.want, "%+v", c)
	}
}

func TestDamagedFramesAreRefused(t *testing.T) {
	f := Frame{Type: FrameRead, Chunk: 2, Length: 10, Extra: []byte("extra")}
	whole := f.Append(nil)
	for at := range whole {
		damaged := bytes.Clone(whole)
		damaged[at] ^= 0x40
		var got Frame
		require.Error(t, got.Receive(bytes.NewReader(damaged), nil), "byte %d", at)
		require.Error(t, got.Receive(bytes.NewReader(whole[:at]), nil), "cut at %d", at)
	}
}

func TestNames(t *testing.T) {
	for _, name := range []string{"a", "\xff\xfe", string(bytes.Repeat([]byte("n"), MaxName))} {
		require.NoError(t, CheckName([]byte(name)))
	}
	for _, name := range []string{"", ".", "..", "a/b", "a\x00", string(bytes.Repeat([]byte("n"), MaxName+1))} {
		require.Error(t, CheckName([]byte(name)), "%q", name)
	}
}

func FuzzLookupRequest(f *testing.F) {
	q := someRequest()
	f.Add(q.Append(nil))
	f.Fuzz(func(t *testing.T, datagram []byte) {
		var q LookupRequest
		if q.Parse(datagram) == nil {
			again := q.Append(nil)
			require.Len(t, again, len(datagram))
			require.Equal(t, datagram[:RequestSize], again[:RequestSize])
		}
	})
}

func FuzzLookupAnswer(f *testing.F) {
	a := someAnswer()
	f.Add(a.Append(nil))
	f.Fuzz(func(t *testing.T, datagram []byte) {
		var a, again LookupAnswer
		if a.Parse(datagram) == nil {
			require.NoError(t, again.Parse(a.Append(nil)))
			require.Equal(t, a, again)
		}
	})
}

func FuzzFrame(f *testing.F) {
	frame := Frame{Type: FrameWrite, Length: 3, Extra: AppendWriteExtra(nil, someReplicas(), make([]byte, 4))}
	f.Add(frame.Append(nil))
	unsummed := Frame{Type: FrameWrite, Flags: FlagUnsummed, Length: 3, Extra: AppendWriteExtra(nil, someReplicas(), nil)}
	f.Add(unsummed.Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		var got Frame
		if got.Receive(bytes.NewReader(b), nil) == nil {
			require.Equal(t, b[:HeaderSize+len(got.Extra)], got.Append(nil))
			got.ParseWriteExtra()
		}
	})
}
