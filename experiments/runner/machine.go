package runner

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"waggle/results"
)

// userHZ is the unit of /proc/stat: on Linux always 1/100 s. A trial's
// processor time is therefore known to 0.01 s a processor.
const userHZ = 100

// ticks takes from a difference of seconds what is not a multiple of userHZ, and
// so only the rounding of large sums.
func ticks(seconds float64) float64 { return math.Round(seconds*userHZ) / userHZ }

// machineCPU reads the processor time that the whole machine has used.
func machineCPU() (results.CPU, error) {
	f, err := os.Open("/proc/stat")
	if err != nil {
		return results.CPU{}, fmt.Errorf("read the machine's processor time: %w", err)
	}
	defer f.Close()
	line, err := bufio.NewReader(f).ReadString('\n')
	if err != nil {
		return results.CPU{}, fmt.Errorf("read the machine's processor time: %w", err)
	}
	return parseMachineCPU(line)
}

// parseMachineCPU reads the first line of /proc/stat: user, nice, system, idle,
// iowait, irq, softirq, and more that is not ours.
func parseMachineCPU(line string) (results.CPU, error) {
	fields := strings.Fields(line)
	if len(fields) < 8 || fields[0] != "cpu" {
		return results.CPU{}, errors.New("/proc/stat does not start with the sum of all processors")
	}
	var seconds [7]float64
	for i := range seconds {
		ticks, err := strconv.ParseUint(fields[i+1], 10, 64)
		if err != nil {
			return results.CPU{}, fmt.Errorf("/proc/stat: %w", err)
		}
		seconds[i] = float64(ticks) / userHZ
	}
	cpu := results.CPU{User: seconds[0] + seconds[1], System: seconds[2] + seconds[5], SoftIRQ: seconds[6]}
	cpu.Total = cpu.User + cpu.System + cpu.SoftIRQ
	return cpu, nil
}

// unused is for how long some processors have done nothing, and when that was
// so. The difference of two tells what they did between: processes, soft
// interrupts and kernel threads, wherever the kernel books them.
type unused struct {
	processors []int
	idle       float64 // seconds, of all of them
	at         time.Time
}

// readUnused reads it from /proc/stat, where a processor's idle time is measured,
// and not sampled at ticks as the times beside it are.
func readUnused(processors []int) (unused, error) {
	f, err := os.Open("/proc/stat")
	if err != nil {
		return unused{}, fmt.Errorf("read the processors' idle time: %w", err)
	}
	defer f.Close()
	u := unused{processors: processors, at: time.Now()}
	u.idle, err = parseIdle(f, processors)
	return u, err
}

// parseIdle adds what processors did not use: idle, iowait, and steal, the 4th,
// 5th and 8th number of each one's line.
func parseIdle(stat io.Reader, processors []int) (seconds float64, err error) {
	found := 0
	for lines := bufio.NewScanner(stat); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) < 9 {
			continue
		}
		number, err := strconv.Atoi(strings.TrimPrefix(fields[0], "cpu"))
		if err != nil || !slices.Contains(processors, number) {
			continue
		}
		found++
		for _, i := range []int{4, 5, 8} {
			ticks, err := strconv.ParseUint(fields[i], 10, 64)
			if err != nil {
				return 0, fmt.Errorf("/proc/stat: %w", err)
			}
			seconds += float64(ticks) / userHZ
		}
	}
	if found != len(processors) {
		return 0, fmt.Errorf("/proc/stat tells of %d of the processors %v", found, processors)
	}
	return seconds, nil
}

// busySince is what the processors did since an earlier moment, in seconds. Idle
// time comes in hundredths of a second, so that little work can seem to be none.
func (u unused) busySince(earlier unused) float64 {
	return max(0, float64(len(u.processors))*u.at.Sub(earlier.at).Seconds()-(u.idle-earlier.idle))
}
