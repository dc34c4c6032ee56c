package copies

import (
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A ring is the least of io_uring that the known answers need: one request at a time.
type ring struct {
	fd          int
	submissions []byte // the shared queue of submissions
	entries     []submissionEntry
	params      ringParams
	completions []byte
}

const (
	uringRead         = 22
	uringWrite        = 23
	uringSend         = 26
	uringReceive      = 27
	uringProvide      = 31
	uringSendZeroCopy = 47

	ringSize              = 8
	enterGetEvents        = 1
	sqeBufferSelect       = 1 << 5
	receiveMultishot      = 1 << 1
	sendReportUsage       = 1 << 3
	offsetSubmissionRing  = 0
	offsetCompletionRing  = 0x8000000
	offsetSubmissionTable = 0x10000000
)

type ringParams struct {
	sqEntries, cqEntries, flags, sqThreadCPU, sqThreadIdle, features, wqFD uint32
	_                                                                      [3]uint32
	sq                                                                     struct {
		head, tail, ringMask, ringEntries, flags, dropped, array, _ uint32
		_                                                           uint64
	}
	cq struct {
		head, tail, ringMask, ringEntries, overflow, cqes, flags, _ uint32
		_                                                           uint64
	}
}

type submissionEntry struct {
	opcode, flags uint8
	priority      uint16
	fd            int32
	offset        uint64
	address       uint64
	length        uint32
	operation     uint32
	userData      uint64
	bufferGroup   uint16
	_             [22]byte
}

type completionEntry struct {
	userData uint64
	result   int32
	flags    uint32
}

type submission struct {
	opcode      uint8
	fd          int
	buffer      []byte
	multishot   bool
	reportUsage bool
	group       uint16
}

func ringMissing() string {
	fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 1, uintptr(unsafe.Pointer(&ringParams{})), 0)
	if errno != 0 {
		return "io_uring is not available: " + errno.Error()
	}
	unix.Close(int(fd))
	return ""
}

func newRing() *ring {
	r := &ring{}
	fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, ringSize, uintptr(unsafe.Pointer(&r.params)), 0)
	if errno != 0 {
		panic(errno)
	}
	r.fd = int(fd)
	share := func(offset int64, size int) []byte {
		return must1(unix.Mmap(r.fd, offset, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE))
	}
	r.submissions = share(offsetSubmissionRing, int(r.params.sq.array+r.params.sqEntries*4))
	r.completions = share(offsetCompletionRing, int(r.params.cq.cqes+r.params.cqEntries*16))
	table := share(offsetSubmissionTable, int(r.params.sqEntries)*64)
	r.entries = unsafe.Slice((*submissionEntry)(unsafe.Pointer(&table[0])), r.params.sqEntries)
	return r
}

func word(memory []byte, offset uint32) *uint32 { return (*uint32)(unsafe.Pointer(&memory[offset])) }

func (r *ring) push(e submissionEntry) {
	tail := word(r.submissions, r.params.sq.tail)
	index := *tail % r.params.sqEntries
	r.entries[index] = e
	*word(r.submissions, r.params.sq.array+4*index) = index
	atomic.AddUint32(tail, 1)
	r.enter(1, 0)
}

func (r *ring) enter(submit, wait uintptr) {
	_, _, errno := unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), submit, wait, enterGetEvents, 0, 0)
	if errno != 0 {
		panic(errno)
	}
}

func (r *ring) submit(s submission) {
	e := submissionEntry{opcode: s.opcode, fd: int32(s.fd), length: uint32(len(s.buffer)), userData: 7}
	if len(s.buffer) > 0 {
		e.address = uint64(uintptr(unsafe.Pointer(&s.buffer[0])))
	}
	if s.multishot {
		e.priority, e.flags, e.bufferGroup = receiveMultishot, sqeBufferSelect, s.group
	}
	if s.reportUsage {
		e.priority = sendReportUsage
	}
	r.push(e)
}

// wait takes one completion.
func (r *ring) wait() completionEntry {
	head := word(r.completions, r.params.cq.head)
	for *head == atomic.LoadUint32(word(r.completions, r.params.cq.tail)) {
		r.enter(0, 1)
	}
	offset := r.params.cq.cqes + 16*(*head%r.params.cqEntries)
	completion := *(*completionEntry)(unsafe.Pointer(&r.completions[offset]))
	atomic.AddUint32(head, 1)
	return completion
}

func (r *ring) run(s submission) {
	r.submit(s)
	r.wait()
}

// provideBuffers hands the kernel `count` buffers of a size to choose from.
func (r *ring) provideBuffers(group uint16, count, size int) {
	memory := must1(unix.Mmap(-1, 0, count*size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE))
	r.push(submissionEntry{opcode: uringProvide, fd: int32(count), address: uint64(uintptr(unsafe.Pointer(&memory[0]))),
		length: uint32(size), bufferGroup: group})
	r.wait()
}

func uringInput(opcode uint8, from Kind) Key {
	return Key{ClassCopy, UringOperation(opcode), from, KindUser}
}

func uringOutput(opcode uint8, to Kind) Key {
	return Key{ClassCopy, UringOperation(opcode), KindUser, to}
}
