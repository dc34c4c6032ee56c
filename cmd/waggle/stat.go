package main

import (
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"waggle/dfs/client"
)

func statCommand() *cli.Command {
	return &cli.Command{
		Name:      "stat",
		Usage:     "describe files, and where their chunks are",
		ArgsUsage: "PATH...",
		Flags: clientFlags(jsonFlag(), &cli.BoolFlag{Name: "explain",
			Usage: "say who answers the lookup of the path, the kernel or user space, and in how many microseconds"}),
		Action: func(c *cli.Context) error {
			paths, err := arguments(c, 1, -1)
			if err != nil {
				return err
			}
			return withClient(c, client.Options{}, func(cl *client.Client) error {
				return each(c, paths, func(path string) error { return describe(c, cl, path) })
			})
		},
	}
}

type description struct {
	Path        string            `json:"path"`
	Type        string            `json:"type"`
	Inode       uint64            `json:"inode"`
	Size        int64             `json:"size_bytes"`
	Mode        string            `json:"mode"`
	UID         uint32            `json:"uid"`
	GID         uint32            `json:"gid"`
	Links       uint32            `json:"links"`
	Modified    time.Time         `json:"modified"`
	Changed     time.Time         `json:"changed"`
	Target      string            `json:"target,omitempty"`
	ChunkSize   uint32            `json:"chunk_size_bytes,omitempty"`
	Replication uint16            `json:"replication,omitempty"`
	Inline      uint16            `json:"inline_bytes"`
	Chunks      []client.Chunk    `json:"chunks,omitempty"`
	Xattrs      map[string][]byte `json:"xattrs,omitempty"`

	Lookup *client.Explanation `json:"lookup,omitempty"`
}

func describe(c *cli.Context, cl *client.Client, path string) error {
	info, err := cl.Lstat(c.Context, path)
	if err != nil {
		return err
	}
	a := info.Attributes()
	d := description{Path: path, Type: typeName(info.Mode()), Inode: a.Inode, Size: info.Size(), Mode: info.Mode().String(),
		UID: a.UID, GID: a.GID, Links: a.Links, Modified: info.ModTime(), Changed: time.Unix(0, a.ChangedNs),
		ChunkSize: a.ChunkSize, Replication: a.Replication, Inline: a.InlineSize}
	if info.Mode()&fs.ModeSymlink != 0 {
		d.Target, err = cl.Readlink(c.Context, path)
	} else if d.Xattrs, err = cl.Xattrs(c.Context, path); err == nil && info.Mode().IsRegular() {
		d.Chunks, err = cl.Chunks(c.Context, path)
	}
	if err != nil {
		return err
	}
	if c.Bool("explain") {
		e, err := cl.Explain(c.Context, path)
		if err != nil {
			return err
		}
		d.Lookup = &e
	}
	if c.Bool("json") {
		return printJSON(c.App.Writer, d)
	}
	w := c.App.Writer
	fmt.Fprintf(w, "path      %s%s\ntype      %s\ninode     %d\nsize      %d bytes, %d of them in the inode record\n",
		printable(d.Path), arrow(d.Target), d.Type, d.Inode, d.Size, d.Inline)
	fmt.Fprintf(w, "mode      %s, owner %d, group %d, %d links\nmodified  %s\nchanged   %s\n", d.Mode, d.UID, d.GID, d.Links,
		d.Modified.Format(time.RFC3339Nano), d.Changed.Format(time.RFC3339Nano))
	if info.Mode().IsRegular() {
		fmt.Fprintf(w, "layout    chunks of %d bytes, %d replicas\n", d.ChunkSize, d.Replication)
	}
	for _, chunk := range d.Chunks {
		if chunk.ID == 0 {
			fmt.Fprintf(w, "chunk %-4d hole\n", chunk.Index)
			continue
		}
		fmt.Fprintf(w, "chunk %-4d %d, epoch %d, at %s\n", chunk.Index, chunk.ID, chunk.Epoch, strings.Join(chunk.Replicas, " "))
	}
	if d.Lookup != nil {
		fmt.Fprintf(w, "lookup    %d names, answered by %s in %.1f us\n", d.Lookup.Names, d.Lookup.AnsweredBy, d.Lookup.Microseconds)
	}
	for name, value := range d.Xattrs {
		fmt.Fprintf(w, "xattr     %s = %q\n", printable(name), value)
	}
	return nil
}
