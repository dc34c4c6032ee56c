package mount

import (
	"context"
	"encoding/json"
	"fmt"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// statusDirectory is where the mount shows itself. It is in no listing.
const statusDirectory = ".waggle"

// newStatus makes the directory and its files.
func (m *Mount) newStatus(ctx context.Context, root *node) *fs.Inode {
	directory := root.NewPersistentInode(ctx, &statusFolder{}, fs.StableAttr{Mode: syscall.S_IFDIR})
	for name, content := range map[string]func() ([]byte, error){"paths": m.paths, "counters": m.counters} {
		file := directory.NewPersistentInode(ctx, &statusFile{content: content}, fs.StableAttr{Mode: syscall.S_IFREG})
		directory.AddChild(name, file, false)
	}
	return directory
}

// statusFolder is the directory itself.
type statusFolder struct{ fs.Inode }

// Getattr implements fs.NodeGetattrer.
func (*statusFolder) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	out.Mode = 0o555
	return 0
}

// paths names the data paths in use, a line each.
func (m *Mount) paths() ([]byte, error) {
	c := m.config.Client
	return fmt.Appendf(nil, "%s\nread=%s\nwrite=%s\n", m.path.About(), c.ReadPath(), c.WritePath()), nil
}

// counters is what this mount's client has counted, as JSON.
func (m *Mount) counters() ([]byte, error) {
	text, err := json.MarshalIndent(m.config.Client.Counters().Snapshot(), "", "  ")
	return append(text, '\n'), err
}

// statusFile is a file whose content is made when it is opened.
type statusFile struct {
	fs.Inode
	content func() ([]byte, error)
}

// shown is the content of a status file, as it was when the file was opened.
type shown []byte

// Open implements fs.NodeOpener. The size of the content is not known before, so
// the kernel has to ask for it.
func (s *statusFile) Open(_ context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	if flags&syscall.O_ACCMODE != syscall.O_RDONLY {
		return nil, 0, syscall.EROFS
	}
	text, err := s.content()
	if err != nil {
		return nil, 0, syscall.EIO
	}
	return shown(text), fuse.FOPEN_DIRECT_IO, 0
}

// Getattr implements fs.NodeGetattrer.
func (s *statusFile) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	out.Mode = 0o444
	return 0
}

// Read implements fs.FileReader.
func (s shown) Read(_ context.Context, into []byte, offset int64) (fuse.ReadResult, syscall.Errno) {
	rest := s[min(int64(len(s)), offset):]
	return fuse.ReadResultData(rest[:min(len(rest), len(into))]), 0
}
