package sockmap

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// programIDs lists the programs of this package that the kernel holds. Other
// programs come and go on a machine that is shared.
func programIDs(t testing.TB) []ebpf.ProgramID {
	t.Helper()
	ours := map[string]bool{"track": true, "verdict": true}
	var ids []ebpf.ProgramID
	for id, err := ebpf.ProgramGetNextID(0); ; id, err = ebpf.ProgramGetNextID(id) {
		if errors.Is(err, os.ErrNotExist) {
			return ids
		}
		require.NoError(t, err)
		program, err := ebpf.NewProgramFromID(id)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		require.NoError(t, err)
		info, err := program.Info()
		require.NoError(t, err)
		program.Close()
		if ours[info.Name] {
			ids = append(ids, id)
		}
	}
}

// descriptors counts this process's open files.
func descriptors(t testing.TB) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	return len(entries)
}

func TestOpeningAndClosingLeavesNothing(t *testing.T) {
	group := enterCgroup(t)
	open := func() {
		in, err := NewIngress(Config{Cgroup: group.Path(), Ports: []uint16{1}})
		require.NoError(t, err)
		require.NoError(t, in.Close())
	}
	open() // what libraries keep open for good
	files, programs := descriptors(t), len(programIDs(t))
	for range 10 {
		open()
	}
	assert.Equal(t, files, descriptors(t))
	assert.Eventually(t, func() bool { return len(programIDs(t)) == programs }, 5*time.Second, 10*time.Millisecond)
}

const ownerVariable = "WAGGLE_SOCKMAP_TEST_OWNER"

// TestMain turns the test binary into an owner that will be killed.
func TestMain(m *testing.M) {
	if os.Getenv(ownerVariable) != "" {
		if err := beOwner(); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// beOwner holds an Ingress, both ends of a connection, and bytes in the queue.
func beOwner() error {
	group, err := NewCgroup()
	if err != nil {
		return err
	}
	if err := group.Enter(os.Getpid()); err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	in, err := NewIngress(Config{Cgroup: group.Path(), Ports: []uint16{uint16(l.Addr().(*net.TCPAddr).Port)}})
	if err != nil {
		return err
	}
	asker, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		return err
	}
	answerer, err := l.Accept()
	if err != nil {
		return err
	}
	if _, err := answerer.Write([]byte("queued")); err != nil {
		return err
	}
	fmt.Println(group.Path())
	select {
	case <-time.After(time.Minute):
	}
	return errors.Join(asker.Close(), in.Close())
}

// Hazard 6: an owner that is killed leaves no program, and its control group
// goes when the next one is made.
func TestKilledOwnerLeavesNothing(t *testing.T) {
	requireRoot(t)
	programs := len(programIDs(t))
	owner := exec.Command(os.Args[0])
	owner.Env = append(os.Environ(), ownerVariable+"=1")
	out, err := owner.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, owner.Start())
	ready := bufio.NewScanner(out)
	require.True(t, ready.Scan())
	path := ready.Text()
	require.True(t, strings.HasPrefix(filepath.Base(path), cgroupPrefix), path)
	assert.Equal(t, programs+2, len(programIDs(t)))

	require.NoError(t, owner.Process.Kill())
	owner.Wait()
	assert.Eventually(t, func() bool { return len(programIDs(t)) == programs }, 5*time.Second, 10*time.Millisecond)

	assert.DirExists(t, path)
	group, err := NewCgroup()
	require.NoError(t, err)
	require.NoError(t, group.Close())
	assert.NoDirExists(t, path)
}
