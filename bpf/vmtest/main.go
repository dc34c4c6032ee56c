// Command vmtest boots a kernel in QEMU with test binaries as its whole user space, shows what
// they write, and ends with their verdict: `vmtest -kernel IMAGE TEST...`. .ci/test-vm uses it to
// run tests of BPF programs on a stock kernel: the copy ledger's known answers need kprobes,
// and the verifier of an older kernel is another one.
//
// It is itself the machine's /init (init.go), so it and the test binaries must be static.
// Everything is emulated (no /dev/kvm), so times mean nothing in there.
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

func main() {
	if os.Getpid() == 1 {
		runAsInit()
		return
	}
	kernel := flag.String("kernel", "", "kernel image to boot")
	limit := flag.Duration("timeout", 5*time.Minute, "give up after this long")
	flag.Parse()
	if err := run(*kernel, flag.Args(), *limit); err != nil {
		fmt.Fprintf(os.Stderr, "vmtest: %v\n", err)
		os.Exit(1)
	}
}

func run(kernel string, tests []string, limit time.Duration) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "vmtest-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	image := filepath.Join(dir, "initramfs")
	if err := writeInitramfs(image, self, tests); err != nil {
		return fmt.Errorf("pack the tests into an initramfs: %w", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	return boot(ctx, kernel, image)
}

func boot(ctx context.Context, kernel, image string) error {
	// thread=single: with a host thread for each processor, one of them was seen to hang while
	// the kernel patched its own code, which is how tracepoints and fexit are attached.
	machine := exec.CommandContext(ctx, "qemu-system-x86_64", "-accel", "tcg,thread=single", "-cpu", "max", "-smp", "2", "-m", "1024",
		"-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio",
		"-kernel", kernel, "-initrd", image, "-append", "console=ttyS0 quiet panic=-1")
	machine.Stderr = os.Stderr
	console, err := machine.StdoutPipe()
	if err != nil {
		return err
	}
	if err := machine.Start(); err != nil {
		return err
	}
	passed := false
	lines := bufio.NewScanner(console)
	for lines.Scan() {
		line := strings.TrimRight(lines.Text(), "\r")
		fmt.Println(line)
		passed = passed || line == "VM TEST: PASS"
	}
	err = errors.Join(lines.Err(), machine.Wait())
	if ctx.Err() != nil {
		return errors.New("the machine did not finish in time")
	}
	if err != nil {
		return err
	}
	if !passed {
		return errors.New("the test in the machine failed")
	}
	return nil
}

// entry is a file of the machine's.
type entry struct {
	name         string
	mode         uint32
	major, minor uint32
	content      []byte
}

// writeInitramfs writes a cpio archive ("newc", see the kernel's
// driver-api/early-userspace/buffer-format) that holds a console, /init and the tests.
func writeInitramfs(path, init string, tests []string) error {
	const directory, executable, characterDevice = 0o040755, 0o100755, 0o020600
	entries := []entry{
		{name: "dev", mode: directory}, {name: "dev/console", mode: characterDevice, major: 5, minor: 1},
		{name: testsDirectory, mode: directory},
	}
	programs := map[string]string{"init": init}
	for _, test := range tests {
		programs[filepath.Join(testsDirectory, filepath.Base(test))] = test
	}
	for name, program := range programs {
		content, err := os.ReadFile(program)
		if err != nil {
			return err
		}
		entries = append(entries, entry{name: name, mode: executable, content: content})
	}
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer file.Close()
	entries = append(entries, entry{name: "TRAILER!!!"})
	for inode, e := range entries {
		// magic, inode, mode, uid, gid, links, time, size, device (2), rdevice (2), name size, checksum
		header := fmt.Sprintf("070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
			inode+1, e.mode, 0, 0, 1, 0, len(e.content), 0, 0, e.major, e.minor, len(e.name)+1, 0, e.name)
		if err := writePadded(file, []byte(header)); err != nil {
			return err
		}
		if err := writePadded(file, e.content); err != nil {
			return err
		}
	}
	return file.Close()
}

// writePadded fills up to a multiple of four, as the format wants it.
func writePadded(w io.Writer, b []byte) error {
	if _, err := w.Write(b); err != nil {
		return err
	}
	_, err := w.Write(make([]byte, (4-len(b)%4)%4))
	return err
}
