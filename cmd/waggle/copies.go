package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/urfave/cli/v2"

	"waggle/bpf/copies"
)

const (
	// What shells answer for a command that is there but can't be executed, and one that is not.
	exitCannotExecute = 126
	exitNotFound      = 127
	exitSignalled     = 128 // plus the signal's number

	// After Ctrl-C the terminal has told the command too: so long it may end by itself.
	patience = 3 * time.Second

	shortestInterval = 100 * time.Millisecond
)

func copiesCommand() *cli.Command {
	return &cli.Command{
		Name:      "copies",
		Usage:     "count the copies that a command, a process or a control group makes",
		UsageText: "waggle copies [options] -- COMMAND [ARGUMENT...]\nwaggle copies [options] --pid N | --cgroup PATH",
		Description: "Counts bytes copied between user space and the kernel, calls, switches and faults, for all\n" +
			"descendants too. The command keeps its input, output and exit code (127: not found, 126: can't be\n" +
			"executed); the report goes to standard error. Without a command it counts until it ends, or Ctrl-C.",
		Flags: []cli.Flag{
			jsonFlag(),
			&cli.StringFlag{Name: "backend", Value: string(copies.Automatic), Usage: "`BACKEND`: auto, boundary or sites"},
			&cli.StringFlag{Name: "payload", Usage: "`BYTES` that the command is meant to move (also 10MiB), for copies per payload byte"},
			&cli.IntFlag{Name: "pid", Usage: "count the running process `N` and its descendants"},
			&cli.StringFlag{Name: "cgroup", Usage: "count what runs in the control group `PATH` (version 2)"},
			&cli.DurationFlag{Name: "interval", Usage: "also show what happened every `TIME`, while it happens"},
			&cli.StringFlag{Name: "output", Usage: "write the report to `FILE` instead of standard error"},
		},
		Action: runCopies,
	}
}

func runCopies(c *cli.Context) error {
	watch, err := newWatch(c)
	if err != nil {
		return err
	}
	if path := c.String("output"); path != "" {
		file, err := os.Create(path)
		if err != nil {
			return fmt.Errorf("create the report: %w", err)
		}
		defer file.Close()
		watch.out = file
	}
	watch.ledger, err = copies.Open(copies.Options{Backend: copies.Backend(c.String("backend"))})
	var unsupported *copies.UnsupportedError
	if errors.As(err, &unsupported) {
		return cli.Exit(err, exitUnsupported)
	}
	if err != nil {
		return err
	}
	defer watch.ledger.Close()
	return watch.run(c.Context, c)
}

// A watch follows one target from its start to its end.
type watch struct {
	ledger   *copies.Ledger
	target   string
	payload  uint64
	interval time.Duration
	json     bool
	out      io.Writer

	began, shown time.Time       // of the whole, and of the current interval
	last         copies.Snapshot // at the end of the interval before
}

func newWatch(c *cli.Context) (*watch, error) {
	w := &watch{json: c.Bool("json"), interval: c.Duration("interval"), out: c.App.ErrWriter}
	targets := 0
	if c.Args().Present() {
		targets, w.target = targets+1, strings.Join(c.Args().Slice(), " ")
	}
	if c.IsSet("pid") {
		targets, w.target = targets+1, fmt.Sprintf("process %d", c.Int("pid"))
	}
	if c.IsSet("cgroup") {
		targets, w.target = targets+1, "control group "+c.String("cgroup")
	}
	if targets != 1 {
		return nil, usagef("copies needs exactly one of -- COMMAND, --pid and --cgroup")
	}
	if c.IsSet("interval") && w.interval < shortestInterval {
		return nil, usagef("--interval %v is too short: at least %v", w.interval, shortestInterval)
	}
	if text := c.String("payload"); text != "" {
		payload, err := humanize.ParseBytes(text)
		if err != nil || payload == 0 {
			return nil, usagef("--payload %q is not a number of bytes, such as 1048576 or 10MiB", text)
		}
		w.payload = payload
	}
	switch backend := copies.Backend(c.String("backend")); backend {
	case copies.Automatic, copies.Boundary, copies.Sites:
	default:
		return nil, usagef("there is no backend %q: choose auto, boundary or sites", backend)
	}
	return w, nil
}

func (w *watch) run(ctx context.Context, c *cli.Context) error {
	switch {
	case c.IsSet("pid"):
		if err := w.ledger.AddProcess(w.target, c.Int("pid")); err != nil {
			return err
		}
		return w.finish(w.follow(ctx, processEnded(c.Int("pid"))))
	case c.IsSet("cgroup"):
		if err := w.ledger.AddCgroup(w.target, c.String("cgroup")); err != nil {
			return err
		}
		return w.finish(w.follow(ctx, w.cgroupVanished(c.String("cgroup"))))
	}
	return w.runCommand(ctx, c.Args().Slice())
}

func (w *watch) runCommand(ctx context.Context, arguments []string) error {
	command := exec.Command(arguments[0], arguments[1:]...)
	command.Stdin, command.Stdout, command.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := w.ledger.Start(w.target, command); err != nil {
		code := exitCannotExecute
		if errors.Is(err, exec.ErrNotFound) || errors.Is(err, os.ErrNotExist) {
			code = exitNotFound
		}
		return cli.Exit(fmt.Sprintf("start %s: %v", arguments[0], err), code)
	}
	ended := make(chan struct{})
	go func() {
		// Its result is in ProcessState.
		_ = command.Wait()
		close(ended)
	}()
	err := w.follow(ctx, ended)
	if ctx.Err() != nil {
		endCommand(command, ended)
	}
	<-ended
	if err := w.finish(err); err != nil {
		return err
	}
	return passOn(command.ProcessState)
}

// endCommand lets an interrupted command end by itself, then asks it to.
func endCommand(command *exec.Cmd, ended <-chan struct{}) {
	select {
	case <-ended:
	case <-time.After(patience):
		// An error means that it has ended meanwhile.
		_ = command.Process.Signal(syscall.SIGTERM)
	}
}

// passOn ends waggle as the command ended.
func passOn(state *os.ProcessState) error {
	status, ok := state.Sys().(syscall.WaitStatus)
	if ok && status.Signaled() {
		return cli.Exit("", exitSignalled+int(status.Signal()))
	}
	if state.ExitCode() == 0 {
		return nil
	}
	return cli.Exit("", state.ExitCode())
}

// processEnded tells when a process that is not our child has ended.
func processEnded(pid int) <-chan struct{} {
	return pollUntil(func() bool { return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) })
}

func (w *watch) cgroupVanished(path string) <-chan struct{} {
	return pollUntil(func() bool { return !copies.CgroupExists(path) })
}

// pollUntil closes the channel once the condition holds. It goes on until then, or until
// waggle ends.
func pollUntil(condition func() bool) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		for !condition() {
			time.Sleep(shortestInterval)
		}
	}()
	return done
}

// follow shows every interval until the target has ended or the context has.
func (w *watch) follow(ctx context.Context, ended <-chan struct{}) error {
	w.began = time.Now()
	w.shown = w.began
	var ticks <-chan time.Time // nil, which never ticks, without --interval
	if w.interval > 0 {
		ticker := time.NewTicker(w.interval)
		defer ticker.Stop()
		ticks = ticker.C
	}
	for {
		select {
		case <-ended:
			return nil
		case <-ctx.Done():
			return nil
		case <-ticks:
			if err := w.showInterval(); err != nil {
				return err
			}
		}
	}
}

func (w *watch) showInterval() error {
	now, err := w.ledger.Snapshot()
	if err != nil {
		return err
	}
	report := w.report(now.Minus(w.last), time.Since(w.shown), 0)
	w.last, w.shown = now, time.Now()
	if w.json {
		return json.NewEncoder(w.out).Encode(report)
	}
	return report.WriteLine(w.out, time.Since(w.began))
}

// finish shows the whole.
func (w *watch) finish(err error) error {
	if err != nil {
		return err
	}
	whole, err := w.ledger.Snapshot()
	if err != nil {
		return err
	}
	report := w.report(whole, time.Since(w.began), w.payload)
	if w.json && w.interval > 0 {
		return json.NewEncoder(w.out).Encode(report) // one line each, as the intervals before
	}
	if w.json {
		return printJSON(w.out, report)
	}
	return report.WriteTable(w.out)
}

func (w *watch) report(s copies.Snapshot, lasted time.Duration, payload uint64) copies.Report {
	return w.ledger.Report(w.target, s.Roles[w.target], s.Losses, lasted, payload)
}
