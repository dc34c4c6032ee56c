package runner

import (
	"bufio"
	"errors"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"

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
