package afxdp

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	kernel "waggle/bpf/afxdp"
	"waggle/dfs/datapath"
	"waggle/dfs/wire"
)

// receiverFrames is how many packets can wait for a client: more than one
// connection's readers ask for ahead.
const receiverFrames = 4096

// MaxTransfers bounds the ranges that are waited for at once.
const MaxTransfers = 4096

// Receiver receives datagrams through one interface, for all readers of a client.
type Receiver struct {
	reserved *net.UDPConn // so that nobody else has the port
	socket   *kernel.Socket
	redirect *kernel.Redirect
	ended    chan struct{}

	bytes, stray, malformed, copied, fromKernel *atomic.Int64

	mu        sync.Mutex // held while the socket is used
	closed    bool
	transfers map[uint64]*Transfer
}

// OpenReceiver opens a receiver on a route's interface, in the calling thread's
// network namespace. It must be closed.
func OpenReceiver(r Route, counters *datapath.Counters) (*Receiver, error) {
	v := &Receiver{
		ended: make(chan struct{}), transfers: make(map[uint64]*Transfer),
		bytes:     counters.Counter("read_afxdp_received_bytes"),
		stray:     counters.Counter("read_afxdp_stray_datagrams"),
		malformed: counters.Counter("read_afxdp_malformed_datagrams"),
		copied:    counters.Counter(datapath.CopiedInUser),
	}
	var err error
	if v.reserved, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(r.from, 0))); err != nil {
		return nil, fmt.Errorf("reserve a UDP port: %w", err)
	}
	v.socket, err = openWhenFree(kernel.Config{Interface: r.Interface, FrameSize: frameSize(r.MTU), Frames: receiverFrames, Direction: kernel.Receives})
	if err != nil {
		return nil, errors.Join(err, v.reserved.Close())
	}
	if v.redirect, err = attachWhenFree(v.socket, v.address()); err != nil {
		return nil, errors.Join(err, v.socket.Close(), v.reserved.Close())
	}
	countMode(v.socket, "receive", counters)
	counters.Counter("read_afxdp_attached_" + string(v.redirect.Mode)).Store(1)
	v.fromKernel = new(atomic.Int64)
	if !v.socket.ZeroCopy {
		v.fromKernel = counters.Counter(datapath.CopiedFromKernel)
	}
	counters.AddSource(v.count)
	go v.receive()
	return v, nil
}

func attachWhenFree(s *kernel.Socket, to netip.AddrPort) (*kernel.Redirect, error) {
	for end := time.Now().Add(freeTime); ; time.Sleep(10 * time.Millisecond) {
		r, err := kernel.Attach(s, to)
		if !errors.Is(err, unix.EBUSY) || time.Now().After(end) {
			return r, err
		}
	}
}

func (v *Receiver) address() netip.AddrPort { return v.reserved.LocalAddr().(*net.UDPAddr).AddrPort() }

// Port is the UDP port that servers send to.
func (v *Receiver) Port() uint16 { return v.address().Port() }

// count adds what the kernel has counted to a snapshot.
func (v *Receiver) count(counts map[string]int64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.closed {
		return
	}
	redirected, err := v.redirect.Redirected()
	lost, failed := v.socket.Lost()
	if err == nil && failed == nil {
		counts["read_afxdp_redirected_datagrams"] += int64(redirected)
		counts["read_afxdp_overflowed_datagrams"] += int64(lost)
	}
}

// receive takes in what comes until the receiver is closed. Those who wait for a
// transfer do it too, so they seldom wait for this.
func (v *Receiver) receive() {
	defer close(v.ended)
	for v.socket.Wait() == nil {
		if v.drain() != nil {
			return
		}
	}
}

// drain takes in what has come.
func (v *Receiver) drain() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.closed {
		return net.ErrClosed
	}
	_, err := v.socket.Receive(v.take)
	return err
}

// take takes in one packet. Whoever sent it, it can only be a piece of a range
// that is waited for, and its bytes are verified with the blocks' checksums.
func (v *Receiver) take(packet []byte) {
	v.fromKernel.Add(int64(len(packet)))
	d, err := Parse(payload(packet))
	if err != nil {
		v.malformed.Add(1)
		return
	}
	t := v.transfers[d.ID]
	if t == nil || !t.take(d) {
		v.stray.Add(1)
		return
	}
	v.bytes.Add(int64(len(d.Data)))
	v.copied.Add(int64(len(d.Data)))
}

// Close ends the receiver, and with it the program on the interface.
func (v *Receiver) Close() error {
	v.mu.Lock()
	if v.closed {
		v.mu.Unlock()
		return nil
	}
	v.closed = true
	v.mu.Unlock()
	err := v.redirect.Close()
	err = errors.Join(err, v.socket.Close(), v.reserved.Close())
	<-v.ended
	return err
}

// Expect prepares for the pieces of the answer to a frame that is about to be
// sent: blocks from offset on, which go to the parts, one after the other.
func (v *Receiver) Expect(id, offset uint64, piece int, parts [][]byte) (*Transfer, error) {
	if piece < MinPiece || piece > MaxPiece {
		return nil, fmt.Errorf("%w: datagrams with %d bytes, must be from %d to %d", wire.ErrMalformed, piece, MinPiece, MaxPiece)
	}
	t := &Transfer{receiver: v, id: id, offset: offset, piece: uint64(piece), parts: parts, done: make(chan struct{}, 1)}
	for _, p := range parts {
		t.room += uint64(len(p))
	}
	t.have = make([]bool, (t.room+t.piece-1)/t.piece)
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.transfers) >= MaxTransfers {
		return nil, fmt.Errorf("receive blocks: %d ranges are waited for, no more are allowed", MaxTransfers)
	}
	v.transfers[id] = t
	return t, nil
}
