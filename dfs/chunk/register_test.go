package chunk

import (
	"context"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"waggle/dfs/wire/control"
)

// fakeMeta is the part of a metadata server that chunk servers talk to.
type fakeMeta struct {
	control.UnimplementedMetaServer
	mu         sync.Mutex
	cluster    string
	registered []*control.RegisterRequest
	reported   map[uint64]bool
	delete     []uint64
	beats      []*control.HeartbeatRequest
	again      bool // answer the next heartbeat so
	corrupt    []*control.CorruptRequest
	refuse     error
}

func (m *fakeMeta) Register(_ context.Context, q *control.RegisterRequest) (*control.RegisterReply, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.registered = append(m.registered, q)
	m.reported = make(map[uint64]bool)
	return &control.RegisterReply{Cluster: []byte(m.cluster), Server: 5, HeartbeatMs: 20, LeaseMs: 60_000}, m.refuse
}

func (m *fakeMeta) ReportReplicas(_ context.Context, q *control.ReplicaReport) (*control.ReplicaVerdict, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range q.Replicas {
		m.reported[r.Chunk] = true
	}
	if q.Last {
		return &control.ReplicaVerdict{Delete: m.delete}, nil
	}
	return &control.ReplicaVerdict{}, nil
}

func (m *fakeMeta) Heartbeat(_ context.Context, q *control.HeartbeatRequest) (*control.HeartbeatReply, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.beats = append(m.beats, q)
	again := m.again
	m.again = false
	return &control.HeartbeatReply{RegisterAgain: again}, nil
}

func (m *fakeMeta) ReportCorrupt(_ context.Context, q *control.CorruptRequest) (*control.Empty, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.corrupt = append(m.corrupt, q)
	return &control.Empty{}, nil
}

// serve serves on address, or a new one, until stop is called.
func (m *fakeMeta) serve(t *testing.T, address string) (at string, stop func()) {
	t.Helper()
	l, err := net.Listen("tcp", address)
	require.NoError(t, err)
	rpc := grpc.NewServer()
	control.RegisterMetaServer(rpc, m)
	go rpc.Serve(l)
	t.Cleanup(rpc.Stop)
	return l.Addr().String(), rpc.Stop
}

// eventually waits until the condition holds under m's lock.
func (m *fakeMeta) eventually(t *testing.T, condition func() bool) {
	t.Helper()
	require.Eventually(t, func() bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		return condition()
	}, 20*time.Second, 5*time.Millisecond)
}

func TestRegistration(t *testing.T) {
	m := &fakeMeta{cluster: "hive"}
	address, stop := m.serve(t, "127.0.0.1:0")
	s := start(t, Config{Directory: t.TempDir(), Meta: address})
	m.eventually(t, func() bool { return len(m.beats) > 1 })
	m.mu.Lock()
	first, beat := m.registered[0], m.beats[0]
	m.mu.Unlock()
	require.Empty(t, first.Cluster)
	require.Zero(t, first.Server)
	require.Equal(t, s.DataAddress(), first.DataAddress)
	require.Equal(t, s.ControlAddress(), first.ControlAddress)
	require.EqualValues(t, 5, beat.Server)
	require.Positive(t, beat.FreeBytes)
	require.GreaterOrEqual(t, beat.CapacityBytes, beat.FreeBytes)

	// More than one report's worth; the metadata server does not want two of them.
	for id := range uint64(reportBatch + 10) {
		_, err := s.store.Create(id+1, epoch)
		require.NoError(t, err)
	}
	m.mu.Lock()
	m.delete, m.again = []uint64{7, 9, 1 << 60}, true
	m.mu.Unlock()
	m.eventually(t, func() bool { return len(m.registered) == 2 && len(m.reported) == reportBatch+10 })
	require.Eventually(t, func() bool { return s.store.Count() == reportBatch+8 }, 20*time.Second, 5*time.Millisecond)
	m.eventually(t, func() bool { return m.beats[len(m.beats)-1].Replicas == reportBatch+8 })

	// The metadata server goes away, and comes back without its memory.
	stop()
	time.Sleep(50 * time.Millisecond)
	m.mu.Lock()
	m.again, m.delete = true, nil
	m.mu.Unlock()
	m.serve(t, address)
	m.eventually(t, func() bool { return len(m.registered) == 3 })

	s.reportCorrupt(8, 4096)
	m.eventually(t, func() bool { return len(m.corrupt) == 1 })
	require.Equal(t, (&control.CorruptRequest{Chunk: 8, Server: 5, Offset: 4096}).String(), m.corrupt[0].String())

	require.NoError(t, s.stop())
	s = s.restart(t)
	m.eventually(t, func() bool { return len(m.registered) == 4 })
	require.Equal(t, "hive", string(m.registered[3].Cluster))
	require.EqualValues(t, 5, m.registered[3].Server)
	require.NoError(t, s.stop())
}

func TestAWrongClusterIsRefused(t *testing.T) {
	m := &fakeMeta{cluster: "hive"}
	address, _ := m.serve(t, "127.0.0.1:0")
	s := start(t, Config{Meta: address})
	m.eventually(t, func() bool { return len(m.beats) > 0 })
	require.NoError(t, s.stop())

	m.cluster = "another"
	serve := func() error {
		again, err := New(s.config)
		require.NoError(t, err)
		return again.Serve(t.Context())
	}
	require.ErrorIs(t, serve(), errWrongCluster)
	m.cluster, m.refuse = "hive", status.Error(codes.FailedPrecondition, "the number is taken")
	require.ErrorContains(t, serve(), "the number is taken")
}

func TestTheServerStartsBeforeTheMetadataServer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	address := l.Addr().String()
	require.NoError(t, l.Close())
	start(t, Config{Meta: address})
	time.Sleep(100 * time.Millisecond)
	m := &fakeMeta{cluster: "hive"}
	m.serve(t, address)
	m.eventually(t, func() bool { return len(m.beats) > 0 })
}

func TestScrubFindsDamage(t *testing.T) {
	directory := t.TempDir()
	s := start(t, Config{Directory: directory})
	_, err := s.store.Create(chunk, epoch)
	require.NoError(t, err)
	c := dial(t, s)
	requireOK(t, c.write(1, 0, pattern(1, 1<<20), nil))
	r, err := s.store.Get(chunk)
	require.NoError(t, err)
	require.NoError(t, r.Sync()) // so that the start does not look for damage already
	s.damage(t, 700_000)
	require.NoError(t, s.stop())

	m := &fakeMeta{cluster: "hive"}
	address, _ := m.serve(t, "127.0.0.1:0")
	s = start(t, Config{Directory: directory, Meta: address, ScrubRate: 64 << 20})
	m.eventually(t, func() bool { return len(m.corrupt) == 1 })
	require.EqualValues(t, 700_000/4096*4096, m.corrupt[0].Offset)
	require.EqualValues(t, 1, s.count("chunk_corrupt_blocks"))
}

func TestConfigurationsThatCanNotWork(t *testing.T) {
	directory := t.TempDir()
	log := slog.New(slog.DiscardHandler)
	s := start(t, Config{Directory: directory})
	_, err := New(Config{Directory: directory, Log: log})
	require.ErrorContains(t, err, "in use by another chunk server")
	_, err = New(Config{Directory: t.TempDir(), DataAddress: s.DataAddress(), Log: log})
	require.ErrorContains(t, err, "listen for data")
	_, err = New(Config{Directory: t.TempDir(), DataAddress: "0.0.0.0:0", Log: log})
	require.ErrorContains(t, err, "which IP address to advertise")

	for _, content := range []string{"", "{", `{"server":3}`, `[]`, string(make([]byte, maxIdentitySize+1))} {
		damaged := t.TempDir()
		require.NoError(t, os.WriteFile(filepath.Join(damaged, identityName), []byte(content), 0o644))
		_, err = New(Config{Directory: damaged, Log: log})
		require.ErrorContains(t, err, "or use a new data directory")
	}

	all, err := New(Config{Directory: t.TempDir(), DataAddress: "0.0.0.0:0", ControlAddress: "0.0.0.0:0", Advertise: "127.0.0.1", Log: log})
	require.NoError(t, err)
	require.Regexp(t, `^127\.0\.0\.1:`, all.DataAddress())
	require.NoError(t, all.Close())
}
