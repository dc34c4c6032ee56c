package main

import (
	"context"
	"path"
	"path/filepath"
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
				return copyTree(c, "put", func(ctx context.Context, o transfer.Options) (transfer.Summary, error) {
					return transfer.Put(ctx, cl, args[0], remoteName(ctx, cl, args[0], args[1]), o)
				})
			})
		},
	}
}

// remoteName is where a local file goes: into the directory that there is.
func remoteName(ctx context.Context, cl *client.Client, from, to string) string {
	if isLocalDirectory(from) {
		return to
	}
	info, err := cl.Stat(ctx, to)
	if strings.HasSuffix(to, "/") || err == nil && info.IsDir() {
		return path.Join(to, filepath.Base(from))
	}
	return to
}
