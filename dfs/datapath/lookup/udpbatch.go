package lookup

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"waggle/dfs/wire"
)

// batchSize is how many datagrams one system call receives or sends at most.
const batchSize = 32

func init() {
	Paths.Register(udpPath{
		name:    "udp-batch",
		summary: "answered in user space, in batches, on one SO_REUSEPORT socket a processor",
		workers: runtime.GOMAXPROCS,
		serve:   (*udpWorker).serveBatches,
		calls:   5,
	})
	Paths.Register(udpPath{
		name:    "udp-poll",
		summary: "answered in user space, in batches, by threads that poll half of the processors' sockets and never sleep",
		workers: func(n int) int { return max(runtime.GOMAXPROCS(n)/2, 1) }, // the others are for everything else
		serve:   (*udpWorker).servePolling,
		polls:   true,
		calls:   3,
	})
}

// message is the kernel's struct mmsghdr.
type message struct {
	header unix.Msghdr
	length uint32
	_      [4]byte
}

// batch is what one call of recvmmsg receives, or one of sendmmsg sends. Each
// answer goes to the address in whose buffer its request's sender stands.
type batch struct {
	requests, answers             [batchSize]message
	requestVectors, answerVectors [batchSize]unix.Iovec
	senders                       [batchSize][unix.SizeofSockaddrInet6]byte
	// One byte more than a request has, so that an oversized one is seen.
	received [batchSize][wire.InlineRequestSize + 1]byte
	answered [batchSize][]byte
	sources  [batchSize][]byte // empty unless the socket listens at all addresses
}

func newBatch(sourceSize int) *batch {
	b := new(batch)
	for i := range batchSize {
		b.requestVectors[i] = unix.Iovec{Base: &b.received[i][0], Len: uint64(len(b.received[i]))}
		b.requests[i].header = unix.Msghdr{Name: &b.senders[i][0], Iov: &b.requestVectors[i], Iovlen: 1}
		b.answers[i].header = unix.Msghdr{Iov: &b.answerVectors[i], Iovlen: 1}
		b.answered[i] = make([]byte, 0, wire.MaxAnswerSize)
		if sourceSize > 0 {
			b.sources[i] = make([]byte, sourceSize)
			b.requests[i].header.Control = &b.sources[i][0]
		}
	}
	return b
}

// receive takes at most so many datagrams. Its flags are those of recvmmsg:
// MSG_DONTWAIT takes what is there.
func (b *batch) receive(socket uintptr, most, flags int) (int, unix.Errno) {
	for i := range most {
		b.requests[i].header.Namelen = uint32(len(b.senders[i]))
		b.requests[i].header.Controllen = uint64(len(b.sources[i]))
	}
	n, _, err := unix.Syscall6(unix.SYS_RECVMMSG, socket, uintptr(unsafe.Pointer(&b.requests)), uintptr(most), uintptr(flags), 0, 0)
	return int(n), err
}

// answer makes the answers to the first count requests and sends them. One that
// can't be sent is dropped, as the network might have dropped it: the client asks
// again.
func (b *batch) answer(socket uintptr, count int, w *udpWorker, resolver Resolver) {
	answers := 0
	for i := range count {
		out, ok := w.answer(b.received[i][:b.requests[i].length], b.answered[answers][:0], resolver)
		if !ok {
			continue
		}
		b.answered[answers] = out
		b.answerVectors[answers] = unix.Iovec{Base: &out[0], Len: uint64(len(out))}
		header := &b.answers[answers].header
		header.Name, header.Namelen = b.requests[i].header.Name, b.requests[i].header.Namelen
		header.Control, header.Controllen = b.requests[i].header.Control, b.requests[i].header.Controllen
		asSource(b.sources[i][:header.Controllen])
		answers++
	}
	for first := 0; first < answers; {
		n, _, err := unix.Syscall6(unix.SYS_SENDMMSG, socket, uintptr(unsafe.Pointer(&b.answers[first])), uintptr(answers-first), 0, 0, 0)
		if err != 0 {
			w.unsent.Add(1)
			n = 1
		} else {
			w.answered.Add(int64(n))
		}
		first += int(n)
	}
}

// serveBatches answers what comes while it was busy at once, until the read
// deadline.
func (w *udpWorker) serveBatches(_ context.Context, resolver Resolver) error {
	raw, err := w.conn.SyscallConn()
	if err != nil {
		return fmt.Errorf("receive lookups: %w", err)
	}
	b := newBatch(len(w.source))
	for {
		var failed unix.Errno
		err := raw.Read(func(socket uintptr) bool {
			var n int
			n, failed = b.receive(socket, batchSize, unix.MSG_DONTWAIT)
			if failed == 0 {
				b.answer(socket, n, w, resolver)
			}
			return failed != unix.EAGAIN
		})
		if err != nil {
			return fmt.Errorf("receive lookups: %w", err)
		}
		if failed != 0 && failed != unix.EINTR {
			return os.NewSyscallError("receive lookups: recvmmsg", failed)
		}
	}
}

// servePolling asks its socket over and over whether something came, on a thread
// of its own, until ctx ends.
func (w *udpWorker) servePolling(ctx context.Context, resolver Resolver) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	raw, err := w.conn.SyscallConn()
	if err != nil {
		return fmt.Errorf("receive lookups: %w", err)
	}
	b := newBatch(len(w.source))
	var failed unix.Errno
	err = raw.Control(func(socket uintptr) {
		for ctx.Err() == nil {
			var n int
			switch n, failed = b.receive(socket, batchSize, unix.MSG_DONTWAIT); failed {
			case 0:
				b.answer(socket, n, w, resolver)
			case unix.EAGAIN, unix.EINTR:
				failed = 0
			default:
				return
			}
		}
	})
	if err == nil && failed != 0 {
		err = os.NewSyscallError("recvmmsg", failed)
	}
	if err != nil {
		return fmt.Errorf("receive lookups: %w", err)
	}
	return nil
}
