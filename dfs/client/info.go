package client

import (
	"io/fs"
	"math"
	"time"

	"golang.org/x/sys/unix"

	"waggle/dfs/wire"
	"waggle/dfs/wire/control"
)

// Info describes a file; it is an fs.FileInfo.
type Info struct {
	name       string
	attributes wire.Attributes
}

func newInfo(path string, attributes wire.Attributes) *Info {
	name := "/"
	for rest := path; rest != ""; {
		var next string
		if next, rest, _ = nextName(rest); next != "" {
			name = next
		}
	}
	return &Info{name, attributes}
}

// Name returns the last name of the path.
func (i *Info) Name() string { return i.name }

// Size returns the length in bytes.
func (i *Info) Size() int64 { return int64(i.attributes.Size) }

// Mode returns the type and the permission bits.
func (i *Info) Mode() fs.FileMode { return fileMode(i.attributes.Mode) }

// ModTime returns when the content was changed last.
func (i *Info) ModTime() time.Time { return time.Unix(0, i.attributes.ModifiedNs) }

// IsDir says whether this is a directory.
func (i *Info) IsDir() bool { return isDirectory(i.attributes.Mode) }

// Sys returns a *wire.Attributes.
func (i *Info) Sys() any { return &i.attributes }

// Attributes returns all attributes.
func (i *Info) Attributes() wire.Attributes { return i.attributes }

// The times that an inode can have, in seconds since the epoch.
const (
	minSeconds = math.MinInt64 / int64(time.Second)
	maxSeconds = math.MaxInt64 / int64(time.Second)
)

// ClampTime returns the time that a file has which t is set for: one before
// 1677-09-21 or after 2262-04-11 becomes the first or last whole second that
// there is, as in Linux's file systems.
func ClampTime(t time.Time) time.Time {
	switch s := t.Unix(); {
	case s <= minSeconds:
		return time.Unix(minSeconds, 0)
	case s >= maxSeconds:
		return time.Unix(maxSeconds, 0)
	}
	return t
}

func nanoseconds(t time.Time) int64 { return ClampTime(t).UnixNano() }

// Entry is an entry of a directory; it is an fs.DirEntry.
type Entry struct {
	info   Info
	target string
	xattr  []byte
}

func newEntry(e *control.DirectoryEntry) *Entry {
	return &Entry{Info{string(e.Name), fromAttributes(e.Attributes)}, string(e.Target), e.Xattr}
}

// Name returns the entry's name.
func (e *Entry) Name() string { return e.info.name }

// IsDir says whether this is a directory.
func (e *Entry) IsDir() bool { return e.info.IsDir() }

// Type returns the type bits.
func (e *Entry) Type() fs.FileMode { return e.info.Mode().Type() }

// Info returns the attributes that the entry had when the directory was read.
func (e *Entry) Info() (fs.FileInfo, error) { return &e.info, nil }

// Stat is Info without an error.
func (e *Entry) Stat() *Info { return &e.info }

// Target returns where a symbolic link points to.
func (e *Entry) Target() string { return e.target }

// Xattr returns the value of the extended attribute that EntriesWith asked for. It
// is empty if there is none, or if it may not be read.
func (e *Entry) Xattr() []byte { return e.xattr }

// String describes the entry as fs.FormatDirEntry does.
func (e *Entry) String() string { return fs.FormatDirEntry(e) }

var fileTypes = map[uint32]fs.FileMode{
	unix.S_IFREG: 0, unix.S_IFDIR: fs.ModeDir, unix.S_IFLNK: fs.ModeSymlink,
}

// fileMode turns the bits of stat(2) into Go's.
func fileMode(mode uint32) fs.FileMode {
	m := fs.FileMode(mode & 0o777)
	kind, known := fileTypes[mode&unix.S_IFMT]
	if !known {
		kind = fs.ModeIrregular
	}
	for bit, flag := range specialBits {
		if mode&bit != 0 {
			m |= flag
		}
	}
	return m | kind
}

var specialBits = map[uint32]fs.FileMode{
	unix.S_ISUID: fs.ModeSetuid, unix.S_ISGID: fs.ModeSetgid, unix.S_ISVTX: fs.ModeSticky,
}

// permissions turns Go's permission bits into those of chmod(2).
func permissions(m fs.FileMode) uint32 {
	mode := uint32(m.Perm())
	for bit, flag := range specialBits {
		if m&flag != 0 {
			mode |= bit
		}
	}
	return mode
}
