package storm

import (
	"bufio"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"waggle/bpf/faults"
)

var (
	stormCount   = flag.Int("storms", 60, "how many storms TestStorm runs")
	stormSeed    = flag.Uint64("seed", 0, "seed of the first storm; the next one's is one higher (default random)")
	goOn         = flag.Bool("go-on", false, "go on after a storm that failed, with another cluster")
	clusterCount = flag.Int("clusters", 3, "how many clusters have storms at the same time")
)

func TestMain(m *testing.M) {
	ServeRole()
	flag.DurationVar(&healTime, "heal", healTime, "how long a cluster may take to be well again")
	flag.Parse()
	os.Exit(m.Run())
}

// ownNamespaces marks the process that a test runs itself in again.
const ownNamespaces = "WAGGLE_STORM_NAMESPACES"

// inOwnNamespaces runs the test again in a process with mount and network
// namespaces of its own, and says whether this is that process.
func inOwnNamespaces(t *testing.T) bool {
	t.Helper()
	if os.Getenv(ownNamespaces) != "" {
		require.NoError(t, setUp("lo"))
		return true
	}
	if os.Geteuid() != 0 {
		t.Skip("namespaces, disks and faults need root")
	}
	for _, program := range []string{"mkfs.ext4"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("needs %s", program)
		}
	}
	require.NoError(t, faults.Supported())
	again := exec.CommandContext(t.Context(), os.Args[0], append([]string{"-test.run", "^" + t.Name() + "$", "-test.v", "-test.timeout", "0"}, ownFlags()...)...)
	again.Env = append(os.Environ(), ownNamespaces+"="+t.TempDir())
	again.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	again.Stdout, again.Stderr = t.Output(), t.Output()
	require.NoError(t, again.Run())
	return false
}

// ownFlags are those of this package that were set.
func ownFlags() (arguments []string) {
	flag.Visit(func(f *flag.Flag) {
		if !strings.HasPrefix(f.Name, "test.") || f.Name == "test.short" {
			arguments = append(arguments, fmt.Sprintf("-%s=%s", f.Name, f.Value))
		}
	})
	return arguments
}

// field gives storms what they need: disks, and a directory for the roles' logs.
func field(t *testing.T) (*disks, string) {
	t.Helper()
	home := os.Getenv(ownNamespaces)
	directory, logs := filepath.Join(home, "disks"), filepath.Join(home, "logs")
	require.NoError(t, os.Mkdir(directory, 0o755))
	require.NoError(t, os.Mkdir(logs, 0o755))
	d, err := openDisks(directory)
	require.NoError(t, err)
	return d, logs
}

// TestStorm runs seeded storms. A failure names its seed:
//
//	go test ./dfs/dfstest/storm -run Storm -seed SEED -storms 1
func TestStorm(t *testing.T) {
	count := *stormCount
	if testing.Short() {
		count = min(count, 20)
	}
	if !inOwnNamespaces(t) {
		return
	}
	seed := firstSeed()
	t.Logf("%d storms from seed %d on", count, seed)
	var next atomic.Uint64
	rage(t, min(*clusterCount, count), func() *plan {
		if i := next.Add(1) - 1; i < uint64(count) {
			return newPlan(seed + i)
		}
		return nil
	})
}

// TestPowerLoss takes the power of machines, one or several at a time, again and
// again while clients work.
func TestPowerLoss(t *testing.T) {
	if !inOwnNamespaces(t) {
		return
	}
	const losses = 20
	seed := firstSeed()
	t.Logf("%d losses of power by seed %d", losses, seed)
	plans := []*plan{newPowerLossPlan(seed, losses)}
	rage(t, 1, func() (p *plan) {
		if len(plans) > 0 {
			p, plans = plans[0], nil
		}
		return p
	})
}

func firstSeed() uint64 {
	if *stormSeed != 0 {
		return *stormSeed
	}
	return uint64(rand.Uint32())
}

// rage has storms on so many clusters at once, until there are no more plans or
// one has failed.
func rage(t *testing.T, clusters int, next func() *plan) {
	disks, logs := field(t)
	began := time.Now()
	var failed atomic.Bool
	var numbers atomic.Int32
	var all sync.WaitGroup
	total := &tally{counted: make(map[string]int), example: make(map[string]error)}
	for range clusters {
		all.Go(func() {
			for more := true; more && (!failed.Load() || *goOn); {
				number := int(numbers.Add(1))
				c, err := newCluster(number, disks, logs)
				if err != nil {
					t.Errorf("make a cluster: %v", err)
					failed.Store(true)
					return
				}
				ok := true
				for ok && (!failed.Load() || *goOn) {
					p := next()
					if more = p != nil; !more {
						break
					}
					s, err := c.run(p)
					total.add(s)
					if ok = err == nil && len(s.wrong) == 0; !ok {
						failed.Store(true)
						t.Errorf("after %v: go test ./dfs/dfstest/storm -run %s -seed %d -storms 1\n%s\nerror: %v\n%s\n%s",
							time.Since(began).Round(time.Millisecond), t.Name(), p.seed, s, err, strings.Join(s.wrong, "\n"), tails(logs, number))
					}
				}
				if err := c.close(); err != nil && ok {
					t.Errorf("close a cluster: %v", err)
				}
			}
		})
	}
	all.Wait()
	t.Logf("%d storms in %v: %v", total.storms, time.Since(began).Round(time.Millisecond), total.counted)
	for kind, err := range total.example {
		t.Logf("such as %s: %v", kind, err)
	}
}

// tally adds up what clients did in all storms.
type tally struct {
	mu      sync.Mutex
	storms  int
	counted map[string]int
	example map[string]error // of what failed
}

func (a *tally) add(s *storm) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.storms++
	for kind, n := range s.counted {
		a.counted[kind] += n
	}
	for kind, err := range s.example {
		a.example[kind] = err
	}
}

// tails are the ends of the logs of a cluster's roles.
func tails(logs string, cluster int) string {
	var text strings.Builder
	matches, _ := filepath.Glob(filepath.Join(logs, fmt.Sprintf("%d-*.log", cluster)))
	for _, path := range matches {
		b, _ := os.ReadFile(path)
		lines := strings.Split(strings.TrimSpace(string(b)), "\n")
		fmt.Fprintf(&text, "%s:\n  %s\n", filepath.Base(path), strings.Join(lines[max(0, len(lines)-8):], "\n  "))
	}
	return text.String()
}

// TestAKilledStormLeavesNothing demands that the disks of a process that is
// killed are freed.
func TestAKilledStormLeavesNothing(t *testing.T) {
	if home := os.Getenv(ownNamespaces); home != "" {
		disks, _ := field(t)
		d, err := disks.newDisk()
		require.NoError(t, err)
		fmt.Printf("%s %s\n", diskMade, filepath.Base(d.device.Name()))
		select {}
	}
	if os.Geteuid() != 0 {
		t.Skip("namespaces and disks need root")
	}
	child := exec.Command(os.Args[0], "-test.run", "^"+t.Name()+"$")
	child.Env = append(os.Environ(), ownNamespaces+"="+t.TempDir())
	child.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	out, err := child.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, child.Start())
	lines, device := bufio.NewScanner(out), ""
	for device == "" && lines.Scan() {
		_, device, _ = strings.Cut(lines.Text(), diskMade+" ")
	}
	require.NotEmpty(t, device)
	backing := func() string {
		b, _ := os.ReadFile(filepath.Join("/sys/block", device, "loop/backing_file"))
		return string(b)
	}
	mine := backing()
	require.Contains(t, mine, "disk-")
	require.NoError(t, child.Process.Signal(unix.SIGKILL))
	child.Wait()
	require.Eventually(t, func() bool { return backing() != mine }, 20*time.Second, 5*time.Millisecond, "%s is still attached", device)
}

const diskMade = "made a disk on"
