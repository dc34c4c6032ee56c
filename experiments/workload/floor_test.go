package workload

import (
	"context"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"waggle/experiments/floor"
	"waggle/experiments/spec"
	"waggle/results"
)

// generating starts a load generator and a floor control that keeps its files
// in the directory.
func generating(t *testing.T) (*Generator, *floor.Server, string) {
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(context.Background())
	server, err := floor.Listen(ctx, netip.MustParseAddr("127.0.0.1"), dir)
	require.NoError(t, err)
	requests, input := io.Pipe()
	output, answers := io.Pipe()
	served, generated := make(chan error, 1), make(chan error, 1)
	go func() { served <- server.Serve(ctx) }()
	go func() { generated <- Serve(ctx, requests, answers) }()
	t.Cleanup(func() {
		input.Close()
		require.NoError(t, <-generated)
		cancel()
		require.NoError(t, <-served)
	})
	return NewGenerator(input, output), server, dir
}

func floorJob(kind string, s *floor.Server) *Job {
	p := spec.Parameters{Workload: kind, SizeBytes: 4096, FileBytes: 1 << 20, Files: 3, Depth: 2, Clients: 2, Read: "copy", Write: "chain", Lookup: "udp", HitPercent: 100}
	switch kind {
	case spec.SequentialRead, spec.RandomRead:
		p.Read = spec.Floor
	case spec.SequentialWrite, spec.RandomWrite:
		p.Write = spec.Floor
	default:
		p.Lookup, p.SizeBytes = spec.Floor, 1000
	}
	return &Job{Parameters: p, Seed: 5, Trial: 9, WarmUp: 5 * time.Millisecond, Operations: 1000,
		FloorTCP: s.TCPAddress().String(), FloorUDP: s.UDPAddress().String()}
}

func carryOut(t *testing.T, g *Generator, j *Job) (Result, error) {
	if j.DataSet() != "" {
		require.NoError(t, g.Prepare(t.Context(), j))
	}
	if err := g.Begin(t.Context(), j); err != nil {
		return Result{}, err
	}
	if err := g.Measure(t.Context()); err != nil {
		return Result{}, err
	}
	return g.Finish(t.Context())
}

func TestEveryKindOnTheFloor(t *testing.T) {
	g, server, dir := generating(t)
	for _, kind := range []string{spec.SequentialRead, spec.RandomRead, spec.SequentialWrite, spec.RandomWrite, spec.SmallRead, spec.Lookup} {
		for _, rate := range []float64{0, 20000} {
			t.Run(kind, func(t *testing.T) {
				j := floorJob(kind, server)
				j.Parameters.Rate = rate
				got, err := carryOut(t, g, j)
				require.NoError(t, err)
				require.Equal(t, int64(1000), got.Operations)
				require.Positive(t, got.Seconds)
				h, err := results.DecodeHistogram(got.Histogram)
				require.NoError(t, err)
				require.NotNil(t, h)
				switch kind {
				case spec.Lookup:
					require.Zero(t, got.Bytes)
				case spec.SmallRead:
					require.Equal(t, int64(1000*1000), got.Bytes)
					require.GreaterOrEqual(t, got.Verified, got.Bytes, "every byte, those of the warm-up too")
				default:
					require.Equal(t, int64(1000*4096), got.Bytes)
				}
				if kind == spec.SequentialRead || kind == spec.RandomRead {
					require.GreaterOrEqual(t, got.Verified, got.Bytes)
				}
			})
		}
	}
	written, err := filepath.Glob(filepath.Join(dir, "5*"))
	require.NoError(t, err)
	require.Empty(t, written, "what trials wrote is removed")
}

func TestFlippedByteIsFound(t *testing.T) {
	g, server, dir := generating(t)
	j := floorJob(spec.SequentialRead, server)
	require.NoError(t, g.Prepare(t.Context(), j))
	f, err := os.OpenFile(filepath.Join(dir, "1"), os.O_RDWR, 0)
	require.NoError(t, err)
	defer f.Close()
	b := make([]byte, 1)
	_, err = f.ReadAt(b, 700_000)
	require.NoError(t, err)
	_, err = f.WriteAt([]byte{b[0] ^ 1}, 700_000)
	require.NoError(t, err)
	j.WarmUp = 0
	require.NoError(t, g.Begin(t.Context(), j))
	err = g.Measure(t.Context())
	require.ErrorContains(t, err, "wrong content: file 1, byte 700000 is")
	_, err = g.Finish(t.Context())
	require.ErrorContains(t, err, "needs a trial that was begun")
}

func TestFlippedByteOfAWriteIsFound(t *testing.T) {
	g, server, dir := generating(t)
	j := floorJob(spec.SequentialWrite, server)
	j.Operations = 1 << 20 / 4096 // once over the file of one client
	j.Parameters.Clients, j.WarmUp = 1, 0
	require.NoError(t, g.Begin(t.Context(), j))
	require.NoError(t, g.Measure(t.Context()))
	files, err := filepath.Glob(filepath.Join(dir, "5*"))
	require.NoError(t, err)
	require.Len(t, files, 1)
	data, err := os.ReadFile(files[0])
	require.NoError(t, err)
	data[123] ^= 0x80
	require.NoError(t, os.WriteFile(files[0], data, 0o600))
	_, err = g.Finish(t.Context())
	require.ErrorContains(t, err, "read back: wrong content: file 1099511627776, byte 123 is")
}

func TestGeneratorThatIsGone(t *testing.T) {
	requests, input := io.Pipe()
	requests.Close()
	output, answers := io.Pipe()
	answers.Close()
	g := NewGenerator(input, output)
	require.ErrorIs(t, g.Measure(t.Context()), ErrGone)
}

func TestCallsEndWithTheirContext(t *testing.T) {
	output, answers, err := os.Pipe()
	require.NoError(t, err)
	defer answers.Close()
	defer output.Close()
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(10*time.Millisecond, cancel)
	require.ErrorIs(t, NewGenerator(io.Discard, output).Measure(ctx), context.Canceled)
}

func TestSmallFilesAreSpreadAndAsDeepAsAsked(t *testing.T) {
	f := smallFile{set: "s", client: 2, number: 65, depth: 1}
	require.Equal(t, "/s/c2-65", f.path())
	f.depth = 2
	require.Equal(t, "/s/d01/c2-65", f.path())
	f.depth = 4
	require.Equal(t, "/s/d/d/d01/c2-65", f.path())
	require.Equal(t, []string{"/s"}, smallDirectories("s", 1))
	require.Len(t, smallDirectories("s", 2), spread)
}
