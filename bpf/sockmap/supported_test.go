package sockmap

import (
	"os"
	"runtime"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"waggle/bpf/refusal"
)

// Where these fail, so would the paths; the machine this is developed for has all.
func TestSupported(t *testing.T) {
	requireRoot(t)
	assert.NoError(t, IngressSupported())
	assert.NoError(t, RelaySupported())
}

// Without rights the reason is said, and nothing is left behind.
func TestNotSupportedWithoutRights(t *testing.T) {
	requireRoot(t)
	refused := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread ends as another user
		const nobody = 65534
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, nobody, nobody, nobody); errno != 0 {
			refused <- errno
			return
		}
		refused <- IngressSupported()
		refused <- RelaySupported()
	}()
	err := <-refused
	require.ErrorIs(t, err, os.ErrPermission)
	require.ErrorContains(t, err, "control group")
	var reason *refusal.Error
	require.ErrorAs(t, err, &reason)
	require.Equal(t, refusal.NoRight, reason.Reason)
	require.ErrorContains(t, <-refused, "CAP_BPF")
}
