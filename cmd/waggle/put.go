package main

import (
	"context"
	"io"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/urfave/cli/v2"

	"waggle/dfs/client"
	"waggle/dfs/client/transfer"
	"waggle/dfs/wire"
)

func putCommand() *cli.Command {
	return &cli.Command{
		Name:      "put",
		Usage:     "copy a local file or tree into the file system",
		ArgsUsage: "LOCAL PATH",
		Description: "PATH is what the copy is called; a file that is put to a directory keeps its name in it.\n" +
			"LOCAL is - for standard input; /dev/stdin and <(COMMAND) are read, too. Holes and hard links are kept.\n" +
			"What can't be copied is named, the rest is copied, and the exit code is 1.\n" +
			"Run it again after an interruption: what is complete, by size and time, is skipped.",
		Flags: clientFlags(append(transferFlags(),
			&cli.StringFlag{Name: "chunk-size", Usage: "cut new files into chunks of `BYTES`, 64KiB to 64MiB"},
			&cli.UintFlag{Name: "replication", Usage: "keep `N` replicas of new files"})...),
		Action: func(c *cli.Context) error {
			args, err := arguments(c, 2, 2)
			if err != nil {
				return err
			}
			chunkSize, err := byteSize(c, "chunk-size")
			if err != nil {
				return err
			}
			if err := wire.CheckChunkSize(chunkSize); chunkSize != 0 && err != nil {
				return usagef("--chunk-size: %v", err)
			}
			if n := c.Uint("replication"); n > wire.MaxReplicas {
				return usagef("--replication %d: at most %d is allowed", n, wire.MaxReplicas)
			}
			options := client.Options{ChunkSize: chunkSize, Replication: uint32(c.Uint("replication"))}
			return withClient(c, options, func(cl *client.Client) error {
				if isStream(args[0]) {
					return putStream(c, cl, args[0], args[1])
				}
				return copyTree(c, "put", func(ctx context.Context, o transfer.Options) (transfer.Summary, error) {
					return transfer.Put(ctx, cl, args[0], remoteName(ctx, cl, args[0], args[1]), o)
				})
			})
		},
	}
}

// remoteName is where a local file goes: into the directory that there is.
func remoteName(ctx context.Context, cl *client.Client, from, to string) string {
	if to == "" || isLocalDirectory(from) {
		return to
	}
	info, err := cl.Stat(ctx, to)
	if strings.HasSuffix(to, "/") || err == nil && info.IsDir() {
		return path.Join(to, filepath.Base(from))
	}
	return to
}

// streams are paths that stand for what a process has open, such as a shell's
// <(COMMAND), so that the path itself says nothing of what is meant.
var streams = regexp.MustCompile(`^(/dev/std(in|out|err)|/dev/fd/\d+|/proc/(self|\d+)/fd/\d+)$`)

// isStream says whether an argument names something to read rather than an entry
// of a directory to copy.
func isStream(name string) bool {
	if name == "-" || streams.MatchString(name) {
		return true
	}
	target, err := os.Readlink(name)
	return err == nil && streams.MatchString(target)
}

// putStream makes a file of what can be read.
func putStream(c *cli.Context, cl *client.Client, from, to string) error {
	if info, err := cl.Stat(c.Context, to); strings.HasSuffix(to, "/") || err == nil && info.IsDir() {
		return usagef("put %s %s: say what the file is to be called in that directory", from, to)
	}
	r := c.App.Reader
	if from != "-" {
		f, err := os.Open(from)
		if err != nil {
			return err
		}
		defer f.Close()
		r = f
	}
	return copyTree(c, "put", func(ctx context.Context, o transfer.Options) (transfer.Summary, error) {
		return transfer.PutStream(ctx, cl, untilDone(ctx, r), to, o)
	})
}

// untilDone reads from r until ctx ends, even if r has nothing to say.
func untilDone(ctx context.Context, r io.Reader) io.Reader {
	read, write := io.Pipe()
	go func() {
		_, err := io.Copy(write, r)
		write.CloseWithError(err)
	}()
	context.AfterFunc(ctx, func() { read.CloseWithError(context.Cause(ctx)) })
	return read
}
