package workload

import (
	"testing"

	"github.com/stretchr/testify/require"

	"waggle/dfs/wire"
)

func TestCheckFindsEveryFlippedByte(t *testing.T) {
	p := newPattern()
	s := source{file: 3}
	for _, offset := range []int64{0, 1, 65536, 65537, 1 << 32} {
		for _, n := range []int{1, 4095, patternLength, 2*patternLength + 1} {
			b := append([]byte(nil), p.piece(s, offset, n)...)
			require.NoError(t, p.check(s, offset, b))
			for _, i := range []int{0, n / 2, n - 1} {
				b[i] ^= 0x10
				require.ErrorIs(t, p.check(s, offset, b), errWrongContent)
				b[i] ^= 0x10
			}
		}
	}
	b := append([]byte(nil), p.piece(s, 100, 50)...)
	b[7]++
	require.ErrorContains(t, p.check(s, 100, b), "file 3, byte 107 is")
}

func TestOtherPlacesHaveOtherContent(t *testing.T) {
	p := newPattern()
	block := func(file, generation uint64, n int64) []byte {
		return p.piece(source{file, generation}, n*wire.BlockSize, wire.BlockSize)
	}
	for n := int64(1); n < 65537; n++ {
		require.Error(t, p.check(source{0, 0}, 0, block(0, 0, n)), "block %d", n)
	}
	for file := uint64(1); file < 1000; file++ {
		require.Error(t, p.check(source{0, 0}, 0, block(file, 0, 0)), "file %d", file)
		require.Error(t, p.check(source{0, 0}, 0, block(0, file, 0)), "generation %d", file)
	}
}

func BenchmarkCheck1MiB(b *testing.B) {
	p := newPattern()
	data := append([]byte(nil), p.piece(source{}, 0, 1<<20)...)
	b.SetBytes(1 << 20)
	for b.Loop() {
		if err := p.check(source{}, 0, data); err != nil {
			b.Fatal(err)
		}
	}
}
