package workload

import (
	"context"
	"errors"

	"waggle/dfs/wire"
	"waggle/experiments/floor"
	"waggle/experiments/spec"
)

// floorSystem is the floor control: a bare connection for large files, an echo
// for small ones and lookups, from a process or from the network driver.
type floorSystem struct {
	job     *Job
	pattern *pattern
}

func (s *floorSystem) counters() map[string]int64 { return nil }
func (s *floorSystem) close() error               { return nil }

func (s *floorSystem) makeDirectories(context.Context, []string) error { return nil }

func (s *floorSystem) connect(ctx context.Context) (session, error) {
	switch s.job.Parameters.Workload {
	case spec.SmallRead:
		return s.dialEcho(wire.InlineRequestSize, wire.AnswerSize+int(s.job.Parameters.SizeBytes))
	case spec.Lookup:
		return s.dialEcho(wire.RequestSize, wire.AnswerSize)
	}
	conn, err := floor.Dial(ctx, s.job.FloorTCP)
	if err != nil {
		return nil, err
	}
	return &floorSession{written: s.job.written(), conn: conn}, nil
}

// errNotOnFloor can't be seen: package spec refuses such cells.
var errNotOnFloor = errors.New("the floor control can't do this")

type noSmallFiles struct{}

func (noSmallFiles) lookup(context.Context, smallFile) (int64, error) { return 0, errNotOnFloor }
func (noSmallFiles) get(context.Context, smallFile) ([]byte, error)   { return nil, errNotOnFloor }
func (noSmallFiles) put(context.Context, smallFile, []byte) error     { return errNotOnFloor }
func (noSmallFiles) removeAll(context.Context, string) error          { return nil }

// floorSession is one connection.
type floorSession struct {
	noSmallFiles
	written string // the set that the trial writes; any other one is a data set
	conn    *floor.Conn
}

func (s *floorSession) close() error { return s.conn.Close() }

// Files have numbers here, and no directories. Those that a trial writes are
// behind those of data sets, which all begin with the same content.
const firstWritten = 1 << 19

func (s *floorSession) number(f largeFile) uint32 {
	if f.set == s.written {
		return firstWritten + f.number
	}
	return f.number
}

func (s *floorSession) open(_ context.Context, f largeFile) (file, error) {
	return &floorFile{s.conn, s.number(f)}, nil
}

func (s *floorSession) create(ctx context.Context, f largeFile) (file, error) { return s.open(ctx, f) }

func (s *floorSession) remove(_ context.Context, f largeFile) error {
	return s.conn.Remove(s.number(f))
}

type floorFile struct {
	conn   *floor.Conn
	number uint32
}

func (f *floorFile) readAt(ctx context.Context, b []byte, offset int64) error {
	defer context.AfterFunc(ctx, func() { f.conn.Close() })()
	return f.conn.Read(f.number, b, offset)
}

func (f *floorFile) writeAt(ctx context.Context, b []byte, offset int64) error {
	defer context.AfterFunc(ctx, func() { f.conn.Close() })()
	return f.conn.Write(f.number, b, offset)
}

func (f *floorFile) close(context.Context) error { return f.conn.Sync(f.number) }

// echoSession sends datagrams of the size of a lookup's request, and gets back
// as many bytes as its answer has.
type echoSession struct {
	noLargeFiles
	echo    *floor.Echo
	pattern *pattern
	size    int // bytes of a small file
}

func (s *floorSystem) dialEcho(request, answer int) (session, error) {
	echo, err := floor.DialEcho(s.job.FloorUDP, request, answer, s.job.Parameters.ClientSpin)
	if err != nil {
		return nil, err
	}
	return &echoSession{echo: echo, pattern: s.pattern, size: int(s.job.Parameters.SizeBytes)}, nil
}

func (s *echoSession) close() error { return s.echo.Close() }

func (s *echoSession) get(ctx context.Context, f smallFile) ([]byte, error) {
	answer, err := s.echo.Do(ctx, s.pattern.piece(f.source(), 0, s.size))
	if err != nil {
		return nil, err
	}
	return answer[:s.size], nil
}

func (s *echoSession) lookup(ctx context.Context, f smallFile) (int64, error) {
	answer, err := s.echo.Do(ctx, s.pattern.piece(f.source(), 0, wire.AnswerSize))
	if err != nil {
		return 0, err
	}
	return int64(s.size), s.pattern.check(f.source(), 0, answer)
}

func (s *echoSession) put(context.Context, smallFile, []byte) error { return errNotOnFloor }
func (s *echoSession) removeAll(context.Context, string) error      { return nil }

type noLargeFiles struct{}

func (noLargeFiles) open(context.Context, largeFile) (file, error)   { return nil, errNotOnFloor }
func (noLargeFiles) create(context.Context, largeFile) (file, error) { return nil, errNotOnFloor }
func (noLargeFiles) remove(context.Context, largeFile) error         { return errNotOnFloor }
