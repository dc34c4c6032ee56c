package machine

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestInspectFindsEverythingOnLinux(t *testing.T) {
	f := Inspect()
	require.Empty(t, f.Unknown)
	require.NotEmpty(t, f.Kernel)
	require.Positive(t, f.CPUs)
	require.Greater(t, f.MemoryBytes, uint64(64<<20))
	require.Contains(t, f.Capabilities, "CAP_BPF")
}

func TestCgroup2Mount(t *testing.T) {
	mount, ok := cgroup2Mount("36 25 0:31 / /sys/fs/cgroup/unified rw,nosuid - cgroup2 cgroup2 rw")
	require.True(t, ok)
	require.Equal(t, "/sys/fs/cgroup/unified", mount)
	for _, line := range []string{"", "-", " - cgroup2 x", "36 25 0:31 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu"} {
		_, ok := cgroup2Mount(line)
		require.False(t, ok, line)
	}
}
