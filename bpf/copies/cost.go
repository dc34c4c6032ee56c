package copies

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"

	"golang.org/x/sys/unix"
)

// Ways in which a process can be counted while the cost of that is measured.
const (
	CostNothing   = "nothing"   // no ledger is there
	CostBystander = "bystander" // a boundary ledger counts others
	CostBoundary  = "boundary"
	CostSites     = "sites"
)

// Cost is what counting costs a call of pread(2) from the page cache, of one
// size. Times are of the thread's CPU, which others on the machine disturb less
// than the clock; they are medians over rounds.
type Cost struct {
	SizeBytes int
	CountedBy string
	// Nanoseconds is of one call, More by how much that is longer than with
	// nothing, each compared within its round.
	Nanoseconds, More float64
}

// CostSizes are the sizes, in bytes, that MeasureCost measures.
var CostSizes = []int{64, 4 << 10, 64 << 10, 1 << 20}

// costSeed decides the order of the cells in each round.
const costSeed = 1

// MeasureCost measures what counting costs in this process, in about a third of
// a second a round. Every round measures each cell once, in random order. Ways of
// counting that this machine does not support are left out; without boundary it
// fails with an [UnsupportedError].
func MeasureCost(rounds int) ([]Cost, error) {
	if err := preconditions(Boundary); err != nil {
		return nil, err
	}
	ways := []string{CostNothing, CostBystander, CostBoundary}
	if preconditions(Sites) == nil {
		ways = append(ways, CostSites)
	}
	file, err := costFile()
	if err != nil {
		return nil, err
	}
	defer file.Close()
	runtime.LockOSThread() // whose CPU time is measured
	defer runtime.UnlockOSThread()
	times := map[Cost][]float64{} // by size and way
	random := rand.New(rand.NewPCG(costSeed, 0))
	for range rounds {
		for _, i := range random.Perm(len(ways)) {
			perCall, err := costOf(ways[i], int(file.Fd()))
			if err != nil {
				return nil, fmt.Errorf("measure the cost of counting (%s): %w", ways[i], err)
			}
			for j, size := range CostSizes {
				key := Cost{SizeBytes: size, CountedBy: ways[i]}
				times[key] = append(times[key], perCall[j])
			}
		}
	}
	return costTable(ways, times), nil
}

// costFile is a file of the largest size without a name.
func costFile() (*os.File, error) {
	fd, err := unix.MemfdCreate("waggle-cost", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make a file to read from: %w", err)
	}
	file := os.NewFile(uintptr(fd), "memfd")
	if _, err := file.Write(bytes.Repeat([]byte{'w'}, slices.Max(CostSizes))); err != nil {
		return nil, errors.Join(fmt.Errorf("fill a file to read from: %w", err), file.Close())
	}
	return file, nil
}

// costOf returns nanoseconds a call for each size, and checks that a ledger that
// should have seen all calls did.
func costOf(way string, fd int) (perCall []float64, err error) {
	ledger, err := costLedger(way)
	if err != nil {
		return nil, err
	}
	if ledger != nil {
		defer func() { err = errors.Join(err, ledger.Close()) }()
	}
	calls := 0
	for _, size := range CostSizes {
		nanoseconds, n, err := timeReads(fd, size)
		if err != nil {
			return nil, err
		}
		perCall, calls = append(perCall, nanoseconds), calls+n
	}
	if way == CostNothing || way == CostBystander {
		return perCall, nil
	}
	counted, err := ledger.Snapshot()
	if err != nil {
		return nil, err
	}
	reads := Key{ClassCopy, Operation(unix.SYS_PREAD64), KindRegular, KindUser}
	// The process may have made others elsewhere.
	if seen := counted.Roles["self"].Moves[reads].Calls; seen < uint64(calls) {
		return nil, fmt.Errorf("the ledger counted %d of %d calls", seen, calls)
	}
	return perCall, nil
}

// costLedger opens the ledger of a way of counting, or none.
func costLedger(way string) (*Ledger, error) {
	if way == CostNothing {
		return nil, nil
	}
	backend := Boundary
	if way == CostSites {
		backend = Sites
	}
	ledger, err := Open(Options{Backend: backend})
	if err == nil && way != CostBystander {
		if err = ledger.AddProcess("self", os.Getpid()); err != nil {
			err = errors.Join(err, ledger.Close())
		}
	}
	return ledger, err
}

// timeReads reads 64 MiB, or 20,000 times, after one read that brings everything near.
func timeReads(fd, size int) (nanosecondsPerCall float64, calls int, err error) {
	buffer := make([]byte, size)
	calls = min(20_000, 64<<20/size)
	if _, err := unix.Pread(fd, buffer, 0); err != nil {
		return 0, 0, err
	}
	began, err := threadTime()
	if err != nil {
		return 0, 0, err
	}
	for range calls {
		if _, err := unix.Pread(fd, buffer, 0); err != nil {
			return 0, 0, err
		}
	}
	ended, err := threadTime()
	return float64(ended-began) / float64(calls), calls + 1, err
}

// threadTime is the CPU time of the calling thread, in nanoseconds.
func threadTime() (int64, error) {
	var now unix.Timespec
	err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &now)
	return now.Nano(), err
}

func costTable(ways []string, times map[Cost][]float64) (table []Cost) {
	for _, size := range CostSizes {
		base := times[Cost{SizeBytes: size, CountedBy: CostNothing}]
		for _, way := range ways {
			key := Cost{SizeBytes: size, CountedBy: way}
			values, more := times[key], []float64(nil)
			for i, value := range values {
				more = append(more, value-base[i])
			}
			key.Nanoseconds, key.More = median(values), median(more)
			table = append(table, key)
		}
	}
	return table
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}
