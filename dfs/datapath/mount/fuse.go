package mount

import (
	"errors"
	"fmt"
	"os"

	"github.com/hanwen/go-fuse/v2/fuse"

	"waggle/dfs/datapath"
)

// FUSE is the name of the path that copies each request through /dev/fuse.
const FUSE = "fuse"

// ReadBytes and WrittenBytes name the counters of what a mount has answered and
// taken: they are the proof of paths whose bytes go through this process.
const (
	ReadBytes    = "mount_fuse_read_bytes"
	WrittenBytes = "mount_fuse_written_bytes"
)

// maxRequest is the largest read or write that the kernel sends, in bytes: its own
// limit.
const maxRequest = 1 << 20

type fusePath struct{}

func init() { Paths.Register(fusePath{}) }

func (fusePath) About() datapath.Info {
	return datapath.Info{
		Operation: datapath.Mount, Name: FUSE, Summary: "each request copied through /dev/fuse, up to 1 MiB a request",
		Supported: fuseSupported, Watched: []string{ReadBytes, WrittenBytes},
	}
}

func (fusePath) Configure(o *fuse.MountOptions) {
	o.MaxWrite, o.MaxReadAhead = maxRequest, maxRequest
	o.MaxBackground = 64
}

// fuseSupported finds out whether this process may speak to the kernel's FUSE.
func fuseSupported() error {
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("this kernel has no FUSE, or its module is not loaded (modprobe fuse): %w", err)
	}
	if err != nil {
		return fmt.Errorf("/dev/fuse: %w", err)
	}
	return f.Close()
}
