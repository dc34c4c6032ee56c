// Package transfer copies whole trees into the file system and out of it: files
// with their holes, hard links and symbolic links, directories, permissions and
// times of modification.
//
// A copy can be run again after an interruption: what is complete, by size and
// time, is skipped. A file gets its name when it is complete, so there is never
// half a file under the name of a whole one, however many copies to that name
// run at once; the last to finish wins.
//
// An entry that can't be copied does not end the copy: Options.Failed is told
// which and why, and the rest is copied.
package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"path"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"waggle/dfs/client"
	"waggle/dfs/wire"
)

// Options of a copy.
type Options struct {
	// Workers is how many files are copied at once; default 16.
	Workers int
	// Progress is kept up to date, if it is not nil.
	Progress *Progress
	// Failed is told each entry of a tree that could not be copied, and LeftOut the
	// path of each that the file system has no kind for. Each is called by one
	// goroutine at a time, and may be nil.
	Failed  func(error)
	LeftOut func(path string)
}

// ErrIncomplete: some entries of a tree could not be copied.
var ErrIncomplete = errors.New("the copy is not complete")

// ErrSpecial: what was asked for is a socket, a device or a pipe.
var ErrSpecial = errors.New("no file, directory or symbolic link")

// Progress is how far a copy is. Found grows until the tree was walked.
type Progress struct {
	FoundFiles, FoundBytes atomic.Int64
	DoneFiles, DoneBytes   atomic.Int64 // with what was skipped
}

// Summary is what a copy did.
type Summary struct {
	Files        int64   `json:"files"` // copied
	Bytes        int64   `json:"bytes"` // copied, without holes
	SkippedFiles int64   `json:"skipped_files"`
	SkippedBytes int64   `json:"skipped_bytes"`
	Directories  int64   `json:"directories"`
	Symlinks     int64   `json:"symlinks"`
	HardLinks    int64   `json:"hard_links"` // further names of files
	Special      int64   `json:"special"`    // sockets, devices and the like, which are left out
	Failed       int64   `json:"failed"`     // entries that could not be copied
	Seconds      float64 `json:"seconds"`
}

// Put copies the local tree or file from to the path to in the file system.
func Put(ctx context.Context, c *client.Client, from, to string, o Options) (Summary, error) {
	return run(ctx, newLocal(), &remote{c}, from, to, o)
}

// PutStream makes to a file of all that r has.
func PutStream(ctx context.Context, c *client.Client, r io.Reader, to string, o Options) (Summary, error) {
	start := time.Now()
	if o.Progress != nil {
		r = &countingReader{r, &o.Progress.DoneBytes}
	}
	n, err := (&remote{c}).writeNew(ctx, to, entry{mode: streamMode}, content{Reader: r})
	if err != nil {
		return Summary{Failed: 1}, err
	}
	return Summary{Files: 1, Bytes: n, Seconds: time.Since(start).Seconds()}, nil
}

// streamMode is the permissions of a file that has no original.
const streamMode fs.FileMode = 0o644

// Get copies the tree or file from of the file system to the local path to.
func Get(ctx context.Context, c *client.Client, from, to string, o Options) (Summary, error) {
	return run(ctx, &remote{c}, newLocal(), from, to, o)
}

// entry is what a tree consists of.
type entry struct {
	name     string
	mode     fs.FileMode
	size     int64
	modified time.Time
	changed  time.Time     // the attributes, by the system's clock
	grain    time.Duration // of the times that can be kept there
	target   string        // of a symbolic link
	file     fileID
	links    uint64
	err      error // why nothing but the name is known
}

// fileID is the same for all names of one file.
type fileID struct{ device, inode uint64 }

// content is what a file holds.
type content struct {
	io.Reader
	io.Closer
	// nextData goes to the next bytes at or behind an offset that may be others
	// than zeros, and returns where these begin and end; io.EOF if there are none.
	// It is nil where holes are not known.
	nextData func(offset int64) (start, end int64, err error)
}

// source is where a tree comes from.
type source interface {
	stat(ctx context.Context, path string) (entry, error) // follows no link
	list(ctx context.Context, path string) iter.Seq2[entry, error]
	open(ctx context.Context, path string, e entry) (content, error)
}

// target is where a tree goes.
type target interface {
	stat(ctx context.Context, path string) (entry, error)
	list(ctx context.Context, path string) iter.Seq2[entry, error]
	mkdir(ctx context.Context, path string) error
	remove(ctx context.Context, path string) error // a file or link; no error if there is none
	// write makes a file of what from holds, symlink a link and link another name
	// of a file. All put the new in the place of a file or link that has the name,
	// at once.
	write(ctx context.Context, j job, from content) (int64, error)
	symlink(ctx context.Context, path string, e entry) error
	link(ctx context.Context, existing, path string) error
	chmod(ctx context.Context, path string, mode fs.FileMode) error
	chtimes(ctx context.Context, path string, modified time.Time) error
	// kept is the time that a file at path has which another was set for.
	kept(path string, modified time.Time) time.Time
}

// maxQueue bounds the files that were found, but not copied yet.
const maxQueue = 1024

type copier struct {
	from    source
	to      target
	options Options
	jobs    chan job

	// The walk's own: directories in the order they were found, the first name of
	// each file that has several, and the further names.
	directories []job
	first       map[fileID]job
	further     []job

	mu     sync.Mutex      // for what failed
	failed map[string]bool // files of several names, by where they go

	counts struct{ files, bytes, skippedFiles, skippedBytes, symlinks, links, special, failed, all atomic.Int64 }
}

type job struct {
	from, to string
	entry    entry
	there    entry // what has the name already
	exists   bool
}

// instead says whether what has the name is no file of its own that could be
// written to.
func (j *job) instead() bool { return j.exists && (!j.there.mode.IsRegular() || j.there.links > 1) }

func run(ctx context.Context, from source, to target, fromPath, toPath string, o Options) (Summary, error) {
	start := time.Now()
	if o.Progress == nil {
		o.Progress = new(Progress)
	}
	if o.Workers == 0 {
		o.Workers = 16
	}
	c := &copier{from: from, to: to, options: o, jobs: make(chan job, maxQueue), first: make(map[fileID]job), failed: make(map[string]bool)}
	err := c.copyTree(ctx, fromPath, toPath)
	n := &c.counts
	return Summary{
		Files: n.files.Load(), Bytes: n.bytes.Load(), SkippedFiles: n.skippedFiles.Load(), SkippedBytes: n.skippedBytes.Load(),
		Directories: int64(len(c.directories)), Symlinks: n.symlinks.Load(), HardLinks: n.links.Load(), Special: n.special.Load(),
		Failed: n.failed.Load(), Seconds: time.Since(start).Seconds(),
	}, err
}

// copyTree copies what from names. The error is that of a single file, why
// nothing could be copied any more, or how many entries failed.
func (c *copier) copyTree(ctx context.Context, from, to string) error {
	root, err := c.from.stat(ctx, from)
	if err != nil {
		return err
	}
	there, err := c.to.stat(ctx, to)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	j := job{from: from, to: to, entry: root, there: there, exists: err == nil}
	if !root.mode.IsDir() {
		if err := c.copyOne(ctx, j); err != nil {
			c.counts.failed.Add(1)
			return err
		}
		return nil
	}
	if err := c.copyFiles(ctx, j); err != nil {
		return err
	}
	if err := c.linkFurther(ctx); err != nil {
		return err
	}
	if err := c.finishDirectories(ctx); err != nil {
		return err
	}
	if n := c.counts.failed.Load(); n > 0 {
		return fmt.Errorf("%w: %d of %d entries could not be copied", ErrIncomplete, n, c.counts.all.Load())
	}
	return nil
}

// copyOne copies a tree that is a single file or link.
func (c *copier) copyOne(ctx context.Context, j job) error {
	if j.entry.mode.IsRegular() && j.entry.size > wire.MaxInline {
		c.sweep(ctx, path.Dir(j.to))
	}
	ready, err := c.examine(ctx, j)
	switch {
	case err != nil:
		return err
	case c.counts.special.Load() > 0:
		return fmt.Errorf("copy %s: it is a %s, %w", j.from, kindOf(j.entry.mode), ErrSpecial)
	case !ready:
		return nil
	}
	return c.copyEntry(ctx, j)
}

// copyFiles walks the tree and copies all files and links but further names.
func (c *copier) copyFiles(ctx context.Context, root job) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		defer close(c.jobs)
		return c.walk(ctx, root)
	})
	for range c.options.Workers {
		group.Go(func() error {
			for j := range c.jobs {
				if err := c.keep(ctx, j, c.copyEntry(ctx, j)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return group.Wait()
}

// keep tells of a failure. It returns the error if it is one that befalls
// whatever comes next.
func (c *copier) keep(ctx context.Context, j job, err error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil || errors.Is(err, client.ErrUnavailable) {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if j.entry.links > 1 {
		c.failed[j.to] = true
	}
	c.counts.failed.Add(1)
	if c.options.Failed != nil {
		c.options.Failed(err)
	}
	return nil
}

// walk finds what there is to copy.
func (c *copier) walk(ctx context.Context, j job) error {
	c.counts.all.Add(1)
	if j.entry.err != nil {
		return c.keep(ctx, j, j.entry.err)
	}
	if j.entry.mode.IsDir() {
		below, err := c.openDirectory(ctx, j)
		if err := c.keep(ctx, j, err); err != nil {
			return err
		}
		for _, child := range below {
			if err := c.walk(ctx, child); err != nil {
				return err
			}
		}
		return nil
	}
	if j.entry.mode.IsRegular() && j.entry.links > 1 {
		if _, known := c.first[j.entry.file]; known {
			c.found(j)
			c.further = append(c.further, j)
			return nil
		}
		c.first[j.entry.file] = j
	}
	ready, err := c.examine(ctx, j)
	if err != nil || !ready {
		return c.keep(ctx, j, err)
	}
	select {
	case c.jobs <- j:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (c *copier) found(j job) {
	c.options.Progress.FoundFiles.Add(1)
	c.options.Progress.FoundBytes.Add(j.entry.size)
}

// examine says whether a file or link is to be copied.
func (c *copier) examine(ctx context.Context, j job) (ready bool, err error) {
	switch {
	case j.entry.mode.IsRegular():
		c.found(j)
		if j.exists && c.complete(j) {
			return false, c.skip(ctx, j)
		}
	case j.entry.mode&fs.ModeSymlink != 0:
		if j.exists && j.there.mode&fs.ModeSymlink != 0 && j.there.target == j.entry.target {
			c.counts.symlinks.Add(1)
			return false, nil
		}
	default:
		c.counts.special.Add(1)
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.options.LeftOut != nil {
			c.options.LeftOut(j.from)
		}
		return false, nil
	}
	if j.exists && j.there.mode.IsDir() {
		return false, fmt.Errorf("copy %s: %s exists and is a directory: remove it, or choose another name", j.from, j.to)
	}
	return true, nil
}

// complete says whether a file was copied before.
func (c *copier) complete(j job) bool {
	if !j.there.mode.IsRegular() || j.there.size != j.entry.size {
		return false
	}
	return sameTime(j.entry, j.there) || isUnusual(j.entry.modified) && c.to.kept(j.to, j.entry.modified).Equal(j.there.modified)
}

func (c *copier) skip(ctx context.Context, j job) error {
	c.done(j.entry.size)
	c.counts.skippedFiles.Add(1)
	c.counts.skippedBytes.Add(j.entry.size)
	if j.there.mode != j.entry.mode {
		return c.to.chmod(ctx, j.to, j.entry.mode)
	}
	return nil
}

func (c *copier) done(bytes int64) {
	c.options.Progress.DoneFiles.Add(1)
	c.options.Progress.DoneBytes.Add(bytes)
}

// openDirectory makes a directory and sends what is directly in it on its way.
// The directories in it are returned, for later, so that none stays open
// meanwhile.
func (c *copier) openDirectory(ctx context.Context, j job) (below []job, err error) {
	if j.exists && !j.there.mode.IsDir() {
		return nil, fmt.Errorf("copy directory %s: %s exists and is no directory: remove it, or choose another name", j.from, j.to)
	}
	if !j.exists {
		err := c.to.mkdir(ctx, j.to)
		if err != nil && !errors.Is(err, fs.ErrExist) { // another copy may have made it
			return nil, err
		}
		j.exists = err != nil
	}
	have, err := c.targetEntries(ctx, j)
	if err != nil {
		return nil, err
	}
	c.directories = append(c.directories, j)
	for e, err := range c.from.list(ctx, j.from) {
		if err != nil {
			return below, err
		}
		if isInternal(j.from, e.name) {
			continue
		}
		there, exists := have[e.name]
		child := job{from: path.Join(j.from, e.name), to: path.Join(j.to, e.name), entry: e, there: there, exists: exists}
		if e.mode.IsDir() {
			below = append(below, child)
			continue
		}
		if err := c.walk(ctx, child); err != nil {
			return nil, err
		}
	}
	return below, nil
}

// targetEntries is what a directory of the target has, without what dead copies
// have left in it.
func (c *copier) targetEntries(ctx context.Context, j job) (map[string]entry, error) {
	have := make(map[string]entry)
	if !j.exists {
		return have, nil
	}
	for e, err := range c.to.list(ctx, j.to) {
		switch {
		case err != nil:
			return nil, err
		case isAbandoned(e):
			c.to.remove(ctx, path.Join(j.to, e.name)) // another copy may have done so
		default:
			have[e.name] = e
		}
	}
	return have, nil
}

// maxSwept bounds the entries that are looked at for what dead copies have left,
// where the directory need not be read otherwise.
const maxSwept = 10_000

// sweep removes what dead copies have left in a directory.
func (c *copier) sweep(ctx context.Context, directory string) {
	looked := 0
	for e, err := range c.to.list(ctx, directory) {
		if looked++; err != nil || looked > maxSwept {
			return
		}
		if isAbandoned(e) {
			c.to.remove(ctx, path.Join(directory, e.name)) // another copy may have done so
		}
	}
}

func (c *copier) copyEntry(ctx context.Context, j job) error {
	if j.entry.mode&fs.ModeSymlink != 0 {
		if err := c.to.symlink(ctx, j.to, j.entry); err != nil {
			return fmt.Errorf("copy %s: %w", j.from, err)
		}
		c.counts.symlinks.Add(1)
		return nil
	}
	from, err := c.from.open(ctx, j.from, j.entry)
	if err != nil {
		return err
	}
	from.Reader = &countingReader{from.Reader, &c.options.Progress.DoneBytes}
	n, err := c.to.write(ctx, j, from)
	if closed := from.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return fmt.Errorf("copy %s: %w", j.from, err)
	}
	c.counts.files.Add(1)
	c.counts.bytes.Add(n)
	c.options.Progress.DoneFiles.Add(1)
	return nil
}

// linkFurther makes the further names of files. The file itself is copied again
// where its first name has failed or the target allows no more names.
func (c *copier) linkFurther(ctx context.Context) error {
	for _, j := range c.further {
		if err := c.keep(ctx, j, c.linkOne(ctx, j)); err != nil {
			return err
		}
	}
	return nil
}

func (c *copier) linkOne(ctx context.Context, j job) error {
	first := c.first[j.entry.file]
	if !c.failed[first.to] {
		err := c.nameAgain(ctx, first.to, j)
		if err == nil || !allowsNoName(err) {
			return err
		}
	}
	c.first[j.entry.file] = j
	return c.copyEntry(ctx, j)
}

// nameAgain makes j another name of a file that is there.
func (c *copier) nameAgain(ctx context.Context, existing string, j job) error {
	if j.exists && j.there.mode.IsDir() {
		return fmt.Errorf("copy %s: %s exists and is a directory: remove it, or choose another name", j.from, j.to)
	}
	file, err := c.to.stat(ctx, existing)
	if err != nil {
		return err
	}
	if !j.exists || j.there.file != file.file {
		if err := c.to.link(ctx, existing, j.to); err != nil {
			return err
		}
	}
	c.counts.links.Add(1)
	c.done(j.entry.size)
	return nil
}

// finishDirectories sets what copying into them has changed.
func (c *copier) finishDirectories(ctx context.Context) error {
	for i := len(c.directories) - 1; i >= 0; i-- {
		d := c.directories[i]
		err := c.to.chmod(ctx, d.to, d.entry.mode)
		if err == nil {
			err = c.to.chtimes(ctx, d.to, d.entry.modified)
		}
		if err := c.keep(ctx, d, err); err != nil {
			return err
		}
	}
	return nil
}

// kindOf names what the file system has no kind for.
func kindOf(mode fs.FileMode) string {
	switch {
	case mode&fs.ModeNamedPipe != 0:
		return "named pipe"
	case mode&fs.ModeSocket != 0:
		return "socket"
	case mode&fs.ModeDevice != 0:
		return "device"
	}
	return "file of an unknown kind"
}

// countingReader counts what is read.
type countingReader struct {
	io.Reader
	count *atomic.Int64
}

func (r *countingReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	r.count.Add(int64(n))
	return n, err
}
