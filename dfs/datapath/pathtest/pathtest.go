// Package pathtest is what the conformance suites of all operations share.
package pathtest

import (
	"errors"
	"testing"

	"waggle/bpf/refusal"
	"waggle/bpf/refusal/refusaltest"
	"waggle/dfs/datapath"
)

// SkipUnlessSupported ends a test of a path that this machine can't take. It fails
// the test where the path's programs are refused by a kernel that should have
// them: see refusaltest.
func SkipUnlessSupported(t testing.TB, path datapath.Info) {
	t.Helper()
	err := path.Supported()
	var refused *refusal.Error
	if errors.As(err, &refused) {
		refusaltest.SkipOrFail(t, err)
	}
	if err != nil {
		t.Skip(err)
	}
}
