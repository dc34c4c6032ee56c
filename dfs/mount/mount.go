// Package mount puts the file system into a directory of this machine, so that any
// program can use it.
//
//   - mount.go mounts and unmounts; what a mount that was killed has left is
//     cleared by the next.
//   - node.go answers what the kernel asks about names, file.go what it asks about
//     open files, attributes.go turns attributes and errors into the kernel's.
//   - status.go is the directory .waggle, in which the mount shows itself.
//
// What is promised: a file that is opened after it was closed elsewhere shows what
// was written there (close to open); names, sizes and times that others change are
// seen within a second. An fsync or a close that succeeds means that the bytes are
// durable on all replicas. The kernel checks permissions with what the file system
// says of owner and mode; it asks nobody else.
package mount

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"waggle/dfs/client"
	"waggle/dfs/datapath/mount"
)

// fileSystem is the type of a mount, behind "fuse.", in /proc/self/mountinfo.
const fileSystem = "waggle"

// cacheTime is for how long the kernel may believe what it was told about a name.
const cacheTime = time.Second

// Config says what to mount where.
type Config struct {
	// Client is the file system. Whoever mounts closes it behind Serve.
	Client *client.Client
	// Directory is where to mount: an empty directory, or one whose entries are to be
	// hidden.
	Directory string
	// Path is the name of the mount path, "fuse" by default.
	Path string
	// Others lets other users in, as far as permissions let them. Without root it
	// needs user_allow_other in /etc/fuse.conf.
	Others bool
	// Cluster is shown as the mount's source.
	Cluster string
	// Debug has every request logged.
	Debug bool
}

// Mount is a mounted file system.
type Mount struct {
	config Config
	path   mount.Path
	server *fuse.Server
	// background ends with the mount: open files live in it, as they outlive the
	// request that has opened them.
	background context.Context
	end        context.CancelFunc
	counts     counts
}

// counts are the counters of what went through the kernel.
type counts struct{ read, written *atomic.Int64 }

// New mounts. Serve must be called then, and returns when the mount has ended.
// Errors wrap datapath.ErrUnknown or ErrUnsupported where the path can't be taken.
func New(config Config) (*Mount, error) {
	if config.Path == "" {
		config.Path = mount.FUSE
	}
	path, err := mount.Paths.Use(config.Path)
	if err != nil {
		return nil, err
	}
	if config.Directory, err = filepath.Abs(config.Directory); err != nil {
		return nil, fmt.Errorf("mount: %w", err)
	}
	if err := clearDead(config.Directory); err != nil {
		return nil, err
	}
	if info, err := os.Stat(config.Directory); err != nil || !info.IsDir() {
		return nil, fmt.Errorf("mount on %s: it is no directory: make one first", config.Directory)
	}
	m := &Mount{config: config, path: path}
	m.background, m.end = context.WithCancel(context.Background())
	counters := config.Client.Counters()
	m.counts = counts{counters.Counter(mount.ReadBytes), counters.Counter(mount.WrittenBytes)}
	options := &fs.Options{RootStableAttr: &fs.StableAttr{Ino: rootInode, Mode: fuse.S_IFDIR}}
	attributes, entries := cacheTime, cacheTime
	options.AttrTimeout, options.EntryTimeout = &attributes, &entries
	options.NullPermissions = true // a mode of 0 is one
	options.MountOptions = fuse.MountOptions{
		FsName: "waggle:" + config.Cluster, Name: fileSystem, Debug: config.Debug, AllowOther: config.Others,
		DirectMountStrict: os.Geteuid() == 0, IgnoreSecurityLabels: true,
		Options: []string{"default_permissions"},
	}
	path.Configure(&options.MountOptions)
	// fs.Mount would open a file of the mount from this process: killed in that
	// moment, the process could wait for itself for ever.
	if m.server, err = fuse.NewServer(fs.NewNodeFS(&node{mount: m}, options), config.Directory, &options.MountOptions); err != nil {
		m.end()
		return nil, fmt.Errorf("mount on %s: %w", config.Directory, err)
	}
	go m.server.Serve()
	return m, nil
}

// Serve returns when somebody has unmounted, which is no error, or ctx has ended;
// then it unmounts. A mount that is in use is taken out of the tree at once, and
// ends with its last user.
func (m *Mount) Serve(ctx context.Context) error {
	defer m.end()
	done := make(chan struct{})
	go func() {
		m.server.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
	}
	if err := m.server.Unmount(); err == nil {
		<-done
		return nil
	}
	m.end() // requests under way end, so that nobody waits for them for ever
	return Unmount(m.config.Directory, true)
}

// Unmount ends the mount of this file system on a directory, also one whose
// process is gone. It is an error if there is none, or if it is in use; with
// force, its users get errors from then on, even those who wait for a process
// that does not answer.
func Unmount(directory string, force bool) error {
	directory, err := filepath.Abs(directory)
	if err != nil {
		return fmt.Errorf("unmount: %w", err)
	}
	mounted, err := mountOn(directory)
	if err != nil {
		return err
	}
	if mounted == nil {
		return fmt.Errorf("unmount %s: this file system is not mounted there", directory)
	}
	if os.Geteuid() != 0 {
		return unmountAsUser(directory, force)
	}
	flags := unix.UMOUNT_NOFOLLOW
	if force {
		if err := abort(mounted.Minor); err != nil {
			return fmt.Errorf("unmount %s: %w", directory, err)
		}
		flags |= unix.MNT_DETACH
	}
	err = unix.Unmount(directory, flags)
	if errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("unmount %s: it is in use: close what is open there, or use --force: %w", directory, err)
	}
	if err != nil {
		return fmt.Errorf("unmount %s: %w", directory, err)
	}
	return nil
}

func unmountAsUser(directory string, force bool) error {
	arguments := []string{"-u"}
	if force {
		arguments = append(arguments, "-z")
	}
	if out, err := exec.Command("fusermount3", append(arguments, "--", directory)...).CombinedOutput(); err != nil {
		return fmt.Errorf("unmount %s: fusermount3: %w: %s", directory, err, bytes.TrimSpace(out))
	}
	return nil
}

// abort ends the connection of a mount to its process (fusectl): whoever waits for
// an answer gets an error. The kernel numbers connections as the mounts' devices.
func abort(device int) error {
	control, err := os.MkdirTemp("", "waggle-fusectl-")
	if err != nil {
		return err
	}
	defer os.Remove(control)
	if err := unix.Mount("none", control, "fusectl", 0, ""); err != nil {
		return fmt.Errorf("mount fusectl: %w", err)
	}
	defer unix.Unmount(control, unix.MNT_DETACH)
	err = os.WriteFile(filepath.Join(control, strconv.Itoa(device), "abort"), []byte("1"), 0)
	if err != nil && !errors.Is(err, os.ErrNotExist) { // else it has ended already
		return fmt.Errorf("abort connection %d: %w", device, err)
	}
	return nil
}

// mountOn returns the mount of this file system on a directory, nil if there is
// none.
func mountOn(directory string) (*mountinfo.Info, error) {
	found, err := mountinfo.GetMounts(func(i *mountinfo.Info) (skip, stop bool) {
		return i.Mountpoint != directory || i.FSType != "fuse."+fileSystem, false
	})
	if err != nil {
		return nil, fmt.Errorf("read the list of mounts: %w", err)
	}
	if len(found) == 0 {
		return nil, nil
	}
	return found[len(found)-1], nil // the one on top
}

// clearDead unmounts what a process that was killed has left on a directory.
func clearDead(directory string) error {
	var ignored unix.Statfs_t // never answered from a cache, as attributes are
	if err := unix.Statfs(directory, &ignored); !errors.Is(err, unix.ENOTCONN) {
		return nil
	}
	if err := Unmount(directory, true); err != nil {
		return fmt.Errorf("clear a dead mount: %w", err)
	}
	return nil
}
