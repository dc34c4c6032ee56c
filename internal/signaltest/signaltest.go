// Package signaltest is for tests that end programs with signals which the
// surroundings of the tests may ignore: a shell starts what runs in the
// background with SIGINT ignored, and nohup with SIGHUP.
package signaltest

import (
	"os"
	"os/signal"
	"testing"
)

// Heed has programs that the test starts not ignore these signals. The test
// itself ignores them until it ends.
func Heed(t testing.TB, signals ...os.Signal) {
	t.Helper()
	// A signal that is ignored stays so in the programs that a process starts; one
	// that the process handles is at its default there.
	handled := make(chan os.Signal, 1)
	signal.Notify(handled, signals...)
	t.Cleanup(func() { signal.Stop(handled) })
}
