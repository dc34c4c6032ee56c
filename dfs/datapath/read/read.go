// Package read holds the read paths: ways to get a range of a replica from a
// chunk server's page cache to a client.
package read

import (
	"net"
	"os"

	"waggle/dfs/datapath"
)

// Range is a block-aligned part of a replica's data file.
type Range struct {
	File   *os.File
	Offset int64 // bytes
	Length int   // bytes
}

// Sender sends answers on one connection. It is used by one goroutine.
type Sender interface {
	// Prepare is called while the replica is locked against writers. A path that
	// copies the range does it here, and its answer is never torn.
	Prepare(r Range) error
	// Send sends the answer: header, then the range of the last Prepare, without
	// the lock. After an error the connection is of no more use.
	Send(header []byte) error
	// Close gives back what the sender holds; the connection stays open.
	Close() error
}

// Path is a read path.
type Path interface {
	About() datapath.Info
	// NewSender makes the sender of one connection and counts into counters.
	NewSender(conn *net.TCPConn, counters *datapath.Counters) (Sender, error)
}

// Paths is the registry.
var Paths = datapath.Registry[Path]{Operation: datapath.Read}
