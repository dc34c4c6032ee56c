// Package mount holds the mount paths: ways for the bytes of a mounted file to get
// from the file system's client to the kernel. Each is a file of this package that
// registers a Path in Paths.
package mount

import (
	"github.com/hanwen/go-fuse/v2/fuse"

	"waggle/dfs/datapath"
)

// Path is a mount path.
type Path interface {
	About() datapath.Info
	// Configure sets what the path needs of the connection to the kernel.
	Configure(*fuse.MountOptions)
}

// Paths is the registry.
var Paths = datapath.Registry[Path]{Operation: datapath.Mount}
