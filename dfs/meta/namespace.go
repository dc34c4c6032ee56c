package meta

import (
	"bytes"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"

	"waggle/dfs/wire"
	"waggle/dfs/wire/control"
)

const permissionBits = 0o7777

// existing returns what a node's entry stands for, nil if nothing does, with the
// directory and the name.
func (m *mutation) existing(node *control.Node) (directory *inode, name []byte, n *inode, err error) {
	if directory, name, err = m.parent(node); err != nil {
		return nil, nil, nil, err
	}
	n, err = m.child(directory, name)
	return directory, name, n, err
}

// newEntry checks that an entry can be made and returns where.
func (m *mutation) newEntry(node *control.Node) (*inode, []byte, error) {
	directory, name, n, err := m.existing(node)
	if err != nil {
		return nil, nil, err
	}
	if n != nil {
		return nil, nil, refusal(codes.AlreadyExists, "%q exists", name)
	}
	return directory, name, m.search(directory, mayWrite|maySearch)
}

// addEntry gives an inode a name. Both are changed, the directory is put.
func (m *mutation) addEntry(directory *inode, name []byte, n *inode) {
	k := entryKey(directory.Inode, m.hash(name))
	m.put(k, m.change.entries(k).with(name, n.Inode))
	directory.Size++
	if isDirectory(n) {
		directory.Links++
		n.parent = directory.Inode
	}
	m.modify(directory)
}

// removeEntry takes a name from a directory. What it stood for is not changed.
func (m *mutation) removeEntry(directory *inode, name []byte, n *inode) {
	k := entryKey(directory.Inode, m.hash(name))
	if left := m.change.entries(k).without(name); len(left) > 0 {
		m.put(k, left)
	} else {
		m.delete(k)
	}
	directory.Size--
	if isDirectory(n) {
		directory.Links--
	}
	m.modify(directory)
}

// modify puts an inode whose content has changed now.
func (m *mutation) modify(n *inode) {
	n.ModifiedNs = m.nowNs
	m.putInode(n)
}

// make makes an inode in a directory.
func (m *mutation) make(directory *inode, name []byte, mode uint32) *inode {
	n := &inode{Attributes: wire.Attributes{
		Inode: m.totals.nextInode, Mode: mode, UID: m.who.uid, GID: m.who.gid, Links: 1, ModifiedNs: m.nowNs,
	}}
	m.totals.nextInode++
	if isDirectory(n) {
		n.Links = 2
		m.totals.directories++
	} else {
		m.totals.files++
	}
	m.putTotals()
	if directory.Mode&unix.S_ISGID != 0 { // as in System V: the group is inherited
		n.GID = directory.GID
		if isDirectory(n) {
			n.Mode |= unix.S_ISGID
		}
	}
	m.addEntry(directory, name, n)
	m.putInode(n)
	return n
}

func (m *mutation) create(q *control.Create) (*inode, error) {
	chunkSize, replication, err := m.layout(q)
	if err != nil {
		return nil, err
	}
	directory, name, n, err := m.existing(q.Node)
	if err != nil {
		return nil, err
	}
	if n != nil {
		return m.open(q, name, n)
	}
	if err := m.search(directory, mayWrite|maySearch); err != nil {
		return nil, err
	}
	n = m.make(directory, name, unix.S_IFREG|q.Mode&permissionBits)
	n.ChunkSize, n.Replication = chunkSize, replication
	m.setContent(n, q.Inline)
	if q.ModifiedNs != nil {
		n.ModifiedNs = *q.ModifiedNs
	}
	return n, nil
}

// layout returns how a new file is to be cut and copied.
func (m *mutation) layout(q *control.Create) (chunkSize uint32, replication uint16, err error) {
	if len(q.Inline) > wire.MaxInline {
		return 0, 0, refusal(codes.InvalidArgument, "%d bytes of content: at most %d fit into an inode record", len(q.Inline), wire.MaxInline)
	}
	if chunkSize = q.ChunkSize; chunkSize == 0 {
		chunkSize = m.config.ChunkSize
	}
	if err := wire.CheckChunkSize(chunkSize); err != nil {
		return 0, 0, refusal(codes.InvalidArgument, "%v", err)
	}
	if q.Replication > wire.MaxReplicas {
		return 0, 0, refusal(codes.InvalidArgument, "replication %d: at most %d is allowed", q.Replication, wire.MaxReplicas)
	}
	if replication = uint16(q.Replication); replication == 0 {
		replication = m.defaultReplication
	}
	return chunkSize, replication, nil
}

// open opens a file that a create has found.
func (m *mutation) open(q *control.Create, name []byte, n *inode) (*inode, error) {
	if q.Exclusive {
		return nil, refusal(codes.AlreadyExists, "%q exists", name)
	}
	if isSymlink(n) {
		if !q.Node.Follow {
			return nil, refuse("ELOOP", "%q is a symbolic link", name)
		}
		var err error
		if n, err = m.node(q.Node); err != nil {
			return nil, err
		}
	}
	if !isFile(n) {
		return nil, refuse("EISDIR", "%q is a directory", name)
	}
	if !q.Replace {
		return n, nil
	}
	if !m.who.mayUse(&n.Attributes, mayWrite) {
		return nil, refusal(codes.PermissionDenied, "no permission to write %q", name)
	}
	if err := m.dropChunksFrom(n, 0); err != nil {
		return nil, err
	}
	m.setContent(n, q.Inline)
	m.modify(n)
	if q.ModifiedNs != nil {
		n.ModifiedNs = *q.ModifiedNs
	}
	return n, nil
}

func (m *mutation) mkdir(q *control.Mkdir) (*inode, error) {
	directory, name, err := m.newEntry(q.Node)
	if err != nil {
		return nil, err
	}
	if directory.Links >= maxLinkCount {
		return nil, refuse("EMLINK", "a directory has at most %d directories in it", maxLinkCount)
	}
	return m.make(directory, name, unix.S_IFDIR|q.Mode&permissionBits), nil
}

func (m *mutation) symlink(q *control.Symlink) (*inode, error) {
	if len(q.Target) == 0 || len(q.Target) > maxTarget || bytes.IndexByte(q.Target, 0) >= 0 {
		return nil, refusal(codes.InvalidArgument, "target of a symbolic link has %d bytes: 1 to %d without a NUL are allowed", len(q.Target), maxTarget)
	}
	directory, name, err := m.newEntry(q.Node)
	if err != nil {
		return nil, err
	}
	n := m.make(directory, name, unix.S_IFLNK|0o777)
	n.content = bytes.Clone(q.Target)
	n.Size = uint64(len(q.Target))
	return n, nil
}

func (m *mutation) link(q *control.Link) (*inode, error) {
	n, err := m.node(q.Existing)
	if err != nil {
		return nil, err
	}
	if isDirectory(n) {
		return nil, refuse("EPERM", "a directory can't have a second name")
	}
	if n.Links == 0 {
		return nil, refusal(codes.NotFound, "inode %d was removed: undelete it", n.Inode)
	}
	if n.Links >= maxLinkCount {
		return nil, refuse("EMLINK", "an inode has at most %d names", maxLinkCount)
	}
	directory, name, err := m.newEntry(q.Node)
	if err != nil {
		return nil, err
	}
	n.Links++
	m.addEntry(directory, name, n)
	m.putInode(n)
	return n, nil
}

// mayRemove says whether an entry may be taken from its directory.
func (m *mutation) mayRemove(directory, n *inode) error {
	if err := m.search(directory, mayWrite|maySearch); err != nil {
		return err
	}
	if directory.Mode&unix.S_ISVTX != 0 && m.who.uid != 0 && m.who.uid != directory.UID && m.who.uid != n.UID {
		return refusal(codes.PermissionDenied, "directory %d is sticky and inode %d is not yours", directory.Inode, n.Inode)
	}
	return nil
}

func (m *mutation) remove(q *control.Remove) (*inode, error) {
	directory, name, n, err := m.existing(q.Node)
	if err != nil {
		return nil, err
	}
	switch {
	case n == nil:
		return nil, refusal(codes.NotFound, "%q does not exist", name)
	case q.Directory && !isDirectory(n):
		return nil, refuse("ENOTDIR", "%q is no directory", name)
	case !q.Directory && isDirectory(n):
		return nil, refuse("EISDIR", "%q is a directory", name)
	case isDirectory(n) && n.Size > 0:
		return nil, refuse("ENOTEMPTY", "directory %q is not empty", name)
	}
	if err := m.mayRemove(directory, n); err != nil {
		return nil, err
	}
	m.removeEntry(directory, name, n)
	m.unlink(n, q.Node)
	return n, nil
}

// unlink is called when an inode has lost a name, node. With the last one a file goes
// into the trash, and everything else is forgotten.
func (m *mutation) unlink(n *inode, node *control.Node) {
	if n.Links--; isDirectory(n) {
		n.Links = 0
	}
	m.putInode(n)
	if n.Links > 0 {
		return
	}
	if isDirectory(n) {
		m.totals.directories--
	} else {
		m.totals.files--
	}
	if isFile(n) {
		m.totals.bytes -= n.Size
	}
	m.putTotals()
	if !m.discard(n, node) {
		m.forgetInode(n)
	}
}

func (m *mutation) rename(q *control.Rename) (*inode, error) {
	from, fromName, n, err := m.existing(q.From)
	if err != nil {
		return nil, err
	}
	if n == nil {
		return nil, refusal(codes.NotFound, "%q does not exist", fromName)
	}
	to, toName, replaced, err := m.existing(q.To)
	if err != nil {
		return nil, err
	}
	if err := m.mayRename(q, from, to, n, replaced); err != nil {
		return nil, err
	}
	if replaced == n { // two names of one file: POSIX wants nothing to happen
		return n, nil
	}
	if replaced != nil {
		m.removeEntry(to, toName, replaced)
		m.unlink(replaced, q.To)
	}
	m.removeEntry(from, fromName, n)
	m.addEntry(to, toName, n)
	m.putInode(n)
	return n, nil
}

// mayRename checks POSIX's rules of rename.
func (m *mutation) mayRename(q *control.Rename, from, to, n, replaced *inode) error {
	if err := m.mayRemove(from, n); err != nil {
		return err
	}
	if err := m.search(to, mayWrite|maySearch); err != nil {
		return err
	}
	if isDirectory(n) {
		within, err := m.within(to, n)
		if err != nil {
			return err
		}
		if within {
			return refuse("EINVAL", "a directory can't be moved into itself")
		}
		if from != to && !m.who.may(&n.Attributes, mayWrite) {
			return refusal(codes.PermissionDenied, "no permission to move directory %d", n.Inode)
		}
		if from != to && to.Links >= maxLinkCount {
			return refuse("EMLINK", "a directory has at most %d directories in it", maxLinkCount)
		}
	}
	switch {
	case replaced == nil:
		return nil
	case q.NoReplace:
		return refusal(codes.AlreadyExists, "%q exists", q.To.Names[len(q.To.Names)-1])
	case replaced == n:
		return nil
	case isDirectory(n) && !isDirectory(replaced):
		return refuse("ENOTDIR", "a directory can't replace what is none")
	case !isDirectory(n) && isDirectory(replaced):
		return refuse("EISDIR", "only a directory can replace a directory")
	case isDirectory(replaced) && replaced.Size > 0:
		return refuse("ENOTEMPTY", "the directory to be replaced is not empty")
	}
	return m.mayRemove(to, replaced)
}

// within says whether directory is outer or lies somewhere in it.
func (m *mutation) within(directory, outer *inode) (bool, error) {
	for directory != outer {
		if directory.Inode == wire.RootInode {
			return false, nil
		}
		if directory = m.inode(directory.parent); directory == nil {
			return false, errDangling
		}
	}
	return true, nil
}
