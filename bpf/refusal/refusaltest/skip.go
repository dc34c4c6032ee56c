// Package refusaltest skips tests on machines that can't run them, and fails them
// on machines that should: a skip must not hide a fault.
package refusaltest

import (
	"errors"
	"testing"

	"waggle/bpf/refusal"
)

// SkipOrFail ends a test that needs a feature which is not there. The test is
// skipped where the kernel is too old or a right is missing. It fails where the
// kernel is new enough, where it could not be found out, and for any error that
// is no refusal. Nil goes on.
func SkipOrFail(t testing.TB, err error) {
	t.Helper()
	var refused *refusal.Error
	switch {
	case err == nil:
	case errors.As(err, &refused) && (refused.Reason == refusal.OldKernel || refused.Reason == refusal.NoRight):
		t.Skip(err)
	default:
		t.Fatalf("this machine should be able to run the test: %v", err)
	}
}
