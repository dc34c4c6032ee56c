package replica

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

// BenchmarkWrite overwrites a replica from its start to its end again and again.
func BenchmarkWrite(b *testing.B) {
	for _, size := range []int{4 << 10, 64 << 10, 1 << 20} {
		b.Run(fmt.Sprintf("size=%d", size), func(b *testing.B) {
			s, err := Open(b.TempDir(), Options{})
			require.NoError(b, err)
			defer s.Close()
			r, err := s.Create(chunk, epoch)
			require.NoError(b, err)
			data := pattern(1, size)
			b.SetBytes(int64(size))
			sequence := uint64(0)
			for b.Loop() {
				sequence++
				w := makeWrite(sequence, sequence*uint64(size)%(16<<20), data)
				if _, err := r.Write(w); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
