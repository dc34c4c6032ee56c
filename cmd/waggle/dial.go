package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/urfave/cli/v2"

	"waggle/dfs/client"
)

// clientFlags are those of every command that uses the file system.
func clientFlags(more ...cli.Flag) []cli.Flag {
	return append([]cli.Flag{
		metaFlag(),
		&cli.StringFlag{Name: "read", Value: "copy", Usage: "read by data path `NAME`"},
		&cli.StringFlag{Name: "write", Value: "chain", Usage: "write by data path `NAME`"},
		&cli.DurationFlag{Name: "patience", Value: 30 * time.Second, Usage: "go on for `TIME` while servers are away"},
	}, more...)
}

// withClient carries out do with a client of the cluster that the flags name.
func withClient(c *cli.Context, options client.Options, do func(*client.Client) error) error {
	options.Name = "waggle " + c.Command.Name
	options.ReadPath, options.WritePath = c.String("read"), c.String("write")
	options.Patience, options.DialPatience = c.Duration("patience"), min(c.Duration("patience"), 2*time.Second)
	cl, err := client.Dial(c.Context, c.String("meta"), options)
	if err != nil {
		return fmt.Errorf("%w (`waggle up` starts a cluster; --meta names another)", err)
	}
	return errors.Join(do(cl), cl.Close())
}

// arguments returns the arguments if there are as many as there must be; most
// is -1 where more are allowed.
func arguments(c *cli.Context, least, most int) ([]string, error) {
	args := c.Args().Slice()
	if len(args) < least || most >= 0 && len(args) > most {
		return nil, usagef("%s takes %s, got %d arguments", c.Command.Name, c.Command.ArgsUsage, len(args))
	}
	return args, nil
}

// each carries out do for every operand. One that fails is named, and does not
// keep the others from their turn (POSIX, "Consequences of Errors").
func each(c *cli.Context, operands []string, do func(operand string) error) error {
	if len(operands) == 1 {
		return do(operands[0])
	}
	failed := 0
	for _, operand := range operands {
		err := do(operand)
		if err != nil && endsAll(c.Context, err) {
			return err
		}
		if err != nil {
			failed++
			complain(c, err)
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d arguments of %s failed", failed, len(operands), c.Command.Name)
	}
	return nil
}

// complain names a failure that does not end the command.
func complain(c *cli.Context, err error) { fmt.Fprintf(c.App.ErrWriter, "waggle: %v\n", err) }

// endsAll says whether an error befalls whatever comes next, too.
func endsAll(ctx context.Context, err error) bool {
	return ctx.Err() != nil || errors.Is(err, client.ErrUnavailable) || errors.Is(err, errOutput)
}

// errOutput: what a command prints can't be written.
var errOutput = errors.New("write the output")

// outputWriter marks its errors, so that they can be told from others.
type outputWriter struct{ io.Writer }

func (w outputWriter) Write(p []byte) (int, error) {
	n, err := w.Writer.Write(p)
	if err != nil {
		err = fmt.Errorf("%w: %w", errOutput, err)
	}
	return n, err
}

// byteSize reads a number of bytes such as 64KiB; empty is 0.
func byteSize(c *cli.Context, flag string) (uint32, error) {
	if c.String(flag) == "" {
		return 0, nil
	}
	n, err := humanize.ParseBytes(c.String(flag))
	if err != nil || n > 1<<31 {
		return 0, usagef("--%s %q is no number of bytes such as 64KiB", flag, c.String(flag))
	}
	return uint32(n), nil
}
