package meta

import (
	"bytes"
	"errors"
	"slices"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"waggle/dfs/wire"
	"waggle/dfs/wire/control"
)

// Limits of a walk.
const (
	maxNames     = 4096 // of a path, with those that links add
	maxLinks     = 40   // symbolic links that are followed
	maxTarget    = 4095 // bytes of a symbolic link
	maxLinkCount = 65000
)

// refusal is an error of the file system: a gRPC code and, for errors that have
// no code of their own, a message that begins with the errno's name.
func refusal(code codes.Code, format string, args ...any) error {
	return status.Errorf(code, format, args...)
}

func refuse(errno, format string, args ...any) error {
	return status.Errorf(codes.FailedPrecondition, errno+": "+format, args...)
}

// credentials are who a session acts for, as its client says.
type credentials struct {
	uid, gid uint32
	groups   []uint32
}

// Permissions that can be asked for, as in the mode's last three bits.
const (
	mayRead   = 4
	mayWrite  = 2
	maySearch = 1
)

// may says whether the mode of n allows all of want.
func (c *credentials) may(n *wire.Attributes, want uint32) bool {
	mode := n.Mode
	switch {
	case c.uid == 0:
		return true
	case c.uid == n.UID:
		mode >>= 6
	case c.in(n.GID):
		mode >>= 3
	}
	return mode&want == want
}

// mayUse is may for a file's content. The owner always may, because permission
// was checked when the file was opened, and a file may be made that its maker
// can't open again.
func (c *credentials) mayUse(n *wire.Attributes, want uint32) bool {
	return c.uid == n.UID || c.may(n, want)
}

func (c *credentials) in(gid uint32) bool {
	return c.gid == gid || slices.Contains(c.groups, gid)
}

func isDirectory(n *inode) bool { return n.Mode&unix.S_IFMT == unix.S_IFDIR }
func isSymlink(n *inode) bool   { return n.Mode&unix.S_IFMT == unix.S_IFLNK }
func isFile(n *inode) bool      { return n.Mode&unix.S_IFMT == unix.S_IFREG }

// tables are what a path is walked through: the state that is being changed or
// one that was published.
type tables interface {
	inode(number uint64) *inode // nil if there is none
	entries(k key) entries
}

// errDangling: an entry's inode does not exist. To a reader it says that the
// state moved on during the walk; to a change, that the metadata is damaged.
var errDangling = errors.New("a directory entry leads to nothing")

// walker walks paths by their names.
type walker struct {
	tables
	hash func(name []byte) wire.NameHash
	who  *credentials
}

// child returns what name stands for in a directory that may be searched, or
// nil.
func (w *walker) child(directory *inode, name []byte) (*inode, error) {
	number := w.entries(entryKey(directory.Inode, w.hash(name))).find(name)
	if number == 0 {
		return nil, nil
	}
	n := w.inode(number)
	if n == nil {
		return nil, errDangling
	}
	return n, nil
}

// search says whether names may be looked up in n.
func (w *walker) search(n *inode, want uint32) error {
	if !isDirectory(n) {
		return refuse("ENOTDIR", "inode %d is no directory", n.Inode)
	}
	if !w.who.may(&n.Attributes, want) {
		return refusal(codes.PermissionDenied, "no permission in directory %d", n.Inode)
	}
	return nil
}

// node returns the inode that a node names.
func (w *walker) node(node *control.Node) (*inode, error) {
	if err := checkNode(node); err != nil {
		return nil, err
	}
	return w.walk(node.GetStart(), node.GetNames(), node.GetFollow())
}

// parent returns the directory that a node's last name is in, and that name.
// The directory may be searched.
func (w *walker) parent(node *control.Node) (*inode, []byte, error) {
	if err := checkNode(node); err != nil {
		return nil, nil, err
	}
	last := len(node.GetNames()) - 1
	if last < 0 {
		return nil, nil, refusal(codes.InvalidArgument, "a directory entry must be named")
	}
	directory, err := w.walk(node.GetStart(), node.GetNames()[:last], true)
	if err != nil {
		return nil, nil, err
	}
	return directory, node.GetNames()[last], w.search(directory, maySearch)
}

func checkNode(node *control.Node) error {
	if len(node.GetNames()) > maxNames {
		return refusal(codes.InvalidArgument, "path has %d names: at most %d are allowed", len(node.GetNames()), maxNames)
	}
	for _, name := range node.GetNames() {
		if err := wire.CheckName(name); err != nil {
			return refusal(codes.InvalidArgument, "%v", err)
		}
	}
	return nil
}

// walk follows names from start (0: the root), and symbolic links on the way;
// one at the end only with follow.
func (w *walker) walk(start uint64, names [][]byte, follow bool) (*inode, error) {
	if start == 0 {
		start = wire.RootInode
	}
	at := w.inode(start)
	if at == nil {
		return nil, refusal(codes.NotFound, "inode %d does not exist", start)
	}
	for links := 0; len(names) > 0; {
		name := names[0]
		names = names[1:]
		if err := w.search(at, maySearch); err != nil {
			return nil, err
		}
		next, err := w.step(at, name)
		if err != nil {
			return nil, err
		}
		if !isSymlink(next) || (len(names) == 0 && !follow) {
			at = next
			continue
		}
		if links++; links > maxLinks {
			return nil, refuse("ELOOP", "more than %d symbolic links on a path", maxLinks)
		}
		target := bytes.Split(next.content, []byte("/"))
		if names = append(target, names...); len(names) > maxNames {
			return nil, refusal(codes.InvalidArgument, "path has more than %d names", maxNames)
		}
		if next.content[0] == '/' {
			if at = w.inode(wire.RootInode); at == nil {
				return nil, errDangling
			}
		}
	}
	return at, nil
}

// step goes from a directory to the entry of that name. The names "", "." and
// ".." come from symbolic links only.
func (w *walker) step(at *inode, name []byte) (*inode, error) {
	var next *inode
	var err error
	switch string(name) {
	case "", ".":
		return at, nil
	case "..":
		if next = w.inode(at.parent); next == nil {
			err = errDangling
		}
	default:
		if next, err = w.child(at, name); next == nil && err == nil {
			err = refusal(codes.NotFound, "%q does not exist in directory %d", name, at.Inode)
		}
	}
	return next, err
}
