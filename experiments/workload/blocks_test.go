package workload

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"waggle/experiments/spec"
)

// readings is a file that notes which parts of it are read.
type readings struct {
	file
	parts [][2]int64
}

func (r *readings) readAt(_ context.Context, b []byte, offset int64) error {
	r.parts = append(r.parts, [2]int64{offset, int64(len(b))})
	return nil
}

func TestEachFileIsGoneThroughOnce(t *testing.T) {
	const size = 2<<20 + 5
	files := []*readings{{}, {}}
	trial := &trial{job: &Job{Parameters: spec.Parameters{Workload: spec.SequentialRead, Files: 2, Clients: 3, FileBytes: size}}}
	for range 3 {
		trial.workers = append(trial.workers, &blockReader{files: []file{files[0], files[1]}})
	}
	require.NoError(t, trial.goThrough(t.Context()))
	for _, f := range files {
		require.Equal(t, [][2]int64{{0, 1 << 20}, {1 << 20, 1 << 20}, {2 << 20, 5}}, f.parts)
	}
}
