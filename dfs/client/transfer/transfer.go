// Package transfer copies whole trees into the file system and out of it: files,
// directories, symbolic links, permissions and times of modification.
//
// A copy can be run again after an interruption: what is complete, by size and
// time, is skipped. A file gets its name when it is complete, so there is never
// half a file under the name of a whole one.
package transfer

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
	"iter"
	"path"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"waggle/dfs/client"
)

// Options of a copy.
type Options struct {
	// Workers is how many files are copied at once; default 16.
	Workers int
	// Progress is kept up to date, if it is not nil.
	Progress *Progress
}

// Progress is how far a copy is. Found grows until the tree was walked.
type Progress struct {
	FoundFiles, FoundBytes atomic.Int64
	DoneFiles, DoneBytes   atomic.Int64 // with what was skipped
}

// Summary is what a copy did.
type Summary struct {
	Files        int64   `json:"files"` // copied
	Bytes        int64   `json:"bytes"` // copied
	SkippedFiles int64   `json:"skipped_files"`
	SkippedBytes int64   `json:"skipped_bytes"`
	Directories  int64   `json:"directories"`
	Symlinks     int64   `json:"symlinks"`
	Special      int64   `json:"special"` // sockets, devices and the like, which are left out
	Seconds      float64 `json:"seconds"`
}

// Put copies the local tree or file from to the path to in the file system.
func Put(ctx context.Context, c *client.Client, from, to string, o Options) (Summary, error) {
	return run(ctx, local{}, &remote{c}, from, to, o)
}

// Get copies the tree or file from of the file system to the local path to.
func Get(ctx context.Context, c *client.Client, from, to string, o Options) (Summary, error) {
	return run(ctx, &remote{c}, local{}, from, to, o)
}

// entry is what a tree consists of.
type entry struct {
	name     string
	mode     fs.FileMode
	size     int64
	modified time.Time
	target   string // of a symbolic link
}

// source is where a tree comes from.
type source interface {
	stat(ctx context.Context, path string) (entry, error) // follows no link
	list(ctx context.Context, path string) iter.Seq2[entry, error]
	open(ctx context.Context, path string) (io.ReadCloser, error)
}

// target is where a tree goes.
type target interface {
	stat(ctx context.Context, path string) (entry, error)
	list(ctx context.Context, path string) iter.Seq2[entry, error]
	mkdir(ctx context.Context, path string) error
	remove(ctx context.Context, path string) error // a file or link; no error if there is none
	// write makes a file of r's content, under a temporary name at first.
	write(ctx context.Context, path string, e entry, r io.Reader) (int64, error)
	symlink(ctx context.Context, path string, e entry) error
	chmod(ctx context.Context, path string, mode fs.FileMode) error
	chtimes(ctx context.Context, path string, modified time.Time) error
}

// maxQueue bounds the files that were found, but not copied yet.
const maxQueue = 1024

type copier struct {
	from     source
	to       target
	progress *Progress
	jobs     chan job

	directories []job // in the order they were found
	counts      struct{ files, bytes, skippedFiles, skippedBytes, symlinks, special atomic.Int64 }
}

type job struct {
	from, to string
	entry    entry
	instead  bool // of something else that has the name
}

func run(ctx context.Context, from source, to target, fromPath, toPath string, o Options) (Summary, error) {
	start := time.Now()
	c := &copier{from: from, to: to, progress: o.Progress, jobs: make(chan job, maxQueue)}
	if c.progress == nil {
		c.progress = new(Progress)
	}
	if o.Workers == 0 {
		o.Workers = 16
	}
	err := c.copyTree(ctx, fromPath, toPath, o.Workers)
	n := &c.counts
	return Summary{
		Files: n.files.Load(), Bytes: n.bytes.Load(), SkippedFiles: n.skippedFiles.Load(), SkippedBytes: n.skippedBytes.Load(),
		Directories: int64(len(c.directories)), Symlinks: n.symlinks.Load(), Special: n.special.Load(),
		Seconds: time.Since(start).Seconds(),
	}, err
}

func (c *copier) copyTree(ctx context.Context, from, to string, workers int) error {
	root, err := c.from.stat(ctx, from)
	if err != nil {
		return err
	}
	group, groupCtx := errgroup.WithContext(ctx)
	group.Go(func() error {
		defer close(c.jobs)
		there, err := c.to.stat(groupCtx, to)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return c.walk(groupCtx, job{from: from, to: to, entry: root}, there, err == nil)
	})
	for range workers {
		group.Go(func() error {
			for j := range c.jobs {
				if err := c.copyEntry(groupCtx, j); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	return c.finishDirectories(ctx)
}

// walk finds what there is to copy. There is what the target has under the name.
func (c *copier) walk(ctx context.Context, j job, there entry, exists bool) error {
	switch {
	case j.entry.mode.IsRegular():
		c.progress.FoundFiles.Add(1)
		c.progress.FoundBytes.Add(j.entry.size)
		if exists && complete(j.entry, there) {
			return c.skip(ctx, j, there)
		}
	case j.entry.mode&fs.ModeSymlink != 0:
		if exists && there.mode&fs.ModeSymlink != 0 && there.target == j.entry.target {
			c.counts.symlinks.Add(1)
			return nil
		}
	case j.entry.mode.IsDir():
		return c.walkDirectory(ctx, j, there, exists)
	default:
		c.counts.special.Add(1)
		return nil
	}
	if exists && there.mode.IsDir() {
		return fmt.Errorf("copy %s: %s exists and is a directory: remove it, or choose another name", j.from, j.to)
	}
	j.instead = exists && (j.entry.mode.Type() != there.mode.Type() || !there.mode.IsRegular())
	select {
	case c.jobs <- j:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// complete says whether a file was copied before.
func complete(e, there entry) bool {
	return there.mode.IsRegular() && there.size == e.size && there.modified.Equal(e.modified)
}

func (c *copier) skip(ctx context.Context, j job, there entry) error {
	c.progress.DoneFiles.Add(1)
	c.progress.DoneBytes.Add(j.entry.size)
	c.counts.skippedFiles.Add(1)
	c.counts.skippedBytes.Add(j.entry.size)
	if there.mode != j.entry.mode {
		return c.to.chmod(ctx, j.to, j.entry.mode)
	}
	return nil
}

func (c *copier) walkDirectory(ctx context.Context, j job, there entry, exists bool) error {
	if exists && !there.mode.IsDir() {
		return fmt.Errorf("copy directory %s: %s exists and is no directory: remove it, or choose another name", j.from, j.to)
	}
	have := make(map[string]entry)
	if exists {
		for e, err := range c.to.list(ctx, j.to) {
			if err != nil {
				return err
			}
			have[e.name] = e
		}
	} else if err := c.to.mkdir(ctx, j.to); err != nil {
		return err
	}
	c.directories = append(c.directories, j)
	var below []job
	for e, err := range c.from.list(ctx, j.from) {
		if err != nil {
			return err
		}
		child := job{from: path.Join(j.from, e.name), to: path.Join(j.to, e.name), entry: e}
		if e.mode.IsDir() { // later, so that no directory stays open meanwhile
			below = append(below, child)
			continue
		}
		there, exists := have[e.name]
		if err := c.walk(ctx, child, there, exists); err != nil {
			return err
		}
	}
	for _, child := range below {
		there, exists := have[child.entry.name]
		if err := c.walk(ctx, child, there, exists); err != nil {
			return err
		}
	}
	return nil
}

func (c *copier) copyEntry(ctx context.Context, j job) error {
	if j.instead {
		if err := c.to.remove(ctx, j.to); err != nil {
			return err
		}
	}
	if j.entry.mode&fs.ModeSymlink != 0 {
		c.counts.symlinks.Add(1)
		return c.to.symlink(ctx, j.to, j.entry)
	}
	r, err := c.from.open(ctx, j.from)
	if err != nil {
		return err
	}
	n, err := c.to.write(ctx, j.to, j.entry, &countingReader{r, &c.progress.DoneBytes})
	if err := errors.Join(err, r.Close()); err != nil {
		return fmt.Errorf("copy %s: %w", j.from, err)
	}
	c.counts.files.Add(1)
	c.counts.bytes.Add(n)
	c.progress.DoneFiles.Add(1)
	return nil
}

// finishDirectories sets what copying into them has changed.
func (c *copier) finishDirectories(ctx context.Context) error {
	for i := len(c.directories) - 1; i >= 0; i-- {
		d := c.directories[i]
		if err := c.to.chmod(ctx, d.to, d.entry.mode); err != nil {
			return err
		}
		if err := c.to.chtimes(ctx, d.to, d.entry.modified); err != nil {
			return err
		}
	}
	return nil
}

// partialName is the name that a file has while it is copied. It is the same
// each time, so that a copy that is run again overwrites what was left.
func partialName(file string) string {
	h := fnv.New64a()
	h.Write([]byte(path.Base(file)))
	return path.Join(path.Dir(file), fmt.Sprintf(".waggle-partial-%016x", h.Sum64()))
}
