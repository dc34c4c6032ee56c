package congestion

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"waggle/bpf/sockmap"
)

const childVariable = "WAGGLE_CONGESTION_CHILD"

// In the child the test binary is a program that knows nothing of congestion control:
// it connects to itself and prints what its three sockets have.
func TestMain(m *testing.M) {
	if os.Getenv(childVariable) != "" {
		if err := childMain(); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func childMain() error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	dialled, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		return err
	}
	accepted, err := l.Accept()
	if err != nil {
		return err
	}
	for _, socket := range []syscall.Conn{l.(*net.TCPListener), dialled.(*net.TCPConn), accepted.(*net.TCPConn)} {
		raw, err := socket.SyscallConn()
		if err != nil {
			return err
		}
		var name string
		var failed error
		if err := raw.Control(func(fd uintptr) { name, failed = unix.GetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION) }); err != nil {
			return err
		}
		if failed != nil {
			return failed
		}
		fmt.Println(name)
	}
	return nil
}

// child runs the program in a control group and returns what it printed.
func child(t *testing.T, group *sockmap.Cgroup) (names []string) {
	t.Helper()
	c := exec.Command(os.Args[0])
	// Plain TCP, as the programs speak that this is for.
	c.Env = append(os.Environ(), childVariable+"=1", "GODEBUG=multipathtcp=0")
	c.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(group.Dir().Fd())}
	out, err := c.Output()
	require.NoError(t, err, "%s", out)
	for lines := bufio.NewScanner(strings.NewReader(string(out))); lines.Scan(); {
		names = append(names, lines.Text())
	}
	return names
}

func newGroup(t *testing.T) *sockmap.Cgroup {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes a control group and loads a program")
	}
	group, err := sockmap.NewCgroup()
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, group.Close()) })
	return group
}

// Each of the kernel's own congestion controls is set on listener, dialler and
// accepted socket; without the program they have the machine's.
func TestEverySocketOfAProgramInTheGroupGetsIt(t *testing.T) {
	group := newGroup(t)
	machine := child(t, group)
	available, err := os.ReadFile("/proc/sys/net/ipv4/tcp_available_congestion_control")
	require.NoError(t, err)
	for name := range strings.FieldsSeq(string(available)) {
		attached, err := Attach(group.Path(), name)
		require.NoError(t, err)
		require.Equal(t, []string{name, name, name}, child(t, group))
		refused, err := attached.Refused()
		require.NoError(t, err)
		require.Zero(t, refused)
		require.NoError(t, attached.Close())
	}
	require.Equal(t, machine, child(t, group), "nothing is left of it")
}

func TestACongestionControlThatIsNotThereIsCounted(t *testing.T) {
	group := newGroup(t)
	attached, err := Attach(group.Path(), "no-such-thing")
	require.NoError(t, err)
	defer attached.Close()
	child(t, group)
	refused, err := attached.Refused()
	require.NoError(t, err)
	require.NotZero(t, refused)
}

func TestANameThatCanBeNoneIsRefused(t *testing.T) {
	for _, name := range []string{"", "sixteen-letters-"} {
		_, err := Attach("", name)
		require.ErrorContains(t, err, "no name of a congestion control")
	}
}
