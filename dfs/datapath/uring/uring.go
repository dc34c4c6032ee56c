// Package uring is a thin layer over io_uring: enough for a data path to queue
// reads and sends on registered files and buffers and to take their
// completions. There is no maintained Go library for io_uring.
//
// The layouts and numbers are those of linux/io_uring.h.
package uring

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Operations.
const (
	opReadFixed = 4
	opSend      = 26
	opSendZC    = 47
)

// Flags of a submission and of a completion.
const (
	sqeFixedFile = 1 << 0
	sqeLink      = 1 << 2

	cqeMore   = 1 << 1 // another completion of the same submission follows
	cqeNotify = 1 << 3 // the kernel is done with the memory of a zero-copy send

	enterGetEvents = 1 << 0

	sendFixedBuffer = 1 << 2 // in ioprio: IORING_RECVSEND_FIXED_BUF
	sendReportUsage = 1 << 3 // in ioprio: IORING_SEND_ZC_REPORT_USAGE
	notifyCopied    = 1 << 31

	registerBuffers = 0
	registerFiles   = 2
	unregisterFiles = 3
	registerProbe   = 8

	probeSupported = 1 << 0

	offsetRings       = 0
	offsetSubmissions = 0x10000000

	featureSingleMap = 1 << 0
)

type submission struct {
	opcode   uint8
	flags    uint8
	priority uint16
	fd       int32
	offset   uint64
	address  uint64
	length   uint32
	opFlags  uint32
	user     uint64
	buffer   uint16
	_        uint16
	_        int32
	_        [2]uint64
}

type completion struct {
	user   uint64
	result int32
	flags  uint32
}

type ringOffsets struct {
	head, tail, mask, entries, flagsOrOverflow, droppedOrCompletions, arrayOrFlags, _ uint32
	_                                                                                 uint64
}

type parameters struct {
	submissions, completions, flags, threadCPU, threadIdle, features, workers uint32
	_                                                                         [3]uint32
	submit, complete                                                          ringOffsets
}

// Ring is one io_uring. It is used by one goroutine at a time.
type Ring struct {
	fd    int
	file  *os.File // owns fd
	rings []byte
	slots []byte

	submitTail         *uint32
	completeHead       *uint32
	completeTail       *uint32
	submitMask, cqMask uint32
	submissions        []submission
	completions        []completion
	array              []uint32
	queued             uint32
}

// New makes a ring for that many submissions at a time, a power of two. The
// error of a kernel without io_uring, or where it is switched off, says so.
func New(entries uint32) (*Ring, error) {
	var p parameters
	fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, uintptr(entries), uintptr(unsafe.Pointer(&p)), 0)
	if errno != 0 {
		return nil, fmt.Errorf("set up io_uring: %w", errno)
	}
	r := &Ring{fd: int(fd)}
	if err := unix.SetNonblock(r.fd, true); err != nil {
		return nil, errors.Join(err, unix.Close(r.fd))
	}
	r.file = os.NewFile(fd, "io_uring") // pollable, since it does not block
	if p.features&featureSingleMap == 0 {
		return nil, errors.Join(errors.New("set up io_uring: this kernel is older than 5.4"), r.file.Close())
	}
	if err := r.mapRings(&p); err != nil {
		return nil, errors.Join(fmt.Errorf("map io_uring's rings: %w", err), r.Close())
	}
	return r, nil
}

func (r *Ring) mapRings(p *parameters) (err error) {
	size := max(p.submit.arrayOrFlags+p.submissions*4, p.complete.droppedOrCompletions+p.completions*uint32(unsafe.Sizeof(completion{})))
	const protection, flags = unix.PROT_READ | unix.PROT_WRITE, unix.MAP_SHARED | unix.MAP_POPULATE
	if r.rings, err = unix.Mmap(r.fd, offsetRings, int(size), protection, flags); err != nil {
		return err
	}
	if r.slots, err = unix.Mmap(r.fd, offsetSubmissions, int(p.submissions)*int(unsafe.Sizeof(submission{})), protection, flags); err != nil {
		return err
	}
	word := func(at uint32) *uint32 { return (*uint32)(unsafe.Pointer(&r.rings[at])) }
	r.submitTail, r.submitMask = word(p.submit.tail), *word(p.submit.mask)
	r.completeHead, r.completeTail, r.cqMask = word(p.complete.head), word(p.complete.tail), *word(p.complete.mask)
	r.submissions = unsafe.Slice((*submission)(unsafe.Pointer(&r.slots[0])), p.submissions)
	r.completions = unsafe.Slice((*completion)(unsafe.Pointer(&r.rings[p.complete.droppedOrCompletions])), p.completions)
	r.array = unsafe.Slice(word(p.submit.arrayOrFlags), p.submissions)
	return nil
}

// Close gives the ring back. Operations under way are cancelled by the kernel.
func (r *Ring) Close() error {
	var err error
	for _, m := range [][]byte{r.rings, r.slots} {
		if m != nil {
			err = errors.Join(err, unix.Munmap(m))
		}
	}
	return errors.Join(err, r.file.Close())
}

// RegisterBuffer makes buffer number 0 of the ring: its pages are pinned once
// instead of at each operation. The buffer must come from unix.Mmap or outlive
// the ring.
func (r *Ring) RegisterBuffer(buffer []byte) error {
	v := unix.Iovec{Base: &buffer[0]}
	v.SetLen(len(buffer))
	return r.register(registerBuffers, unsafe.Pointer(&v), "a buffer")
}

// RegisterFile makes file number 0 of the ring, which spares a reference count
// at each operation.
func (r *Ring) RegisterFile(fd int) error {
	v := int32(fd)
	return r.register(registerFiles, unsafe.Pointer(&v), "a file")
}

// UnregisterFile gives the registered file back, which is else held until some
// time after Close. It is no error if there is none.
func (r *Ring) UnregisterFile() error {
	_, _, errno := unix.Syscall6(unix.SYS_IO_URING_REGISTER, uintptr(r.fd), unregisterFiles, 0, 0, 0, 0)
	if errno != 0 && errno != unix.ENXIO {
		return fmt.Errorf("unregister a file from io_uring: %w", errno)
	}
	return nil
}

func (r *Ring) register(what uintptr, arg unsafe.Pointer, name string) error {
	if _, _, errno := unix.Syscall6(unix.SYS_IO_URING_REGISTER, uintptr(r.fd), what, uintptr(arg), 1, 0, 0); errno != 0 {
		return fmt.Errorf("register %s with io_uring: %w", name, errno)
	}
	return nil
}

// SupportsZeroCopy returns nil if the kernel has zero-copy sends (Linux 6.0).
func (r *Ring) SupportsZeroCopy() error {
	type operation struct {
		opcode, _ uint8
		flags     uint16
		_         uint32
	}
	const operations = opSendZC + 1
	var probe struct {
		_          [16]byte
		operations [operations]operation
	}
	if _, _, errno := unix.Syscall6(unix.SYS_IO_URING_REGISTER, uintptr(r.fd), registerProbe, uintptr(unsafe.Pointer(&probe)), operations, 0, 0); errno != 0 {
		return fmt.Errorf("ask io_uring for its operations: %w", errno)
	}
	if probe.operations[opSendZC].flags&probeSupported == 0 {
		return errors.New("this kernel's io_uring has no zero-copy send (it came with Linux 6.0)")
	}
	return nil
}

// WaitReady waits until a completion can be taken, without holding a thread. It
// returns an error that wraps os.ErrDeadlineExceeded after the timeout.
func (r *Ring) WaitReady(timeout time.Duration) error {
	if err := r.file.SetReadDeadline(time.Now().Add(timeout)); err != nil {
		return fmt.Errorf("wait for io_uring: %w", err)
	}
	raw, err := r.file.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Read(func(uintptr) bool { return r.ready() > 0 })
}

// push queues a submission. The caller never queues more than the ring holds.
func (r *Ring) push(s submission) {
	tail := *r.submitTail + r.queued
	r.submissions[tail&r.submitMask] = s
	r.array[tail&r.submitMask] = tail & r.submitMask
	r.queued++
}

// ReadFixed queues a read of len(p) bytes at offset of a file into p, a part of
// the registered buffer. With link, the next submission starts when the whole
// read is done, and is cancelled if it comes short.
func (r *Ring) ReadFixed(user uint64, file *os.File, p []byte, offset int64, link bool) {
	s := submission{opcode: opReadFixed, fd: int32(file.Fd()), offset: uint64(offset), address: address(p), length: uint32(len(p)), user: user}
	if link {
		s.flags = sqeLink
	}
	r.push(s)
}

// Send queues a send of p on the registered file. It waits for no room: it sends
// less, or nothing (EAGAIN).
func (r *Ring) Send(user uint64, p []byte) {
	r.push(submission{opcode: opSend, flags: sqeFixedFile, address: address(p), length: uint32(len(p)), opFlags: unix.MSG_NOSIGNAL | unix.MSG_DONTWAIT, user: user})
}

// SendZeroCopy queues a send of p, a part of the registered buffer, on the
// registered file without a copy, and waits for no room. It has two completions: one with the count,
// and one with Notification when p may be written to again.
func (r *Ring) SendZeroCopy(user uint64, p []byte) {
	r.push(submission{opcode: opSendZC, flags: sqeFixedFile, priority: sendFixedBuffer | sendReportUsage,
		address: address(p), length: uint32(len(p)), opFlags: unix.MSG_NOSIGNAL | unix.MSG_DONTWAIT, user: user})
}

func address(p []byte) uint64 { return uint64(uintptr(unsafe.Pointer(unsafe.SliceData(p)))) }

// Completion tells how a submission ended.
type Completion struct {
	User uint64
	// N is the count of bytes.
	N int
	// Err is the errno of a submission that failed.
	Err error
	// More says that a Notification follows.
	More bool
	// Notification: the kernel is done with a zero-copy send's memory; Copied
	// says that it had to copy it after all.
	Notification, Copied bool
}

// Enter submits what is queued, waits until at least wait completions are there,
// and appends all that are to done.
func (r *Ring) Enter(wait int, done []Completion) ([]Completion, error) {
	atomic.AddUint32(r.submitTail, r.queued)
	submit := uintptr(r.queued)
	r.queued = 0
	for {
		var flags uintptr
		if missing := wait - r.ready(); missing > 0 {
			flags = enterGetEvents
		} else if submit == 0 {
			break
		}
		n, _, errno := unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), submit, uintptr(wait), flags, 0, 0)
		if errno == unix.EINTR {
			continue
		}
		if errno != 0 {
			return done, fmt.Errorf("enter io_uring: %w", errno)
		}
		submit -= n
	}
	return r.take(done), nil
}

// ready is how many completions wait to be taken.
func (r *Ring) ready() int { return int(atomic.LoadUint32(r.completeTail) - *r.completeHead) }

func (r *Ring) take(done []Completion) []Completion {
	head := *r.completeHead
	for ; head != atomic.LoadUint32(r.completeTail); head++ {
		c := r.completions[head&r.cqMask]
		d := Completion{User: c.user, More: c.flags&cqeMore != 0, Notification: c.flags&cqeNotify != 0}
		switch {
		case d.Notification:
			d.Copied = uint32(c.result)&notifyCopied != 0
		case c.result < 0:
			d.Err = unix.Errno(-c.result)
		default:
			d.N = int(c.result)
		}
		done = append(done, d)
	}
	atomic.StoreUint32(r.completeHead, head)
	return done
}
