package topology

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Owner is what holds everything of one run that the kernel would leave behind
// if this process were killed: a cgroup with one below it for each role, a scratch
// directory, and settings of the machine that it has changed. While it is held its lock file is locked; a lock file that
// is not locked belongs to nobody, and Sweep removes what it names.
type Owner struct {
	Run string
	// Scratch is an empty directory of this run, removed by Close.
	Scratch string
	// cgroup is the run's cgroup, or "" where we may not make one.
	cgroup string
	lock   *os.File
	held   holding
}

// claim is what a lock file says.
type claim struct {
	Scratch string `json:"scratch"`
	Cgroup  string `json:"cgroup,omitempty"`
}

const (
	lockSuffix  = ".lock"
	ownedPrefix = "waggle-" // of every cgroup and scratch directory
	maxClaim    = 64 << 10
)

// Claim makes the owner of a run. The scratch directory is made in parent, or
// in the system's directory for temporary files if parent is "".
func Claim(run, parent string) (*Owner, error) {
	if parent == "" {
		parent = os.TempDir()
	}
	parent, err := filepath.Abs(parent)
	if err != nil {
		return nil, fmt.Errorf("find the scratch directory: %w", err)
	}
	o := &Owner{Run: run, Scratch: filepath.Join(parent, ownedPrefix+run)}
	if root := cgroupRoot(); root != "" {
		o.cgroup = filepath.Join(root, ownedPrefix+run)
	}
	// The claim is written first: what it names may not exist yet, but nothing
	// exists that no claim names.
	if err := o.writeLock(); err != nil {
		return nil, fmt.Errorf("claim run %s: %w", run, err)
	}
	if err := o.make(); err != nil {
		return nil, errors.Join(err, o.Close())
	}
	return o, nil
}

// Cgroup is the directory of the run's cgroup, which holds those of all roles,
// or "" where we may not make one.
func (o *Owner) Cgroup() string { return o.cgroup }

func (o *Owner) make() error {
	if err := os.Mkdir(o.Scratch, 0o700); err != nil {
		return fmt.Errorf("make the scratch directory: %w", err)
	}
	if o.cgroup != "" {
		if err := os.Mkdir(o.cgroup, 0o755); err != nil {
			return fmt.Errorf("make the run's cgroup: %w", err)
		}
	}
	return nil
}

func (o *Owner) writeLock() error {
	dir, err := openLocks()
	if err != nil {
		return err
	}
	defer dir.Close()
	path := filepath.Join(dir.Name(), o.Run+lockSuffix)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return fmt.Errorf("make the lock file: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return fmt.Errorf("lock %s: %w", filepath.Base(path), err)
	}
	if err := json.NewEncoder(f).Encode(claim{o.Scratch, o.cgroup}); err != nil {
		f.Close()
		return fmt.Errorf("write the lock file: %w", err)
	}
	o.lock = f
	return nil
}

// Close kills what still runs and removes everything that is owned.
func (o *Owner) Close() error {
	err := claim{o.Scratch, o.cgroup}.remove()
	if err == nil {
		err = os.Remove(o.lock.Name())
	}
	o.lock.Close()
	o.held = nil
	if err != nil {
		return fmt.Errorf("clean up after run %s: %w", o.Run, err)
	}
	return nil
}

// lockDirectory is where lock files are: one for each user, and no other user
// can write in it.
func lockDirectory() (string, error) {
	dir := fmt.Sprintf("%s/waggle-locks-%d", os.TempDir(), os.Geteuid())
	if os.Geteuid() == 0 {
		dir = "/run/waggle"
	} else if runtime := os.Getenv("XDG_RUNTIME_DIR"); runtime != "" {
		dir = filepath.Join(runtime, "waggle")
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return "", fmt.Errorf("make the directory for lock files: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Lstat(dir, &st); err != nil {
		return "", fmt.Errorf("look at the directory for lock files: %w", err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR || st.Mode&0o022 != 0 || int(st.Uid) != os.Geteuid() {
		return "", fmt.Errorf("%s must be a directory that only its owner, user %d, can write in: remove it", dir, os.Geteuid())
	}
	return dir, nil
}

// openLocks opens the directory of lock files and locks it, so that no claim is
// swept before it is locked. Closing it unlocks it.
func openLocks() (*os.File, error) {
	path, err := lockDirectory()
	if err != nil {
		return nil, err
	}
	dir, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open the directory for lock files: %w", err)
	}
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX); err != nil {
		dir.Close()
		return nil, fmt.Errorf("lock the directory for lock files: %w", err)
	}
	return dir, nil
}

// Sweep removes what owners left behind that were killed, and names their runs.
func Sweep() (runs []string, err error) {
	dir, err := openLocks()
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	locks, err := filepath.Glob(filepath.Join(dir.Name(), "*"+lockSuffix))
	if err != nil {
		return nil, fmt.Errorf("list lock files: %w", err)
	}
	for _, path := range locks {
		swept, failed := sweepOne(path)
		if failed != nil {
			err = errors.Join(err, fmt.Errorf("clean up after %s: %w", filepath.Base(path), failed))
		} else if swept {
			runs = append(runs, strings.TrimSuffix(filepath.Base(path), lockSuffix))
		}
	}
	return runs, err
}

func sweepOne(path string) (swept bool, err error) {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_CLOEXEC, 0)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil // its owner has just closed
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return false, nil // its owner lives
	}
	c, whole := readClaim(f)
	if whole {
		if err := c.remove(); err != nil {
			return false, err
		}
	}
	return true, os.Remove(path)
}

// readClaim reads a lock file. The owner of one that is not whole was killed
// before there was anything to claim.
func readClaim(f *os.File) (c claim, whole bool) {
	data := make([]byte, maxClaim)
	n, _ := f.ReadAt(data, 0)
	return c, json.Unmarshal(data[:n], &c) == nil
}

func (c claim) remove() error {
	if err := restore(filepath.Join(c.Scratch, heldFile)); err != nil {
		return err
	}
	if c.Cgroup != "" {
		if err := removeCgroup(c.Cgroup); err != nil {
			return err
		}
	}
	// Only what has our name is ever removed, whatever a lock file says.
	if !strings.HasPrefix(filepath.Base(c.Scratch), ownedPrefix) {
		return fmt.Errorf("%q is no scratch directory of ours", filepath.Base(c.Scratch))
	}
	return os.RemoveAll(c.Scratch)
}
