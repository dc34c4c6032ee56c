// Package meta is the metadata server. It knows the namespace (directories,
// files, symbolic links), which chunks a file consists of and which chunk
// servers hold them, who may write to a chunk, and who is connected.
//
// How it works, from below:
//
//   - store is where the records are durable; key.go and record.go say what is
//     kept under which key.
//   - change.go is the state that mutations work on; executor.go carries them out
//     one after another and acknowledges them when they are durable.
//   - published.go is the durable state that readers see; lookup.go answers
//     lookup datagrams from it, and mirror.go keeps a part of it in the kernel
//     for lookup=xdp.
//   - walk.go, namespace.go, size.go and attributes.go are the file system;
//     mutate.go makes each mutation happen exactly once, and space.go refuses what
//     would fill the disk.
//   - session.go and servers.go know clients and chunk servers; renew.go ends
//     sessions and leases that are not kept alive.
//   - lease.go opens chunks for writing, settle.go makes their replicas equal,
//     fence.go closes to readers what is left behind, wanted.go lets those wait who
//     want a lease, and salvage.go makes the best of replicas that have all lost writes.
//   - mender.go repairs in the background, from queues (repairs.go); cleaner.go
//     deletes, trash.go keeps removed files for a while, balance.go moves chunks off
//     servers that are drained or full.
//   - check.go finds, and mends, whatever is inconsistent all the same.
//
// # The lease contract
//
// A chunk is written by one session at a time, under a lease with an epoch. What the
// metadata server, the chunk servers and the client library owe one another is that
// nothing which was acknowledged is lost in silence:
//
//  1. A lease is recorded before its holder hears of it, so after a crash it is known
//     which replicas may differ. The holder names it with each keep-alive; one that is
//     not named for a session's time to live lapses. So a lost release costs that time,
//     not the life of the session.
//  2. A write is acknowledged by all replicas of its epoch, at least
//     Config.MinReplicas of them, in the order of the writes' sequences.
//  3. A grant carries the sequence and the length that the chunk has, all of it durable
//     on all replicas, and who could write before. The client compares it with what it
//     was acknowledged, and says what is missing (client.ErrLost).
//  4. A release carries the last sequence, the length, and up to which sequence the
//     replicas have said that all is durable. Where that is everything the chunk is
//     settled: closed, with this sequence and length on record. Otherwise it is
//     abandoned, as by a session that ends, and settled by the server: its replicas are
//     sealed under a new epoch, synced, and made equal to the one that has the most.
//  5. What was settled stays. It makes the file grow if nobody has said its size yet, and
//     no later settling may come to less: where not every replica can be reached, that
//     waits; where all can, it is an error (DATA_LOSS), and never zeros. Only Truncate cuts.
//  6. A location names the length that every replica has at least. A reader names it to
//     the chunk server, and goes to another replica where one is shorter.
//  7. Before a writer hears of a new epoch, every replica that is not part of it has
//     stopped serving: it is fenced, or its server's lease has lapsed. A chunk server
//     serves reads under a lease that heartbeats extend. One that was out of touch, or
//     has started again, first reports its replicas and is told which may be behind.
//  8. The answers to a session's mutations are kept until the client says that it has
//     them, over restarts of the server. One that may have been forgotten is refused.
//
// Each of these stands at a place that package weaken can take away, so that tests
// see whether they would notice.
//
// Clients are trusted to say who their user is, as NFS clients are without
// Kerberos.
package meta

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"waggle/dfs/datapath"
	"waggle/dfs/datapath/lookup"
	"waggle/dfs/meta/store"
	"waggle/dfs/metrics"
	"waggle/dfs/tcp"
	"waggle/dfs/wire"
	"waggle/dfs/wire/control"
)

// Config says how a metadata server is to run. The zero value of every field but
// Directory stands for a default.
type Config struct {
	// Directory is where the metadata is kept. It is made if need be.
	Directory string
	// Control is the TCP address of the gRPC services, "ip:port"; the default is a
	// free port of the loopback interface. Lookup is the UDP address of lookups;
	// the default is Control's.
	Control, Lookup string
	// LookupPath is the data path of lookups, "udp" by default.
	LookupPath string
	// LookupWorkers is how many sockets answer lookups, one for each processor by
	// default.
	LookupWorkers int
	// Heartbeat is how often chunk servers report, 1 s by default. One that was
	// not heard of for DeadAfter (5 s) is dead; after RepairDelay (15 s) its
	// replicas are made again elsewhere.
	Heartbeat, DeadAfter, RepairDelay time.Duration
	// RepairsPerSecond bounds the chunks that are mended, 20 by default.
	RepairsPerSecond float64
	// MinReplicas is how many replicas must hold a write before it is acknowledged,
	// 1 by default: so many must be reached when a chunk is opened for writing. A file
	// of a lower replication needs all of its own.
	MinReplicas int
	// TrashTime is how long a removed file stays in the trash: 0 stands for no trash.
	// At most TrashFiles (100,000) are there; the one removed first goes first.
	TrashTime  time.Duration
	TrashFiles int
	// MovesPerSecond bounds the chunks that are moved from one server to another, 2
	// by default: off a server that is drained, and to one that is emptier.
	MovesPerSecond float64
	// SessionTime is how long a session lives that is not kept alive, 20 s.
	SessionTime time.Duration
	// ChunkSize is that of files whose maker does not say one, in bytes.
	ChunkSize uint32
	// CacheBytes is roughly what the caches use, 256 MiB by default: half for
	// blocks of the store, half for decoded records.
	CacheBytes int64
	// Version is told to whoever asks what this role is.
	Version string
	// Counters receive what was done; Log what a person should know.
	Counters *datapath.Counters
	Log      *slog.Logger

	// hash is set by tests that need names with one hash.
	hash func(name []byte) wire.NameHash
	// minSurplus is lowered by tests that rebalance a few bytes.
	minSurplus uint64
	// lookupSizes are set by tests that need small tables.
	lookupSizes lookup.Sizes
	// forgetDelay is set by a test that must find the fault which it makes: for so
	// long the kernel's tables keep what a change has touched, after the change
	// was acknowledged.
	forgetDelay time.Duration
}

func (c *Config) setDefaults() {
	setDefault(&c.Control, "127.0.0.1:0")
	setDefault(&c.LookupPath, "udp")
	setDefault(&c.Heartbeat, time.Second)
	setDefault(&c.DeadAfter, 5*c.Heartbeat)
	setDefault(&c.RepairDelay, 3*c.DeadAfter)
	setDefault(&c.RepairsPerSecond, 20)
	setDefault(&c.MinReplicas, 1)
	setDefault(&c.TrashFiles, 100_000)
	setDefault(&c.MovesPerSecond, 2)
	setDefault(&c.minSurplus, minSurplus)
	setDefault(&c.SessionTime, 20*time.Second)
	setDefault(&c.ChunkSize, wire.DefaultChunkSize)
	setDefault(&c.CacheBytes, 256<<20)
	setDefault(&c.Counters, new(datapath.Counters))
	setDefault(&c.Log, slog.Default())
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// cachedRecordSize is what a decoded record takes in the cache, roughly: most of
// it is the largest of small files with what is around it.
const cachedRecordSize = 1536 // bytes

// Server is a metadata server.
type Server struct {
	control.UnimplementedMetaServer

	config    Config
	log       *slog.Logger
	identity  *identity
	hash      func(name []byte) wire.NameHash
	store     store.Store
	published *published
	mirror    *mirror
	executor  *executor
	sessions  *sessions
	servers   *servers
	places    placeLocks
	fences    *fences
	wanted    wanted
	renewals  renewals
	making    making
	space     space
	mender    *mender
	trash     *trash
	checking  sync.Mutex    // held by the one check that runs
	repaired  *atomic.Int64 // replicas made anew
	calls     metrics.Calls
	asking    sync.Mutex // held while gauges are told
	closed    bool       // there are none any more
	chunkIDs  struct {
		sync.Mutex
		next, end uint64
	}
	// background is over when the server is: for what has to be done whether its
	// client still waits or not.
	background context.Context

	listener net.Listener
	lookups  lookup.Server
}

// Open opens the metadata in a directory and listens. The server must be served
// then.
func Open(ctx context.Context, config Config) (*Server, error) {
	config.setDefaults()
	if err := wire.CheckChunkSize(config.ChunkSize); err != nil {
		return nil, err
	}
	path, err := lookup.Paths.Use(config.LookupPath)
	if err != nil {
		return nil, err
	}
	s := &Server{config: config, log: config.Log, space: space{directory: config.Directory},
		repaired: config.Counters.Counter("meta_replicas_made"), calls: metrics.NewCalls()}
	if err := s.load(); err != nil {
		return nil, err
	}
	if err := s.listen(ctx, path); err != nil {
		return nil, errors.Join(err, s.store.Close())
	}
	s.published = newPublished(s.store.View(), int(config.CacheBytes/2/cachedRecordSize))
	s.mirror = newMirror(s, s.lookups.Tables())
	s.published.mirror = s.mirror
	for _, alive := range s.sessions.all() {
		s.mirror.addSession(alive)
	}
	s.fences = newFences(s.config.DeadAfter)
	s.mender = newMender(s)
	s.executor = newExecutor(s.store, s.published, s.mender.do)
	return s, nil
}

// load opens the store and reads what is kept in memory.
func (s *Server) load() error {
	if s.config.Directory == "" {
		return errors.New("a metadata server needs a directory")
	}
	opened, err := store.OpenEmbedded(filepath.Join(s.config.Directory, "metadata"), s.config.CacheBytes/2, s.log)
	if err != nil {
		return err
	}
	s.store = opened
	if s.identity, err = loadIdentity(opened); err == nil {
		s.sessions, err = loadSessions(opened, s.config.SessionTime)
	}
	if err == nil {
		s.servers, err = loadServers(opened, s.config.DeadAfter)
	}
	if err == nil {
		s.trash, err = loadTrash(opened)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("load the metadata in %s: %w", s.config.Directory, err), opened.Close())
	}
	if s.hash = s.config.hash; s.hash == nil {
		s.hash = s.identity.hashKey.Hash
	}
	return nil
}

// loadIdentity returns who the cluster is. Where there is no metadata yet it
// makes a cluster, with a root directory that belongs to the user of this
// process.
func loadIdentity(s store.Store) (*identity, error) {
	k := identityKey()
	value, found, err := s.Get(k.bytes())
	if err != nil {
		return nil, err
	}
	if found {
		return decodeIdentity(value)
	}
	made := &identity{format: recordFormat}
	rand.Read(made.cluster[:])
	rand.Read(made.hashKey[:])
	now := time.Now().UnixNano()
	c := change{store: s}
	c.begin(now)
	c.put(k, made)
	c.totals = &totals{nextInode: wire.RootInode + 1, nextChunk: 1, nextServer: 1, directories: 1}
	c.putTotals()
	c.put(inodeKey(wire.RootInode), &inode{parent: wire.RootInode, Attributes: wire.Attributes{
		Inode: wire.RootInode, Mode: unix.S_IFDIR | 0o755, Links: 2, Version: 1, ModifiedNs: now, ChangedNs: now,
		UID: uint32(os.Getuid()), GID: uint32(os.Getgid()),
	}})
	batch := s.NewBatch()
	if err := errors.Join(c.err, c.encode(batch)); err != nil {
		return nil, err
	}
	pending, err := s.Commit(batch)
	if err != nil {
		return nil, err
	}
	return made, pending.Wait()
}

// portTries is how many free ports of TCP are tried until the one of UDP with the
// same number is free, too.
const portTries = 16

func (s *Server) listen(ctx context.Context, path lookup.Path) (err error) {
	for range portTries {
		if err = s.listenOnce(ctx, path); !errors.Is(err, unix.EADDRINUSE) || !strings.HasSuffix(s.config.Control, ":0") {
			break
		}
	}
	return err
}

func (s *Server) listenOnce(ctx context.Context, path lookup.Path) error {
	listener, err := tcp.Listen(ctx, s.config.Control)
	if err != nil {
		return fmt.Errorf("listen for control calls: %w", err)
	}
	s.listener = listener
	at := listener.Addr().(*net.TCPAddr).AddrPort()
	if s.config.Lookup != "" {
		if at, err = netip.ParseAddrPort(s.config.Lookup); err != nil {
			return errors.Join(fmt.Errorf("address of lookups: %w", err), listener.Close())
		}
	}
	s.lookups, err = path.Listen(ctx, at, lookup.Options{
		Workers: s.config.LookupWorkers, Counters: s.config.Counters, Sizes: s.config.lookupSizes})
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	return nil
}

// Address is where the gRPC services are.
func (s *Server) Address() string { return s.listener.Addr().String() }

// LookupAddress is where lookups are answered.
func (s *Server) LookupAddress() netip.AddrPort { return s.lookups.Address() }

// stopTime is how long calls under way may take when the server stops.
const stopTime = 3 * time.Second

// Serve serves until ctx ends, which is no error, or the metadata can't be made
// durable any more. Then it closes everything.
func (s *Server) Serve(ctx context.Context) error {
	background, cancel := context.WithCancel(ctx)
	defer cancel()
	s.background = background
	s.executor.start()

	services := grpc.NewServer(append(control.ServerOptions(),
		grpc.MaxConcurrentStreams(4096),
		grpc.SharedWriteBuffer(true),
		grpc.UnaryInterceptor(s.calls.Intercept),
	)...)
	control.RegisterMetaServer(services, s)
	control.RegisterAdminServer(services, admin{s: s})

	group, ctx := errgroup.WithContext(background)
	group.Go(func() error {
		if err := services.Serve(s.listener); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			return fmt.Errorf("serve control calls: %w", err)
		}
		return nil
	})
	group.Go(func() error { return s.lookups.Serve(ctx, s) })
	group.Go(func() error { s.expireSessions(ctx); return nil })
	group.Go(func() error { s.mirror.run(ctx); return nil })
	group.Go(func() error { s.mender.run(ctx); return nil })
	group.Go(func() error { s.mender.watch(ctx); return nil })
	group.Go(func() error { s.expireTrash(ctx); return nil })
	group.Go(func() error {
		select {
		case <-ctx.Done():
		case <-s.executor.finished:
			cancel()
		}
		stopServices(services)
		return nil
	})
	s.log.Info("metadata server is up", "control", s.Address(), "lookup", s.LookupAddress(), "directory", s.config.Directory)
	err := group.Wait()
	return errors.Join(err, s.executor.close(), s.close())
}

// stopServices lets calls under way end, but not for long.
func stopServices(services *grpc.Server) {
	impatient := time.AfterFunc(stopTime, services.Stop)
	defer impatient.Stop()
	services.GracefulStop()
}

func (s *Server) close() error {
	s.asking.Lock()
	defer s.asking.Unlock()
	s.closed = true
	s.published.close()
	return errors.Join(s.servers.close(), s.store.Close())
}

// storeFailed is what a call is answered when the store has failed it.
func storeFailed(err error) error {
	return refusal(codes.Internal, "read the metadata: %v; run fsck", err)
}
