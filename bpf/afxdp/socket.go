// Package afxdp sends and receives whole Ethernet frames through AF_XDP sockets:
// memory that is shared with the kernel (UMEM), cut into frames of one size, and
// rings that say which of them belong to whom.
//
//   - Sender: Acquire frames, fill them, Transmit.
//   - Receiver: Attach the program that redirects one UDP port's datagrams to
//     the socket, then Receive. Everything else goes up the stack as before.
//
// A socket is bound to queue 0 of one interface, which can have no other AF_XDP
// socket, and goes with its process, as the program does. Where the driver has
// no zero copy, a veth for one, the kernel copies each frame once on its way out
// and once on its way in: Socket.ZeroCopy says which it is.
//
// No library is used because this is a data path; those that there are were
// not to be had when it was written.
package afxdp

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// headroom is what the kernel leaves free in front of what it receives, in bytes.
const headroom = 256

// batch is how many ring entries are moved at once.
const batch = 64

// Config says how a socket is made.
type Config struct {
	Interface int // index
	FrameSize int // bytes: 2048 or 4096
	Frames    int // a power of two; all belong to one direction
	Direction Direction
}

// Direction is what a socket is for.
type Direction int

// The directions.
const (
	Transmits Direction = iota
	Receives
)

// Socket is an AF_XDP socket with memory of its own. It is used by one goroutine
// at a time, but for Wait and Close.
type Socket struct {
	// ZeroCopy says that the driver moves frames without a copy.
	ZeroCopy bool
	// NeedsWakeup says that the kernel tells when it waits for a system call.
	NeedsWakeup bool

	config              Config
	fd                  int
	file                *os.File // of fd, for the runtime's poller
	raw                 syscall.RawConn
	memory              []byte
	fill, completion    ring[uint64]
	received, transmits ring[unix.XDPDesc]
	free                []uint64 // of a socket that transmits: where its frames begin
	addresses           [batch]uint64
	descriptors         [batch]unix.XDPDesc
}

// MaxPacket is the largest Ethernet frame in bytes that fits into a frame of a
// size.
func MaxPacket(frameSize int) int { return frameSize - headroom }

// Open makes a socket and binds it, in the calling thread's network namespace.
func Open(config Config) (*Socket, error) {
	fd, err := unix.Socket(unix.AF_XDP, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("make an AF_XDP socket (it needs CAP_NET_RAW): %w", err)
	}
	s := &Socket{config: config, fd: fd, file: os.NewFile(uintptr(fd), "AF_XDP")}
	if err := s.open(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *Socket) open() (err error) {
	if s.raw, err = s.file.SyscallConn(); err != nil {
		return err
	}
	if err := s.register(); err != nil {
		return err
	}
	if err := s.makeRings(); err != nil {
		return err
	}
	address := unix.SockaddrXDP{Flags: unix.XDP_USE_NEED_WAKEUP, Ifindex: uint32(s.config.Interface)}
	if err := unix.Bind(s.fd, &address); err != nil {
		return fmt.Errorf("bind an AF_XDP socket to queue 0 of interface %d: %w", s.config.Interface, err)
	}
	s.NeedsWakeup = true
	options, err := unix.GetsockoptInt(s.fd, unix.SOL_XDP, unix.XDP_OPTIONS)
	if err != nil {
		return fmt.Errorf("ask for the mode of an AF_XDP socket: %w", err)
	}
	s.ZeroCopy = options&unix.XDP_OPTIONS_ZEROCOPY != 0
	return nil
}

// register gives the kernel the memory. It is locked, which without CAP_IPC_LOCK
// counts against RLIMIT_MEMLOCK.
func (s *Socket) register() (err error) {
	size := s.config.Frames * s.config.FrameSize
	s.memory, err = unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_POPULATE)
	if err != nil {
		return fmt.Errorf("map %d bytes for AF_XDP: %w", size, err)
	}
	reg := unix.XDPUmemReg{Addr: uint64(uintptr(unsafe.Pointer(&s.memory[0]))), Len: uint64(size), Size: uint32(s.config.FrameSize)}
	// Kernels know shorter forms of the structure; the first is enough.
	if err := setsockopt(s.fd, unix.XDP_UMEM_REG, unsafe.Pointer(&reg), unsafe.Sizeof(reg)); err != nil {
		return fmt.Errorf("register %d bytes with AF_XDP (without CAP_IPC_LOCK they count against the limit of locked memory, ulimit -l): %w", size, err)
	}
	return nil
}

func setsockopt(fd, option int, value unsafe.Pointer, size uintptr) error {
	_, _, errno := unix.Syscall6(unix.SYS_SETSOCKOPT, uintptr(fd), unix.SOL_XDP, uintptr(option), uintptr(value), size, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// makeRings makes the two rings that every memory needs, and that of the
// direction.
func (s *Socket) makeRings() error {
	var at unix.XDPMmapOffsets
	size := uint32(unsafe.Sizeof(at))
	if _, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(s.fd), unix.SOL_XDP, unix.XDP_MMAP_OFFSETS,
		uintptr(unsafe.Pointer(&at)), uintptr(unsafe.Pointer(&size)), 0); errno != 0 {
		return fmt.Errorf("ask where the rings of an AF_XDP socket are: %w", errno)
	}
	var err error
	n := s.config.Frames
	if s.fill, err = newRing[uint64](s.fd, unix.XDP_UMEM_FILL_RING, n, unix.XDP_UMEM_PGOFF_FILL_RING, at.Fr); err != nil {
		return err
	}
	if s.completion, err = newRing[uint64](s.fd, unix.XDP_UMEM_COMPLETION_RING, n, unix.XDP_UMEM_PGOFF_COMPLETION_RING, at.Cr); err != nil {
		return err
	}
	frames := make([]uint64, n)
	for i := range frames {
		frames[i] = uint64(i * s.config.FrameSize)
	}
	if s.config.Direction == Transmits {
		s.free = frames
		s.transmits, err = newRing[unix.XDPDesc](s.fd, unix.XDP_TX_RING, n, unix.XDP_PGOFF_TX_RING, at.Tx)
		return err
	}
	s.fill.produce(frames)
	s.received, err = newRing[unix.XDPDesc](s.fd, unix.XDP_RX_RING, n, unix.XDP_PGOFF_RX_RING, at.Rx)
	return err
}

// Wait waits until something can be received. It returns os.ErrClosed after
// Close.
func (s *Socket) Wait() error {
	err := s.raw.Read(func(uintptr) bool { return s.received.used() > 0 })
	if err != nil {
		return fmt.Errorf("wait for AF_XDP: %w: %w", os.ErrClosed, err)
	}
	return nil
}

// Receive calls take with each frame that has come in, and gives its memory back
// to the kernel after. It returns how many there were.
func (s *Socket) Receive(take func(packet []byte)) (total int, err error) {
	for {
		n := s.received.consume(s.descriptors[:])
		for i, d := range s.descriptors[:n] {
			take(s.memory[d.Addr:][:d.Len])
			s.addresses[i] = d.Addr &^ uint64(s.config.FrameSize-1)
		}
		s.fill.produce(s.addresses[:n])
		total += n
		if n < batch {
			break
		}
	}
	if !s.fill.needsWakeup() {
		return total, nil
	}
	_, _, err = unix.Recvfrom(s.fd, nil, unix.MSG_DONTWAIT)
	if err == unix.EAGAIN || err == unix.EINTR {
		err = nil
	}
	return total, err
}

// Lost is how many packets the kernel could not hand over for lack of room.
func (s *Socket) Lost() (lost uint64, err error) {
	var counts unix.XDPStatistics
	size := uint32(unsafe.Sizeof(counts))
	if _, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(s.fd), unix.SOL_XDP, unix.XDP_STATISTICS,
		uintptr(unsafe.Pointer(&counts)), uintptr(unsafe.Pointer(&size)), 0); errno != 0 {
		return 0, fmt.Errorf("ask an AF_XDP socket for its statistics: %w", errno)
	}
	return counts.Rx_dropped + counts.Rx_ring_full + counts.Rx_fill_ring_empty_descs, nil
}

// Frame is a packet to be sent.
type Frame struct {
	Memory []byte // room for it: as long as the frame size
	Length int    // bytes of it that are sent
	start  uint64
}

// Acquire fills frames with some that are free, and returns how many: 0 when all
// are still being sent.
func (s *Socket) Acquire(frames []Frame) int {
	for {
		n := s.completion.consume(s.addresses[:])
		s.free = append(s.free, s.addresses[:n]...)
		if n < batch {
			break
		}
	}
	n := min(len(frames), len(s.free))
	for i := range n {
		start := s.free[len(s.free)-1-i]
		frames[i] = Frame{Memory: s.memory[start:][:s.config.FrameSize], start: start}
	}
	s.free = s.free[:len(s.free)-n]
	return n
}

// Release gives back frames that were not sent.
func (s *Socket) Release(frames []Frame) {
	for _, f := range frames {
		s.free = append(s.free, f.start)
	}
}

// sendPause is how long to wait for room in the interface's queue at a time.
const sendPause = 100 * time.Microsecond

// Transmit sends frames, at most 64, and returns when the kernel has taken them
// all, or an error that wraps os.ErrDeadlineExceeded at the deadline. The frames
// belong to the kernel then.
func (s *Socket) Transmit(frames []Frame, deadline time.Time) error {
	for i, f := range frames {
		s.descriptors[i] = unix.XDPDesc{Addr: f.start, Len: uint32(f.Length)}
	}
	s.transmits.produce(s.descriptors[:len(frames)])
	for s.transmits.used() > 0 {
		before := s.transmits.used()
		err := unix.Sendto(s.fd, nil, unix.MSG_DONTWAIT, nil)
		switch err {
		case nil, unix.EAGAIN, unix.EBUSY, unix.ENOBUFS, unix.EINTR:
		default:
			return fmt.Errorf("send through AF_XDP: %w", err)
		}
		if s.transmits.used() < before {
			continue
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("send through AF_XDP: the interface takes no more: %w", os.ErrDeadlineExceeded)
		}
		time.Sleep(sendPause)
	}
	return nil
}

// Close gives everything back. Nobody may use the socket, but for Wait.
func (s *Socket) Close() error {
	err := s.file.Close()
	err = errors.Join(err, s.fill.close(), s.completion.close(), s.received.close(), s.transmits.close())
	if s.memory != nil {
		err = errors.Join(err, unix.Munmap(s.memory))
	}
	return err
}
