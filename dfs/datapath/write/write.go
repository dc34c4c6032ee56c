// Package write holds the write paths: ways for a write to get from the chunk
// server that a client sent it to, to the other replicas of the chunk. Each is a
// file of this package that registers a Path in Paths.
//
// The chunk server does the rest: it takes the frame, applies it to its own
// replica, and acknowledges once all replicas behind it have.
package write

import (
	"net"

	"waggle/dfs/datapath"
)

// Forwarder passes frames on over one connection to the next replica's server.
// It is used by one goroutine.
type Forwarder interface {
	// Forward sends a frame: header (with what the frame carries behind it) and
	// data, which the caller uses again once Forward has returned. The
	// connection has a write deadline. After an error it is of no more use.
	Forward(header, data []byte) error
	// Close gives back what the forwarder holds; the connection stays open.
	Close() error
}

// Path is a write path. Besides what a forwarder counts, the chunk server counts
// the bytes of all writes that it applied as "write_NAME_bytes".
type Path interface {
	About() datapath.Info
	// NewForwarder makes the forwarder of one connection and counts into counters.
	NewForwarder(conn *net.TCPConn, counters *datapath.Counters) (Forwarder, error)
}

// Paths is the registry.
var Paths = datapath.Registry[Path]{Operation: datapath.Write}
