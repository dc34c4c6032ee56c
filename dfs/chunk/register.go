package chunk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"waggle/dfs/chunk/replica"
	"waggle/dfs/datapath/read/shortcircuit"
	"waggle/dfs/wire/control"
)

const (
	minBackoff   = 50 * time.Millisecond
	maxBackoff   = 3 * time.Second
	callTimeout  = 10 * time.Second
	minHeartbeat = 10 * time.Millisecond
	maxHeartbeat = time.Minute
	reportBatch  = 2048 // replicas
)

// corruptBlock is a block that does not match its checksum, or a replica that can't
// be counted on at all.
type corruptBlock struct {
	chunk, offset uint64
	failing       bool
}

// reportCorrupt has the metadata server told of a corrupt block. It does not
// wait: what is not told now is found again.
func (s *Server) reportCorrupt(chunk, offset uint64) {
	s.Counters().Counter("chunk_corrupt_blocks").Add(1)
	select {
	case s.corrupt <- corruptBlock{chunk: chunk, offset: offset}:
	default:
	}
}

// reportFailing has the metadata server told of a replica that the disk could not
// read or sync, if that is why a request has failed: a new replica is made, and this
// one dropped.
func (s *Server) reportFailing(chunk uint64, why error) {
	if !errors.Is(why, unix.EIO) && !errors.Is(why, replica.ErrDoubtful) {
		return
	}
	s.Counters().Counter("chunk_failing_replicas").Add(1)
	select {
	case s.corrupt <- corruptBlock{chunk: chunk, failing: true}:
	default:
	}
}

// keepRegistered registers with the metadata server and sends it heartbeats,
// for as long as ctx lasts and however often it is away. It fails only if the
// metadata server does not want this server.
//
// When the server has stopped serving it says so, since writers would have to wait
// otherwise until its lease has lapsed.
func (s *Server) keepRegistered(ctx context.Context, stopped <-chan struct{}) error {
	if s.config.Meta == "" {
		return nil
	}
	conn, err := grpc.NewClient(s.config.Meta, control.DialOptions(callTimeout)...)
	if err != nil {
		return fmt.Errorf("metadata server's address %q: %w", s.config.Meta, err)
	}
	defer conn.Close()
	meta := control.NewMetaClient(conn)
	retry := backoff{}
	for ctx.Err() == nil {
		terms, err := s.register(ctx, meta)
		switch {
		case err == nil:
			retry = backoff{}
			s.beat(ctx, meta, terms)
		case refused(err):
			return fmt.Errorf("metadata server %s refuses this chunk server: %w", s.config.Meta, err)
		default:
			if retry.wait == 0 {
				s.log.Warn("can't register, trying again", "meta", s.config.Meta, "error", err)
			}
			retry.pause(ctx)
		}
	}
	<-stopped
	s.sayGoodbye(meta)
	return nil
}

// leaveTime bounds the last words of a server.
const leaveTime = time.Second

func (s *Server) sayGoodbye(meta control.MetaClient) {
	if s.identity.Server == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), leaveTime)
	defer cancel()
	if _, err := meta.Heartbeat(ctx, &control.HeartbeatRequest{Server: s.identity.Server, Leaving: true}); err != nil {
		s.log.Debug("can't tell the metadata server that this one stops", "meta", s.config.Meta, "error", err)
	}
}

// refused says whether trying again is of no use.
func refused(err error) bool {
	switch status.Code(err) {
	case codes.InvalidArgument, codes.FailedPrecondition, codes.PermissionDenied, codes.AlreadyExists, codes.Unimplemented:
		return true
	}
	return errors.Is(err, errWrongCluster)
}

var errWrongCluster = errors.New("data directory belongs to another cluster or server")

// backoff waits longer each time.
type backoff struct{ wait time.Duration }

func (b *backoff) pause(ctx context.Context) {
	b.wait = min(max(2*b.wait, minBackoff), maxBackoff)
	sleep(ctx, b.wait/2+rand.N(b.wait/2))
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// terms are how often to send a heartbeat, and for how long the server may serve
// after one.
type terms struct{ every, lease time.Duration }

// register tells the metadata server about this server and all its replicas. From
// before that until the answer nothing is served.
func (s *Server) register(ctx context.Context, meta control.MetaClient) (terms, error) {
	s.lease.close()
	var err error
	if s.identity, err = s.identity.withNonce(s.config.Directory); err != nil {
		return terms{}, err
	}
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	reply, err := meta.Register(call, &control.RegisterRequest{Cluster: s.identity.Cluster, Server: s.identity.Server, Nonce: s.identity.Nonce,
		DataAddress: s.DataAddress(), ControlAddress: s.ControlAddress(), Incarnation: s.incarnation})
	if err != nil {
		return terms{}, err
	}
	if err := s.takeIdentity(identity{Nonce: s.identity.Nonce, Cluster: reply.Cluster, Server: reply.Server}); err != nil {
		return terms{}, err
	}
	given := terms{every: min(max(time.Duration(reply.HeartbeatMs)*time.Millisecond, minHeartbeat), maxHeartbeat),
		lease: time.Duration(reply.LeaseMs) * time.Millisecond}
	if err := s.reportReplicas(ctx, meta, given); err != nil {
		return terms{}, err
	}
	s.log.Info("registered", "meta", s.config.Meta, "server", s.identity.Server, "replicas", s.store.Count())
	return given, nil
}

func (s *Server) takeIdentity(given identity) error {
	if s.identity.Server != 0 {
		if s.identity.Server != given.Server || !bytes.Equal(s.identity.Cluster, given.Cluster) {
			return fmt.Errorf("%w: it is server %d of %x, and was called server %d of %x: use the right metadata server or a new data directory",
				errWrongCluster, s.identity.Server, s.identity.Cluster, given.Server, given.Cluster)
		}
		return nil
	}
	if err := given.write(s.config.Directory); err != nil {
		return err
	}
	s.identity = given
	return nil
}

// reportReplicas tells which replicas there are and deletes those that nobody
// needs. Then the server serves, but for those that may be behind.
func (s *Server) reportReplicas(ctx context.Context, meta control.MetaClient, given terms) error {
	ids := s.store.IDs()
	var fences []*control.Fence
	for {
		n := min(len(ids), reportBatch)
		report := &control.ReplicaReport{Server: s.identity.Server, Last: n == len(ids), Fresh: !s.served}
		for _, id := range ids[:n] {
			if r, err := s.store.Get(id); err == nil {
				state := stateMessage(r.State())
				state.Fenced = s.lease.isFenced(r.State())
				report.Replicas = append(report.Replicas, state)
			}
		}
		sent := shortcircuit.Now()
		verdict, err := s.report(ctx, meta, report)
		if err != nil {
			return err
		}
		fences = append(fences, verdict.Fences...)
		if ids = ids[n:]; report.Last {
			s.lease.begin(sent, given.lease, fences)
			s.served = true
			return nil
		}
	}
}

func (s *Server) report(ctx context.Context, meta control.MetaClient, report *control.ReplicaReport) (*control.ReplicaVerdict, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	verdict, err := meta.ReportReplicas(ctx, report)
	if err != nil {
		return nil, err
	}
	for _, id := range verdict.Delete {
		if err := s.store.Delete(id); err != nil {
			return nil, err
		}
	}
	return verdict, nil
}

// beat sends heartbeats, and reports of damage between them, until ctx is done or
// the server has to register again: because the metadata server wants it, or
// because its lease has lapsed.
func (s *Server) beat(ctx context.Context, meta control.MetaClient, given terms) {
	ticker := time.NewTicker(given.every)
	defer ticker.Stop()
	retry := backoff{}
	for {
		select {
		case <-ctx.Done():
			return
		case block := <-s.corrupt:
			s.tellCorrupt(ctx, meta, block)
			continue
		case <-ticker.C:
		}
		again, err := s.heartbeat(ctx, meta, given)
		switch {
		case again || ctx.Err() != nil:
			return
		case err == nil:
			retry = backoff{}
		default:
			if retry.wait == 0 {
				s.log.Warn("heartbeat failed, trying again", "meta", s.config.Meta, "error", err)
			}
			retry.pause(ctx)
		}
	}
}

// space is that of a file system, in bytes; both are 0 where it is not known, as
// of file systems that do not count.
type space struct{ capacity, free uint64 }

func (s *Server) disk() (space, error) {
	var disk unix.Statfs_t
	if err := unix.Statfs(s.config.Directory, &disk); err != nil {
		return space{}, fmt.Errorf("ask how full the disk is: %w", err)
	}
	return space{disk.Blocks * uint64(disk.Bsize), disk.Bavail * uint64(disk.Bsize)}, nil
}

func (s *Server) heartbeat(ctx context.Context, meta control.MetaClient, given terms) (registerAgain bool, err error) {
	disk, err := s.disk()
	if err != nil {
		return false, err
	}
	ctx, cancel := context.WithTimeout(ctx, max(given.every, time.Second))
	defer cancel()
	sent := shortcircuit.Now()
	reply, err := meta.Heartbeat(ctx, &control.HeartbeatRequest{
		Server:        s.identity.Server,
		CapacityBytes: disk.capacity,
		FreeBytes:     disk.free,
		UsedBytes:     uint64(s.store.Bytes()),
		Replicas:      uint64(s.store.Count()),
		Fenced:        s.lease.lastFence(),
	})
	if err != nil || reply.RegisterAgain {
		return err == nil, err
	}
	return !s.lease.extend(sent, given.lease, reply.Fences), nil
}

func (s *Server) tellCorrupt(ctx context.Context, meta control.MetaClient, b corruptBlock) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	_, err := meta.ReportCorrupt(ctx, &control.CorruptRequest{Chunk: b.chunk, Server: s.identity.Server, Offset: b.offset, Failing: b.failing})
	if err != nil {
		s.warn("can't report a corrupt block", "chunk", b.chunk, "offset", b.offset, "error", err)
	}
}
