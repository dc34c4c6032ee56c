package confounder

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// system are the settings of memory and kernel, and how busy the machine is.
var system = []source{
	{"transparent_huge_pages", chosen("/sys/kernel/mm/transparent_hugepage/enabled"), nil},
	{"kernel_hz", buildOption("CONFIG_HZ"), nil},
	{"kernel_irq_time_accounting", buildOption("CONFIG_IRQ_TIME_ACCOUNTING"), nil},
	{"kernel_preemption", preemption, nil},
	{"kernel_command_line", commandLine, judgeCommandLine},
	{"load_before", loadBefore, judgeLoad},
}

// configurations are where distributions leave that of the kernel.
var configurations = []string{"/proc/config.gz", "/boot/config-%r", "/lib/modules/%r/config"}

// buildOption is how the kernel was built, where that is said; "n" for what is off.
func buildOption(name string) func() (string, error) {
	return func() (string, error) {
		for _, path := range configurations {
			text, err := readConfiguration(path)
			if err == nil {
				return optionIn(text, name), nil
			}
		}
		return "", nil
	}
}

func readConfiguration(path string) ([]byte, error) {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return nil, err
	}
	text, err := os.ReadFile(strings.ReplaceAll(path, "%r", unix.ByteSliceToString(name.Release[:])))
	if err != nil || !strings.HasSuffix(path, ".gz") {
		return text, err
	}
	r, err := gzip.NewReader(bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	const most = 8 << 20
	return io.ReadAll(io.LimitReader(r, most))
}

func optionIn(configuration []byte, name string) string {
	for lines := bufio.NewScanner(bytes.NewReader(configuration)); lines.Scan(); {
		if value, ok := strings.CutPrefix(lines.Text(), name+"="); ok {
			return strings.Trim(value, `"`)
		}
	}
	return "n"
}

// preemption is how the kernel lets tasks interrupt it, as it says in its version.
func preemption() (string, error) {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return "", err
	}
	for word := range strings.FieldsSeq(unix.ByteSliceToString(name.Version[:])) {
		if strings.HasPrefix(word, "PREEMPT") {
			return word, nil
		}
	}
	return "none", nil
}

// commandLine is what of the kernel's command line decides how processors, memory and
// clocks are used; the rest is nobody's business.
func commandLine() (string, error) {
	text, err := file("/proc/cmdline")()
	return decisiveIn(text), err
}

// decisive are the beginnings of such words.
var decisive = []string{
	"isolcpus", "nohz", "rcu_nocbs", "mitigations", "idle", "nosmt", "maxcpus", "nr_cpus", "threadirqs", "preempt",
	"intel_idle", "processor.", "cpuidle", "haltpoll", "intel_pstate", "amd_pstate", "sched_", "numa", "transparent_hugepage", "hugepages",
	"init_on_", "page_poison", "slub_debug", "tsc", "clocksource", "skew_tick", "audit", "psi", "kpti", "nopti", "spectre", "retbleed",
}

func decisiveIn(line string) string {
	line, _, _ = strings.Cut(line, " -- ") // arguments of the first process
	words := slices.DeleteFunc(strings.Fields(line), func(word string) bool {
		return strings.Contains(word, "/") || !slices.ContainsFunc(decisive, func(d string) bool { return strings.HasPrefix(word, d) })
	})
	return strings.Join(words, " ")
}

// unusual are the beginnings of those words that few machines have, and that change a
// lot.
var unusual = []string{"isolcpus", "nohz_full", "rcu_nocbs", "mitigations=off", "idle", "nosmt", "maxcpus", "nr_cpus", "threadirqs",
	"intel_idle", "processor.", "init_on_", "page_poison", "slub_debug"}

func judgeCommandLine(line string) string {
	var found []string
	for word := range strings.FieldsSeq(line) {
		if slices.ContainsFunc(unusual, func(u string) bool { return strings.HasPrefix(word, u) }) {
			found = append(found, word)
		}
	}
	if len(found) == 0 {
		return ""
	}
	return strings.Join(found, " ") + " changes how processors or memory are used: say so beside the results"
}

// loadBefore is the average number of tasks that wanted a processor in the last minute.
func loadBefore() (string, error) {
	text, err := file("/proc/loadavg")()
	load, _, _ := strings.Cut(text, " ")
	return load, err
}

// busyLoad is how many tasks a processor may have wanted it before the machine is busy.
const busyLoad = 0.25

func judgeLoad(value string) string {
	if load, err := strconv.ParseFloat(value, 64); err != nil || load < busyLoad*float64(runtime.NumCPU()) {
		return ""
	}
	return "other programs want the processors: end them, or wait until the machine is quiet"
}

// fileSystem is what the roles' data lies on, without its place.
func fileSystem(scratch string) source {
	if scratch == "" {
		scratch = os.TempDir()
	}
	return source{"file_system", func() (string, error) {
		dir, err := filepath.EvalSymlinks(scratch)
		if err != nil {
			return "", err
		}
		mounts, err := os.ReadFile("/proc/self/mountinfo")
		if err != nil {
			return "", err
		}
		return mountOf(string(mounts), dir), nil
	}, judgeFileSystem}
}

// mountOf gives the type and the options of the mount that a directory is on.
func mountOf(mounts, dir string) (found string) {
	longest := -1
	for line := range strings.Lines(mounts) {
		mount, source, ok := strings.Cut(line, " - ")
		fields, kind := strings.Fields(mount), strings.Fields(source)
		if !ok || len(fields) < 6 || len(kind) < 3 {
			continue
		}
		point := fields[4]
		if below, err := filepath.Rel(point, dir); err != nil || below == ".." || strings.HasPrefix(below, "../") || len(point) < longest {
			continue
		}
		longest = len(point)
		found = kind[0] + " " + fields[5] + " " + withoutPaths(kind[2])
	}
	return found
}

// withoutPaths leaves out options that name files.
func withoutPaths(options string) string {
	return strings.Join(slices.DeleteFunc(strings.Split(options, ","), func(o string) bool { return strings.Contains(o, "/") }), ",")
}

func judgeFileSystem(value string) string {
	switch kind, _, _ := strings.Cut(value, " "); kind {
	case "overlay":
		return "writes go through a second file system: choose another directory with --scratch"
	case "nfs", "nfs4", "9p", "virtiofs", "fuse":
		return "the data is on another machine or another program's: choose another directory with --scratch"
	}
	return ""
}
