package afxdp

import (
	"fmt"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ring is one of the four rings that this side shares with the kernel. One side
// of each moves the producer, the other the consumer; both only count up, and
// wrap. T is what an entry is. It is used by one goroutine at a time.
type ring[T any] struct {
	producer, consumer, flags *uint32
	entries                   []T // a power of two
	memory                    []byte
}

// newRing makes and maps a ring: option sets its size, page is where it is mapped.
func newRing[T any](fd, option, size int, page int64, at unix.XDPRingOffset) (r ring[T], err error) {
	if err := unix.SetsockoptInt(fd, unix.SOL_XDP, option, size); err != nil {
		return r, fmt.Errorf("make a ring of %d entries: %w", size, err)
	}
	var entry T
	length := int(at.Desc) + size*int(unsafe.Sizeof(entry))
	r.memory, err = unix.Mmap(fd, page, length, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
	if err != nil {
		return r, fmt.Errorf("map a ring of %d entries: %w", size, err)
	}
	base := unsafe.Pointer(&r.memory[0])
	r.producer = (*uint32)(unsafe.Add(base, at.Producer))
	r.consumer = (*uint32)(unsafe.Add(base, at.Consumer))
	r.flags = (*uint32)(unsafe.Add(base, at.Flags))
	r.entries = unsafe.Slice((*T)(unsafe.Add(base, at.Desc)), size)
	return r, nil
}

func (r *ring[T]) close() error {
	if r.memory == nil {
		return nil
	}
	return unix.Munmap(r.memory)
}

// at is the entry that a producer's or consumer's count stands for.
func (r *ring[T]) at(count uint32) *T { return &r.entries[count&uint32(len(r.entries)-1)] }

// used is how many entries were produced and not yet consumed.
func (r *ring[T]) used() int {
	return int(atomic.LoadUint32(r.producer) - atomic.LoadUint32(r.consumer))
}

// produce appends entries; the caller knows that there is room.
func (r *ring[T]) produce(entries []T) {
	p := atomic.LoadUint32(r.producer)
	for i, e := range entries {
		*r.at(p + uint32(i)) = e
	}
	atomic.StoreUint32(r.producer, p+uint32(len(entries)))
}

// consume takes up to len(to) entries away and returns how many.
func (r *ring[T]) consume(to []T) int {
	n := min(r.used(), len(to))
	c := atomic.LoadUint32(r.consumer)
	for i := range n {
		to[i] = *r.at(c + uint32(i))
	}
	atomic.StoreUint32(r.consumer, c+uint32(n))
	return n
}

// needsWakeup says that the kernel waits for a system call.
func (r *ring[T]) needsWakeup() bool {
	return atomic.LoadUint32(r.flags)&unix.XDP_RING_NEED_WAKEUP != 0
}
