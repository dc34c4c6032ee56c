package meta

import (
	"cmp"
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"waggle/dfs/meta/store"
	"waggle/dfs/wire"
	"waggle/dfs/wire/control"
)

const (
	maxServers         = 4096
	maxReportBatch     = 4096
	defaultReplication = 3
)

// servers are the chunk servers that have joined the cluster.
type servers struct {
	deadAfter time.Duration
	started   time.Time

	mu    sync.RWMutex
	known map[uint32]*server
}

// server is a chunk server.
type server struct {
	id        uint32
	data      netip.AddrPort
	control   string
	heard     time.Time // zero: not since this metadata server started
	usage     usage
	draining  bool
	connected *grpc.ClientConn // made when it is needed first
	// avoided is until when no chunk is made on the server, because it has not done
	// so in time: its heartbeats don't show that its disk hangs.
	avoided time.Time
	// reported are the replicas that the server has named since it registered;
	// nil when the report is complete. createdBelow bounds the chunks that must
	// be in it.
	reported     map[uint64]struct{}
	createdBelow uint64
}

// usage is what a server has said about its disk, in bytes.
type usage struct {
	capacity, free, used uint64
	replicas             uint64 // how many
}

func loadServers(r store.Reader, deadAfter time.Duration) (*servers, error) {
	s := &servers{deadAfter: deadAfter, started: time.Now(), known: make(map[uint32]*server)}
	var failed error
	err := scanTable(r, tableServer, func(k key, value []byte) bool {
		var record *serverRecord
		if record, failed = decodeServer(value); failed == nil {
			id := uint32(k.number())
			s.known[id], failed = newServer(id, record)
		}
		return failed == nil
	})
	if err == nil && failed == nil {
		err = scanTable(r, tableMember, func(k key, value []byte) bool {
			var m *member
			if m, failed = decodeMember(value); failed == nil {
				s.drain(uint32(k.number()), m.draining)
			}
			return failed == nil
		})
	}
	return s, errors.Join(err, failed)
}

func newServer(id uint32, r *serverRecord) (*server, error) {
	data, err := netip.ParseAddrPort(r.data)
	if err != nil {
		return nil, fmt.Errorf("data address of chunk server %d: %w", id, err)
	}
	if _, err := netip.ParseAddrPort(r.control); err != nil {
		return nil, fmt.Errorf("control address of chunk server %d: %w", id, err)
	}
	return &server{id: id, data: data, control: r.control}, nil
}

func (s *servers) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var failed error
	for _, server := range s.known {
		if server.connected != nil {
			failed = errors.Join(failed, server.connected.Close())
			server.connected = nil
		}
	}
	return failed
}

// defaultReplication is that of a file whose maker has not said one.
func (s *servers) defaultReplication() uint16 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if n := len(s.known); n > 0 && n < defaultReplication {
		return uint16(n)
	}
	return defaultReplication
}

// replicas returns where the replicas on some servers are.
func (s *servers) replicas(into []wire.Replica, ids []uint32) []wire.Replica {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, id := range ids {
		if server := s.known[id]; server != nil && len(into) < wire.MaxReplicas {
			into = append(into, wire.Replica{Server: id, Address: server.data})
		}
	}
	return into
}

// alive says whether a server was heard of lately.
func (s *servers) alive(id uint32) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.aliveLocked(s.known[id])
}

func (s *servers) aliveLocked(server *server) bool {
	return server != nil && time.Since(server.heard) < s.deadAfter
}

func (s *servers) ids() []uint32 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return slices.Collect(maps.Keys(s.known))
}

// silence is how long nothing was heard of a server.
func (s *servers) silence(id uint32) time.Duration {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if server := s.known[id]; server != nil && server.heard.After(s.started) {
		return time.Since(server.heard)
	}
	return time.Since(s.started)
}

// split parts servers into those that may well answer, and those that are dead.
// One that was not heard of since this metadata server started gets the benefit
// of the doubt.
func (s *servers) split(ids []uint32) (likely, dead []uint32) {
	for _, id := range ids {
		if s.silence(id) < s.deadAfter {
			likely = append(likely, id)
		} else {
			dead = append(dead, id)
		}
	}
	return likely, dead
}

// choose picks at most count live servers that are neither drained nor excluded, the
// more likely the more space they have.
func (s *servers) choose(count int, excluded []uint32) []uint32 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	type candidate struct {
		id     uint32
		weight float64
	}
	var candidates, hanging []candidate
	now := time.Now()
	typical := s.typicalFree()
	for id, server := range s.known {
		if s.aliveLocked(server) && !server.draining && !slices.Contains(excluded, id) {
			// Sorting by u^(1/w) draws without replacement with weights w
			// (Efraimidis and Spirakis, 2006); exponential variates sort the same.
			c := candidate{id, rand.ExpFloat64() / server.room(typical)}
			if server.avoided.After(now) {
				hanging = append(hanging, c)
			} else {
				candidates = append(candidates, c)
			}
		}
	}
	if len(candidates) == 0 && len(excluded) == 0 { // better than nothing
		candidates = hanging
	}
	slices.SortFunc(candidates, func(a, b candidate) int { return cmp.Compare(a.weight, b.weight) })
	var chosen []uint32
	for _, c := range candidates[:max(min(count, len(candidates)), 0)] {
		chosen = append(chosen, c.id)
	}
	return chosen
}

// typicalFree is how much space servers have that say so, on average.
func (s *servers) typicalFree() float64 {
	sum, count := 0.0, 0.0
	for _, server := range s.known {
		if server.usage.capacity > 0 {
			sum, count = sum+float64(server.usage.free), count+1
		}
	}
	return sum / max(count, 1)
}

// room is the weight of a server's space. One that has not said how much there is
// is as good as others are.
func (s *server) room(typical float64) float64 {
	if s.usage.capacity == 0 {
		return typical + 1
	}
	return float64(s.usage.free) + 1
}

// chunk returns the service of a server.
func (s *servers) chunk(id uint32) (control.ChunkClient, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	server := s.known[id]
	if server == nil {
		return nil, fmt.Errorf("chunk server %d is not known", id)
	}
	if server.connected == nil {
		connected, err := grpc.NewClient("passthrough:///"+server.control, control.DialOptions(sealTimeout)...)
		if err != nil {
			return nil, fmt.Errorf("connect to chunk server %d at %s: %w", id, server.control, err)
		}
		server.connected = connected
	}
	return control.NewChunkClient(server.connected), nil
}

// controlAddress is where other chunk servers reach the service of a server.
func (s *servers) controlAddress(id uint32) string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if server := s.known[id]; server != nil {
		return server.control
	}
	return ""
}

// avoidTime is for how long no chunk is made on a server that was asked in vain.
const avoidTime = 30 * time.Second

// avoid notes that a server has not made a chunk in time.
func (s *servers) avoid(id uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if server := s.known[id]; server != nil {
		server.avoided = time.Now().Add(avoidTime)
	}
}

// join takes a server in that has registered.
func (s *servers) join(joined *server) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	last := s.known[joined.id]
	joined.heard = time.Now()
	joined.reported = make(map[uint64]struct{})
	s.known[joined.id] = joined
	if last == nil {
		return nil
	}
	joined.usage = last.usage
	joined.draining = last.draining
	if last.connected != nil && last.control == joined.control {
		joined.connected = last.connected
		joined.connected.ResetConnectBackoff()
		return nil
	}
	if last.connected != nil {
		return last.connected.Close()
	}
	return nil
}

// Register implements control.MetaServer.
func (s *Server) Register(ctx context.Context, q *control.RegisterRequest) (*control.RegisterReply, error) {
	if len(q.Cluster) != 0 && subtle.ConstantTimeCompare(q.Cluster, s.identity.cluster[:]) != 1 {
		return nil, refuse("EXDEV", "chunk server %d belongs to cluster %x, this is %x: start it with the metadata server of its own cluster, or with an empty directory",
			q.Server, q.Cluster, s.identity.cluster)
	}
	record := &serverRecord{data: q.DataAddress, control: q.ControlAddress}
	joined, err := newServer(q.Server, record)
	if err != nil {
		return nil, refusal(codes.InvalidArgument, "register: %v", err)
	}
	if len(q.Nonce) != 0 && len(q.Nonce) != nonceSize {
		return nil, refusal(codes.InvalidArgument, "register: a nonce of %d bytes, must be %d", len(q.Nonce), nonceSize)
	}
	isNew := false
	err = s.executor.do(ctx, func(c *change) error {
		if joined.id == 0 {
			joined.id = c.joinedBefore(q.Nonce)
		}
		if m, _ := load(c, memberKey(joined.id), decodeMember); m != nil && m.removed {
			return refuse("EPERM", "chunk server %d was decommissioned: delete its directory, or start it with an empty one", joined.id)
		}
		if joined.id == 0 {
			isNew = true
			if c.totals.nextServer > maxServers {
				return refusal(codes.ResourceExhausted, "%d chunk servers have joined: no more are allowed", maxServers)
			}
			joined.id = c.totals.nextServer
			c.totals.nextServer++
			c.putTotals()
			if len(q.Nonce) > 0 {
				c.put(nonceKey(q.Nonce), serverNumber(joined.id))
			}
		} else if joined.id >= c.totals.nextServer || (len(q.Cluster) == 0 && q.Server != 0) {
			return refuse("EINVAL", "no chunk server %d has joined this cluster", joined.id)
		}
		joined.createdBelow = c.totals.nextChunk
		c.put(serverKey(joined.id), record)
		return nil
	})
	if err != nil {
		return nil, err
	}
	s.fences.registers(joined.id, q.Incarnation)
	s.mirror.serversMove(func() { err = s.servers.join(joined) })
	if err != nil {
		s.log.Warn("close the connection to a chunk server that has moved", "server", joined.id, "error", err)
	}
	s.log.Info("chunk server registered", "server", joined.id, "data", q.DataAddress, "control", q.ControlAddress)
	s.mender.do(chores{everything: true})
	if isNew {
		select {
		case s.mender.added <- struct{}{}:
		default:
		}
	}
	return &control.RegisterReply{
		Cluster: s.identity.cluster[:], Server: joined.id, HeartbeatMs: uint64(s.config.Heartbeat.Milliseconds()),
		LeaseMs: uint64(s.servingTime().Milliseconds()),
	}, nil
}

// joinedBefore returns the server that registered with a nonce, when the answer did
// not reach it; 0 for none.
func (c *change) joinedBefore(nonce []byte) uint32 {
	if len(nonce) == 0 {
		return 0
	}
	id, _ := load(c, nonceKey(nonce), decodeServerNumber)
	return uint32(id)
}

// Heartbeat implements control.MetaServer.
func (s *Server) Heartbeat(_ context.Context, q *control.HeartbeatRequest) (*control.HeartbeatReply, error) {
	if q.Leaving {
		s.fences.leaves(q.Server)
		return &control.HeartbeatReply{}, nil
	}
	known, revived := s.servers.hear(q)
	if revived {
		s.log.Info("chunk server is back", "server", q.Server)
		s.mender.do(chores{everything: true})
	}
	if !known {
		return &control.HeartbeatReply{RegisterAgain: true}, nil
	}
	return &control.HeartbeatReply{Fences: s.fences.beats(q.Server, q.Fenced)}, nil
}

// hear takes a heartbeat. It says whether the server has registered since this
// metadata server started, and whether it was dead until now.
func (s *servers) hear(q *control.HeartbeatRequest) (known, revived bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	server := s.known[q.Server]
	if server == nil || server.heard.IsZero() {
		return false, false
	}
	revived = !s.aliveLocked(server)
	server.heard = time.Now()
	server.usage = usage{capacity: q.CapacityBytes, free: q.FreeBytes, used: q.UsedBytes, replicas: q.Replicas}
	return true, revived
}

// status describes all servers, in order.
func (s *servers) status() []*control.ServerStatus {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var all []*control.ServerStatus
	for id, server := range s.known {
		all = append(all, &control.ServerStatus{
			Server: id, DataAddress: server.data.String(), ControlAddress: server.control, Alive: s.aliveLocked(server),
			CapacityBytes: server.usage.capacity, FreeBytes: server.usage.free,
			UsedBytes: server.usage.used, Replicas: server.usage.replicas, Draining: server.draining,
		})
	}
	slices.SortFunc(all, func(a, b *control.ServerStatus) int { return cmp.Compare(a.Server, b.Server) })
	return all
}

// ReportReplicas implements control.MetaServer. Only replicas of chunks that are
// no more are deleted by the server itself. One that was left behind by its
// chunk is deleted by the mender, which makes sure that the chunk does not come
// back to it meanwhile.
func (s *Server) ReportReplicas(ctx context.Context, q *control.ReplicaReport) (*control.ReplicaVerdict, error) {
	if len(q.Replicas) > maxReportBatch {
		return nil, refusal(codes.ResourceExhausted, "%d replicas in a report: at most %d are allowed", len(q.Replicas), maxReportBatch)
	}
	if !s.servers.note(q) {
		return nil, refusal(codes.Unavailable, "chunk server %d has not registered since this metadata server started: register first", q.Server)
	}
	r := s.published.snapshot()
	defer r.close()
	verdict := &control.ReplicaVerdict{}
	var suspects []place
	var leftBehind []uint64
	for _, state := range q.Replicas {
		// Asked before the record is read: once the replica is no longer being made
		// its record is there.
		inMaking := s.making.has(state.Chunk, q.Server)
		r.close()
		at, c := r.findChunk(state.Chunk)
		switch {
		case r.forgive():
			s.log.Error("whose a replica is can't be read; run fsck", "chunk", state.Chunk)
		case inMaking:
		case c == nil:
			verdict.Delete = append(verdict.Delete, state.Chunk)
		case !slices.Contains(c.servers, q.Server):
			leftBehind = append(leftBehind, state.Chunk)
			verdict.Fences = append(verdict.Fences, &control.Fence{Chunk: state.Chunk, Epoch: c.epoch + 1})
		case isBehind(state, c, q.Fresh):
			suspects = append(suspects, at)
			verdict.Fences = append(verdict.Fences, &control.Fence{Chunk: state.Chunk, Epoch: c.epoch + 1})
		}
	}
	if r.err != nil {
		return nil, storeFailed(r.err)
	}
	if len(leftBehind) > 0 {
		if err := s.executor.do(ctx, func(c *change) error { return c.putStrays(q.Server, leftBehind) }); err != nil {
			return nil, err
		}
	}
	if q.Last {
		missing, err := s.missing(r, q.Server)
		if err != nil {
			return nil, storeFailed(err)
		}
		suspects = append(suspects, missing...)
		verdict.Fences = append(verdict.Fences, s.fences.begins(q.Server)...)
	}
	s.mender.do(chores{suspects: suspects})
	return verdict, nil
}

// putStrays leaves replicas on a server to be deleted.
func (c *change) putStrays(server uint32, chunks []uint64) error {
	for _, chunk := range chunks {
		c.putStray(chunk, server)
	}
	return nil
}

// note remembers what a server has reported. It says whether the server is one
// whose report is awaited.
func (s *servers) note(q *control.ReplicaReport) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	server := s.known[q.Server]
	if server == nil || server.reported == nil {
		return false
	}
	server.heard = time.Now()
	for _, state := range q.Replicas {
		server.reported[state.Chunk] = struct{}{}
	}
	return true
}

// missing returns the chunks that a server should have a replica of and has not
// reported, at the end of its report.
func (s *Server) missing(r *reader, id uint32) ([]place, error) {
	s.servers.mu.Lock()
	server := s.servers.known[id]
	reported, createdBelow := server.reported, server.createdBelow
	server.reported = nil
	s.servers.mu.Unlock()
	r.close()
	var found []place
	err := s.scanChunks(r, func(p place, c *chunk) {
		if _, there := reported[c.id]; !there && c.id < createdBelow && slices.Contains(c.servers, id) {
			found = append(found, p)
		}
	})
	return found, err
}

// scanChunks visits the records of all chunks. One that can't be read is passed
// over, so that it does no more harm than it must.
func (s *Server) scanChunks(r *reader, visit func(p place, c *chunk)) error {
	return scanTable(r.state(), tableChunk, func(k key, value []byte) bool {
		p := place{k.number(), k.second()}
		c, err := decodeChunk(value)
		if err != nil {
			s.log.Error("a chunk can't be read; run fsck", "inode", p.inode, "index", p.index, "error", err)
			return true
		}
		visit(p, c)
		return true
	})
}

// findChunk returns a chunk's place and record, nil if no file has it.
func (r *reader) findChunk(id uint64) (place, *chunk) {
	o, found := read(r, ownerKey(id), decodeOwner)
	if !found {
		return place{}, nil
	}
	c := r.chunk(place(o))
	if c == nil || c.id != id {
		return place{}, nil
	}
	return place(o), c
}
