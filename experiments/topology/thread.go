package topology

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// thread is an operating system thread that functions can be run on. It may be
// in a network namespace of its own. Processes started on it are killed when it
// ends, so it lives as long as they may.
type thread struct {
	work chan func()
	quit chan struct{} // closed to end the thread
	done chan struct{} // closed when it has ended
	// namespace is an open file of the thread's network namespace.
	namespace *os.File
}

var errThreadEnded = errors.New("the network was closed")

// newThread starts a thread. Flags are those of unshare(2), or 0.
func newThread(flags int) (*thread, error) {
	t := &thread{work: make(chan func()), quit: make(chan struct{}), done: make(chan struct{})}
	started := make(chan error)
	go t.run(flags, started)
	if err := <-started; err != nil {
		return nil, err
	}
	return t, nil
}

func (t *thread) run(flags int, started chan<- error) {
	// Never unlocked: the thread ends with the goroutine, so that no other
	// goroutine finds itself in its namespace.
	runtime.LockOSThread()
	if unix.Gettid() == os.Getpid() {
		// The process's first thread never ends, and its namespace is what others
		// see as the process's: hold it until another one was taken.
		defer runtime.UnlockOSThread()
		another := make(chan error)
		go t.run(flags, another)
		started <- <-another
		return
	}
	defer close(t.done)
	if err := t.enter(flags); err != nil {
		started <- err
		return
	}
	started <- nil
	defer t.namespace.Close()
	for {
		select {
		case f := <-t.work:
			f()
		case <-t.quit:
			return
		}
	}
}

func (t *thread) enter(flags int) error {
	if flags != 0 {
		if err := unix.Unshare(flags); err != nil {
			return fmt.Errorf("make a network namespace: %w", err)
		}
	}
	f, err := os.Open(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()))
	if err != nil {
		return fmt.Errorf("open a thread's network namespace: %w", err)
	}
	t.namespace = f
	return nil
}

// do runs f on the thread and waits for it.
func (t *thread) do(f func()) error {
	finished := make(chan struct{})
	select {
	case t.work <- func() { defer close(finished); f() }:
		<-finished
		return nil
	case <-t.done:
		return errThreadEnded
	}
}

// close ends the thread, once what runs on it has finished.
func (t *thread) close() {
	close(t.quit)
	<-t.done
}
