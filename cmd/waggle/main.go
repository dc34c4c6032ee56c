// Command waggle is everything: the roles of the file system, the commands that
// use it, and the experiments. `waggle help` lists the subcommands, which have
// one file each here and no logic of their own.
//
// Exit codes: 0 done; 1 failed; 2 wrong usage; 3 not supported on this machine;
// 4 experiments ran, but trials are invalid.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/dustin/go-humanize"
	"github.com/urfave/cli/v2"

	"waggle/dfs/datapath"
	"waggle/dfs/tcp"
)

// commands lists the subcommands in the order in which help shows them.
func commands() []*cli.Command {
	return []*cli.Command{
		upCommand(),
		lsCommand(),
		statCommand(),
		mkdirCommand(),
		putCommand(),
		getCommand(),
		catCommand(),
		rmCommand(),
		mvCommand(),
		mountCommand(),
		umountCommand(),
		dfCommand(),
		fsckCommand(),
		trashCommand(),
		undeleteCommand(),
		decommissionCommand(),
		rebalanceCommand(),
		doctorCommand(),
		runCommand(),
		loadCommand(),
		floorCommand(),
		copiesCommand(),
		faultsCommand(),
		regressCommand(),
		figuresCommand(),
		reportCommand(),
		claimsCommand(),
		calibrateCommand(),
		simCommand(),
		paperCommand(),
		auditCommand(),
		metaCommand(),
		chunkCommand(),
		gatewayCommand(),
	}
}

// Exit codes. A command that needs another one than its error implies returns
// an error made by cli.Exit.
const (
	exitFailed      = 1
	exitUsage       = 2
	exitUnsupported = 3
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), endSignals()...)
	// After the first signal a second one ends the process at once.
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, os.Args, os.Stdout, os.Stderr))
}

// endSignals are those that end a command in order. A hangup does so, unless it is
// ignored, as under nohup.
func endSignals() []os.Signal {
	signals := []os.Signal{syscall.SIGINT, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) {
		signals = append(signals, syscall.SIGHUP)
	}
	return signals
}

// run carries out one command line and returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	app := newApp(stdout, stderr)
	err := app.RunContext(ctx, flagsFirst(app, args))
	if err != nil && err.Error() != "" {
		fmt.Fprintf(stderr, "waggle: %v\n", err)
	}
	return exitCode(err)
}

func newApp(stdout, stderr io.Writer) *cli.App {
	app := &cli.App{
		Name:     "waggle",
		Usage:    "a distributed file system over interchangeable data paths, and the measurements to choose between them",
		Version:  version(),
		Commands: commands(),
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "congestion", Usage: "congestion control of this process's TCP connections, by the kernel's `NAME`; default: the machine's"},
			&cli.StringFlag{Name: "socket-buffers", Usage: "`BYTES` of each buffer of TCP connections that carry data, or kernel to leave them to it", Value: humanize.IBytes(tcp.DataBuffer)},
			&cli.BoolFlag{Name: "tcp-delay", Usage: "have the kernel hold small messages back (TCP_NODELAY off)"},
		},
		Before: useSockets,
		Writer: stdout,
		// A comma separates the levels of one --set.
		DisableSliceFlagSeparator: true,
		ErrWriter:                 stderr,
		ExitErrHandler:            func(*cli.Context, error) {}, // run decides
		OnUsageError:              onUsageError,
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return usagef("there is no command %q: `waggle help` lists them", c.Args().First())
			}
			return cli.ShowAppHelp(c)
		},
	}
	nameVariables(app.Flags)
	prepare(app.Commands)
	return app
}

// useSockets has this process's TCP connections be as the command line says.
func useSockets(c *cli.Context) error {
	p := tcp.Policy{Congestion: c.String("congestion"), Delay: c.Bool("tcp-delay"), BufferBytes: tcp.KernelBuffers}
	if size := c.String("socket-buffers"); size != "kernel" {
		n, err := humanize.ParseBytes(size)
		if err != nil || n < minSocketBuffer || n > maxSocketBuffer {
			return usagef("--socket-buffers %q: give kernel, or from %s to %s", size, humanize.IBytes(minSocketBuffer), humanize.IBytes(maxSocketBuffer))
		}
		p.BufferBytes = int(n)
	}
	return tcp.Use(p)
}

// Limits of a socket's buffer in bytes.
const minSocketBuffer, maxSocketBuffer = 4 << 10, 1 << 30

// prepare gives every command what all of them share.
func prepare(list []*cli.Command) {
	for _, command := range list {
		command.OnUsageError = onUsageError
		nameVariables(command.Flags)
		checkRanges(command.Flags)
		prepare(command.Subcommands)
	}
}

func onUsageError(c *cli.Context, err error, _ bool) error {
	name := "waggle"
	if c.Command != nil && c.Command.Name != "" && c.Command.Name != name {
		name += " " + c.Command.Name
	}
	return usagef("%v: see `%s --help`", err, name)
}

// errUsage is wrapped by errors about the command line itself.
var errUsage = errors.New("wrong usage")

type usageError struct{ text string }

func (e usageError) Error() string { return e.text }
func (e usageError) Unwrap() error { return errUsage }

// usagef returns an error that makes waggle exit with exitUsage.
func usagef(format string, args ...any) error {
	return usageError{fmt.Sprintf(format, args...)}
}

func exitCode(err error) int {
	var coder cli.ExitCoder
	switch {
	case err == nil:
		return 0
	case errors.As(err, &coder) && coder.ExitCode() > 0:
		return coder.ExitCode()
	case errors.Is(err, errUsage), errors.Is(err, datapath.ErrUnknown):
		return exitUsage
	case errors.Is(err, datapath.ErrUnsupported):
		return exitUnsupported
	default:
		return exitFailed
	}
}
