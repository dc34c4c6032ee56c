package transfer

import (
	"fmt"
	"hash/fnv"
	"os"
	"path"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"waggle/dfs/wire"
)

// partialPrefix begins the name that a file has while it is copied. Host, process
// and number follow, so that no two copies have one name in common, and a copy
// that was killed can be told from one that runs.
const partialPrefix = ".waggle-partial-"

// abandonedAfter is when a partial file of another host, or of a boot before
// this, is taken for one whose copy is dead.
const abandonedAfter = 7 * 24 * time.Hour

// owner is the process that a partial file belongs to.
type owner struct {
	host  string // of this boot, with the namespace that process ids belong to
	pid   int
	start uint64 // of the process, in clock ticks since boot
}

var thisProcess = sync.OnceValue(func() owner {
	pid := os.Getpid()
	start, _ := startOf(pid)
	h := fnv.New64a()
	boot, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	namespace, _ := os.Readlink("/proc/self/ns/pid")
	fmt.Fprint(h, string(boot), namespace)
	return owner{fmt.Sprintf("%016x", h.Sum64()), pid, start}
})

var partials atomic.Uint64

// partialName returns a name beside file that nobody has used.
func partialName(file string) string {
	o := thisProcess()
	return path.Join(path.Dir(file), fmt.Sprintf("%s%s-%d-%d-%d", partialPrefix, o.host, o.pid, o.start, partials.Add(1)))
}

// parsePartial says whose partial file a name is.
func parsePartial(name string) (o owner, ok bool) {
	rest, ok := strings.CutPrefix(name, partialPrefix)
	fields := strings.Split(rest, "-")
	if !ok || len(fields) != 4 || len(fields[0]) != 16 {
		return owner{}, false
	}
	pid, err := strconv.ParseInt(fields[1], 10, 32)
	start, bad := strconv.ParseUint(fields[2], 10, 64)
	_, worse := strconv.ParseUint(fields[3], 10, 64)
	return owner{fields[0], int(pid), start}, err == nil && bad == nil && worse == nil
}

// isInternal says whether an entry of a directory is no user's, but Waggle's.
func isInternal(directory, name string) bool {
	_, partial := parsePartial(name)
	return partial || name == wire.UploadsName && strings.Trim(directory, "/.") == ""
}

// isAbandoned says whether an entry is the partial file of a copy that is dead.
func isAbandoned(e entry) bool {
	o, ok := parsePartial(e.name)
	if !ok || !e.mode.IsRegular() {
		return false
	}
	if o.host != thisProcess().host {
		return time.Since(e.changed) > abandonedAfter
	}
	start, alive := startOf(o.pid)
	return !alive || start != o.start
}

// startOf returns when a process started, in clock ticks since boot, and whether
// it runs.
func startOf(pid int) (start uint64, alive bool) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, false
	}
	// The name in parentheses may hold anything.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	if len(fields) < 20 || fields[0] == "Z" || fields[0] == "X" {
		return 0, false
	}
	start, err = strconv.ParseUint(fields[19], 10, 64)
	return start, err == nil
}
