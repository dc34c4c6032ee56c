package sockmap

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// loaded says how many of the programs the kernel still holds. Others come and
// go on a machine that is shared.
func loaded(t testing.TB, programs []ebpf.ProgramID) int {
	t.Helper()
	n := 0
	for _, id := range programs {
		program, err := ebpf.NewProgramFromID(id)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		require.NoError(t, err)
		program.Close()
		n++
	}
	return n
}

func (in *Ingress) programs() ([]ebpf.ProgramID, error) {
	return idsOf(in.objects.Track, in.objects.Verdict)
}

func (r *Relay) programs() ([]ebpf.ProgramID, error) {
	return idsOf(r.objects.Parse, r.objects.Redirect)
}

func idsOf(programs ...*ebpf.Program) (ids []ebpf.ProgramID, err error) {
	for _, p := range programs {
		info, err := p.Info()
		if err != nil {
			return nil, err
		}
		id, _ := info.ID()
		ids = append(ids, id)
	}
	return ids, nil
}

func assertUnloaded(t testing.TB, programs []ebpf.ProgramID) {
	t.Helper()
	assert.Eventually(t, func() bool { return loaded(t, programs) == 0 }, 5*time.Second, 10*time.Millisecond,
		"programs %v are still loaded", programs)
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
	var programs []ebpf.ProgramID
	open := func() {
		in, err := NewIngress(Config{Cgroup: group.Path(), Ports: []uint16{1}})
		require.NoError(t, err)
		relay, err := NewRelay()
		require.NoError(t, err)
		ofIngress, err := in.programs()
		require.NoError(t, err)
		ofRelay, err := relay.programs()
		require.NoError(t, err)
		programs = append(append(programs, ofIngress...), ofRelay...)
		assert.Equal(t, 4, loaded(t, programs[len(programs)-4:]))
		require.NoError(t, in.Close())
		require.NoError(t, relay.Close())
	}
	open() // what libraries keep open for good
	files := descriptors(t)
	for range 5 {
		open()
	}
	assert.Equal(t, files, descriptors(t))
	assertUnloaded(t, programs)
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
	programs, err := in.programs()
	if err != nil {
		return err
	}
	fmt.Println(group.Path(), programs[0], programs[1])
	time.Sleep(time.Minute)
	return errors.Join(asker.Close(), in.Close())
}

// Hazard 6: an owner that is killed leaves no program, and its control group
// goes when the next one is made.
func TestKilledOwnerLeavesNothing(t *testing.T) {
	requireRoot(t)
	owner := exec.Command(os.Args[0])
	owner.Env = append(os.Environ(), ownerVariable+"=1")
	out, err := owner.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, owner.Start())
	var path string
	programs := make([]ebpf.ProgramID, 2)
	_, err = fmt.Fscan(out, &path, &programs[0], &programs[1])
	require.NoError(t, err)
	assert.Equal(t, 2, loaded(t, programs))

	require.NoError(t, owner.Process.Kill())
	owner.Wait()
	assertUnloaded(t, programs)

	assert.DirExists(t, path)
	group, err := NewCgroup()
	require.NoError(t, err)
	require.NoError(t, group.Close())
	assert.NoDirExists(t, path)
}
