package copies

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"text/tabwriter"

	"golang.org/x/sys/unix"
)

// How a process can be counted while its cost is measured.
var costCases = []struct {
	name     string
	backend  Backend
	attached bool // a ledger is there ...
	counted  bool // ... and this process is its target
}{
	{name: "nothing"},
	{"bystander", Boundary, true, false},
	{"boundary", Boundary, true, true},
	{"sites", Sites, true, true},
}

var costSizes = []int{64, 4 << 10, 64 << 10, 1 << 20}

// BenchmarkCost is what counting costs: (nothing, a ledger for others, boundary, sites) x the
// size of a read from the page cache. Each iteration measures all cells once, in random order;
// and is compared within itself; the table shows medians. They are of CPU time, which others on
// the machine disturb less than the clock.
// Run it with -benchtime 20x.
func BenchmarkCost(b *testing.B) {
	runtime.LockOSThread() // whose CPU time is measured
	defer runtime.UnlockOSThread()
	if err := preconditions(Boundary); err != nil {
		b.Skip(err)
	}
	file := must1(os.Create(filepath.Join(b.TempDir(), "in")))
	defer file.Close()
	must1(file.Write(bytes.Repeat([]byte{'w'}, costSizes[len(costSizes)-1])))
	sitesMissing := preconditions(Sites)
	times := make(map[string][]float64)
	random := rand.New(rand.NewPCG(1, 2))
	for b.Loop() {
		for _, i := range random.Perm(len(costCases)) {
			c := costCases[i]
			if c.backend == Sites && sitesMissing != nil {
				continue
			}
			for size, perCall := range measureCost(b, c.backend, c.attached, c.counted, int(file.Fd())) {
				key := costKey(c.name, size)
				times[key] = append(times[key], perCall)
			}
		}
	}
	fmt.Println(costTable(b, times)) // b.Log would show ten lines of it
	if sitesMissing != nil {
		b.Log(sitesMissing)
	}
}

func costKey(name string, size int) string { return fmt.Sprintf("%s/%d", name, size) }

// measureCost returns nanoseconds per call, by size, and proves that the ledger saw all calls.
func measureCost(b *testing.B, backend Backend, attached, counted bool, fd int) map[int]float64 {
	b.Helper()
	result := make(map[int]float64)
	if !attached {
		for _, size := range costSizes {
			result[size], _ = timeReads(fd, size)
		}
		return result
	}
	l := must1(Open(Options{Backend: backend}))
	defer func() { must(l.Close()) }()
	if counted {
		must(l.AddProcess("self", os.Getpid()))
	}
	calls := 0
	for _, size := range costSizes {
		var n int
		result[size], n = timeReads(fd, size)
		calls += n
	}
	seen := must1(l.Snapshot()).Roles["self"].Moves[input(unix.SYS_PREAD64, KindRegular)].Calls
	if counted && seen != uint64(calls) {
		b.Fatalf("the ledger counted %d of %d calls", seen, calls)
	}
	return result
}

// timeReads reads 64 MiB, or 20,000 times, after one read that brings everything near.
func timeReads(fd, size int) (nanosecondsPerCall float64, calls int) {
	buffer := make([]byte, size)
	calls = min(20_000, 64<<20/size)
	must1(unix.Pread(fd, buffer, 0))
	began := threadTime()
	for range calls {
		must1(unix.Pread(fd, buffer, 0))
	}
	return float64(threadTime()-began) / float64(calls), calls + 1
}

func threadTime() int64 {
	var now unix.Timespec
	must(unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &now))
	return now.Nano()
}

func costTable(b *testing.B, times map[string][]float64) string {
	var text bytes.Buffer
	w := tabwriter.NewWriter(&text, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "\nread size\tcounted by\tns per call\tmore\t%\t")
	for _, size := range costSizes {
		base := times[costKey("nothing", size)]
		for _, c := range costCases {
			values := times[costKey(c.name, size)]
			if len(values) == 0 {
				continue
			}
			more := make([]float64, len(values))
			for i := range values {
				more[i] = values[i] - base[i]
			}
			fmt.Fprintf(w, "%d\t%s\t%.0f\t%+.0f\t%+.1f\t\n", size, c.name, median(values), median(more), 100*median(more)/median(base))
			b.ReportMetric(median(more), fmt.Sprintf("%s-%dB-ns/call", c.name, size))
		}
	}
	must(w.Flush())
	return text.String()
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}
