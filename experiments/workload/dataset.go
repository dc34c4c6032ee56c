package workload

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"waggle/dfs/wire"
	"waggle/experiments/spec"
)

// writers is how many files of a data set are written at once.
const writers = 16

// DataSet names what Prepare makes for a job; jobs of the same name share it.
// It is "" for a job that needs none.
func (j *Job) DataSet() string {
	if j.writes() || j.Parameters.OnFloor() && j.small() {
		return ""
	}
	switch {
	case j.Parameters.OnFloor():
		return "floor-" + j.dataSet()
	case j.Origin != "":
		return "origin-" + j.dataSet()
	}
	return j.dataSet()
}

func (j *Job) small() bool {
	return j.Parameters.Workload == spec.SmallRead || j.Parameters.Workload == spec.Lookup
}

// prepare writes a job's data set. What an earlier attempt left is overwritten.
func prepare(ctx context.Context, j *Job, p *pattern) (err error) {
	s, err := j.openStore(ctx, p)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	directories := []string{"/" + j.dataSet()}
	if j.small() {
		directories = smallDirectories(j.dataSet(), j.Parameters.Depth)
	}
	if err := s.makeDirectories(ctx, directories); err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	var next atomic.Int64
	for range min(writers, j.Parameters.Files) {
		group.Go(func() error { return prepareSome(ctx, j, p, s, &next) })
	}
	return group.Wait()
}

// prepareSome writes files until none is left.
func prepareSome(ctx context.Context, j *Job, p *pattern, s system, next *atomic.Int64) (err error) {
	session, err := s.connect(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, session.close()) }()
	for {
		n := int(next.Add(1) - 1)
		if n >= j.Parameters.Files {
			return nil
		}
		if j.small() {
			f := j.dataFile(n)
			err = session.put(ctx, f, p.piece(f.source(), 0, int(j.Parameters.SizeBytes)))
		} else {
			err = prepareLarge(ctx, j, p, session, largeFile{j.dataSet(), uint32(n)})
		}
		if err != nil {
			return fmt.Errorf("write file %d of the data set: %w", n, err)
		}
	}
}

func prepareLarge(ctx context.Context, j *Job, p *pattern, s session, name largeFile) error {
	f, err := s.create(ctx, name)
	if err != nil {
		return err
	}
	for offset := int64(0); offset < j.Parameters.FileBytes; offset += wire.MaxData {
		n := int(min(wire.MaxData, j.Parameters.FileBytes-offset))
		if err := f.writeAt(ctx, p.piece(source{file: uint64(name.number)}, offset, n), offset); err != nil {
			return err
		}
	}
	return f.close(ctx)
}
