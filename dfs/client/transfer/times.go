package transfer

import (
	"math"
	"time"

	"golang.org/x/sys/unix"

	"waggle/dfs/client"
)

// sameTime says whether a file and its copy have the same time of modification,
// as far as both sides can keep it.
func sameTime(a, b entry) bool {
	grain := max(a.grain, b.grain, 1)
	return client.ClampTime(a.modified).Truncate(grain).Equal(client.ClampTime(b.modified).Truncate(grain))
}

// isUnusual says whether there are file systems in use that can't keep a time, such
// as those that count seconds in 32 bits.
func isUnusual(t time.Time) bool { return t.Unix() <= math.MinInt32 || t.Unix() >= math.MaxInt32 }

// grains are what file systems keep times by: ext4 with small inodes, exFAT,
// UDF, NTFS and CIFS.
var grains = []time.Duration{time.Second, 10 * time.Millisecond, time.Millisecond, time.Microsecond, 100 * time.Nanosecond}

// fatGrain is that of FAT, whose directory holds even seconds.
const fatGrain = 2 * time.Second

// grainOf tells by the times of a local file how exact the file system keeps
// them. It sets the time of the last change by itself, and by a clock that stands
// at a round number of microseconds once in a thousand times.
func grainOf(path string, modified, changed time.Time) time.Duration {
	for _, grain := range grains {
		if modified.Nanosecond()%int(grain) != 0 || changed.Nanosecond()%int(grain) != 0 {
			continue
		}
		if grain == time.Second && isFAT(path) {
			return fatGrain
		}
		return grain
	}
	return time.Nanosecond
}

func isFAT(path string) bool {
	var disk unix.Statfs_t
	return unix.Statfs(path, &disk) == nil && disk.Type == unix.MSDOS_SUPER_MAGIC
}
