package workload

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"waggle/experiments/spec"
)

// system is what operations are carried out on.
type system interface {
	// connect opens what one client of a trial needs.
	connect(ctx context.Context) (session, error)
	makeDirectories(ctx context.Context, paths []string) error
	counters() map[string]int64
	close() error
}

// session is one client's way to a system. It is used by one goroutine.
type session interface {
	// open opens a large file for reading, create a new one for writing.
	open(ctx context.Context, f largeFile) (file, error)
	create(ctx context.Context, f largeFile) (file, error)
	remove(ctx context.Context, f largeFile) error
	// lookup finds a small file and returns its size as far as the system knows
	// it; get returns its content, which is good until the next call.
	lookup(ctx context.Context, f smallFile) (int64, error)
	get(ctx context.Context, f smallFile) ([]byte, error)
	put(ctx context.Context, f smallFile, content []byte) error
	// removeAll removes a directory and what is in it.
	removeAll(ctx context.Context, directory string) error
	close() error
}

// file is an open large file.
type file interface {
	readAt(ctx context.Context, b []byte, offset int64) error
	writeAt(ctx context.Context, b []byte, offset int64) error
	// close makes what was written durable.
	close(ctx context.Context) error
}

// largeFile names one file of a set.
type largeFile struct {
	set    string // a directory
	number uint32
}

// smallFile names a small file: one of the directory's many, some directories
// down.
type smallFile struct {
	set    string
	client int // whose it is, in a set that several clients write
	number int
	depth  int // directories above the file, the set included
}

// spread is how many directories the files of a set are spread over.
const spread = 64

// directory is where the file lies: below the set's directory, as deep as it
// asks for.
func (f smallFile) directory() string {
	path := "/" + f.set
	if f.depth == 1 {
		return path
	}
	return path + strings.Repeat("/d", f.depth-2) + fmt.Sprintf("/d%02d", f.number%spread)
}

// smallDirectories are those that hold the small files of a set.
func smallDirectories(set string, depth int) (paths []string) {
	for n := range spread {
		paths = append(paths, smallFile{set: set, number: n, depth: depth}.directory())
	}
	return slices.Compact(paths)
}

func (f smallFile) path() string {
	return fmt.Sprintf("%s/c%d-%d", f.directory(), f.client, f.number)
}

func (f smallFile) source() source {
	return source{file: uint64(f.client)<<32 | uint64(f.number), generation: 1}
}

func (f largeFile) path() string { return fmt.Sprintf("/%s/%d", f.set, f.number) }

// dataSet names the directory of the data set that a job reads. Jobs that
// would write the same one share it.
func (j *Job) dataSet() string {
	p := j.Parameters
	switch p.Workload {
	case spec.SmallRead, spec.Lookup:
		return fmt.Sprintf("small-%d-%d-%d-%d", p.SizeBytes, p.Files, p.Depth, p.Replication)
	default:
		return fmt.Sprintf("large-%d-%d-%d-%d", p.FileBytes, p.Files, p.ChunkBytes, p.Replication)
	}
}

// written names the directory of what the job's trial writes.
func (j *Job) written() string { return fmt.Sprintf("trial-%d", j.Trial) }

// open opens what the job's operations are carried out on.
func (j *Job) open(ctx context.Context, p *pattern) (system, error) {
	if j.Parameters.Workload == spec.HTTPGet {
		return httpSystem{j.Gateway, j.Parameters.FileBytes}, nil
	}
	return j.openStore(ctx, p)
}

// openStore opens what the job's data set is written to.
func (j *Job) openStore(ctx context.Context, p *pattern) (system, error) {
	switch {
	case j.Parameters.OnFloor():
		return &floorSystem{j, p}, nil
	case j.Origin != "":
		return httpSystem{j.Origin, j.Parameters.FileBytes}, nil
	}
	return openDFS(ctx, j)
}
