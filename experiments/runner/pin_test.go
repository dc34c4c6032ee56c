package runner

import (
	"fmt"
	"os/exec"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"waggle/experiments/spec"
)

func TestPlaced(t *testing.T) {
	all := []int{0, 2, 4, 6}
	require.Equal(t, all, placed(spec.PinNone, roleClient, all))
	require.Equal(t, []int{0}, placed(spec.PinTogether, roleClient, all))
	require.Equal(t, []int{0}, placed(spec.PinTogether, roleMeta, all))
	require.Equal(t, []int{4, 6}, placed(spec.PinApart, roleClient, all))
	require.Equal(t, []int{0, 2}, placed(spec.PinApart, roleChunk, all))
	require.Equal(t, []int{0}, placed(spec.PinApart, roleFloor, []int{0, 2, 4}))
}

func TestPinProcess(t *testing.T) {
	if runtime.NumCPU() < 2 {
		t.Skip("needs two processors")
	}
	all, err := ownProcessors()
	require.NoError(t, err)
	c := exec.Command("sleep", "60")
	require.NoError(t, c.Start())
	defer func() { _ = c.Process.Kill(); _ = c.Wait() }()
	for _, want := range [][]int{all[:1], all[1:], all} {
		require.NoError(t, pinProcess(c.Process.Pid, setOf(want)))
		var got unix.CPUSet
		require.NoError(t, unix.SchedGetaffinity(c.Process.Pid, &got))
		require.Equal(t, setOf(want), got, fmt.Sprint(want))
	}
}
