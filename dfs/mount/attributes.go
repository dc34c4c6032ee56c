package mount

import (
	"context"
	"errors"
	"io/fs"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"

	"waggle/dfs/client"
	"waggle/dfs/wire"
)

// rootInode is the inode number of the root, which the kernel has for it, too.
const rootInode = wire.RootInode

// blockSize is what programs are told to read and write at once, in bytes.
const blockSize = 1 << 17

// fill writes attributes as the kernel takes them. The file system keeps no time
// of access: the time of modification stands for it.
func fill(out *fuse.Attr, a wire.Attributes) {
	*out = fuse.Attr{
		Ino: a.Inode, Size: a.Size, Blocks: (a.Size + 511) / 512, Blksize: blockSize,
		Mode: a.Mode, Nlink: a.Links, Owner: fuse.Owner{Uid: a.UID, Gid: a.GID},
	}
	const second = 1e9
	out.Mtime, out.Mtimensec = split(a.ModifiedNs, second)
	out.Ctime, out.Ctimensec = split(a.ChangedNs, second)
	out.Atime, out.Atimensec = out.Mtime, out.Mtimensec
}

// split takes a time apart into seconds, which may be before 1970, and what is
// behind them.
func split(ns, second int64) (uint64, uint32) {
	seconds, rest := ns/second, ns%second
	if rest < 0 {
		seconds, rest = seconds-1, rest+second
	}
	return uint64(seconds), uint32(rest)
}

// permissions turns the mode bits of the kernel into those of package fs.
func permissions(mode uint32) fs.FileMode {
	m := fs.FileMode(mode & 0o777)
	for bit, named := range map[uint32]fs.FileMode{syscall.S_ISUID: fs.ModeSetuid, syscall.S_ISGID: fs.ModeSetgid, syscall.S_ISVTX: fs.ModeSticky} {
		if mode&bit != 0 {
			m |= named
		}
	}
	return m
}

// errno turns an error of the client into the kernel's. What has none of its own,
// such as servers that were away for too long, is EIO.
func errno(err error) syscall.Errno {
	var number syscall.Errno
	switch {
	case err == nil:
		return 0
	case errors.As(err, &number):
		return number
	case errors.Is(err, fs.ErrNotExist):
		return syscall.ENOENT
	case errors.Is(err, fs.ErrExist):
		return syscall.EEXIST
	case errors.Is(err, fs.ErrPermission):
		return syscall.EACCES
	case errors.Is(err, fs.ErrInvalid):
		return syscall.EINVAL
	case errors.Is(err, client.ErrBusy):
		return syscall.EBUSY
	case errors.Is(err, context.Canceled):
		return syscall.EINTR
	}
	return syscall.EIO
}
