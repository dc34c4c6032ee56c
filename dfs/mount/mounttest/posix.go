// Package mounttest is a conformance list for file systems: what POSIX says and
// programs rely on, as a map from name to test. Each test gets an empty directory.
// The list is run over a disk's own file system, too, so that a wrong expectation
// shows.
package mounttest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// All is the list.
var All = map[string]func(t *testing.T, dir string){
	"write, close, open, read": func(t *testing.T, dir string) {
		for _, size := range []int{0, 1, 1023, 1024, 1025, 4095, 4096, 4097, 1<<20 + 1} {
			name := filepath.Join(dir, fmt.Sprint(size))
			content := pattern(size)
			require.NoError(t, os.WriteFile(name, content, 0o644))
			got, err := os.ReadFile(name)
			require.NoError(t, err)
			require.True(t, bytes.Equal(content, got), "size %d", size)
		}
	},
	"size follows writes of an open file": func(t *testing.T, dir string) {
		f := create(t, dir, "f")
		write(t, f, "hello")
		assert.EqualValues(t, 5, stat(t, f.Name()).Size())
	},
	"read at the end gives no bytes": func(t *testing.T, dir string) {
		f := create(t, dir, "f")
		write(t, f, "hello")
		n, err := f.ReadAt(make([]byte, 10), 5)
		assert.Zero(t, n)
		assert.Equal(t, io.EOF, err)
	},
	"hole reads as zeros": func(t *testing.T, dir string) {
		f := create(t, dir, "f")
		_, err := f.WriteAt([]byte("end"), 100_000)
		require.NoError(t, err)
		got := make([]byte, 100_003)
		_, err = f.ReadAt(got, 0)
		require.NoError(t, err)
		assert.Equal(t, append(make([]byte, 100_000), "end"...), got)
	},
	"truncate shortens": func(t *testing.T, dir string) {
		f := create(t, dir, "f")
		write(t, f, "hello world")
		require.NoError(t, f.Truncate(5))
		assert.Equal(t, "hello", content(t, f.Name()))
	},
	"truncate lengthens with zeros": func(t *testing.T, dir string) {
		f := create(t, dir, "f")
		write(t, f, "hello")
		require.NoError(t, f.Truncate(5000))
		assert.Equal(t, "hello"+string(make([]byte, 4995)), content(t, f.Name()))
	},
	"truncate, then lengthen: what was cut is zeros": func(t *testing.T, dir string) {
		f := create(t, dir, "f")
		write(t, f, string(pattern(9000)))
		require.NoError(t, f.Truncate(10))
		require.NoError(t, f.Truncate(9000))
		assert.Equal(t, string(pattern(9000)[:10])+string(make([]byte, 8990)), content(t, f.Name()))
	},
	"truncate by name": func(t *testing.T, dir string) {
		name := file(t, dir, "f", "hello world")
		require.NoError(t, os.Truncate(name, 4))
		assert.Equal(t, "hell", content(t, name))
	},
	"open with O_TRUNC empties": func(t *testing.T, dir string) {
		name := file(t, dir, "f", "hello")
		f, err := os.OpenFile(name, os.O_WRONLY|os.O_TRUNC, 0)
		require.NoError(t, err)
		require.NoError(t, f.Close())
		assert.Empty(t, content(t, name))
	},
	"O_EXCL refuses what is there": func(t *testing.T, dir string) {
		name := file(t, dir, "f", "")
		_, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
		assert.ErrorIs(t, err, unix.EEXIST)
	},
	"O_EXCL refuses a dangling link": func(t *testing.T, dir string) {
		require.NoError(t, os.Symlink("nowhere", filepath.Join(dir, "l")))
		_, err := os.OpenFile(filepath.Join(dir, "l"), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
		assert.ErrorIs(t, err, unix.EEXIST)
	},
	"O_EXCL is won by one": func(t *testing.T, dir string) {
		var won, all = make(chan bool, 8), sync.WaitGroup{}
		for range 8 {
			all.Go(func() {
				f, err := os.OpenFile(filepath.Join(dir, "f"), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
				if err == nil {
					f.Close()
				}
				won <- err == nil
			})
		}
		all.Wait()
		winners := 0
		for range 8 {
			if <-won {
				winners++
			}
		}
		assert.Equal(t, 1, winners)
	},
	"O_APPEND writes at the end": func(t *testing.T, dir string) {
		name := file(t, dir, "f", "hello")
		f, err := os.OpenFile(name, os.O_WRONLY|os.O_APPEND, 0)
		require.NoError(t, err)
		write(t, f, " world")
		require.NoError(t, f.Close())
		assert.Equal(t, "hello world", content(t, name))
	},
	"O_APPEND by two descriptors loses nothing": func(t *testing.T, dir string) {
		name := file(t, dir, "f", "")
		a, err := os.OpenFile(name, os.O_WRONLY|os.O_APPEND, 0)
		require.NoError(t, err)
		defer a.Close()
		b, err := os.OpenFile(name, os.O_WRONLY|os.O_APPEND, 0)
		require.NoError(t, err)
		defer b.Close()
		want := ""
		for i := range 20 {
			line := fmt.Sprintf("line %d\n", i)
			write(t, map[bool]*os.File{true: a, false: b}[i%2 == 0], line)
			want += line
		}
		require.NoError(t, a.Sync())
		require.NoError(t, b.Sync())
		assert.Equal(t, want, content(t, name))
	},
	"write over a file keeps what is behind": func(t *testing.T, dir string) {
		name := file(t, dir, "f", "hello world")
		f, err := os.OpenFile(name, os.O_WRONLY, 0)
		require.NoError(t, err)
		write(t, f, "HELLO")
		require.NoError(t, f.Close())
		assert.Equal(t, "HELLO world", content(t, name))
	},
	"random writes are what a model says": func(t *testing.T, dir string) {
		const size = 300_000
		f := create(t, dir, "f")
		model := make([]byte, size)
		require.NoError(t, f.Truncate(size))
		random := rand.New(rand.NewPCG(1, 2))
		for range 200 {
			at := random.IntN(size)
			data := pattern(random.IntN(min(20_000, size-at) + 1))
			_, err := f.WriteAt(data, int64(at))
			require.NoError(t, err)
			copy(model[at:], data)
			from := random.IntN(size)
			got := make([]byte, random.IntN(size-from))
			_, err = f.ReadAt(got, int64(from))
			require.NoError(t, err)
			require.True(t, bytes.Equal(model[from:from+len(got)], got))
		}
		assert.True(t, string(model) == content(t, f.Name()))
	},
	"mmap shared reads what was written": func(t *testing.T, dir string) {
		f := create(t, dir, "f")
		write(t, f, string(pattern(10_000)))
		m, err := unix.Mmap(int(f.Fd()), 0, 10_000, unix.PROT_READ, unix.MAP_SHARED)
		require.NoError(t, err)
		defer unix.Munmap(m)
		assert.True(t, bytes.Equal(pattern(10_000), m))
	},
	"mmap shared writes the file": func(t *testing.T, dir string) {
		f := create(t, dir, "f")
		require.NoError(t, f.Truncate(8192))
		m, err := unix.Mmap(int(f.Fd()), 0, 8192, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		require.NoError(t, err)
		copy(m[5000:], "mapped")
		require.NoError(t, unix.Msync(m, unix.MS_SYNC))
		require.NoError(t, unix.Munmap(m))
		assert.Equal(t, "mapped", content(t, f.Name())[5000:5006])
	},
	"mmap private leaves the file": func(t *testing.T, dir string) {
		f := create(t, dir, "f")
		write(t, f, "hello")
		m, err := unix.Mmap(int(f.Fd()), 0, 5, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE)
		require.NoError(t, err)
		copy(m, "HELLO")
		require.NoError(t, unix.Munmap(m))
		assert.Equal(t, "hello", content(t, f.Name()))
	},
	"unlinked file stays readable while open": func(t *testing.T, dir string) {
		f := create(t, dir, "f")
		write(t, f, string(pattern(50_000)))
		require.NoError(t, os.Remove(f.Name()))
		_, err := os.Stat(f.Name())
		require.ErrorIs(t, err, unix.ENOENT)
		got := make([]byte, 50_000)
		_, err = f.ReadAt(got, 0)
		require.NoError(t, err)
		assert.True(t, bytes.Equal(pattern(50_000), got))
	},
	"mkdir and rmdir": func(t *testing.T, dir string) {
		name := filepath.Join(dir, "d")
		require.NoError(t, os.Mkdir(name, 0o755))
		assert.True(t, stat(t, name).IsDir())
		assert.ErrorIs(t, os.Mkdir(name, 0o755), unix.EEXIST)
		require.NoError(t, os.Remove(name))
		assert.ErrorIs(t, unix.Rmdir(name), unix.ENOENT)
	},
	"rmdir refuses a full directory": func(t *testing.T, dir string) {
		require.NoError(t, os.Mkdir(filepath.Join(dir, "d"), 0o755))
		file(t, filepath.Join(dir, "d"), "f", "")
		err := unix.Rmdir(filepath.Join(dir, "d"))
		assert.True(t, errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.EEXIST), err)
	},
	"rmdir refuses a file, unlink a directory": func(t *testing.T, dir string) {
		name := file(t, dir, "f", "")
		assert.ErrorIs(t, unix.Rmdir(name), unix.ENOTDIR)
		require.NoError(t, os.Mkdir(filepath.Join(dir, "d"), 0o755))
		err := unix.Unlink(filepath.Join(dir, "d"))
		assert.True(t, errors.Is(err, unix.EISDIR) || errors.Is(err, unix.EPERM), err)
	},
	"links of a directory count its subdirectories": func(t *testing.T, dir string) {
		require.NoError(t, os.Mkdir(filepath.Join(dir, "d"), 0o755))
		require.NoError(t, os.Mkdir(filepath.Join(dir, "d", "e"), 0o755))
		assert.EqualValues(t, 3, sys(t, filepath.Join(dir, "d")).Nlink)
	},
	"directory lists what is there": func(t *testing.T, dir string) {
		var want []string
		for i := range 300 {
			name := fmt.Sprintf("file-%03d", i)
			file(t, dir, name, "")
			want = append(want, name)
		}
		entries, err := os.ReadDir(dir)
		require.NoError(t, err)
		var got []string
		for _, e := range entries {
			got = append(got, e.Name())
		}
		assert.Equal(t, want, got)
	},
	"directory can be emptied while it is read": func(t *testing.T, dir string) {
		for i := range 100 {
			file(t, dir, fmt.Sprint(i), "")
		}
		require.NoError(t, os.RemoveAll(dir))
		_, err := os.Stat(dir)
		assert.ErrorIs(t, err, unix.ENOENT)
	},
	"inode number is that of the listing": func(t *testing.T, dir string) {
		file(t, dir, "f", "")
		d, err := os.Open(dir)
		require.NoError(t, err)
		defer d.Close()
		buffer := make([]byte, 4096)
		n, err := unix.Getdents(int(d.Fd()), buffer)
		require.NoError(t, err)
		var names []string
		_, _, names = unix.ParseDirent(buffer[:n], -1, nil)
		assert.Contains(t, names, "f")
		assert.NotZero(t, sys(t, filepath.Join(dir, "f")).Ino)
	},
	"rename moves": func(t *testing.T, dir string) {
		name := file(t, dir, "f", "hello")
		require.NoError(t, os.Rename(name, filepath.Join(dir, "g")))
		assert.Equal(t, "hello", content(t, filepath.Join(dir, "g")))
		_, err := os.Stat(name)
		assert.ErrorIs(t, err, unix.ENOENT)
	},
	"rename replaces a file": func(t *testing.T, dir string) {
		require.NoError(t, os.Rename(file(t, dir, "f", "new"), file(t, dir, "g", "old")))
		assert.Equal(t, "new", content(t, filepath.Join(dir, "g")))
	},
	"rename moves a tree": func(t *testing.T, dir string) {
		require.NoError(t, os.MkdirAll(filepath.Join(dir, "a", "b"), 0o755))
		file(t, filepath.Join(dir, "a", "b"), "f", "deep")
		require.NoError(t, os.Rename(filepath.Join(dir, "a"), filepath.Join(dir, "c")))
		assert.Equal(t, "deep", content(t, filepath.Join(dir, "c", "b", "f")))
	},
	"rename refuses a directory into itself": func(t *testing.T, dir string) {
		require.NoError(t, os.Mkdir(filepath.Join(dir, "a"), 0o755))
		assert.ErrorIs(t, unix.Rename(filepath.Join(dir, "a"), filepath.Join(dir, "a", "b")), unix.EINVAL)
	},
	"rename refuses a file over a directory": func(t *testing.T, dir string) {
		name := file(t, dir, "f", "")
		require.NoError(t, os.Mkdir(filepath.Join(dir, "d"), 0o755))
		assert.ErrorIs(t, unix.Rename(name, filepath.Join(dir, "d")), unix.EISDIR)
	},
	"rename refuses a directory over a file": func(t *testing.T, dir string) {
		name := file(t, dir, "f", "")
		require.NoError(t, os.Mkdir(filepath.Join(dir, "d"), 0o755))
		assert.ErrorIs(t, unix.Rename(filepath.Join(dir, "d"), name), unix.ENOTDIR)
	},
	"rename of an open file goes on": func(t *testing.T, dir string) {
		f := create(t, dir, "f")
		write(t, f, "one")
		require.NoError(t, os.Rename(f.Name(), filepath.Join(dir, "g")))
		write(t, f, "two")
		require.NoError(t, f.Sync())
		assert.Equal(t, "onetwo", content(t, filepath.Join(dir, "g")))
	},
	"hard link is the same file": func(t *testing.T, dir string) {
		name := file(t, dir, "f", "hello")
		other := filepath.Join(dir, "g")
		require.NoError(t, os.Link(name, other))
		assert.Equal(t, sys(t, name).Ino, sys(t, other).Ino)
		assert.EqualValues(t, 2, sys(t, name).Nlink)
		require.NoError(t, os.Remove(name))
		assert.Equal(t, "hello", content(t, other))
	},
	"hard link refuses a directory": func(t *testing.T, dir string) {
		require.NoError(t, os.Mkdir(filepath.Join(dir, "d"), 0o755))
		assert.ErrorIs(t, os.Link(filepath.Join(dir, "d"), filepath.Join(dir, "e")), unix.EPERM)
	},
	"symbolic link": func(t *testing.T, dir string) {
		file(t, dir, "f", "hello")
		require.NoError(t, os.Symlink("f", filepath.Join(dir, "l")))
		target, err := os.Readlink(filepath.Join(dir, "l"))
		require.NoError(t, err)
		assert.Equal(t, "f", target)
		assert.Equal(t, "hello", content(t, filepath.Join(dir, "l")))
		info, err := os.Lstat(filepath.Join(dir, "l"))
		require.NoError(t, err)
		assert.EqualValues(t, 1, info.Size(), "as long as its target")
	},
	"symbolic links in a circle": func(t *testing.T, dir string) {
		require.NoError(t, os.Symlink("b", filepath.Join(dir, "a")))
		require.NoError(t, os.Symlink("a", filepath.Join(dir, "b")))
		_, err := os.Stat(filepath.Join(dir, "a"))
		assert.ErrorIs(t, err, unix.ELOOP)
	},
	"mode": func(t *testing.T, dir string) {
		name := file(t, dir, "f", "")
		for _, mode := range []os.FileMode{0o600, 0o444, 0o755, 0o000} {
			require.NoError(t, os.Chmod(name, mode))
			assert.Equal(t, mode, stat(t, name).Mode().Perm())
		}
		require.NoError(t, os.Chmod(name, 0o755|os.ModeSetuid))
		assert.NotZero(t, stat(t, name).Mode()&os.ModeSetuid)
	},
	"umask is heeded": func(t *testing.T, dir string) {
		old := unix.Umask(0o027)
		defer unix.Umask(old)
		name := filepath.Join(dir, "f")
		f, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY, 0o666)
		require.NoError(t, err)
		f.Close()
		require.NoError(t, os.Mkdir(filepath.Join(dir, "d"), 0o777))
		assert.EqualValues(t, 0o640, stat(t, name).Mode().Perm())
		assert.EqualValues(t, 0o750, stat(t, filepath.Join(dir, "d")).Mode().Perm())
	},
	"times to the nanosecond": func(t *testing.T, dir string) {
		name := file(t, dir, "f", "")
		when := time.Unix(1_000_000_001, 123_456_789)
		require.NoError(t, os.Chtimes(name, when, when))
		assert.True(t, when.Equal(stat(t, name).ModTime()))
	},
	"times before 1970": func(t *testing.T, dir string) {
		name := file(t, dir, "f", "")
		when := time.Unix(-1, 500_000_000)
		require.NoError(t, os.Chtimes(name, when, when))
		assert.True(t, when.Equal(stat(t, name).ModTime()), stat(t, name).ModTime())
	},
	"write moves the time of modification": func(t *testing.T, dir string) {
		name := file(t, dir, "f", "hello")
		old := time.Unix(1_000_000_000, 0)
		require.NoError(t, os.Chtimes(name, old, old))
		f, err := os.OpenFile(name, os.O_WRONLY, 0)
		require.NoError(t, err)
		write(t, f, "x")
		require.NoError(t, f.Close())
		assert.True(t, stat(t, name).ModTime().After(old))
	},
	"missing file": func(t *testing.T, dir string) {
		_, err := os.Open(filepath.Join(dir, "missing"))
		assert.ErrorIs(t, err, unix.ENOENT)
		_, err = os.Open(filepath.Join(dir, "missing", "deeper"))
		assert.ErrorIs(t, err, unix.ENOENT)
	},
	"file used as a directory": func(t *testing.T, dir string) {
		name := file(t, dir, "f", "")
		_, err := os.Open(filepath.Join(name, "x"))
		assert.ErrorIs(t, err, unix.ENOTDIR)
	},
	"names up to 255 bytes": func(t *testing.T, dir string) {
		file(t, dir, strings.Repeat("n", 255), "")
		_, err := os.Create(filepath.Join(dir, strings.Repeat("n", 256)))
		assert.ErrorIs(t, err, unix.ENAMETOOLONG)
	},
	"names that are no UTF-8": func(t *testing.T, dir string) {
		name := "\xff\xfe\x80"
		file(t, dir, name, "hello")
		entries, err := os.ReadDir(dir)
		require.NoError(t, err)
		require.Len(t, entries, 1)
		assert.Equal(t, name, entries[0].Name())
		assert.Equal(t, "hello", content(t, filepath.Join(dir, name)))
	},
	"extended attributes": func(t *testing.T, dir string) {
		name := file(t, dir, "f", "")
		require.NoError(t, unix.Setxattr(name, "user.colour", []byte("blue"), 0))
		value := make([]byte, 100)
		n, err := unix.Getxattr(name, "user.colour", value)
		require.NoError(t, err)
		assert.Equal(t, "blue", string(value[:n]))
		n, err = unix.Listxattr(name, value)
		require.NoError(t, err)
		assert.Contains(t, string(value[:n]), "user.colour\x00")
		assert.ErrorIs(t, unix.Setxattr(name, "user.colour", nil, unix.XATTR_CREATE), unix.EEXIST)
		_, err = unix.Getxattr(name, "user.colour", value[:2])
		assert.ErrorIs(t, err, unix.ERANGE)
		require.NoError(t, unix.Removexattr(name, "user.colour"))
		_, err = unix.Getxattr(name, "user.colour", value)
		assert.ErrorIs(t, err, unix.ENODATA)
	},
	"statfs": func(t *testing.T, dir string) {
		var s unix.Statfs_t
		require.NoError(t, unix.Statfs(dir, &s))
		assert.NotZero(t, s.Blocks)
		assert.LessOrEqual(t, s.Bavail, s.Blocks)
		assert.EqualValues(t, 255, s.Namelen)
	},
	"fallocate lengthens": func(t *testing.T, dir string) {
		f := create(t, dir, "f")
		require.NoError(t, unix.Fallocate(int(f.Fd()), 0, 0, 10_000))
		assert.EqualValues(t, 10_000, stat(t, f.Name()).Size())
	},
	"seek for data and holes": func(t *testing.T, dir string) {
		f := create(t, dir, "f")
		write(t, f, "hello")
		require.NoError(t, f.Sync())
		at, err := unix.Seek(int(f.Fd()), 0, unix.SEEK_DATA)
		require.NoError(t, err)
		assert.Zero(t, at)
		at, err = unix.Seek(int(f.Fd()), 0, unix.SEEK_HOLE)
		require.NoError(t, err)
		assert.EqualValues(t, 5, at)
		_, err = unix.Seek(int(f.Fd()), 5, unix.SEEK_DATA)
		assert.ErrorIs(t, err, unix.ENXIO)
	},
	"locks keep others out": func(t *testing.T, dir string) {
		name := file(t, dir, "f", "")
		a, err := os.Open(name)
		require.NoError(t, err)
		defer a.Close()
		b, err := os.Open(name)
		require.NoError(t, err)
		defer b.Close()
		require.NoError(t, unix.Flock(int(a.Fd()), unix.LOCK_EX|unix.LOCK_NB))
		assert.ErrorIs(t, unix.Flock(int(b.Fd()), unix.LOCK_EX|unix.LOCK_NB), unix.EWOULDBLOCK)
		require.NoError(t, unix.Flock(int(a.Fd()), unix.LOCK_UN))
		assert.NoError(t, unix.Flock(int(b.Fd()), unix.LOCK_EX|unix.LOCK_NB))
	},
	"O_DIRECT": func(t *testing.T, dir string) {
		name := file(t, dir, "f", string(pattern(8192)))
		fd, err := unix.Open(name, unix.O_RDONLY|unix.O_DIRECT, 0)
		if errors.Is(err, unix.EINVAL) {
			t.Skip("this file system has no O_DIRECT")
		}
		require.NoError(t, err)
		defer unix.Close(fd)
		m, err := unix.Mmap(-1, 0, 8192, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
		require.NoError(t, err)
		defer unix.Munmap(m)
		n, err := unix.Pread(fd, m, 0)
		require.NoError(t, err)
		assert.True(t, bytes.Equal(pattern(8192)[:n], m[:n]))
	},
	"file opened for reading can't be written": func(t *testing.T, dir string) {
		f, err := os.Open(file(t, dir, "f", "hello"))
		require.NoError(t, err)
		defer f.Close()
		_, err = f.Write([]byte("x"))
		assert.ErrorIs(t, err, unix.EBADF)
	},
	"many files at once": func(t *testing.T, dir string) {
		var all sync.WaitGroup
		for i := range 32 {
			all.Go(func() {
				name := filepath.Join(dir, fmt.Sprint(i))
				if assert.NoError(t, os.WriteFile(name, pattern(10_000+i), 0o644)) {
					got, err := os.ReadFile(name)
					assert.NoError(t, err)
					assert.True(t, bytes.Equal(pattern(10_000+i), got))
				}
			})
		}
		all.Wait()
	},
}

func pattern(n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(i*7 + i>>8)
	}
	return p
}

func create(t *testing.T, dir, name string) *os.File {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_RDWR|os.O_CREATE, 0o644)
	require.NoError(t, err)
	t.Cleanup(func() { f.Close() })
	return f
}

func file(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
	return path
}

func write(t *testing.T, f *os.File, text string) {
	t.Helper()
	n, err := f.WriteString(text)
	require.NoError(t, err)
	require.Equal(t, len(text), n)
}

func content(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	require.NoError(t, err)
	return string(text)
}

func stat(t *testing.T, name string) os.FileInfo {
	t.Helper()
	info, err := os.Stat(name)
	require.NoError(t, err)
	return info
}

func sys(t *testing.T, name string) *syscall.Stat_t {
	t.Helper()
	return stat(t, name).Sys().(*syscall.Stat_t)
}
