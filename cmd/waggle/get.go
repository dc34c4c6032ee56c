package main

import (
	"context"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"

	"waggle/dfs/client"
	"waggle/dfs/client/transfer"
)

func getCommand() *cli.Command {
	return &cli.Command{
		Name:      "get",
		Usage:     "copy a file or tree out of the file system",
		ArgsUsage: "PATH LOCAL",
		Description: "LOCAL is what the copy is called; a file that is got to a directory keeps its name in it.\n" +
			"What can't be copied is named, the rest is copied, and the exit code is 1. Zeros become holes, hard links stay.\n" +
			"Run it again after an interruption: what is complete, by size and time, is skipped.",
		Flags: clientFlags(transferFlags()...),
		Action: func(c *cli.Context) error {
			args, err := arguments(c, 2, 2)
			if err != nil {
				return err
			}
			return withClient(c, client.Options{}, func(cl *client.Client) error {
				return copyTree(c, "get", func(ctx context.Context, o transfer.Options) (transfer.Summary, error) {
					return transfer.Get(ctx, cl, args[0], localName(ctx, cl, args[0], args[1]), o)
				})
			})
		},
	}
}

// localName is where a file goes: into the directory that there is.
func localName(ctx context.Context, cl *client.Client, from, to string) string {
	if info, err := cl.Lstat(ctx, from); err != nil || info.IsDir() {
		return to
	}
	if strings.HasSuffix(to, "/") || isLocalDirectory(to) {
		return filepath.Join(to, path.Base(from))
	}
	return to
}

func isLocalDirectory(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}
