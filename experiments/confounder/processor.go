package confounder

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
)

const cpuDirectory = "/sys/devices/system/cpu/"

// processors are the settings of the processors, and of who may use them.
var processors = []source{
	{"cpufreq_governor", file(cpuDirectory + "cpu0/cpufreq/scaling_governor"),
		unless("the processors change their speed while a trial runs: cpupower frequency-set -g performance", "performance")},
	{"cpufreq_boost", file(cpuDirectory + "cpufreq/boost"),
		unless("how fast the processors are depends on how warm they are: echo 0 > /sys/devices/system/cpu/cpufreq/boost", "0")},
	{"intel_no_turbo", file(cpuDirectory + "intel_pstate/no_turbo"),
		unless("how fast the processors are depends on how warm they are: echo 1 > /sys/devices/system/cpu/intel_pstate/no_turbo", "1")},
	{"smt_active", file(cpuDirectory + "smt/active"),
		unless("two processors share a core, so that placement moves results: echo off > /sys/devices/system/cpu/smt/control", "0")},
	{"mitigations", mitigations, nil},
	{"clock_source", file("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
		unless("each look at the clock takes a system call or more: boot with tsc=reliable, if the processors' clocks are", "tsc", "kvm-clock", "hyperv_clocksource_tsc_page", "arch_sys_counter")},
	{"numa_nodes", numaNodes, unless("memory can be near or far: pin roles to one node (numactl), or expect two heaps", "1")},
	{"hypervisor", hypervisor, nil},
	{"steal_percent_since_boot", stealSinceBoot, judgeSteal},
	{"cgroup_cpu_quota", cpuQuota, unless("a control group takes the processors away when its time is used up: run outside of it", "none")},
	{"gomaxprocs", func() (string, error) { return strconv.Itoa(runtime.GOMAXPROCS(0)), nil }, judgeGOMAXPROCS},
	{"gogc", environment("GOGC"), unless("roles inherit it: unset GOGC")},
	{"godebug", environment("GODEBUG"), unless("roles inherit it: unset GODEBUG")},
}

func environment(name string) func() (string, error) {
	return func() (string, error) { return os.Getenv(name), nil }
}

func judgeGOMAXPROCS(value string) string {
	if value == strconv.Itoa(runtime.NumCPU()) {
		return ""
	}
	return fmt.Sprintf("roles use so many of %d processors: unset GOMAXPROCS", runtime.NumCPU())
}

// mitigations names the weaknesses of the processors that the kernel works around.
func mitigations() (string, error) {
	files, err := filepath.Glob(cpuDirectory + "vulnerabilities/*")
	if err != nil || len(files) == 0 {
		return "", err
	}
	var worked []string
	for _, path := range files {
		text, err := os.ReadFile(path)
		if err != nil {
			return "", err
		}
		if strings.HasPrefix(string(text), "Mitigation") {
			worked = append(worked, filepath.Base(path))
		}
	}
	if len(worked) == 0 {
		return "none", nil
	}
	return strings.Join(worked, " "), nil
}

func numaNodes() (string, error) {
	nodes, err := filepath.Glob("/sys/devices/system/node/node[0-9]*")
	if err != nil || len(nodes) == 0 {
		return "", err
	}
	return strconv.Itoa(len(nodes)), nil
}

// hypervisor names what this is a guest of: the flag of x86 processors says that it is
// one, the firmware's vendor often what.
func hypervisor() (string, error) {
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "", err
	}
	if !strings.Contains(string(text), " hypervisor") {
		return "", nil
	}
	vendor, err := file("/sys/class/dmi/id/sys_vendor")()
	if err != nil || vendor == "" {
		return "unknown", nil
	}
	return vendor, nil
}

// stealSinceBoot is what share of the processors' time the hypervisor gave to others.
func stealSinceBoot() (string, error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return "", err
	}
	return parseSteal(string(text))
}

func parseSteal(stat string) (string, error) {
	line, _, _ := strings.Cut(stat, "\n")
	fields := strings.Fields(line)
	if len(fields) < 9 || fields[0] != "cpu" {
		return "", errors.New("/proc/stat does not start with the sum of all processors")
	}
	var all, steal float64
	for i, f := range fields[1:9] {
		n, err := strconv.ParseUint(f, 10, 64)
		if err != nil {
			return "", fmt.Errorf("/proc/stat: %w", err)
		}
		all += float64(n)
		if i == 7 {
			steal = float64(n)
		}
	}
	if all == 0 {
		return "", nil
	}
	return strconv.FormatFloat(100*steal/all, 'f', 2, 64), nil
}

func judgeSteal(value string) string {
	if share, err := strconv.ParseFloat(value, 64); err != nil || share < 1 {
		return ""
	}
	return "other machines of the same host take processors away: use one with processors of its own"
}

// cpuQuota is the smallest limit of this process's control groups.
func cpuQuota() (string, error) {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", err
	}
	for _, dir := range groupDirectories(string(mounts), string(own)) {
		for _, name := range []string{"cpu.max", "cpu.cfs_quota_us"} {
			limit, err := file(filepath.Join(dir, name))()
			if err == nil && limit != "" && limit != "-1" && !strings.HasPrefix(limit, "max") {
				return limit, nil
			}
		}
	}
	return "none", nil
}

// groupDirectories are those of the control groups, of either version, that a process
// is in, and of those above them.
func groupDirectories(mounts, own string) (list []string) {
	for line := range strings.Lines(own) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 {
			continue
		}
		mount := groupMount(mounts, parts[1])
		if mount == "" {
			continue
		}
		for path := parts[2]; ; path = filepath.Dir(path) {
			list = append(list, filepath.Join(mount, path))
			if path == "/" || path == "." {
				break
			}
		}
	}
	return list
}

// groupMount finds where a hierarchy is mounted, by its controllers: none for version 2.
func groupMount(mounts, controllers string) string {
	for line := range strings.Lines(mounts) {
		mount, source, ok := strings.Cut(line, " - ")
		fields, kind := strings.Fields(mount), strings.Fields(source)
		if !ok || len(fields) < 5 || len(kind) < 3 {
			continue
		}
		if controllers == "" && kind[0] == "cgroup2" || controllers != "" && kind[0] == "cgroup" && strings.Contains(","+kind[2]+",", ","+controllers+",") {
			return fields[4]
		}
	}
	return ""
}
