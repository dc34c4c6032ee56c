package main

import (
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/urfave/cli/v2"

	"waggle/dfs/client"
)

func lsCommand() *cli.Command {
	return &cli.Command{
		Name:      "ls",
		Usage:     "list directories",
		ArgsUsage: "[PATH...]",
		Flags: clientFlags(jsonFlag(),
			&cli.BoolFlag{Name: "long", Aliases: []string{"l"}, Usage: "with permissions, size and time"}),
		Action: func(c *cli.Context) error {
			paths := c.Args().Slice()
			if len(paths) == 0 {
				paths = []string{"/"}
			}
			return withClient(c, client.Options{}, func(cl *client.Client) error {
				return each(c, paths, func(path string) error { return list(c, cl, path) })
			})
		},
	}
}

// listed is an entry as `ls --json` prints it, one a line.
type listed struct {
	Name     string    `json:"name"`
	NameRaw  []byte    `json:"name_bytes,omitempty"` // of a name that JSON can't hold
	Type     string    `json:"type"`
	Size     int64     `json:"size_bytes"`
	Mode     string    `json:"mode"`
	Modified time.Time `json:"modified"`
	Target   string    `json:"target,omitempty"`
	ToRaw    []byte    `json:"target_bytes,omitempty"`
}

func list(c *cli.Context, cl *client.Client, path string) error {
	info, err := cl.Stat(c.Context, path)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return printEntry(c, info, "")
	}
	var entries []*client.Entry
	for entry, err := range cl.Entries(c.Context, path) {
		if err != nil {
			return err
		}
		entries = append(entries, entry)
	}
	slices.SortFunc(entries, func(a, b *client.Entry) int { return strings.Compare(a.Name(), b.Name()) })
	for _, entry := range entries {
		if err := printEntry(c, entry.Stat(), entry.Target()); err != nil {
			return err
		}
	}
	return nil
}

func printEntry(c *cli.Context, info *client.Info, target string) error {
	w := c.App.Writer
	switch {
	case c.Bool("json"):
		return json.NewEncoder(w).Encode(listed{info.Name(), unlessUTF8(info.Name()), typeName(info.Mode()), info.Size(),
			info.Mode().String(), info.ModTime(), target, unlessUTF8(target)})
	case c.Bool("long"):
		a := info.Attributes()
		_, err := fmt.Fprintf(w, "%s %3d %5d %5d %12d %s %s%s\n", info.Mode(), a.Links, a.UID, a.GID, info.Size(),
			info.ModTime().Format("2006-01-02 15:04"), printable(info.Name()), arrow(target))
		return err
	}
	_, err := io.WriteString(w, printable(info.Name())+"\n")
	return err
}

// unlessUTF8 returns the bytes of a name that JSON would change.
func unlessUTF8(name string) []byte {
	if utf8.ValidString(name) {
		return nil
	}
	return []byte(name)
}

func arrow(target string) string {
	if target == "" {
		return ""
	}
	return " -> " + printable(target)
}

// printable quotes a name that could confuse a terminal.
func printable(name string) string {
	if quoted := fmt.Sprintf("%q", name); quoted != `"`+name+`"` {
		return quoted
	}
	return name
}

func typeName(mode fs.FileMode) string {
	switch {
	case mode.IsRegular():
		return "file"
	case mode.IsDir():
		return "directory"
	case mode&fs.ModeSymlink != 0:
		return "symlink"
	}
	return "other"
}
