// Command vmtest boots a kernel in QEMU with test binaries as its whole user space, shows what
// they write, and ends with their verdict: `vmtest -kernel IMAGE TEST...`. .ci/test-vm uses it to
// run tests of BPF programs on a stock kernel: the copy ledger's known answers need kprobes,
// and the verifier of an older kernel is another one.
//
// With -run, the machine runs one program instead of tests, and what it leaves behind is
// brought out (job.go): .ci/test-vm measures copies inside the kernel that way.
//
// It is itself the machine's /init (init.go), so it and the test binaries must be static.
// Everything is emulated (no /dev/kvm), so times mean nothing in there.
package main

import (
	"bufio"
	"context"
	"encoding/json"
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
	var j job
	flag.StringVar(&j.Command, "run", "", "run this command of a program that is given, instead of tests; kernel modules (*.ko) that are given are loaded before")
	flag.StringVar(&j.Fetch, "fetch", "", "bring out the files of this directory of the machine")
	flag.StringVar(&j.into, "into", "", "put what is brought out into this directory")
	flag.Parse()
	if err := run(*kernel, flag.Args(), j, *limit); err != nil {
		fmt.Fprintf(os.Stderr, "vmtest: %v\n", err)
		os.Exit(1)
	}
}

func run(kernel string, programs []string, j job, limit time.Duration) error {
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
	if err := writeInitramfs(image, self, programs, j); err != nil {
		return fmt.Errorf("pack the programs into an initramfs: %w", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	var clock []string
	if j.Command != "" {
		// The machine's clock counts instructions: else the emulated processor is so slow beside
		// the clock that every other timer interrupt meets a program of the ledger, which misses
		// what happens in it.
		clock = []string{"-icount", "shift=2,sleep=off"}
	}
	return boot(ctx, kernel, image, j.into, clock)
}

// boot shows what the machine writes, and puts the files that it sends into a directory.
func boot(ctx context.Context, kernel, image, into string, clock []string) error {
	// thread=single: with a host thread for each processor, one of them was seen to hang while
	// the kernel patched its own code, which is how tracepoints and fexit are attached.
	options := append([]string{"-accel", "tcg,thread=single", "-cpu", "max", "-smp", "2", "-m", "1024",
		"-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio",
		"-kernel", kernel, "-initrd", image, "-append", "console=ttyS0 quiet panic=-1"}, clock...)
	machine := exec.CommandContext(ctx, "qemu-system-x86_64", options...)
	machine.Stderr = os.Stderr
	console, err := machine.StdoutPipe()
	if err != nil {
		return err
	}
	if err := machine.Start(); err != nil {
		return err
	}
	passed := false
	received := files{}
	lines := bufio.NewScanner(console)
	for lines.Scan() {
		line := strings.TrimRight(lines.Text(), "\r")
		if !received.add(line) {
			fmt.Println(line)
		}
		passed = passed || line == "VM TEST: PASS"
	}
	err = errors.Join(lines.Err(), machine.Wait(), received.write(into))
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
// driver-api/early-userspace/buffer-format) that holds a console, /init, the programs
// and what to do with them.
func writeInitramfs(path, init string, list []string, j job) error {
	const directory, executable, characterDevice = 0o040755, 0o100755, 0o020600
	entries := []entry{
		{name: "dev", mode: directory}, {name: "dev/console", mode: characterDevice, major: 5, minor: 1},
		{name: testsDirectory, mode: directory},
	}
	if j.Command != "" {
		for _, file := range list {
			if filepath.Ext(file) == ".ko" {
				j.Modules = append(j.Modules, filepath.Base(file))
			}
		}
		text, err := json.Marshal(j)
		if err != nil {
			return err
		}
		entries = append(entries, entry{name: jobFile, mode: executable, content: text})
	}
	programs := map[string]string{"init": init}
	for _, program := range list {
		programs[filepath.Join(testsDirectory, filepath.Base(program))] = program
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
