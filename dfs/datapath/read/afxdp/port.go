package afxdp

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	kernel "waggle/bpf/afxdp"
	"waggle/dfs/datapath"
)

// Sizes of a chunk server's socket.
const (
	portFrames = 512
	portBatch  = 32 // as many as the kernel sends with one call
)

// Ports are a chunk server's sockets, one for each interface that a client was
// answered through.
type Ports struct {
	mu   sync.Mutex
	open map[int]*port
}

// port is the socket of one interface, shared by all connections.
type port struct {
	mu     sync.Mutex
	socket *kernel.Socket
}

// frameSize is the smallest frame in bytes into which the packets of an interface
// fit, or the largest there is.
func frameSize(mtu int) int {
	if mtu+ethernetSize <= kernel.MaxPacket(2048) {
		return 2048
	}
	return 4096
}

// pieceSize is how many bytes of data a datagram carries.
func pieceSize(mtu int) int {
	packet := min(mtu+ethernetSize, kernel.MaxPacket(frameSize(mtu)))
	return (packet - packetSize - headerSize) &^ 31
}

func (p *Ports) get(r Route) (*port, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if one := p.open[r.Interface]; one != nil {
		return one, nil
	}
	size := frameSize(r.MTU)
	socket, err := openWhenFree(kernel.Config{Interface: r.Interface, FrameSize: size, Frames: portFrames, Direction: kernel.Transmits})
	if err != nil {
		return nil, err
	}
	if p.open == nil {
		p.open = make(map[int]*port)
	}
	p.open[r.Interface] = &port{socket: socket}
	return p.open[r.Interface], nil
}

// freeTime is how long to wait for the socket or program of a process that was
// killed: the kernel may still be taking it apart.
const freeTime = 2 * time.Second

func openWhenFree(config kernel.Config) (*kernel.Socket, error) {
	for end := time.Now().Add(freeTime); ; time.Sleep(10 * time.Millisecond) {
		s, err := kernel.Open(config)
		if !errors.Is(err, unix.EBUSY) {
			return s, err
		}
		if time.Now().After(end) {
			return nil, fmt.Errorf("another process uses AF_XDP on the interface, which has room for one: %w", err)
		}
	}
}

// Close closes the sockets. No sender is in use.
func (p *Ports) Close() (failed error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, one := range p.open {
		failed = errors.Join(failed, one.socket.Close())
	}
	p.open = nil
	return failed
}

// Sender sends data to one client. It is used by one goroutine.
type Sender struct {
	// Piece is how many bytes each datagram carries but for the last of a range.
	Piece    int
	port     *port
	headers  [packetSize]byte
	counters senderCounters
	frames   [portBatch]kernel.Frame
	parts    [portBatch][]byte
}

type senderCounters struct{ bytes, copied, datagrams func(int64) }

// NewSender makes the sender of datagrams along a route, between two UDP ports.
// Its counters are read_afxdp_sent_bytes and the like, and one that says by its
// name how the socket is bound.
func (p *Ports) NewSender(r Route, fromPort, toPort uint16, counters *datapath.Counters) (*Sender, error) {
	headers, err := r.headers(fromPort, toPort)
	if err != nil {
		return nil, err
	}
	s := &Sender{Piece: pieceSize(r.MTU), headers: headers}
	if s.Piece < MinPiece {
		return nil, fmt.Errorf("an MTU of %d bytes is too small", r.MTU)
	}
	if s.port, err = p.get(r); err != nil {
		return nil, err
	}
	countMode(s.port.socket, "send", counters)
	s.counters = senderCounters{
		bytes:     adder(counters, "read_afxdp_sent_bytes"),
		datagrams: adder(counters, "read_afxdp_sent_datagrams"),
		copied:    func(int64) {},
	}
	if !s.port.socket.ZeroCopy {
		s.counters.copied = adder(counters, datapath.CopiedToKernel)
	}
	return s, nil
}

func adder(counters *datapath.Counters, name string) func(int64) {
	counter := counters.Counter(name)
	return func(n int64) { counter.Add(n) }
}

// countMode counts a socket's mode by its name.
func countMode(s *kernel.Socket, side string, counters *datapath.Counters) {
	mode := "copy"
	if s.ZeroCopy {
		mode = "zerocopy"
	}
	counters.Counter("read_afxdp_" + side + "_bound_" + mode).Store(1)
	if s.NeedsWakeup {
		counters.Counter("read_afxdp_" + side + "_bound_need_wakeup").Store(1)
	}
}

// sendTime bounds how long an interface may take no more packets.
const sendTime = 5 * time.Second

// Send sends length bytes at offset of a file, a chunk's data, as the answer to
// the frame of that ID. It returns io.EOF if the file is shorter.
func (s *Sender) Send(id uint64, file *os.File, offset int64, length int) error {
	deadline := time.Now().Add(sendTime)
	for length > 0 {
		wanted := min(portBatch, (length+s.Piece-1)/s.Piece)
		n, err := s.port.acquire(s.frames[:wanted], deadline)
		if err != nil {
			return err
		}
		size := min(length, n*s.Piece)
		if err := s.fill(s.frames[:n], id, file, offset, size); err != nil {
			s.port.release(s.frames[:n])
			return err
		}
		if err := s.port.transmit(s.frames[:n], deadline); err != nil {
			return err
		}
		s.counters.bytes(int64(size))
		s.counters.datagrams(int64(n))
		s.counters.copied(int64(size + n*(packetSize+headerSize)))
		offset, length = offset+int64(size), length-size
	}
	return nil
}

// fill reads size bytes of a file right to where the kernel sends them from.
func (s *Sender) fill(frames []kernel.Frame, id uint64, file *os.File, offset int64, size int) error {
	const before = packetSize + headerSize
	for i := range frames {
		n := min(s.Piece, size-i*s.Piece)
		frames[i].Length = before + n
		s.parts[i] = frames[i].Memory[before:][:n]
	}
	n, err := preadv(file, s.parts[:len(frames)], offset)
	if err != nil {
		return err
	}
	if n < size {
		return io.EOF
	}
	for i, f := range frames {
		packet := f.Memory[:f.Length]
		copy(packet, s.headers[:])
		putLengths(packet)
		putHeader(packet[packetSize:], id, uint64(offset)+uint64(i*s.Piece))
	}
	return nil
}

func preadv(f *os.File, parts [][]byte, offset int64) (n int, err error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return 0, err
	}
	failed := raw.Control(func(fd uintptr) {
		for {
			if n, err = unix.Preadv(int(fd), parts, offset); err != unix.EINTR {
				return
			}
		}
	})
	return n, errors.Join(failed, err)
}

const acquirePause = 50 * time.Microsecond

// acquire waits for at least one free frame.
func (p *port) acquire(frames []kernel.Frame, deadline time.Time) (int, error) {
	for {
		p.mu.Lock()
		n := p.socket.Acquire(frames)
		p.mu.Unlock()
		if n > 0 {
			return n, nil
		}
		if time.Now().After(deadline) {
			return 0, fmt.Errorf("send through AF_XDP: all frames are still being sent: %w", os.ErrDeadlineExceeded)
		}
		time.Sleep(acquirePause)
	}
}

func (p *port) release(frames []kernel.Frame) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.socket.Release(frames)
}

func (p *port) transmit(frames []kernel.Frame, deadline time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.socket.Transmit(frames, deadline)
}
