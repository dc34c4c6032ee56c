// Package lookup holds the lookup paths: ways to answer a lookup datagram, which
// asks for a whole path at once, at the metadata server. Both halves are here:
// the paths that answer, and the Transport that a client asks with, which is the
// same for all of them, because all of them answer with the same bytes.
//
// An answer depends on the request and on the metadata and on nothing else (no
// clock, no load, no liveness), so that one made in the kernel can be compared
// with one made in user space byte by byte.
package lookup

import (
	"context"
	"net/netip"

	"waggle/dfs/datapath"
	"waggle/dfs/wire"
)

// Resolver knows the metadata. It is used by many goroutines at once.
type Resolver interface {
	// Resolve answers q: it sets every field of a but the ID. The inline bytes
	// that it leaves in a may be shared, and are only read.
	Resolve(q *wire.LookupRequest, a *wire.LookupAnswer)
}

// Server answers lookups at one address.
type Server interface {
	// Address is where the server listens.
	Address() netip.AddrPort
	// Serve answers until ctx ends, which is no error, and closes the server.
	Serve(ctx context.Context, resolver Resolver) error
	// Close closes a server that was never served.
	Close() error
	// Tables are what the server answers from without asking the Resolver; nil if
	// it has none.
	Tables() *Tables
}

// Options say how a server is to be opened.
type Options struct {
	// Workers is how many sockets share the address, each with a goroutine of
	// its own; 0 means one for each processor.
	Workers int
	// Counters receive the path's proof.
	Counters *datapath.Counters
	// Sizes are those of the tables of a path that has them; zero means enough
	// for a million names.
	Sizes Sizes
}

// Sizes say how many records the tables of a path in the kernel hold: directory
// entries and as many inodes, locations of chunks, and small files' contents of
// each of three sizes. Beyond them the least recently used go. Sessions beyond
// theirs are answered in user space.
type Sizes struct {
	Entries, Locations, Contents, Sessions uint32
}

// Path is a lookup path.
type Path interface {
	About() datapath.Info
	// Listen opens a server at address; port 0 chooses a free one.
	Listen(ctx context.Context, address netip.AddrPort, options Options) (Server, error)
}

// Paths is the registry.
var Paths = datapath.Registry[Path]{Operation: datapath.Lookup}
