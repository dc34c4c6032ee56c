// Package machine tells the facts about this machine that decide which data
// paths it can take: kernel, type information for BPF, control groups,
// capabilities.
package machine

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Facts are what is known about this machine and process. A fact that could
// not be found out is in Unknown, and its field is empty.
type Facts struct {
	Kernel       string `json:"kernel"`       // release, as uname -r prints it
	Architecture string `json:"architecture"` // as Go names it
	CPUs         int    `json:"cpus"`         // that this process may run on
	MemoryBytes  uint64 `json:"memory_bytes"`
	// BTF says that the kernel offers its own type information, which CO-RE
	// programs need.
	BTF bool `json:"btf"`
	// Cgroup2 is where a version 2 control group hierarchy is mounted.
	Cgroup2 string `json:"cgroup2"`
	UID     int    `json:"uid"`
	// Capabilities are the effective ones that data paths ask for.
	Capabilities map[string]bool `json:"capabilities"`
	// Unknown says what could not be found out, and why.
	Unknown []string `json:"unknown,omitempty"`
}

// capabilities that data paths ask for, by their bit.
var capabilities = map[string]uint{
	"CAP_NET_ADMIN":    unix.CAP_NET_ADMIN,
	"CAP_SYS_ADMIN":    unix.CAP_SYS_ADMIN,
	"CAP_BPF":          unix.CAP_BPF,
	"CAP_PERFMON":      unix.CAP_PERFMON,
	"CAP_SYS_RESOURCE": unix.CAP_SYS_RESOURCE,
	"CAP_IPC_LOCK":     unix.CAP_IPC_LOCK,
}

// Inspect finds out the facts.
func Inspect() Facts {
	f := Facts{Architecture: runtime.GOARCH, CPUs: runtime.NumCPU(), UID: os.Geteuid()}
	var err error
	note := func(what string) {
		if err != nil {
			f.Unknown = append(f.Unknown, fmt.Sprintf("%s: %v", what, err))
		}
	}
	f.Kernel, err = kernelRelease()
	note("kernel release")
	f.MemoryBytes, err = memory()
	note("memory")
	f.BTF, err = exists("/sys/kernel/btf/vmlinux")
	note("BTF")
	f.Cgroup2, err = cgroup2()
	note("cgroup2")
	f.Capabilities, err = effectiveCapabilities()
	note("capabilities")
	return f
}

func kernelRelease() (string, error) {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return "", err
	}
	return unix.ByteSliceToString(name.Release[:]), nil
}

func memory() (uint64, error) {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return 0, err
	}
	return info.Totalram * uint64(info.Unit), nil
}

func exists(path string) (bool, error) {
	_, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// cgroup2 finds the mount, which is not always /sys/fs/cgroup.
func cgroup2() (string, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if mount, ok := cgroup2Mount(lines.Text()); ok {
			return mount, nil
		}
	}
	return "", lines.Err()
}

// cgroup2Mount returns the mount point of a line of mountinfo (proc(5)) if its
// file system is cgroup2.
func cgroup2Mount(line string) (string, bool) {
	mount, source, ok := strings.Cut(line, " - ")
	fields := strings.Fields(mount)
	if !ok || len(fields) < 5 || !strings.HasPrefix(source, "cgroup2 ") {
		return "", false
	}
	return fields[4], true
}

func effectiveCapabilities() (map[string]bool, error) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(status)) {
		hex, ok := strings.CutPrefix(line, "CapEff:")
		if !ok {
			continue
		}
		bits, err := strconv.ParseUint(strings.TrimSpace(hex), 16, 64)
		if err != nil {
			return nil, err
		}
		have := make(map[string]bool, len(capabilities))
		for name, bit := range capabilities {
			have[name] = bits>>bit&1 == 1
		}
		return have, nil
	}
	return nil, errors.New("/proc/self/status has no line CapEff")
}
