package storm

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
)

// diskSize is that of every disk in bytes. The files that stand for disks are
// sparse, and in memory. The metadata server keeps 128 MiB free.
const diskSize = 320 << 20

// disks makes disks. They are files on a tmpfs that nobody outside this mount
// namespace sees, attached to loop devices that are freed when their file system
// is unmounted: whatever way the process ends, the namespace goes with it, and
// with the namespace the mounts, the devices and the files.
type disks struct {
	directory string
	mu        sync.Mutex
	made      int
}

// openDisks mounts the tmpfs, in a mount namespace of the process's own, and
// makes the empty file system that every disk begins as.
func openDisks(directory string) (*disks, error) {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return nil, fmt.Errorf("keep mounts to this namespace: %w", err)
	}
	if err := unix.Mount("storm", directory, "tmpfs", 0, ""); err != nil {
		return nil, fmt.Errorf("mount a tmpfs: %w", err)
	}
	d := &disks{directory: directory}
	if err := makeSparse(d.empty()); err != nil {
		return nil, err
	}
	// A small journal, and tables that are written when they are needed.
	out, err := exec.Command("mkfs.ext4", "-q", "-F", "-b", "4096", "-J", "size=4", "-N", "8192",
		"-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard", d.empty()).CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("make a file system: %w: %s", err, out)
	}
	return d, nil
}

func (d *disks) empty() string { return filepath.Join(d.directory, "empty") }

func makeSparse(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(diskSize), f.Close())
}

// newFile names a file for a disk.
func (d *disks) newFile() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.made++
	return filepath.Join(d.directory, fmt.Sprintf("disk-%d", d.made))
}

// disk is an ext4 file system on a loop device.
type disk struct {
	disks   *disks
	mounted string // where
	backing string // the file that holds what the disk holds
	device  *os.File
	ballast bool
	failing bool
}

// newDisk makes an empty disk and mounts it in a new directory.
func (d *disks) newDisk() (*disk, error) {
	made := &disk{disks: d}
	made.mounted = d.newFile() + ".mounted"
	if err := os.Mkdir(made.mounted, 0o755); err != nil {
		return nil, err
	}
	return made, made.use(d.empty())
}

// use mounts a copy of a file.
func (d *disk) use(image string) error {
	backing := d.disks.newFile()
	if err := copySparse(backing, image); err != nil {
		return fmt.Errorf("copy a disk: %w", err)
	}
	d.backing = backing
	return d.mount()
}

// mount attaches the backing file and mounts it. Where the loop device's own
// writes go does not matter: what it has written to is the disk, and what it has
// not, page cache of the file system, is what a power loss takes.
func (d *disk) mount() error {
	backing, err := os.OpenFile(d.backing, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer backing.Close()
	if d.device, err = attachLoop(backing); err != nil {
		return fmt.Errorf("attach a loop device: %w", err)
	}
	// Errors are answered, and do not end the machine or turn it read-only.
	if err := unix.Mount(d.device.Name(), d.mounted, "ext4", unix.MS_NOATIME, "errors=continue"); err != nil {
		return errors.Join(fmt.Errorf("mount %s: %w", d.device.Name(), err), d.device.Close())
	}
	return nil
}

// attachLoop finds a free loop device. It is freed with its last user.
func attachLoop(backing *os.File) (*os.File, error) {
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer control.Close()
	for {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, err
		}
		device, err := os.OpenFile(fmt.Sprintf("/dev/loop%d", n), os.O_RDWR, 0)
		if err != nil {
			return nil, err
		}
		config := unix.LoopConfig{Fd: uint32(backing.Fd()), Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_AUTOCLEAR}}
		if err = unix.IoctlLoopConfigure(int(device.Fd()), &config); err == nil {
			return device, nil
		}
		device.Close()
		if !errors.Is(err, unix.EBUSY) { // somebody else was faster
			return nil, err
		}
	}
}

// unmount takes the disk away from a machine that does not run.
func (d *disk) unmount() error {
	// A process that has just been killed may still be letting go of its files.
	err := unix.Unmount(d.mounted, 0)
	if errors.Is(err, unix.EBUSY) {
		err = unix.Unmount(d.mounted, unix.MNT_DETACH)
	}
	return errors.Join(err, d.device.Close())
}

// losePower takes what the disk has and mounts it again, without what was only in
// memory. The machine's processes must have ended.
func (d *disk) losePower() error {
	old := d.backing
	backing := d.disks.newFile()
	if err := copySparse(backing, old); err != nil { // as it stands, before unmount writes to it
		return fmt.Errorf("copy a disk: %w", err)
	}
	if err := d.unmount(); err != nil {
		return err
	}
	d.backing, d.ballast, d.failing = backing, false, false
	return errors.Join(os.Remove(old), d.mount())
}

// remount ends what is wrong with a disk, as if it were put into another
// machine. The processes of the old one must have ended.
func (d *disk) remount() error {
	if err := d.unmount(); err != nil {
		return err
	}
	d.failing = false
	return d.mount()
}

// scatter writes some of what is only in memory to the disk, as the kernel does
// whenever it likes: pages of files in any order.
func (d *disk) scatter(random *rand.Rand) error {
	return filepath.WalkDir(d.mounted, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() || random.IntN(3) == 0 {
			return nil // what goes away meanwhile is nothing to write
		}
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			return nil
		}
		defer f.Close()
		if info, err := f.Stat(); err == nil && info.Size() > 0 {
			from := random.Int64N(info.Size()) &^ 4095
			length := 4096 * (1 + random.Int64N(16))
			_ = unix.SyncFileRange(int(f.Fd()), from, length,
				unix.SYNC_FILE_RANGE_WAIT_BEFORE|unix.SYNC_FILE_RANGE_WRITE|unix.SYNC_FILE_RANGE_WAIT_AFTER)
		}
		return nil
	})
}

// fill leaves no room on the disk.
func (d *disk) fill() error {
	d.ballast = true
	f, err := os.Create(filepath.Join(d.mounted, ballastName))
	if err != nil {
		return ignoreFull(err)
	}
	defer f.Close()
	for size := int64(diskSize); size >= 4096; size /= 2 {
		info, err := f.Stat()
		if err != nil {
			return err
		}
		_ = unix.Fallocate(int(f.Fd()), 0, info.Size(), size) // what fits
	}
	return nil
}

const ballastName = "ballast"

func ignoreFull(err error) error {
	if errors.Is(err, unix.ENOSPC) {
		return nil
	}
	return err
}

// unfill makes room again.
func (d *disk) unfill() error {
	d.ballast = false
	err := os.Remove(filepath.Join(d.mounted, ballastName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// fail cuts the device short under the file system: what lies behind can't be
// read or written any more (EIO).
func (d *disk) fail() error {
	d.failing = true
	return d.limit(diskSize / 8)
}

func (d *disk) limit(bytes uint64) error {
	info, err := unix.IoctlLoopGetStatus64(int(d.device.Fd()))
	if err != nil {
		return fmt.Errorf("read the state of %s: %w", d.device.Name(), err)
	}
	info.Sizelimit = bytes
	if err := unix.IoctlLoopSetStatus64(int(d.device.Fd()), info); err != nil {
		return fmt.Errorf("limit %s: %w", d.device.Name(), err)
	}
	return nil
}

// copySparse copies a file as it stands, without its holes.
func copySparse(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	defer out.Close()
	if err := out.Truncate(diskSize); err != nil {
		return err
	}
	for at := int64(0); ; {
		start, err := unix.Seek(int(in.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) { // only a hole is left
			return nil
		}
		if err != nil {
			return err
		}
		if at, err = unix.Seek(int(in.Fd()), start, unix.SEEK_HOLE); err != nil {
			return err
		}
		_, err = io.Copy(io.NewOffsetWriter(out, start), io.NewSectionReader(in, start, at-start))
		if err != nil {
			return err
		}
	}
}
