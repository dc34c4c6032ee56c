package sockmap

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// cgroupPrefix begins the name of every control group made here.
const cgroupPrefix = "waggle-sockmap-"

// Cgroup is a control group (version 2) of our own: an Ingress sees the
// connections of the processes in it, and of nobody else. A socket belongs to
// the group that its process was in when the socket was made.
type Cgroup struct {
	path   string
	parent string
	dir    *os.File // locked for as long as the group's owner lives
}

// NewCgroup makes a control group beside which it removes those that an owner
// which died left behind.
func NewCgroup() (*Cgroup, error) {
	root, err := cgroupRoot()
	if err != nil {
		return nil, err
	}
	if err := removeAbandoned(root); err != nil {
		return nil, err
	}
	path, err := os.MkdirTemp(root, cgroupPrefix)
	if err != nil {
		return nil, fmt.Errorf("make a control group: %w", err)
	}
	dir, err := lockedDir(path)
	if err != nil {
		return nil, errors.Join(err, os.Remove(path))
	}
	return &Cgroup{path: path, parent: root, dir: dir}, nil
}

// Path is the group's directory, for Config.Cgroup.
func (c *Cgroup) Path() string { return c.path }

// Dir is the group's open directory; its descriptor starts a process inside the
// group (syscall.SysProcAttr's CgroupFD).
func (c *Cgroup) Dir() *os.File { return c.dir }

// Enter moves a process, all its threads, into the group. Sockets that it has
// already stay where they are.
func (c *Cgroup) Enter(pid int) error { return moveProcess(c.path, strconv.Itoa(pid)) }

// Close moves the processes that are still in the group out of it and removes it.
func (c *Cgroup) Close() error {
	defer c.dir.Close()
	pids, err := os.ReadFile(filepath.Join(c.path, "cgroup.procs"))
	if err != nil {
		return fmt.Errorf("list the processes of control group %s: %w", c.path, err)
	}
	for _, pid := range strings.Fields(string(pids)) {
		if err := moveProcess(c.parent, pid); err != nil && !errors.Is(err, unix.ESRCH) {
			return err
		}
	}
	if err := unix.Rmdir(c.path); err != nil {
		return fmt.Errorf("remove control group %s: %w", c.path, err)
	}
	return nil
}

func moveProcess(group, pid string) error {
	if err := os.WriteFile(filepath.Join(group, "cgroup.procs"), []byte(pid), 0); err != nil {
		return fmt.Errorf("move process %s into control group %s: %w", pid, group, err)
	}
	return nil
}

// lockedDir opens a directory and takes the lock that says its owner lives.
func lockedDir(path string) (*os.File, error) {
	dir, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open control group: %w", err)
	}
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("lock control group %s: %w", path, err), dir.Close())
	}
	return dir, nil
}

// removeAbandoned removes the groups below root that nobody owns any more. One
// that still has processes is left for the next time.
func removeAbandoned(root string) error {
	groups, err := filepath.Glob(filepath.Join(root, cgroupPrefix+"*"))
	if err != nil {
		return fmt.Errorf("list control groups of %s: %w", root, err)
	}
	for _, group := range groups {
		dir, err := lockedDir(group)
		if errors.Is(err, unix.EWOULDBLOCK) || errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		err = unix.Rmdir(group)
		dir.Close()
		if err != nil && !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("remove abandoned control group %s: %w", group, err)
		}
	}
	return nil
}

// cgroupRoot finds where control groups of version 2 are mounted: beside version
// 1 it need not be /sys/fs/cgroup.
func cgroupRoot() (string, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return "", fmt.Errorf("find the control groups: %w", err)
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		mount, kind, found := strings.Cut(lines.Text(), " - ")
		fields := strings.Fields(mount)
		if found && strings.HasPrefix(kind, "cgroup2 ") && len(fields) > 4 {
			return fields[4], nil
		}
	}
	return "", errors.New("no control groups of version 2 are mounted: mount -t cgroup2 none DIRECTORY")
}
