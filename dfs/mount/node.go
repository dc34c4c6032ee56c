package mount

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"waggle/dfs/client"
	"waggle/dfs/wire"
)

// node is a file, directory or link that the kernel knows. It is asked for by the
// path that it has now: the tree that go-fuse keeps follows every rename.
type node struct {
	fs.Inode
	mount *Mount

	mu      sync.Mutex
	handles int // open files
	// hidden is the path of a file that has no name any more, and is still open: the
	// file system itself knows nothing of open files. "" is no such file.
	hidden string
}

// The kernel's questions that a node answers.
var (
	_ fs.NodeOnAdder       = (*node)(nil)
	_ fs.NodeLookuper      = (*node)(nil)
	_ fs.NodeGetattrer     = (*node)(nil)
	_ fs.NodeSetattrer     = (*node)(nil)
	_ fs.NodeReaddirer     = (*node)(nil)
	_ fs.NodeMkdirer       = (*node)(nil)
	_ fs.NodeMknoder       = (*node)(nil)
	_ fs.NodeCreater       = (*node)(nil)
	_ fs.NodeOpener        = (*node)(nil)
	_ fs.NodeSymlinker     = (*node)(nil)
	_ fs.NodeReadlinker    = (*node)(nil)
	_ fs.NodeLinker        = (*node)(nil)
	_ fs.NodeUnlinker      = (*node)(nil)
	_ fs.NodeRmdirer       = (*node)(nil)
	_ fs.NodeRenamer       = (*node)(nil)
	_ fs.NodeStatfser      = (*node)(nil)
	_ fs.NodeGetxattrer    = (*node)(nil)
	_ fs.NodeSetxattrer    = (*node)(nil)
	_ fs.NodeListxattrer   = (*node)(nil)
	_ fs.NodeRemovexattrer = (*node)(nil)
)

func (n *node) client() *client.Client { return n.mount.config.Client }

// path is the node's path in the file system.
func (n *node) path() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.hidden != "" {
		return n.hidden
	}
	return "/" + n.Path(nil)
}

// at is the path of an entry of a directory.
func (n *node) at(name string) string { return strings.TrimSuffix(n.path(), "/") + "/" + name }

// OnAdd puts the directory in which the mount shows itself into the root.
func (n *node) OnAdd(ctx context.Context) {
	if n.IsRoot() {
		n.AddChild(statusDirectory, n.mount.newStatus(ctx, n), false)
	}
}

// Lookup implements fs.NodeLookuper.
func (n *node) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	if status := n.GetChild(statusDirectory); n.IsRoot() && name == statusDirectory && status != nil {
		out.Mode = syscall.S_IFDIR | 0o555
		return status, 0
	}
	info, err := n.client().Lstat(ctx, n.at(name))
	if err != nil {
		return nil, errno(err)
	}
	return n.child(ctx, info.Attributes(), out), 0
}

// child gives the kernel's node of an entry.
func (n *node) child(ctx context.Context, a wire.Attributes, out *fuse.EntryOut) *fs.Inode {
	fill(&out.Attr, a)
	return n.NewInode(ctx, &node{mount: n.mount}, fs.StableAttr{Mode: a.Mode & syscall.S_IFMT, Ino: a.Inode})
}

// made looks up what was just made, and gives it to who has asked for it: the
// file system's client may act for another user than the process that asked.
func (n *node) made(ctx context.Context, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	path := n.at(name)
	if caller, ok := fuse.FromContext(ctx); ok && (int(caller.Uid) != os.Geteuid() || int(caller.Gid) != os.Getegid()) && os.Geteuid() == 0 {
		if err := n.client().Lchown(ctx, path, int(caller.Uid), n.groupFor(ctx, caller)); err != nil {
			return nil, errno(err)
		}
	}
	return n.Lookup(ctx, name, out)
}

// groupFor is the group of what a caller makes in this directory: the directory's
// own, if its set-group-ID bit says so, or the caller's.
func (n *node) groupFor(ctx context.Context, caller *fuse.Caller) int {
	if info, err := n.client().Lstat(ctx, n.path()); err == nil && info.Attributes().Mode&syscall.S_ISGID != 0 {
		return int(info.Attributes().GID)
	}
	return int(caller.Gid)
}

// Getattr implements fs.NodeGetattrer.
func (n *node) Getattr(ctx context.Context, f fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	if h, ok := f.(*handle); ok { // also of a file that has no name any more
		info, err := h.file.Stat()
		if err != nil {
			return errno(err)
		}
		fill(&out.Attr, info.(*client.Info).Attributes())
		return 0
	}
	info, err := n.client().Lstat(ctx, n.path())
	if err != nil {
		return errno(err)
	}
	fill(&out.Attr, info.Attributes())
	return 0
}

// Setattr implements fs.NodeSetattrer.
func (n *node) Setattr(ctx context.Context, f fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	path, c := n.path(), n.client()
	if size, ok := in.GetSize(); ok {
		if err := n.truncate(f, size); err != nil {
			return errno(err)
		}
	}
	if mode, ok := in.GetMode(); ok {
		if err := c.Chmod(ctx, path, permissions(mode)); err != nil {
			return errno(err)
		}
	}
	uid, hasUID := in.GetUID()
	gid, hasGID := in.GetGID()
	if hasUID || hasGID {
		owner, group := -1, -1
		if hasUID {
			owner = int(uid)
		}
		if hasGID {
			group = int(gid)
		}
		if err := c.Lchown(ctx, path, owner, group); err != nil {
			return errno(err)
		}
	}
	if modified, ok := in.GetMTime(); ok {
		if err := c.Lchtimes(ctx, path, client.ClampTime(modified)); err != nil {
			return errno(err)
		}
	}
	return n.Getattr(ctx, f, out)
}

// truncate sets the size of an open file, or of one that is opened for that.
func (n *node) truncate(f fs.FileHandle, size uint64) error {
	if h, ok := f.(*handle); ok && h.writable() {
		return h.file.Truncate(int64(size))
	}
	file, err := n.client().OpenFile(n.mount.background, n.path(), os.O_WRONLY, client.FileOptions{})
	if err != nil {
		return err
	}
	err = file.Truncate(int64(size))
	if closed := file.Close(); err == nil {
		err = closed
	}
	return err
}

// Mkdir implements fs.NodeMkdirer.
func (n *node) Mkdir(ctx context.Context, name string, mode uint32, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	if err := n.client().Mkdir(ctx, n.at(name), permissions(mode)); err != nil {
		return nil, errno(err)
	}
	return n.made(ctx, name, out)
}

// Mknod implements fs.NodeMknoder. There are no devices, sockets and pipes.
func (n *node) Mknod(ctx context.Context, name string, mode, _ uint32, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	if mode&syscall.S_IFMT != syscall.S_IFREG {
		return nil, syscall.EPERM
	}
	f, err := n.client().OpenFile(n.mount.background, n.at(name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, client.FileOptions{Mode: permissions(mode)})
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		return nil, errno(err)
	}
	return n.made(ctx, name, out)
}

// Create implements fs.NodeCreater.
func (n *node) Create(ctx context.Context, name string, flags, mode uint32, out *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	h, err := n.mount.open(n.at(name), flags|syscall.O_CREAT, permissions(mode))
	if err != nil {
		return nil, nil, 0, errno(err)
	}
	child, failed := n.made(ctx, name, out)
	if failed != 0 {
		h.Release(ctx)
		return nil, nil, 0, failed
	}
	h.opened(child.Operations().(*node))
	return child, h, 0, 0
}

// Open implements fs.NodeOpener. The kernel drops what it has cached of the file:
// that is what makes a close elsewhere seen by an open here.
func (n *node) Open(_ context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	h, err := n.mount.open(n.path(), flags, 0)
	if err != nil {
		return nil, 0, errno(err)
	}
	h.opened(n)
	return h, 0, 0
}

// Symlink implements fs.NodeSymlinker.
func (n *node) Symlink(ctx context.Context, target, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	if err := n.client().Symlink(ctx, target, n.at(name)); err != nil {
		return nil, errno(err)
	}
	return n.made(ctx, name, out)
}

// Readlink implements fs.NodeReadlinker.
func (n *node) Readlink(ctx context.Context) ([]byte, syscall.Errno) {
	target, err := n.client().Readlink(ctx, n.path())
	return []byte(target), errno(err)
}

// Link implements fs.NodeLinker.
func (n *node) Link(ctx context.Context, target fs.InodeEmbedder, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	existing, ok := target.(*node)
	if !ok {
		return nil, syscall.EXDEV // something of .waggle
	}
	if err := n.client().Link(ctx, existing.path(), n.at(name)); err != nil {
		return nil, errno(err)
	}
	return n.Lookup(ctx, name, out)
}

// hiddenPrefix marks the names of files that were removed while they were open
// here, until they are closed. The listings of a mount leave them out.
const hiddenPrefix = ".waggle-removed-"

// Unlink implements fs.NodeUnlinker. A file that is open here, by its last name,
// is hidden until it is closed.
func (n *node) Unlink(ctx context.Context, name string) syscall.Errno {
	path := n.at(name)
	if child := n.GetChild(name); child != nil {
		if open, ok := child.Operations().(*node); ok && open.inUse() {
			return errno(open.hide(ctx, path))
		}
	}
	return errno(n.client().Remove(ctx, path))
}

func (n *node) inUse() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.handles > 0
}

// hide takes a name from an open file. With other names left, that is all.
func (n *node) hide(ctx context.Context, path string) error {
	info, err := n.client().Lstat(ctx, path)
	if err != nil {
		return err
	}
	if info.Attributes().Links > 1 {
		return n.client().Remove(ctx, path)
	}
	hidden := fmt.Sprintf("%s%s%x", path[:strings.LastIndex(path, "/")+1], hiddenPrefix, rand.Uint64())
	if err := n.client().Rename(ctx, path, hidden); err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.hidden = hidden
	return nil
}

// closed removes a hidden file when its last handle is closed.
func (n *node) closed() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.handles--
	if n.handles > 0 || n.hidden == "" {
		return nil
	}
	return n.client().Remove(n.mount.background, n.hidden)
}

// Rmdir implements fs.NodeRmdirer.
func (n *node) Rmdir(ctx context.Context, name string) syscall.Errno {
	return errno(n.client().Remove(ctx, n.at(name)))
}

// Rename implements fs.NodeRenamer. Flags such as RENAME_EXCHANGE are refused:
// programs that use them have another way, or say so.
func (n *node) Rename(ctx context.Context, name string, to fs.InodeEmbedder, newName string, flags uint32) syscall.Errno {
	if flags != 0 {
		return syscall.EINVAL
	}
	parent, ok := to.(*node)
	if !ok {
		return syscall.EXDEV
	}
	return errno(n.client().Rename(ctx, n.at(name), parent.at(newName)))
}

// Statfs implements fs.NodeStatfser. Every byte takes as many as there are
// replicas: what is said is the servers' own space.
func (n *node) Statfs(ctx context.Context, out *fuse.StatfsOut) syscall.Errno {
	cluster, err := n.client().Cluster(ctx)
	if err != nil {
		return errno(err)
	}
	var capacity, free uint64
	for _, s := range cluster.Servers {
		if s.Alive {
			capacity, free = capacity+s.CapacityBytes, free+s.FreeBytes
		}
	}
	const (
		block   = 4096
		most    = 1 << 32 // files; the metadata server's disk is the limit
		longest = 255     // bytes of a name
	)
	*out = fuse.StatfsOut{Bsize: block, Frsize: block, Blocks: capacity / block, Bfree: free / block, Bavail: free / block,
		Files: most, Ffree: most - min(most, cluster.Files+cluster.Directories), NameLen: longest}
	return 0
}

// userAttribute marks the attributes that are kept. The kernel asks for others at
// each write and exec.
const userAttribute = "user."

// Getxattr implements fs.NodeGetxattrer.
func (n *node) Getxattr(ctx context.Context, name string, into []byte) (uint32, syscall.Errno) {
	switch {
	case strings.HasPrefix(name, "system.posix_acl_"):
		return 0, syscall.EOPNOTSUPP // there are no access control lists
	case !strings.HasPrefix(name, userAttribute):
		return 0, syscall.ENODATA
	}
	value, err := n.client().Xattr(ctx, n.path(), name)
	if err != nil {
		return 0, errno(err)
	}
	return put(into, value)
}

// put answers a value, or how long it is where there is no room for it.
func put(into, value []byte) (uint32, syscall.Errno) {
	if len(into) < len(value) {
		return uint32(len(value)), syscall.ERANGE
	}
	return uint32(copy(into, value)), 0
}

// Setxattr implements fs.NodeSetxattrer.
func (n *node) Setxattr(ctx context.Context, name string, value []byte, flags uint32) syscall.Errno {
	if !strings.HasPrefix(name, userAttribute) {
		return syscall.EOPNOTSUPP
	}
	flag := client.XattrAny
	switch flags {
	case unix.XATTR_CREATE:
		flag = client.XattrCreate
	case unix.XATTR_REPLACE:
		flag = client.XattrReplace
	}
	return errno(n.client().SetXattr(ctx, n.path(), name, value, flag))
}

// Listxattr implements fs.NodeListxattrer.
func (n *node) Listxattr(ctx context.Context, into []byte) (uint32, syscall.Errno) {
	values, err := n.client().Xattrs(ctx, n.path())
	if err != nil {
		return 0, errno(err)
	}
	var names []byte
	for name := range values {
		names = append(append(names, name...), 0)
	}
	return put(into, names)
}

// Removexattr implements fs.NodeRemovexattrer.
func (n *node) Removexattr(ctx context.Context, name string) syscall.Errno {
	if !strings.HasPrefix(name, userAttribute) {
		return syscall.ENODATA
	}
	return errno(n.client().RemoveXattr(ctx, n.path(), name))
}

// Readdir implements fs.NodeReaddirer. Entries come from the metadata server as
// they are read: a large directory takes no room here.
func (n *node) Readdir(context.Context) (fs.DirStream, syscall.Errno) {
	return newEntries(n.client().Entries(n.mount.background, n.path())), 0
}
