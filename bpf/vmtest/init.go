package main

import (
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// testsDirectory holds the test binaries in the machine.
const testsDirectory = "tests"

// runAsInit mounts what programs need, runs all tests or the one job, writes the verdict
// and powers off.
func runAsInit() {
	verdict := "PASS"
	if err := runInMachine(); err != nil {
		fmt.Println(err)
		verdict = "FAIL"
	}
	fmt.Println("VM TEST: " + verdict)
	if err := unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF); err != nil {
		log.Fatal(err)
	}
}

func runInMachine() error {
	if err := prepareMachine(); err != nil {
		return fmt.Errorf("prepare the machine: %w", err)
	}
	if text, err := os.ReadFile("/" + jobFile); err == nil {
		return runJob(text)
	}
	return runTests()
}

// loadModule loads a module of the kernel, whose dependencies must be there already.
func loadModule(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	if err := unix.FinitModule(int(file.Fd()), "", 0); err != nil {
		return fmt.Errorf("load the kernel module %s: %w", filepath.Base(path), err)
	}
	return nil
}

func runTests() error {
	binaries, err := filepath.Glob("/" + testsDirectory + "/*")
	if err == nil && len(binaries) == 0 {
		err = fmt.Errorf("no test is in /%s", testsDirectory)
	}
	for _, binary := range binaries {
		fmt.Println("VM TEST: running", filepath.Base(binary))
		tests := exec.Command(binary, "-test.v", "-test.timeout=4m")
		tests.Stdout, tests.Stderr = os.Stdout, os.Stderr
		tests.Env = append(os.Environ(), "TMPDIR=/tmp")
		if failed := tests.Run(); failed != nil {
			fmt.Printf("%s: %v\n", filepath.Base(binary), failed)
			err = failed
		}
	}
	return err
}

func prepareMachine() error {
	for _, m := range []struct{ kind, at string }{
		{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}, {"tmpfs", "/tmp"}, {"tmpfs", "/run"}, {"cgroup2", "/sys/fs/cgroup"},
	} {
		if err := os.MkdirAll(m.at, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.kind, m.at, m.kind, 0, ""); err != nil {
			return fmt.Errorf("mount %s: %w", m.at, err)
		}
	}
	return setLoopbackUp()
}

func setLoopbackUp() error {
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(socket)
	loopback, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	loopback.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(socket, unix.SIOCSIFFLAGS, loopback)
}
