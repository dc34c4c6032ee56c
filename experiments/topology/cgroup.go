package topology

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// cgroupRoot is the cgroup v2 directory below which we may make cgroups: our
// own. It is "" without cgroup v2 or without the rights.
func cgroupRoot() string {
	mount := cgroup2Mount()
	own, err := os.ReadFile("/proc/self/cgroup")
	if mount == "" || err != nil {
		return ""
	}
	for line := range strings.Lines(string(own)) {
		if path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			root := filepath.Join(mount, path)
			if unix.Access(root, unix.W_OK) == nil {
				return root
			}
		}
	}
	return ""
}

// cgroup2Mount finds where cgroup v2 is mounted: beside v1 it is not at the
// usual place.
func cgroup2Mount() string {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return ""
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		mount, source, ok := strings.Cut(lines.Text(), " - ")
		if fields := strings.Fields(mount); ok && strings.HasPrefix(source, "cgroup2 ") && len(fields) > 4 {
			return fields[4]
		}
	}
	return ""
}

// removeCgroup kills everything in a cgroup and those below it, and removes them.
func removeCgroup(path string) error {
	if !strings.HasPrefix(filepath.Base(path), ownedPrefix) {
		return fmt.Errorf("%q is no cgroup of ours", filepath.Base(path))
	}
	err := os.WriteFile(filepath.Join(path, "cgroup.kill"), []byte("1"), 0)
	if errors.Is(err, os.ErrNotExist) {
		if _, missing := os.Stat(path); errors.Is(missing, os.ErrNotExist) {
			return nil
		}
	}
	below, err := filepath.Glob(filepath.Join(path, "*", "cgroup.procs"))
	if err != nil {
		return fmt.Errorf("list the roles' cgroups: %w", err)
	}
	for _, procs := range below {
		if err := removeEmptyCgroup(filepath.Dir(procs)); err != nil {
			return err
		}
	}
	return removeEmptyCgroup(path)
}

// removeEmptyCgroup removes a cgroup whose processes were killed, once the
// kernel has taken them out.
func removeEmptyCgroup(path string) error {
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		err := os.Remove(path)
		if err == nil || errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if !errors.Is(err, unix.EBUSY) || time.Now().After(end) {
			return fmt.Errorf("remove cgroup %s: %w", filepath.Base(path), err)
		}
	}
}

// cgroupCPU reads how much processor time a cgroup has used.
func cgroupCPU(path string) (time.Duration, error) {
	data, err := os.ReadFile(filepath.Join(path, "cpu.stat"))
	if err != nil {
		return 0, fmt.Errorf("read a role's processor time: %w", err)
	}
	for line := range strings.Lines(string(data)) {
		if us, ok := strings.CutPrefix(line, "usage_usec "); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(us), 10, 64)
			return time.Duration(n) * time.Microsecond, err
		}
	}
	return 0, errors.New("read a role's processor time: cpu.stat has no usage_usec")
}
