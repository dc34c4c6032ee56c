package workload

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// What the processors did is read by the load generator itself, right before the
// timed part and right behind it: the runner's process would be late both times, by
// what else it has to read.

// Processors is what the machine's processors did during the timed part, in seconds.
type Processors struct {
	// Window is how long was looked, Idle how much of that each processor, by its
	// number, was idle or waited for a disk.
	Window float64         `json:"window"`
	Idle   map[int]float64 `json:"idle"`
	// Exact says that Idle comes from the kernel's idle clocks; otherwise, as all that
	// follows, from /proc/stat in hundredths of a second.
	Exact                        bool    `json:"exact"`
	User, System, SoftIRQ, Steal float64 // of all processors
}

// processorReading is what is known at one moment.
type processorReading struct {
	at    time.Duration
	idle  map[int]time.Duration
	exact bool
	stat  procStat
}

// procStat is /proc/stat: the sums of all processors, and each one's idle time.
type procStat struct {
	user, system, softirq, steal time.Duration
	idle                         map[int]time.Duration
}

// readProcessors reads the counters at the start (first) or the end of the timed
// part; the exact ones nearest to it.
func readProcessors(first bool) (r processorReading, err error) {
	steps := []func() error{
		func() (err error) { r.stat, err = readProcStat(); return err },
		func() error { return r.readIdle() },
	}
	if !first {
		steps[0], steps[1] = steps[1], steps[0]
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return r, err
		}
	}
	if !r.exact {
		r.idle = r.stat.idle
	}
	return r, nil
}

// since gives what the processors did since an earlier reading.
func (r processorReading) since(earlier processorReading) Processors {
	p := Processors{
		Window: (r.at - earlier.at).Seconds(), Idle: map[int]float64{}, Exact: r.exact && earlier.exact,
		User: (r.stat.user - earlier.stat.user).Seconds(), System: (r.stat.system - earlier.stat.system).Seconds(),
		SoftIRQ: (r.stat.softirq - earlier.stat.softirq).Seconds(), Steal: (r.stat.steal - earlier.stat.steal).Seconds(),
	}
	for number, idle := range r.idle {
		p.Idle[number] = min(max(0, (idle-earlier.idle[number]).Seconds()), p.Window)
	}
	return p
}

// timerList has the idle clocks of all processors, to the nanosecond; root may read
// it. The clock of a processor that is idle at that moment stands still until it is
// woken. So each is woken before the list is read, by moving the reading thread
// there, which leaves a mistake of what that takes, and the same one at both ends.
const timerList = "/proc/timer_list"

func (r *processorReading) readIdle() error {
	f, err := os.Open(timerList)
	if err != nil { // not for this user
		r.at = monotonic()
		return nil
	}
	defer f.Close()
	if err := wakeProcessors(); err != nil {
		return err
	}
	list, err := io.ReadAll(f)
	if err != nil {
		return fmt.Errorf("read the processors' idle clocks: %w", err)
	}
	r.at, r.idle, err = parseTimerList(list)
	r.exact = err == nil
	if errors.Is(err, errNoIdleClocks) {
		r.at = monotonic()
		return nil
	}
	return err
}

func monotonic() time.Duration {
	var now unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &now) // can't fail
	return time.Duration(now.Nano())
}

// wakeProcessors has this thread run on each processor of the machine that it may
// use, whatever the placement of its process, and then where it may run again.
func wakeProcessors() (err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var own unix.CPUSet
	if err := unix.SchedGetaffinity(0, &own); err != nil {
		return fmt.Errorf("wake the processors: %w", err)
	}
	defer func() { err = errors.Join(err, unix.SchedSetaffinity(0, &own)) }()
	for n := range runtime.NumCPU() {
		var one unix.CPUSet
		one.Set(n)
		// One that is off, or not for this process, is none whose clock is of interest.
		_ = unix.SchedSetaffinity(0, &one)
	}
	return nil
}

// errNoIdleClocks: this kernel does not stop its ticks in idle, and keeps no clocks.
var errNoIdleClocks = errors.New("the kernel keeps no idle clocks")

// parseTimerList reads the kernel's list of timers: the moment that it is from, and
// how long each processor has been idle.
func parseTimerList(list []byte) (at time.Duration, idle map[int]time.Duration, err error) {
	idle = map[int]time.Duration{}
	processor, nohz := -1, false
	for lines := bufio.NewScanner(bytes.NewReader(list)); lines.Scan(); {
		line := strings.TrimSpace(lines.Text())
		if text, ok := strings.CutPrefix(line, "now at "); ok {
			if at, err = parseNanoseconds(text); err != nil {
				return 0, nil, err
			}
		}
		name, value, ok := strings.Cut(line, ":")
		if !ok {
			continue
		}
		switch strings.TrimSpace(name) {
		case "cpu":
			if processor, err = strconv.Atoi(strings.TrimSpace(value)); err != nil {
				return 0, nil, fmt.Errorf("the kernel's list of timers: %w", err)
			}
		case ".nohz":
			nohz = nohz || strings.TrimSpace(value) == "1"
		case ".idle_sleeptime", ".iowait_sleeptime":
			d, err := parseNanoseconds(value)
			if err != nil {
				return 0, nil, err
			}
			idle[processor] += d
		}
	}
	if at == 0 || !nohz || len(idle) == 0 {
		return 0, nil, errNoIdleClocks
	}
	return at, idle, nil
}

// parseNanoseconds reads "123 nsecs".
func parseNanoseconds(text string) (time.Duration, error) {
	n, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(text), "nsecs")), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("the kernel's list of timers: %w", err)
	}
	return time.Duration(n), nil
}

// tick is the unit of /proc/stat: on Linux always 1/100 s.
const tick = 10 * time.Millisecond

func readProcStat() (procStat, error) {
	data, err := os.ReadFile("/proc/stat")
	if err != nil {
		return procStat{}, fmt.Errorf("read the machine's processor time: %w", err)
	}
	return parseProcStat(data)
}

// parseProcStat reads the lines that begin with "cpu": user, nice, system, idle,
// iowait, irq, softirq, steal, and more that is not ours.
func parseProcStat(data []byte) (s procStat, err error) {
	s.idle = map[int]time.Duration{}
	sums := false
	for lines := bufio.NewScanner(bytes.NewReader(data)); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) < 9 || !strings.HasPrefix(fields[0], "cpu") {
			continue
		}
		var t [8]time.Duration
		for i := range t {
			n, err := strconv.ParseInt(fields[i+1], 10, 64)
			if err != nil {
				return s, fmt.Errorf("/proc/stat: %w", err)
			}
			t[i] = time.Duration(n) * tick
		}
		if fields[0] == "cpu" {
			s.user, s.system, s.softirq, s.steal, sums = t[0]+t[1], t[2]+t[5], t[6], t[7], true
			continue
		}
		number, err := strconv.Atoi(strings.TrimPrefix(fields[0], "cpu"))
		if err != nil {
			return s, fmt.Errorf("/proc/stat: %w", err)
		}
		s.idle[number] = t[3] + t[4]
	}
	if !sums || len(s.idle) == 0 {
		return s, errors.New("/proc/stat tells of no processor")
	}
	return s, nil
}
