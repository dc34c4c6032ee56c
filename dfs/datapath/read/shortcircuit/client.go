package shortcircuit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"golang.org/x/sys/unix"

	"waggle/dfs/wire"
)

// maxOpen is how many replicas of one server a client keeps open; each takes
// two descriptors.
const maxOpen = 256

// Errors of a client.
var (
	// ErrTakenBack: the replica has changed; ask for it again.
	ErrTakenBack = errors.New("the chunk server took the replica back")
	// ErrGone: the server has ended, or does not lend to this client.
	ErrGone = errors.New("the chunk server lends no more")
)

// RefusedError is a status with which the server answered.
type RefusedError struct {
	Status wire.Status
	Text   string
}

func (e *RefusedError) Error() string { return e.Text }

// Client borrows replicas from one server. It is used by many goroutines.
type Client struct {
	conn    *net.UnixConn
	answers chan message  // has room for one that nobody waits for any more
	gone    chan struct{} // closed when the server has ended

	asking sync.Mutex // held from a request to its answer

	mu     sync.RWMutex // held shared while the memory is looked at
	memory []byte       // nil once closed
	open   *simplelru.LRU[uint64, *Borrowed]
}

// Borrowed is a replica that was lent to this client.
type Borrowed struct {
	client     *Client
	data, sums *os.File
	slot       *slot
	generation uint64
	epoch      uint64
	sumsStart  int64
}

// Dial connects to a server on this machine. The client must be closed.
func Dial(ctx context.Context, name string) (*Client, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unixpacket", name)
	if err != nil {
		return nil, fmt.Errorf("reach the chunk server on this machine (both must be in one network namespace): %w", err)
	}
	c := &Client{conn: conn.(*net.UnixConn), answers: make(chan message, 1), gone: make(chan struct{})}
	if err := c.start(ctx); err != nil {
		c.conn.Close()
		return nil, err
	}
	go c.receive()
	return c, nil
}

// start receives the shared memory.
func (c *Client) start(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { c.conn.Close() })
	defer stop()
	m, err := receive(c.conn)
	if err != nil {
		return fmt.Errorf("%w: it lends to its own user and root alone, and to at most %d clients", ErrGone, maxClients)
	}
	defer m.close()
	if len(m.files) != 1 || len(m.text) != 1 || m.text[0] != wire.Version {
		return fmt.Errorf("%w: greeting of %d bytes with %d files", wire.ErrMalformed, len(m.text), len(m.files))
	}
	seals, err := unix.FcntlInt(m.files[0].Fd(), unix.F_GET_SEALS, 0)
	if info, failed := m.files[0].Stat(); err != nil || failed != nil || seals&unix.F_SEAL_SHRINK == 0 || info.Size() != int64(pageSize) {
		return fmt.Errorf("%w: the shared memory could become shorter", wire.ErrMalformed)
	}
	if c.memory, err = unix.Mmap(int(m.files[0].Fd()), 0, pageSize, unix.PROT_READ, unix.MAP_SHARED); err != nil {
		return fmt.Errorf("map shared memory: %w", err)
	}
	c.open, err = simplelru.NewLRU(maxOpen, func(_ uint64, b *Borrowed) { b.close() })
	return err
}

// message is what one datagram of the socket carries.
type message struct {
	text  []byte
	files []*os.File
}

func (m message) close() {
	for _, f := range m.files {
		f.Close()
	}
}

func receive(conn *net.UnixConn) (m message, err error) {
	text, control := make([]byte, replySize+maxText), make([]byte, unix.CmsgSpace(2*4))
	n, controls, flags, _, err := conn.ReadMsgUnix(text, control)
	if err != nil {
		return m, err
	}
	m.text = text[:n]
	list, err := unix.ParseSocketControlMessage(control[:controls])
	for _, one := range list {
		fds, _ := unix.ParseUnixRights(&one)
		for _, fd := range fds {
			m.files = append(m.files, os.NewFile(uintptr(fd), "replica"))
		}
	}
	if err == nil && (n == 0 || flags&(unix.MSG_CTRUNC|unix.MSG_TRUNC) != 0) {
		err = ErrGone
	}
	if err != nil {
		m.close()
	}
	return m, err
}

// receive passes answers on until the server ends.
func (c *Client) receive() {
	defer close(c.gone)
	for {
		m, err := receive(c.conn)
		if err != nil {
			break
		}
		select {
		case c.answers <- m:
		default: // nobody can have asked for it
			m.close()
			c.conn.Close()
		}
	}
	c.release()
	select {
	case m := <-c.answers:
		m.close()
	default:
	}
}

// release gives back everything.
func (c *Client) release() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open.Purge()
	unix.Munmap(c.memory)
	c.memory = nil
}

// Gone says whether the server has ended, or the client was closed.
func (c *Client) Gone() bool {
	select {
	case <-c.gone:
		return true
	default:
		return false
	}
}

// Close gives back everything that was lent.
func (c *Client) Close() error {
	err := c.conn.Close()
	<-c.gone
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// Borrow returns a replica that is at least of the epoch. What ends before the
// context does is up to the server; after ErrGone or a context's error the
// client is of no more use.
func (c *Client) Borrow(ctx context.Context, chunk, epoch uint64) (*Borrowed, error) {
	if b := c.borrowed(chunk); b != nil && b.epoch >= epoch {
		return b, nil
	}
	c.asking.Lock()
	defer c.asking.Unlock()
	if b := c.borrowed(chunk); b != nil && b.epoch >= epoch {
		return b, nil // another goroutine has asked
	}
	if _, err := c.conn.Write(le.AppendUint64(le.AppendUint64(nil, chunk), epoch)); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrGone, err)
	}
	select {
	case m := <-c.answers:
		return c.take(chunk, m)
	case <-c.gone:
		return nil, ErrGone
	case <-ctx.Done():
		c.conn.Close() // or the next request would get this one's answer
		return nil, context.Cause(ctx)
	}
}

// borrowed returns a replica that is open and was not taken back.
func (c *Client) borrowed(chunk uint64) *Borrowed {
	c.mu.Lock()
	defer c.mu.Unlock()
	b, ok := c.open.Get(chunk)
	if !ok {
		return nil
	}
	if !b.holds() {
		c.open.Remove(chunk)
		return nil
	}
	return b
}

func (c *Client) take(chunk uint64, m message) (*Borrowed, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r, err := parseReply(m.text, len(m.files))
	if errors.As(err, new(*RefusedError)) {
		m.close()
		return nil, err
	}
	if err != nil || c.memory == nil {
		m.close()
		c.conn.Close()
		return nil, errors.Join(ErrGone, err)
	}
	b := &Borrowed{client: c, data: m.files[0], sums: m.files[1], slot: slotAt(c.memory, r.slot),
		generation: r.generation, epoch: r.epoch, sumsStart: r.sumsStart}
	c.open.Add(chunk, b)
	return b, nil
}

func (b *Borrowed) close() {
	b.data.Close()
	b.sums.Close()
}

// holds is called with the client's lock.
func (b *Borrowed) holds() bool {
	return b.client.memory != nil && b.slot.generation.Load() == b.generation
}

// Length returns the replica's length in bytes.
func (b *Borrowed) Length() (uint64, error) {
	b.client.mu.RLock()
	defer b.client.mu.RUnlock()
	if !b.holds() {
		return 0, ErrTakenBack
	}
	return b.slot.length.Load(), nil
}

// Read fills the parts with what is at offset, where a block begins, and sums
// with the checksums from that block on. It returns how many bytes of data there
// were. They count for nothing after an error: ErrTakenBack says that the replica
// had changed.
func (b *Borrowed) Read(parts [][]byte, offset uint64, sums []byte) (n int, err error) {
	n, err = preadv(b.data, parts, int64(offset))
	if err == nil {
		_, err = b.sums.ReadAt(sums, b.sumsStart+int64(offset/wire.BlockSize*4))
	}
	b.client.mu.RLock()
	defer b.client.mu.RUnlock()
	if !b.holds() || errors.Is(err, os.ErrClosed) || Now() >= untilAt(b.client.memory).Load() {
		return 0, ErrTakenBack
	}
	if errors.Is(err, io.EOF) {
		return 0, nil // checksums are missing, so none of the data is good
	}
	if err != nil {
		return 0, fmt.Errorf("read a replica's files: %w", err)
	}
	return n, nil
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
	if failed != nil {
		return 0, fmt.Errorf("%w: %w", os.ErrClosed, failed)
	}
	return n, err
}
