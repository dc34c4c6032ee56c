package workload

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// wallClock is the machine's monotonic clock.
type wallClock struct{ began time.Time }

func (c wallClock) now() time.Duration { return time.Since(c.began) }

// alarm makes a timer of the kernel's that the network poller waits for. Go's
// own timers are late by up to a millisecond, and a thread that sleeps keeps
// others from their work until it is noticed. What is still late, by a wake-up,
// is in the latency of the floor control, too.
func (c wallClock) alarm() (alarm, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make a timer: %w", err)
	}
	return &timer{c, os.NewFile(uintptr(fd), "timer"), fd}, nil
}

type timer struct {
	clock wallClock
	file  *os.File
	fd    int
}

func (t *timer) close() error { return t.file.Close() }

func (t *timer) sleepUntil(at time.Duration) error {
	left := at - t.clock.now()
	if left <= 0 {
		return nil
	}
	value := unix.ItimerSpec{Value: unix.NsecToTimespec(left.Nanoseconds())}
	if err := unix.TimerfdSettime(t.fd, 0, &value, nil); err != nil {
		return fmt.Errorf("set a timer: %w", err)
	}
	var expirations [8]byte
	if _, err := t.file.Read(expirations[:]); err != nil {
		return fmt.Errorf("wait for a timer: %w", err)
	}
	return nil
}
