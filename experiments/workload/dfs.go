package workload

import (
	"context"
	"fmt"
	"os"

	dfs "waggle/dfs/client"
)

// dfsSystem is the file system, through one client library for all clients of
// a trial.
type dfsSystem struct{ client *dfs.Client }

func openDFS(ctx context.Context, j *Job) (system, error) {
	c, err := dfs.Dial(ctx, j.Meta, dfs.Options{
		Name: "load", ReadPath: j.Parameters.Read, WritePath: j.Parameters.Write,
		ChunkSize: uint32(j.Parameters.ChunkBytes), Replication: uint32(j.Parameters.Replication),
		MaxConnections: max(64, j.Parameters.Clients), SpinLookups: j.Parameters.ClientSpin,
	})
	if err != nil {
		return nil, err
	}
	return &dfsSystem{c}, nil
}

func (s *dfsSystem) connect(context.Context) (session, error) { return dfsSession{s.client}, nil }
func (s *dfsSystem) counters() map[string]int64               { return s.client.Counters().Snapshot() }
func (s *dfsSystem) close() error                             { return s.client.Close() }

func (s *dfsSystem) makeDirectories(ctx context.Context, paths []string) error {
	for _, path := range paths {
		if err := s.client.MkdirAll(ctx, path, 0o755); err != nil {
			return fmt.Errorf("make a directory of the workload: %w", err)
		}
	}
	return nil
}

// dfsSession has nothing of its own: connections belong to the library.
type dfsSession struct{ client *dfs.Client }

func (s dfsSession) close() error { return nil }

func (s dfsSession) open(ctx context.Context, f largeFile) (file, error) {
	opened, err := s.client.Open(ctx, f.path())
	return dfsFile{opened}, err
}

func (s dfsSession) create(ctx context.Context, f largeFile) (file, error) {
	made, err := s.client.OpenFile(ctx, f.path(), os.O_RDWR|os.O_CREATE|os.O_TRUNC, dfs.FileOptions{Mode: 0o644})
	return dfsFile{made}, err
}

func (s dfsSession) remove(ctx context.Context, f largeFile) error {
	return s.client.Remove(ctx, f.path())
}

func (s dfsSession) lookup(ctx context.Context, f smallFile) (int64, error) {
	info, err := s.client.Stat(ctx, f.path())
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

func (s dfsSession) get(ctx context.Context, f smallFile) ([]byte, error) {
	return s.client.ReadFile(ctx, f.path())
}

func (s dfsSession) put(ctx context.Context, f smallFile, content []byte) error {
	return s.client.WriteFile(ctx, f.path(), content, 0o644)
}

func (s dfsSession) removeAll(ctx context.Context, directory string) error {
	return s.client.RemoveAll(ctx, directory)
}

// dfsFile's calls end with the context that it was opened with.
type dfsFile struct{ file *dfs.File }

func (f dfsFile) readAt(_ context.Context, b []byte, offset int64) error {
	_, err := f.file.ReadAt(b, offset)
	return err
}

func (f dfsFile) writeAt(_ context.Context, b []byte, offset int64) error {
	_, err := f.file.WriteAt(b, offset)
	return err
}

func (f dfsFile) close(context.Context) error { return f.file.Close() }
