package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"waggle/bpf/copies"

	"waggle/internal/signaltest"
)

func skipWithoutLedger(t *testing.T) {
	t.Helper()
	if err := copies.Supported(copies.Boundary); err != nil {
		t.Skip(err)
	}
}

func TestCopiesWrongUsage(t *testing.T) {
	for _, args := range [][]string{
		{}, {"--pid", "1", "--", "true"}, {"--payload", "x", "--", "true"},
		{"--backend", "nosuch", "--", "true"}, {"--interval", "1us", "--", "true"},
	} {
		code, _, stderr := waggle(t, append([]string{"copies"}, args...)...)
		require.Equal(t, exitUsage, code, args)
		require.Regexp(t, `^waggle: [^\n]+\n$`, stderr, args)
	}
}

func TestCopiesPassesTheExitCodeOn(t *testing.T) {
	skipWithoutLedger(t)
	for script, want := range map[string]int{"exit 0": 0, "exit 7": 7, "kill -9 $$": exitSignalled + 9} {
		code, _, _ := waggle(t, "copies", "--", "sh", "-c", script)
		require.Equal(t, want, code, script)
	}
	code, _, stderr := waggle(t, "copies", "--", "no-such-command")
	require.Equal(t, exitNotFound, code)
	require.Contains(t, stderr, "no-such-command")
	code, _, _ = waggle(t, "copies", "--", "/etc/passwd")
	require.Equal(t, exitCannotExecute, code)
	code, _, stderr = waggle(t, "copies", "--pid", "999999999")
	require.Equal(t, exitFailed, code)
	require.Contains(t, stderr, "there is no such process")
}

// dd with an odd block size: all of the file crosses twice.
func TestCopiesOfDD(t *testing.T) {
	skipWithoutLedger(t)
	const size = 300_003
	dir := t.TempDir()
	in, out := filepath.Join(dir, "in"), filepath.Join(dir, "out")
	require.NoError(t, os.WriteFile(in, make([]byte, size), 0o600))
	code, _, stderr := waggle(t, "copies", "--json", "--backend", "boundary", "--payload", strconv.Itoa(size),
		"--", "dd", "if="+in, "of="+out, "bs=977", "status=none")
	require.Zero(t, code, stderr)
	var report copies.Report
	require.NoError(t, json.Unmarshal([]byte(stderr), &report))
	require.Equal(t, uint64(size), report.Copies.UserToKernelBytes)
	require.GreaterOrEqual(t, report.Copies.KernelToUserBytes, uint64(size), "dd also reads the libraries that it starts with")
	require.InDelta(t, 2, *report.Copies.PerPayloadByte, 0.1)
	require.False(t, report.Losses.Any())
}

func TestCopiesOfAProcessUntilItEnds(t *testing.T) {
	skipWithoutLedger(t)
	command := exec.Command("sleep", "3")
	require.NoError(t, command.Start())
	go command.Wait()
	code, _, stderr := waggle(t, "copies", "--pid", strconv.Itoa(command.Process.Pid), "--interval", "100ms")
	require.Zero(t, code, stderr)
	require.Contains(t, stderr, "system calls")
}

// Ctrl-C reaches waggle and the command; the report still comes.
func TestCopiesInterrupted(t *testing.T) {
	signaltest.Heed(t, syscall.SIGINT)
	skipWithoutLedger(t)
	dir := t.TempDir()
	binary := filepath.Join(dir, "waggle")
	build, err := exec.Command("go", "build", "-o", binary, ".").CombinedOutput()
	require.NoError(t, err, "%s", build)
	started := filepath.Join(dir, "started")
	var stderr bytes.Buffer
	command := exec.Command(binary, "copies", "--", "sh", "-c", "touch "+started+"; sleep 60")
	command.Stderr = &stderr
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	require.NoError(t, command.Start())
	require.Eventually(t, func() bool { _, err := os.Stat(started); return err == nil }, 30*time.Second, 10*time.Millisecond)
	require.NoError(t, syscall.Kill(-command.Process.Pid, syscall.SIGINT))
	require.Error(t, command.Wait())
	require.Equal(t, exitSignalled+int(syscall.SIGINT), command.ProcessState.ExitCode())
	require.Contains(t, stderr.String(), "kernel to user")
}
