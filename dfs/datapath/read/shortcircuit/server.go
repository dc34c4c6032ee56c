// Package shortcircuit lets a client read replicas on its own machine without
// the chunk server: the server lends it the replica's files, opened for reading,
// over a Unix socket, and the client preads data and checksums itself.
//
//   - Who: the socket's name is abstract and random, told over the data
//     connection, so only a client in the server's network namespace can reach
//     it. The server lends to its own user and root alone (SO_PEERCRED).
//   - Taking back: shared memory, which only the server can write, has a slot for
//     each replica that is lent. The server changes it before it acknowledges
//     that the replica was deleted, truncated, replaced, or sealed under another
//     epoch; the client compares it before and after each read. The other way, a
//     message that each client acknowledges, would let a client that hangs hold
//     up the server.
//   - Death: when the server ends, however, the socket does, and the client
//     gives back all that it was lent. When a client ends, the kernel closes its
//     files; the server holds none for it.
//   - Out of touch: a chunk server serves under a lease, whose end is in the shared
//     memory, too. What a client has read when it has lapsed counts for nothing.
//   - Overwriting does not take back: a block that is torn, or newer than its
//     checksum, is found by the client like one that came over a connection.
package shortcircuit

import (
	"crypto/rand"
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"waggle/dfs/wire"
)

// Limits.
const (
	maxClients  = 256
	requestSize = 16
	sendTime    = 5 * time.Second
)

// Replica is an opened replica. The server closes its files once they are sent.
type Replica struct {
	Data, Sums *os.File // for reading only
	SumsStart  int64    // bytes; where the sums, 4 for each block, begin in their file
	Epoch      uint64
	Loan       *Loan
}

// Open opens a replica for a client that knows the chunk's epoch. lend must be
// called while the replica can't change, with its last loan, or nil, and its
// length; the replica then tells the loan all that happens to it. An error is
// told to the client with its status.
type Open func(chunk, epoch uint64, lend func(last *Loan, length uint64) *Loan) (Replica, wire.Status, error)

// Server lends replicas.
type Server struct {
	open     Open
	page     *page
	listener *net.UnixListener
	serving  sync.WaitGroup

	mu      sync.Mutex
	clients map[*net.UnixConn]bool
	closed  bool
}

// Listen starts a server.
func Listen(open Open) (*Server, error) {
	var random [16]byte
	rand.Read(random[:])
	listener, err := net.ListenUnix("unixpacket", &net.UnixAddr{Net: "unixpacket", Name: fmt.Sprintf("@waggle-%x", random)})
	if err != nil {
		return nil, fmt.Errorf("listen for clients on this machine: %w", err)
	}
	s := &Server{open: open, listener: listener, clients: make(map[*net.UnixConn]bool)}
	if s.page, err = newPage(); err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	s.LendUntil(math.MaxInt64)
	s.serving.Go(s.accept)
	return s, nil
}

// LendUntil sets until when clients may read what they were lent, in Now's time;
// 0: not any more. A new server lends without end.
func (s *Server) LendUntil(until int64) { untilAt(s.page.memory).Store(until) }

// TakeAllBack takes back everything. Clients may ask for it again.
func (s *Server) TakeAllBack() { s.page.takeAllBack() }

// Name is the socket's, for Dial.
func (s *Server) Name() string { return s.listener.Addr().String() }

// Close takes everything back and ends the server. No loan may be used any more.
func (s *Server) Close() error {
	s.mu.Lock()
	s.closed = true
	err := s.listener.Close()
	for c := range s.clients {
		c.Close()
	}
	s.mu.Unlock()
	s.serving.Wait()
	return errors.Join(err, s.page.close())
}

func (s *Server) accept() {
	for {
		conn, err := s.listener.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // such as no descriptor being free
			time.Sleep(10 * time.Millisecond)
			continue
		}
		if !s.enter(conn) {
			conn.Close()
			continue
		}
		s.serving.Go(func() {
			defer s.leave(conn)
			s.serve(conn)
		})
	}
}

func (s *Server) enter(conn *net.UnixConn) bool {
	if !trusted(conn) {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || len(s.clients) >= maxClients {
		return false
	}
	s.clients[conn] = true
	return true
}

func (s *Server) leave(conn *net.UnixConn) {
	s.mu.Lock()
	delete(s.clients, conn)
	s.mu.Unlock()
	conn.Close()
}

// trusted says whether the other end belongs to this user or to root.
func trusted(conn *net.UnixConn) bool {
	raw, err := conn.SyscallConn()
	if err != nil {
		return false
	}
	var peer *unix.Ucred
	if failed := raw.Control(func(fd uintptr) { peer, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); failed != nil || err != nil {
		return false
	}
	return peer.Uid == 0 || peer.Uid == uint32(os.Geteuid())
}

// serve sends the shared memory, and then answers requests. Any error ends the
// connection, and with it what its client was lent.
func (s *Server) serve(conn *net.UnixConn) {
	if send(conn, []byte{wire.Version}, s.page.file) != nil {
		return
	}
	var request [requestSize + 1]byte
	for {
		n, err := conn.Read(request[:])
		if err != nil || n != requestSize {
			return
		}
		if s.answer(conn, le.Uint64(request[:]), le.Uint64(request[8:])) != nil {
			return
		}
	}
}

// answer answers a request, beside the reply the files.
func (s *Server) answer(conn *net.UnixConn, chunk, epoch uint64) error {
	r, status, err := s.open(chunk, epoch, s.page.lend)
	if err != nil {
		return send(conn, appendRefusal(nil, status, err.Error()))
	}
	defer r.Data.Close()
	defer r.Sums.Close()
	return send(conn, reply{r.Loan.index, r.Loan.generation, r.Epoch, r.SumsStart}.append(nil), r.Data, r.Sums)
}

func send(conn *net.UnixConn, message []byte, files ...*os.File) error {
	var rights []byte
	if len(files) > 0 {
		var fds []int
		for _, f := range files {
			fds = append(fds, int(f.Fd()))
		}
		rights = unix.UnixRights(fds...)
	}
	conn.SetWriteDeadline(time.Now().Add(sendTime))
	_, _, err := conn.WriteMsgUnix(message, rights, nil)
	return err
}
