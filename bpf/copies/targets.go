package copies

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// AddProcess counts a running process under a role, with the descendants it has and will
// have. What they do before this call returns may or may not be counted.
func (l *Ledger) AddProcess(role string, pid int) error {
	process, _, err := processOf(pid)
	if err != nil {
		return fmt.Errorf("count the copies of process %d: %w", pid, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	index, err := l.roleIndex(role)
	if err != nil {
		return err
	}
	if err := l.addProcess(index, process); err != nil {
		return err
	}
	return l.addDescendants(index, process)
}

func (l *Ledger) addProcess(role uint16, pid int) error {
	err := l.boundary.Targets.Put(uint32(pid), boundaryTarget{Role: role})
	if errors.Is(err, unix.E2BIG) {
		return fmt.Errorf("count the copies of process %d: the ledger already follows %d processes, its limit",
			pid, l.boundary.Targets.MaxEntries())
	}
	if err != nil {
		return fmt.Errorf("count the copies of process %d: %w", pid, err)
	}
	// If it ended before it was in the table, nobody else takes it out again.
	if err := unix.Kill(pid, 0); errors.Is(err, unix.ESRCH) {
		if err := l.boundary.Targets.Delete(uint32(pid)); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("stop counting process %d: %w", pid, err)
		}
		return fmt.Errorf("count the copies of process %d: it has ended", pid)
	}
	return nil
}

// addDescendants adds the children that a process had before it was a target itself. Each
// round finds one generation more; forks of processes already added are followed in the kernel.
func (l *Ledger) addDescendants(role uint16, root int) error {
	known := map[int]bool{root: true}
	for grew := true; grew; {
		grew = false
		parents, err := parentsOfAll()
		if err != nil {
			return fmt.Errorf("find the descendants of process %d: %w", root, err)
		}
		for pid, parent := range parents {
			if known[pid] || !known[parent] {
				continue
			}
			known[pid], grew = true, true
			if err := l.addProcess(role, pid); err != nil && processExists(pid) {
				return err
			}
		}
	}
	return nil
}

func processExists(pid int) bool { return !errors.Is(unix.Kill(pid, 0), unix.ESRCH) }

func parentsOfAll() (map[int]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	parents := make(map[int]int, len(entries))
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		if _, parent, err := processOf(pid); err == nil { // else it ended meanwhile
			parents[pid] = parent
		}
	}
	return parents, nil
}

// processOf finds the process that a process or thread number belongs to, and its parent.
func processOf(pid int) (process, parent int, err error) {
	file, err := os.Open(filepath.Join("/proc", strconv.Itoa(pid), "status"))
	if errors.Is(err, os.ErrNotExist) {
		return 0, 0, errors.New("there is no such process")
	}
	if err != nil {
		return 0, 0, err
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), ":")
		switch name {
		case "Tgid":
			process, err = strconv.Atoi(strings.TrimSpace(value))
		case "PPid":
			parent, err = strconv.Atoi(strings.TrimSpace(value))
		}
		if err != nil {
			return 0, 0, fmt.Errorf("read %s: %w", file.Name(), err)
		}
	}
	if process == 0 {
		return 0, 0, errors.New("it has ended")
	}
	return process, parent, lines.Err()
}

// AddCgroup counts all tasks of a version 2 control group and of those below it, whenever
// they enter it. The path is absolute, or relative to where cgroup2 is mounted.
func (l *Ledger) AddCgroup(role, path string) error {
	id, level, err := findCgroup(path)
	if err != nil {
		return fmt.Errorf("count the copies of control group %s: %w", path, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	index, err := l.roleIndex(role)
	if err != nil {
		return err
	}
	changed := l.cgroups
	if changed.Count == maxCgroups {
		return fmt.Errorf("count the copies of control group %s: the ledger holds at most %d control groups", path, maxCgroups)
	}
	entry := &changed.Entry[changed.Count]
	entry.Id, entry.Level, entry.Role = id, level, index
	changed.Count++
	if err := l.boundary.Cgroups.Put(uint32(0), changed); err != nil {
		return fmt.Errorf("count the copies of control group %s: %w", path, err)
	}
	l.cgroups = changed
	return nil
}

// CgroupExists tells whether a path names a version 2 control group, as AddCgroup wants it.
func CgroupExists(path string) bool {
	_, _, err := findCgroup(path)
	return err == nil
}

// The inode number of the initial namespace is part of the kernel's ABI (PROC_CGROUP_INIT_INO).
const initialCgroupNamespaceLink = "cgroup:[4026531835]"

// findCgroup returns a control group's id, which is its inode number, and its depth.
func findCgroup(path string) (id uint64, level uint32, err error) {
	if link, err := os.Readlink("/proc/self/ns/cgroup"); err != nil || link != initialCgroupNamespaceLink {
		return 0, 0, errors.New("its depth can't be known inside a control group namespace: run outside of the container, or with the host's (docker run --cgroupns=host)")
	}
	root, err := cgroupMount()
	if err != nil {
		return 0, 0, err
	}
	if !filepath.IsAbs(path) {
		path = filepath.Join(root, path)
	}
	path, err = filepath.EvalSymlinks(path)
	if err != nil {
		return 0, 0, err
	}
	below, err := filepath.Rel(root, path)
	if err != nil || below == ".." || strings.HasPrefix(below, "../") {
		return 0, 0, fmt.Errorf("it is not a version 2 control group: these are below %s", root)
	}
	info, err := os.Stat(path)
	if err != nil {
		return 0, 0, err
	}
	if !info.IsDir() {
		return 0, 0, errors.New("it is not a directory")
	}
	if below != "." {
		level = uint32(strings.Count(below, "/") + 1)
	}
	if level > maxCgroupDepth {
		return 0, 0, fmt.Errorf("it is nested more than %d deep", maxCgroupDepth)
	}
	return info.Sys().(*syscall.Stat_t).Ino, level, nil
}

// cgroupMount finds where the whole version 2 hierarchy is mounted.
func cgroupMount() (string, error) {
	file, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		// 36 35 0:30 ROOT MOUNT_POINT options optional... - cgroup2 source options
		before, after, _ := strings.Cut(lines.Text(), " - ")
		fields := strings.Fields(before)
		if len(fields) > 4 && fields[3] == "/" && strings.HasPrefix(after, "cgroup2 ") {
			return fields[4], nil
		}
	}
	return "", errors.Join(errors.New("cgroup2 is not mounted: mount -t cgroup2 none /sys/fs/cgroup"), lines.Err())
}
