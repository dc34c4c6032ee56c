package refusal

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

var everyKernel = Version{2, 6}

func explained(t *testing.T, f Feature, cause error) *Error {
	t.Helper()
	var e *Error
	require.ErrorAs(t, f.Explain(cause), &e)
	assert.ErrorIs(t, e, cause, "the cause is kept")
	assert.Contains(t, e.Error(), f.Name)
	return e
}

func TestYesIsNil(t *testing.T) {
	assert.NoError(t, Feature{Name: "anything"}.Explain(nil))
}

func TestReasons(t *testing.T) {
	assert.Equal(t, OldKernel, explained(t, Feature{Name: "a", Since: Version{99, 0}}, unix.EINVAL).Reason)
	assert.Equal(t, Refused, explained(t, Feature{Name: "a", Since: everyKernel}, unix.EINVAL).Reason)
	for _, passing := range []error{unix.ENOMEM, unix.EMFILE, fmt.Errorf("open: %w", unix.EAGAIN)} {
		assert.Equal(t, Unknown, explained(t, Feature{Name: "a", Since: everyKernel}, passing).Reason, passing)
	}
}

func TestMissingRightIsNamed(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give up rights that it has")
	}
	failed := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread ends as another user
		const nobody = 65534
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, nobody, nobody, nobody); errno != 0 {
			failed <- errno
			return
		}
		failed <- Feature{Name: "a", Since: everyKernel, Needs: []Capability{BPF, NetAdmin}}.Explain(unix.EPERM)
	}()
	var e *Error
	require.ErrorAs(t, <-failed, &e)
	assert.Equal(t, NoRight, e.Reason)
	assert.Equal(t, []Capability{BPF, NetAdmin}, e.Missing)
	assert.ErrorContains(t, e, "CAP_BPF and CAP_NET_ADMIN")
	assert.ErrorIs(t, e, os.ErrPermission)
}

func TestVersions(t *testing.T) {
	for release, version := range map[string]Version{"6.18.44-x": {6, 18}, "6.1.0-18-amd64": {6, 1}, "5.15": {5, 15}, "7.0-rc1": {7, 0}} {
		got, err := ParseVersion(release)
		require.NoError(t, err)
		assert.Equal(t, version, got)
	}
	for _, bad := range []string{"", "6", "x.y", "-1.2", "6.x"} {
		_, err := ParseVersion(bad)
		assert.Error(t, err, bad)
	}
	assert.True(t, Version{6, 1}.Before(Version{6, 13}))
	assert.True(t, Version{5, 20}.Before(Version{6, 0}))
	assert.False(t, Version{6, 13}.Before(Version{6, 13}))
	_, err := Running()
	assert.NoError(t, err)
}

func FuzzParseVersion(f *testing.F) {
	f.Add("6.18.44")
	f.Fuzz(func(t *testing.T, release string) {
		if v, err := ParseVersion(release); err == nil && (v.Major < 0 || v.Minor < 0) {
			t.Error(errors.New("a version is negative"), v)
		}
	})
}
