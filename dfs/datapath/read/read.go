// Package read holds the read paths: ways to get a range of a replica from a
// chunk server's page cache to a client. Each is a file of this package that
// registers a Path in Paths; the chunk server and the client need no change.
package read

import (
	"errors"
	"net"
	"os"

	"waggle/bpf/sockmap"
	"waggle/dfs/datapath"
	"waggle/dfs/datapath/read/afxdp"
	"waggle/dfs/wire"
)

// Range is a block-aligned part of a replica's data file.
type Range struct {
	File   *os.File
	Offset int64 // bytes
	Length int   // bytes
	// Mapping returns the file mapped from its start for reading, MappingSize
	// bytes, kept for as long as the file is open. Memory behind the end of the
	// file, which may move at any time, may only be handed to system calls: they
	// fail with EFAULT where the program itself would be killed (SIGBUS).
	Mapping func() ([]byte, error)
}

// MappingSize is how much of a replica's file is mapped, in bytes: as much as
// the largest replica can have.
const MappingSize = wire.MaxChunkSize

// ErrShrank says that a replica's file ended before the range did: it was cut
// after its length was looked up.
var ErrShrank = errors.New("replica ends before the range does")

// Sender sends the answers to reads on one connection. It is used by one
// goroutine: for each answer that has data Prepare, then Send. The server sends
// whatever has no data by itself.
type Sender interface {
	// Prepare is called while the replica is locked against writers. A path that
	// copies the range does it here, and its answer is never torn. The range's
	// file stays open until Send returns, and no longer: a path that needs it
	// for longer keeps a descriptor of its own.
	Prepare(r Range) error
	// Send sends the answer: header, then the range of the last Prepare, without
	// the lock. The connection has a write deadline. After an error it is of no
	// more use.
	Send(header []byte) error
	// Close gives back what the sender holds; the connection stays open.
	Close() error
}

// Path is a read path.
type Path interface {
	About() datapath.Info
	// NewSender makes the sender of one connection that a server accepted.
	NewSender(conn *net.TCPConn, server *Server) (Sender, error)
}

// Parameterized is a Path that needs to know something from the client.
type Parameterized interface {
	// With returns the path for one connection.
	With(parameter string) (Path, error)
}

// Greeter is a Sender that needs to tell the client something at first.
type Greeter interface{ Greeting() []byte }

// Server is what the senders of one chunk server share.
type Server struct {
	Counters datapath.Counters
	// Sockmap redirects what is sent on connections within this kernel; nil on a
	// server that was not given a control group for it.
	Sockmap *sockmap.Ingress
	afxdp   afxdp.Ports
}

// Close gives back what the senders shared. Every connection is closed before.
func (s *Server) Close() error {
	err := s.afxdp.Close()
	if s.Sockmap != nil {
		err = errors.Join(err, s.Sockmap.Close())
	}
	return err
}

// Dialer is what a client dials the connections of the read path of that name
// with.
func Dialer(name string) net.Dialer {
	if path, err := Paths.Get(name); err == nil {
		if special, ok := path.(interface{ dialer() net.Dialer }); ok {
			return special.dialer()
		}
	}
	return net.Dialer{}
}

// Paths is the registry.
var Paths = datapath.Registry[Path]{Operation: datapath.Read}
