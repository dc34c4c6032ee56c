package client

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"waggle/dfs/datapath/lookup"
	"waggle/dfs/wire"
	"waggle/dfs/wire/control"
)

// maxPath is the longest path in bytes.
const maxPath = 64 << 10

// found is what a lookup yields.
type found struct {
	wire.Attributes
	location wire.Location
	inline   []byte
	target   string // of a symbolic link, if it was found by name
}

// want says what a lookup asks for beside the attributes.
type want struct {
	inline   bool
	location bool
	index    uint32 // the chunk whose location is asked for
	follow   bool   // a symbolic link at the path's end
}

func (w want) flags() (flags uint16) {
	if w.inline {
		flags |= wire.WantInline
	}
	if w.location {
		flags |= wire.WantLocation
	}
	return flags
}

// nextName cuts the first name off a path. It skips "." and empty names.
func nextName(path string) (name, rest string, err error) {
	for path != "" && (name == "" || name == ".") {
		name, path, _ = strings.Cut(path, "/")
	}
	switch {
	case name == "" || name == ".":
		return "", "", nil
	case len(name) > wire.MaxName:
		return "", "", &remoteError{syscall.ENAMETOOLONG, fmt.Sprintf("a name has %d bytes, at most %d are allowed", len(name), wire.MaxName)}
	case name == "..":
		return "", "", &remoteError{syscall.EINVAL, `".." is refused: give the path without it`}
	case strings.IndexByte(name, 0) >= 0:
		return "", "", &remoteError{syscall.EINVAL, "a name holds a NUL byte"}
	}
	return name, path, nil
}

// names cuts a path into its names.
func names(path string) ([][]byte, error) {
	if path == "" { // POSIX, pathname resolution
		return nil, &remoteError{syscall.ENOENT, "the path is empty"}
	}
	if len(path) > maxPath {
		return nil, &remoteError{syscall.ENAMETOOLONG, fmt.Sprintf("the path has %d bytes, at most %d are allowed", len(path), maxPath)}
	}
	var list [][]byte
	for {
		name, rest, err := nextName(path)
		if err != nil {
			return nil, err
		}
		if name == "" {
			return list, nil
		}
		list, path = append(list, []byte(name)), rest
	}
}

// node names a path for a control call.
func node(path string, follow bool) (*control.Node, error) {
	list, err := names(path)
	return &control.Node{Names: list, Follow: follow}, err
}

// find looks a path up: by datagrams, 16 names at a time, and by a control call
// where those can't answer.
func (c *Client) find(ctx context.Context, path string, w want) (found, error) {
	if path == "" || len(path) > maxPath {
		_, err := names(path)
		return found{}, err
	}
	start, rest := uint64(wire.RootInode), path
	for {
		var q wire.LookupRequest
		after, err := c.hashNames(&q, rest)
		if err != nil {
			return found{}, err
		}
		if after == "" {
			q.Flags, q.ChunkIndex = w.flags(), w.index
		}
		q.Start = start
		a, err := c.lookup(ctx, &q)
		switch {
		case err != nil:
			return found{}, err
		case a.Status == wire.LookupSymlink, a.Status == wire.LookupAmbiguous:
			return c.walk(ctx, path, w)
		case a.Status == wire.LookupOK && isSymlink(a.Attributes.Mode) && (after != "" || w.follow):
			return c.walk(ctx, path, w)
		case a.Status != wire.LookupOK:
			return found{}, lookupError(a.Status)
		case after == "":
			return found{a.Attributes, a.Location, a.Inline, ""}, nil
		}
		start, rest = a.Attributes.Inode, after
	}
}

// findInode looks up what is already open.
func (c *Client) findInode(ctx context.Context, inode uint64, w want) (found, error) {
	q := wire.LookupRequest{Start: inode, Flags: w.flags(), ChunkIndex: w.index}
	a, err := c.lookup(ctx, &q)
	switch {
	case err != nil:
		return found{}, err
	case a.Status == wire.LookupNotFound:
		return found{}, &remoteError{syscall.ESTALE, "the file was removed"}
	case a.Status != wire.LookupOK:
		return found{}, lookupError(a.Status)
	}
	return found{a.Attributes, a.Location, a.Inline, ""}, nil
}

// hashNames puts the first names of path into q and returns the rest of the
// path, which is empty if all fit.
func (c *Client) hashNames(q *wire.LookupRequest, path string) (rest string, err error) {
	key := c.session.Load().key
	var buffer [wire.MaxName]byte
	for {
		name, rest, err := nextName(path)
		if name == "" || err != nil {
			return "", err
		}
		if q.Components == wire.MaxComponents {
			return path, nil
		}
		q.Names[q.Components] = key.Hash(buffer[:copy(buffer[:], name)])
		q.Components++
		path = rest
	}
}

// lookup asks one datagram until it is answered with something final.
func (c *Client) lookup(ctx context.Context, q *wire.LookupRequest) (wire.LookupAnswer, error) {
	tries := newRetry(c.options.Patience)
	for {
		s := c.session.Load()
		q.Session = s.id
		a, err := s.lookups.Lookup(ctx, q)
		switch {
		case err == nil && a.Status == wire.LookupBadSession:
			if err := c.renewSession(ctx, s); err != nil {
				return a, err
			}
			err = errors.New("the session has ended")
		case err == nil && a.Status == wire.LookupRetry:
			err = errors.New("the metadata server is not ready")
		case err == nil:
			return a, nil
		case ctx.Err() != nil, c.ctx.Err() != nil, c.session.Load() == s && !errors.Is(err, lookup.ErrNoAnswer):
			return a, err
		}
		if err := tries.again(ctx, err); err != nil {
			return a, err
		}
	}
}

func lookupError(status wire.LookupStatus) error {
	switch status {
	case wire.LookupNotFound:
		return &remoteError{syscall.ENOENT, ""}
	case wire.LookupNotDirectory:
		return &remoteError{syscall.ENOTDIR, ""}
	case wire.LookupDenied:
		return &remoteError{syscall.EACCES, ""}
	}
	return fmt.Errorf("metadata server answered a lookup with status %d", status)
}

// walk finds a path by its names.
func (c *Client) walk(ctx context.Context, path string, w want) (found, error) {
	at, err := node(path, w.follow)
	if err != nil {
		return found{}, err
	}
	request := &control.WalkRequest{Node: at, WantInline: w.inline}
	if w.location {
		request.ChunkIndex = &w.index
	}
	reply, err := call(ctx, c, func(ctx context.Context, s *session) (*control.WalkReply, error) {
		request.Session = s.id
		return c.control.Walk(ctx, request, wait)
	})
	if err != nil {
		return found{}, err
	}
	location, err := fromLocation(reply.GetLocation())
	return found{fromAttributes(reply.GetAttributes()), location, reply.GetInline(), string(reply.GetTarget())}, err
}

func fromAttributes(a *control.Attributes) wire.Attributes {
	return wire.Attributes{
		Inode: a.GetInode(), Size: a.GetSize(), ModifiedNs: a.GetModifiedNs(), ChangedNs: a.GetChangedNs(),
		Mode: a.GetMode(), UID: a.GetUid(), GID: a.GetGid(), Links: a.GetLinks(), Version: a.GetVersion(),
		ChunkSize: a.GetChunkSize(), Replication: uint16(a.GetReplication()), InlineSize: uint16(a.GetInlineSize()),
	}
}

func fromLocation(l *control.Location) (wire.Location, error) {
	location := wire.Location{Chunk: l.GetChunk(), Epoch: l.GetEpoch(), Index: l.GetIndex(), Length: uint32(l.GetLength())}
	if n := len(l.GetReplicas()); n > wire.MaxReplicas {
		return location, fmt.Errorf("metadata server names %d replicas of chunk %d, at most %d are possible", n, location.Chunk, wire.MaxReplicas)
	}
	for _, r := range l.GetReplicas() {
		address, err := netip.ParseAddrPort(r.Address)
		if err != nil {
			return location, fmt.Errorf("metadata server names a replica of chunk %d at %q: %w", location.Chunk, r.Address, err)
		}
		location.Replicas = append(location.Replicas, wire.Replica{Address: address, Server: r.Server})
	}
	return location, nil
}

func isSymlink(mode uint32) bool   { return mode&unix.S_IFMT == unix.S_IFLNK }
func isDirectory(mode uint32) bool { return mode&unix.S_IFMT == unix.S_IFDIR }
