// Command vmtest boots a kernel in QEMU with one static program as its whole user space,
// shows what it writes, and ends with its verdict. .ci/test-vm uses it to run the known
// answers of the copy ledger on a stock kernel that has kprobes.
//
// The program runs as /init. It must write a line "VM TEST: PASS" or "VM TEST: FAIL" and power
// the machine off. Everything is emulated (no /dev/kvm), so times mean nothing in there.
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
	kernel := flag.String("kernel", "", "kernel image to boot")
	program := flag.String("init", "", "static program to run as /init")
	limit := flag.Duration("timeout", 5*time.Minute, "give up after this long")
	flag.Parse()
	if err := run(*kernel, *program, *limit); err != nil {
		fmt.Fprintf(os.Stderr, "vmtest: %v\n", err)
		os.Exit(1)
	}
}

func run(kernel, program string, limit time.Duration) error {
	dir, err := os.MkdirTemp("", "vmtest-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	image := filepath.Join(dir, "initramfs")
	if err := writeInitramfs(image, program); err != nil {
		return fmt.Errorf("pack %s into an initramfs: %w", program, err)
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

// writeInitramfs writes a cpio archive ("newc", see the kernel's
// driver-api/early-userspace/buffer-format) that holds a console and /init.
func writeInitramfs(path, program string) error {
	text, err := os.ReadFile(program)
	if err != nil {
		return err
	}
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer file.Close()
	const directory, executable, characterDevice = 0o040755, 0o100755, 0o020600
	entries := []struct {
		name         string
		mode         uint32
		major, minor uint32
		content      []byte
	}{
		{"dev", directory, 0, 0, nil},
		{"dev/console", characterDevice, 5, 1, nil},
		{"init", executable, 0, 0, text},
		{"TRAILER!!!", 0, 0, 0, nil},
	}
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
