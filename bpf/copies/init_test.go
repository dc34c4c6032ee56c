package copies

import (
	"fmt"
	"os"
	"os/exec"

	"golang.org/x/sys/unix"
)

// runAsInit is the whole user space of the machine that vmtest boots: it mounts what the
// tests need, runs them all, writes the verdict and powers off.
func runAsInit() {
	prepareMachine()
	tests := exec.Command("/proc/self/exe", "-test.v", "-test.timeout=4m")
	tests.Stdout, tests.Stderr = os.Stdout, os.Stderr
	tests.Env = append(os.Environ(), "TMPDIR=/tmp")
	verdict := "PASS"
	if err := tests.Run(); err != nil {
		verdict = "FAIL"
		fmt.Println(err)
	}
	fmt.Println("VM TEST: " + verdict)
	must(unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF))
}

func prepareMachine() {
	for _, m := range []struct{ kind, at string }{
		{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}, {"tmpfs", "/tmp"}, {"cgroup2", "/sys/fs/cgroup"},
	} {
		must(os.MkdirAll(m.at, 0o755))
		must(unix.Mount(m.kind, m.at, m.kind, 0, ""))
	}
	socket := must1(unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0))
	loopback := must1(unix.NewIfreq("lo"))
	loopback.SetUint16(unix.IFF_UP)
	must(unix.IoctlIfreq(socket, unix.SIOCSIFFLAGS, loopback))
	must(unix.Close(socket))
}
