package shortcircuit

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// slots is how many replicas can be lent out at once; for more, the one lent
// first is taken back.
const slots = 4096

// slot is what a client looks at before and after each read, in shared memory.
type slot struct {
	generation atomic.Uint64 // of the loan; another number: it was taken back
	length     atomic.Uint64 // bytes of the replica; only grows during a loan
}

const (
	slotsSize = slots * int(unsafe.Sizeof(slot{}))
	pageSize  = slotsSize + 64 // behind the slots: until when all that is lent may be read, in Now's time
)

// untilAt is 0 while nothing may be read. Clients look at it after each read, so
// that a server which is stopped can't be read behind its back.
func untilAt(memory []byte) *atomic.Int64 {
	return (*atomic.Int64)(unsafe.Pointer(&memory[slotsSize]))
}

// Now is the machine's monotonic clock in nanoseconds, the same for all processes
// of one time namespace.
func Now() int64 { return clockBase + int64(time.Since(clockStart)) }

var clockStart, clockBase = readClock()

func readClock() (time.Time, int64) {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		panic(err) // every Linux has this clock
	}
	return time.Now(), now.Nano()
}

// page is the server's side of the shared memory.
type page struct {
	file   *os.File // for reading only
	memory []byte

	mu   sync.Mutex
	next uint64 // the slot that is lent next, modulo slots
}

// newPage makes shared memory that only this process can write, and nobody can
// make shorter.
func newPage() (*page, error) {
	fd, err := unix.MemfdCreate("waggle-loans", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("make shared memory: %w", err)
	}
	writable := os.NewFile(uintptr(fd), "loans")
	defer writable.Close()
	p := &page{}
	if err := writable.Truncate(int64(pageSize)); err != nil {
		return nil, fmt.Errorf("size shared memory: %w", err)
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL); err != nil {
		return nil, fmt.Errorf("seal shared memory: %w", err)
	}
	if p.memory, err = unix.Mmap(fd, 0, pageSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		return nil, fmt.Errorf("map shared memory: %w", err)
	}
	if p.file, err = os.Open(fmt.Sprintf("/proc/self/fd/%d", fd)); err != nil {
		return nil, errors.Join(fmt.Errorf("open shared memory for reading: %w", err), unix.Munmap(p.memory))
	}
	return p, nil
}

func slotAt(memory []byte, index uint32) *slot {
	return &(*[slots]slot)(unsafe.Pointer(&memory[0]))[index]
}

// takeAllBack ends all loans.
func (p *page) takeAllBack() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range uint32(slots) {
		slotAt(p.memory, i).generation.Add(1)
	}
}

func (p *page) close() error { return errors.Join(p.file.Close(), unix.Munmap(p.memory)) }

// Loan is one replica that clients have open.
type Loan struct {
	page       *page
	index      uint32
	generation uint64
}

// lend makes a loan of a replica of that length, or returns the old one if it
// was not taken back.
func (p *page) lend(old *Loan, length uint64) *Loan {
	p.mu.Lock()
	defer p.mu.Unlock()
	if old != nil && old.holds() {
		return old
	}
	l := &Loan{page: p, index: uint32(p.next % slots)}
	p.next++
	s := slotAt(p.memory, l.index)
	l.generation = s.generation.Add(1)
	s.length.Store(length)
	return l
}

// holds is called with the page's lock.
func (l *Loan) holds() bool {
	return slotAt(l.page.memory, l.index).generation.Load() == l.generation
}

// Grow tells clients that the replica has become longer.
func (l *Loan) Grow(length uint64) {
	l.page.mu.Lock()
	defer l.page.mu.Unlock()
	if l.holds() {
		slotAt(l.page.memory, l.index).length.Store(length)
	}
}

// TakeBack ends the loan: what a client reads after this returned, or is
// reading now, is thrown away.
func (l *Loan) TakeBack() {
	l.page.mu.Lock()
	defer l.page.mu.Unlock()
	if l.holds() {
		slotAt(l.page.memory, l.index).generation.Add(1)
	}
}
