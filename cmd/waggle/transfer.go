package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/schollz/progressbar/v3"
	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"waggle/dfs/client/transfer"
)

// transferFlags are those of put and get.
func transferFlags() []cli.Flag {
	return []cli.Flag{
		jsonFlag(),
		&cli.IntFlag{Name: "workers", Value: 16, Usage: "copy `N` files at once"},
		&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "show no progress"},
	}
}

// copyTree carries out a copy, shows how far it is, and sums it up.
func copyTree(c *cli.Context, what string, do func(context.Context, transfer.Options) (transfer.Summary, error)) error {
	if c.Int("workers") < 1 || c.Int("workers") > 1024 {
		return usagef("--workers %d must be 1 to 1024", c.Int("workers"))
	}
	progress := new(transfer.Progress)
	stop := func() {}
	if !c.Bool("quiet") {
		stop = show(c.App.ErrWriter, what, progress)
	}
	summary, err := do(c.Context, transfer.Options{Workers: c.Int("workers"), Progress: progress,
		Failed: func(err error) { complain(c, err) },
		LeftOut: func(path string) {
			fmt.Fprintf(c.App.ErrWriter, "waggle: %s is left out: it is a socket, a device or a pipe\n", printable(path))
		}})
	stop()
	if c.Bool("json") {
		if printed := printJSON(c.App.Writer, summary); err == nil {
			err = printed
		}
		return err
	}
	if err != nil && summary.Files+summary.SkippedFiles == 0 {
		return err
	}
	if err != nil {
		return fmt.Errorf("%w (%s and %s were copied; run the command again to go on)", err, plural(summary.Files, "file"), humanize.IBytes(uint64(summary.Bytes)))
	}
	fmt.Fprintf(c.App.Writer, "%s: %s, %s in %.2f s; %s skipped as complete; %s, %s, %s\n", what,
		plural(summary.Files, "file"), humanize.IBytes(uint64(summary.Bytes)), summary.Seconds, plural(summary.SkippedFiles, "file"),
		plural(summary.Directories, "directory"), plural(summary.Symlinks, "symlink"), plural(summary.HardLinks, "hard link"))
	return nil
}

func plural(n int64, noun string) string {
	switch {
	case n == 1:
		return "1 " + noun
	case noun == "directory":
		return humanize.Comma(n) + " directories"
	}
	return humanize.Comma(n) + " " + noun + "s"
}

// show shows progress until stop is called: a bar on a terminal, elsewhere a
// line every few seconds.
func show(w io.Writer, what string, p *transfer.Progress) (stop func()) {
	every, tell, end := 5*time.Second, func() { tellLine(w, what, p) }, func() {}
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		bar := progressbar.NewOptions64(1, progressbar.OptionSetWriter(w), progressbar.OptionSetDescription(what),
			progressbar.OptionShowBytes(true), progressbar.OptionClearOnFinish(), progressbar.OptionSetWidth(30))
		every, end = 100*time.Millisecond, func() { bar.Clear() }
		tell = func() {
			bar.ChangeMax64(max(p.FoundBytes.Load(), 1))
			bar.Describe(fmt.Sprintf("%s %d/%d files", what, p.DoneFiles.Load(), p.FoundFiles.Load()))
			bar.Set64(min(p.DoneBytes.Load(), p.FoundBytes.Load()))
		}
	}
	stopping, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		ticker := time.NewTicker(every)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				tell()
			case <-stopping:
				end()
				return
			}
		}
	}()
	return func() { close(stopping); <-stopped }
}

func tellLine(w io.Writer, what string, p *transfer.Progress) {
	fmt.Fprintf(w, "%s: %d of %d files, %s of %s\n", what, p.DoneFiles.Load(), p.FoundFiles.Load(),
		humanize.IBytes(uint64(p.DoneBytes.Load())), humanize.IBytes(uint64(p.FoundBytes.Load())))
}
