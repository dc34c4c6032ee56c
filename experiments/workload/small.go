package workload

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"math/rand/v2"

	"waggle/experiments/spec"
)

// smallReader reads, or only looks up, small files of a data set, chosen at
// random.
type smallReader struct {
	job     *Job
	pattern *pattern
	session session
	random  *rand.Rand

	last     smallFile
	content  []byte // of the last file, unless it was only looked up
	size     int64
	verified int64
}

func newSmallReader(j *Job, p *pattern, s session, number int) *smallReader {
	return &smallReader{job: j, pattern: p, session: s, random: j.random(number)}
}

func (r *smallReader) do(ctx context.Context) (n int, err error) {
	r.last = r.job.dataFile(r.random.IntN(r.job.Parameters.Files))
	if r.random.IntN(100) >= r.job.Parameters.HitPercent {
		return 0, r.lookUpNothing(ctx)
	}
	if r.job.Parameters.Workload == spec.Lookup {
		if r.size, err = r.session.lookup(ctx, r.last); err != nil {
			return 0, fmt.Errorf("look up %s: %w", r.last.path(), err)
		}
		return 0, nil
	}
	if r.content, err = r.session.get(ctx, r.last); err != nil {
		return 0, fmt.Errorf("read %s: %w", r.last.path(), err)
	}
	r.size = int64(len(r.content))
	return len(r.content), nil
}

// lookUpNothing looks up a name that nobody has asked for before, and that
// nothing has.
func (r *smallReader) lookUpNothing(ctx context.Context) error {
	nothing := r.job.dataFile(r.job.Parameters.Files + r.random.IntN(math.MaxInt64>>1))
	r.content, r.size = nil, r.job.Parameters.SizeBytes
	if _, err := r.session.lookup(ctx, nothing); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: look up %s, which does not exist: %v", errWrongContent, nothing.path(), err)
	}
	return nil
}

func (r *smallReader) check() error {
	if r.size != r.job.Parameters.SizeBytes {
		return fmt.Errorf("%w: %s has %d bytes, not %d", errWrongContent, r.last.path(), r.size, r.job.Parameters.SizeBytes)
	}
	r.verified += int64(len(r.content))
	return r.pattern.check(r.last.source(), 0, r.content)
}

func (r *smallReader) finish(context.Context) (int64, error) { return r.verified, nil }

// dataFile is a small file of the job's data set.
func (j *Job) dataFile(number int) smallFile {
	return smallFile{set: j.dataSet(), number: number, depth: j.Parameters.Depth}
}

// smallCreator makes new small files.
type smallCreator struct {
	job     *Job
	pattern *pattern
	session session
	number  int
	created int
}

func (c *smallCreator) file(n int) smallFile {
	return smallFile{set: c.job.written(), client: c.number, number: n, depth: c.job.Parameters.Depth}
}

func (c *smallCreator) do(ctx context.Context) (int, error) {
	f := c.file(c.created)
	content := c.pattern.piece(f.source(), 0, int(c.job.Parameters.SizeBytes))
	if err := c.session.put(ctx, f, content); err != nil {
		return 0, fmt.Errorf("create %s: %w", f.path(), err)
	}
	c.created++
	return len(content), nil
}

func (c *smallCreator) check() error { return nil } // finish reads everything back

func (c *smallCreator) finish(ctx context.Context) (verified int64, err error) {
	for n := range c.created {
		f := c.file(n)
		content, err := c.session.get(ctx, f)
		if err != nil {
			return verified, fmt.Errorf("read back %s: %w", f.path(), err)
		}
		if !bytes.Equal(content, c.pattern.piece(f.source(), 0, int(c.job.Parameters.SizeBytes))) {
			return verified, fmt.Errorf("read back %s: %w", f.path(), errWrongContent)
		}
		verified += int64(len(content))
	}
	return verified, nil
}
