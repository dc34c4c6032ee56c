package topology

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"waggle/internal/signaltest"
)

// The test binary is also the roles and, for kill -9, the runner.
func TestMain(m *testing.M) {
	switch os.Getenv("TOPOLOGY_TEST_ROLE") {
	case "serve":
		serve(os.Getenv("TOPOLOGY_TEST_ADDRESS"))
	case "runner":
		runUntilKilled()
	default:
		os.Exit(m.Run())
	}
}

// serve answers each connection with the line it sends.
func serve(address string) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println("listening", l.Addr())
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() { defer c.Close(); _, _ = io.Copy(c, c) }()
	}
}

// runUntilKilled makes a network with two roles, says who they are, and waits.
func runUntilKilled() {
	owner, err := Claim(os.Getenv("TOPOLOGY_TEST_RUN"), os.Getenv("TOPOLOGY_TEST_DIR"))
	check(err)
	network, err := Open(owner, options(os.Getenv("TOPOLOGY_TEST_KIND")))
	check(err)
	for _, name := range []string{"a", "b"} {
		p, err := network.Host(name).Start(role(network.Host(name), name, owner.Scratch))
		check(err)
		fmt.Println(p.PID(), namespaceOf(p.PID()))
	}
	fmt.Println("ready", owner.cgroup)
	select {}
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func options(kind string) Options {
	return Options{Kind: kind, Hosts: []string{"a", "b"}, MTU: 1500, Offload: true}
}

func role(h *Host, name, dir string) Command {
	return Command{Role: "chunk", Name: name, Args: []string{os.Args[0]}, Log: filepath.Join(dir, name+".log"), Pipes: true,
		Env: []string{"TOPOLOGY_TEST_ROLE=serve", "TOPOLOGY_TEST_ADDRESS=" + h.Address.String() + ":0"}}
}

func namespaceOf(pid int) string {
	ns, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", pid))
	check(err)
	return ns
}

func kinds(t *testing.T) []string {
	if err := Supported(Hosts); err != nil {
		if os.Geteuid() == 0 {
			t.Fatalf("root, and still: %v", err)
		}
		t.Logf("only %s is tested: %v", Local, err)
		return []string{Local}
	}
	return []string{Local, Hosts}
}

func claimed(t *testing.T) *Owner {
	owner, err := Claim(fmt.Sprintf("test-%d-%d", os.Getpid(), time.Now().UnixNano()), t.TempDir())
	require.NoError(t, err)
	return owner
}

// listening reads where a role says it listens.
func listening(t *testing.T, p *Process) string {
	line, err := bufio.NewReader(p.Output).ReadString('\n')
	require.NoError(t, err)
	return strings.Fields(line)[1]
}

func TestRolesReachEachOtherAndNothingIsLeft(t *testing.T) {
	for _, kind := range kinds(t) {
		t.Run(kind, func(t *testing.T) {
			owner := claimed(t)
			network, err := Open(owner, options(kind))
			require.NoError(t, err)
			p, err := network.Host("a").Start(role(network.Host("a"), "a", t.TempDir()))
			require.NoError(t, err)
			at := listening(t, p)
			require.Equal(t, network.Host("a").Address.String(), strings.Split(at, ":")[0])
			require.Equal(t, kind == Local, namespaceOf(p.PID()) == namespaceOf(os.Getpid()))

			conn, err := network.Dial(t.Context(), "tcp", at)
			require.NoError(t, err)
			_, err = io.WriteString(conn, "waggle\n")
			require.NoError(t, err)
			line, err := bufio.NewReader(conn).ReadString('\n')
			require.NoError(t, err)
			require.Equal(t, "waggle\n", line)
			conn.Close()
			_, err = p.CPU()
			require.NoError(t, err)
			require.NoError(t, p.Ended())

			cgroup, namespace := p.Cgroup(), namespaceOf(p.PID())
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			p.Stop(ctx)
			require.ErrorContains(t, p.Ended(), "a ended")
			network.Close()
			require.NoError(t, owner.Close())
			require.NoDirExists(t, owner.Scratch)
			if cgroup != "" {
				require.NoDirExists(t, cgroup)
			}
			if kind == Hosts {
				requireNobodyIn(t, namespace)
			}
			_, err = network.Dial(t.Context(), "tcp", at)
			require.Error(t, err)
		})
	}
}

// requireNobodyIn waits until no process and no thread is in a namespace.
func requireNobodyIn(t *testing.T, namespace string) {
	require.Eventually(t, func() bool {
		links, err := filepath.Glob("/proc/[0-9]*/task/[0-9]*/ns/net")
		require.NoError(t, err)
		for _, l := range links {
			if ns, err := os.Readlink(l); err == nil && ns == namespace {
				return false
			}
		}
		return true
	}, 10*time.Second, 20*time.Millisecond, "somebody is still in %s", namespace)
}

func TestClosingANetworkKillsItsRoles(t *testing.T) {
	for _, kind := range kinds(t) {
		owner := claimed(t)
		network, err := Open(owner, options(kind))
		require.NoError(t, err)
		p, err := network.Host("b").Start(role(network.Host("b"), "b", t.TempDir()))
		require.NoError(t, err)
		listening(t, p)
		network.Close()
		<-p.Done()
		require.NoError(t, owner.Close())
	}
}

func TestKilledRunnerIsSweptAtTheNextStart(t *testing.T) {
	signaltest.Heed(t, syscall.SIGINT)
	for _, kind := range kinds(t) {
		for _, signal := range []syscall.Signal{syscall.SIGKILL, syscall.SIGINT} {
			t.Run(kind+"/"+signal.String(), func(t *testing.T) { killAndSweep(t, kind, signal) })
		}
	}
}

func killAndSweep(t *testing.T, kind string, signal syscall.Signal) {
	dir, run := t.TempDir(), fmt.Sprintf("killed-%d-%d", os.Getpid(), time.Now().UnixNano())
	runner := exec.Command(os.Args[0])
	runner.Env = append(os.Environ(), "TOPOLOGY_TEST_ROLE=runner", "TOPOLOGY_TEST_RUN="+run, "TOPOLOGY_TEST_DIR="+dir, "TOPOLOGY_TEST_KIND="+kind)
	runner.Stderr = os.Stderr
	out, err := runner.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, runner.Start())
	var pids []int
	var namespaces []string
	var cgroup string
	for lines := bufio.NewScanner(out); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if fields[0] == "ready" {
			cgroup = strings.Join(fields[1:], "")
			break
		}
		pid, err := strconv.Atoi(fields[0])
		require.NoError(t, err)
		pids, namespaces = append(pids, pid), append(namespaces, fields[1])
	}
	require.Len(t, pids, 2)

	swept, err := Sweep()
	require.NoError(t, err)
	require.NotContains(t, swept, run, "its owner lives")
	require.NoError(t, runner.Process.Signal(signal))
	_ = runner.Wait()

	swept, err = Sweep()
	require.NoError(t, err)
	require.Contains(t, swept, run)
	for i, pid := range pids {
		require.Eventually(t, func() bool { return !runs(pid) }, 10*time.Second, 10*time.Millisecond, "role %d still runs", pid)
		if kind == Hosts {
			requireNobodyIn(t, namespaces[i])
		}
	}
	if cgroup != "" {
		require.NoDirExists(t, cgroup)
	}
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, left)
}

// runs says whether a process runs; a zombie that nobody reaps does not.
func runs(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(stat), ") Z ")
}

func TestLinksHaveTheirMTUAndNoneIsOutside(t *testing.T) {
	if len(kinds(t)) < 2 {
		t.Skip("needs topology hosts, which needs root")
	}
	before, err := net.Interfaces()
	require.NoError(t, err)
	owner := claimed(t)
	network, err := Open(owner, Options{Kind: Hosts, Hosts: []string{"a"}, MTU: 4000})
	require.NoError(t, err)
	var link *net.Interface
	require.NoError(t, onThread(network.Host("a").thread, func() (err error) {
		link, err = net.InterfaceByName(hostLink)
		return err
	}))
	require.Equal(t, 4000, link.MTU)
	during, err := net.Interfaces()
	require.NoError(t, err)
	require.Len(t, during, len(before))
	network.Close()
	require.NoError(t, owner.Close())
}

func TestHostsReceiveOnTheirProcessors(t *testing.T) {
	if err := Supported(Hosts); err != nil {
		t.Skip(err)
	}
	owner := claimed(t)
	o := options(Hosts)
	o.Receiving = map[string][]int{"": {1}, "a": {0}}
	network, err := Open(owner, o)
	require.NoError(t, err)
	defer network.Close()
	for at, want := range map[*thread]uint64{network.bridge: 2, network.Host("a").thread: 1, network.Host("b").thread: 0} {
		var mask []byte
		require.NoError(t, onThread(at, func() (err error) { mask, err = os.ReadFile(steeringFile); return err }))
		got, err := strconv.ParseUint(strings.TrimSpace(strings.ReplaceAll(string(mask), ",", "")), 16, 64)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	require.NoError(t, owner.Close())
}

func TestProcessorMask(t *testing.T) {
	require.Equal(t, "00000005", processorMask([]int{0, 2}))
	require.Equal(t, "00000001,80000002", processorMask([]int{32, 1, 31}))
}

func TestOpenRefuses(t *testing.T) {
	owner := claimed(t)
	defer owner.Close()
	_, err := Open(owner, Options{Kind: "moon", Hosts: []string{"a"}})
	require.EqualError(t, err, "topology=moon is unknown: choose one of local, hosts")
	_, err = Open(owner, Options{Kind: Local})
	require.ErrorContains(t, err, "0 hosts")
	network, err := Open(owner, Options{Kind: Local, Hosts: []string{"a"}})
	require.NoError(t, err)
	defer network.Close()
	_, err = network.Dial(t.Context(), "tcp", "localhost:1")
	require.ErrorContains(t, err, "dial in a network")
	_, err = network.Host("a").Start(Command{Name: "x", Args: []string{"/nonexistent"}, Log: filepath.Join(t.TempDir(), "log")})
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestClaimIsExclusiveAndSweepKeepsItsHandsOff(t *testing.T) {
	owner := claimed(t)
	_, err := Claim(owner.Run, t.TempDir())
	require.ErrorIs(t, err, os.ErrExist)
	require.ErrorContains(t, claim{Scratch: "/home"}.remove(), "no scratch directory of ours")
	require.ErrorContains(t, claim{Scratch: owner.Scratch, Cgroup: "/sys/fs/cgroup"}.remove(), "no cgroup of ours")
	require.NoError(t, owner.Close())
}

func TestParseProcessCPU(t *testing.T) {
	cpu, err := parseProcessCPU("7 (a) b) S 1 7 7 0 -1 4194560 1 0 0 0 150 25 0 0 20 0 1 0 12 0 0")
	require.NoError(t, err)
	require.Equal(t, 1750*time.Millisecond, cpu)
	_, err = parseProcessCPU("7 (a) S 1")
	require.ErrorContains(t, err, "fields")
}
