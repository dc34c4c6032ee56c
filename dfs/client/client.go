// Package client is the library to use a Waggle file system with: files,
// directories, links and attributes, with contexts, the interfaces of packages
// io and io/fs, and errors that errors.Is understands.
//
//	c, err := client.Dial(ctx, "127.0.0.1:9430", client.Options{})
//	err = c.WriteFile(ctx, "/hello", []byte("hello"), 0o644)
//	f, err := c.Open(ctx, "/hello")
//
// Paths are slash-separated and start at the root, with or without a slash in
// front. Names are any bytes. ".." is refused, because what it means would
// depend on symbolic links.
//
// How it works, by file: session.go keeps the session with the metadata server;
// lookup.go finds paths by datagrams, mutate.go gathers changes of the
// namespace into few calls and carries out each exactly once; conn.go keeps the
// connections to chunk servers; read.go reads ranges and verifies them,
// shortcircuit.go does without the server;
// stream.go reads ahead; write.go writes chunks under leases; file.go and
// filewrite.go put these together.
//
// What was written is seen by every other client once WriteAt, or for Write
// Sync or Close, has returned. A file that is open already learns within a second
// of another client's changes of its size, of a small file's bytes and of where
// its replicas are; its Read also reads ahead.
package client

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"waggle/dfs/datapath"
	"waggle/dfs/datapath/read"
	"waggle/dfs/datapath/write"
	"waggle/dfs/wire/control"
)

// Options of a Client. The zero value is a good start.
type Options struct {
	// Name says for people who this client is; default: program and process.
	Name string
	// Identity is whose rights the client has; default: those of the process.
	Identity *Identity
	// ReadPath and WritePath name the data paths; default "copy" and "chain". A
	// chunk server that can't take one is an error that wraps ErrUnsupported.
	ReadPath, WritePath string
	// ChunkSize (bytes) and Replication of new files; 0: the cluster's default.
	ChunkSize, Replication uint32
	// SpinLookups has lookups poll for their answers without sleeping.
	SpinLookups bool
	// SyncWrites makes every write durable before it is acknowledged; otherwise
	// Sync and Close do.
	SyncWrites bool
	// Patience is how long an operation goes on trying while servers are away;
	// default 30 s.
	Patience time.Duration
	// DialPatience is the same for Dial; default 5 s.
	DialPatience time.Duration
	// LeaseWait is how long a write waits for another client's lease to end
	// before it fails with ErrBusy; default 5 s.
	LeaseWait time.Duration
	// LeaseIdle is how long the lease of a chunk is kept that nobody writes to any
	// more; default 5 s.
	LeaseIdle time.Duration
	// MaxConnections bounds the connections to each chunk server and data path;
	// default 64.
	MaxConnections int
	// Counters receive what the client counts; default: counters of its own.
	Counters *datapath.Counters
}

// Identity is a user and the groups.
type Identity struct {
	UID, GID uint32
	Groups   []uint32
}

func (o Options) withDefaults() Options {
	if o.Name == "" {
		o.Name = fmt.Sprintf("%s[%d]", os.Args[0], os.Getpid())
	}
	if o.Identity == nil {
		o.Identity = processIdentity()
	}
	o.ReadPath = orDefault(o.ReadPath, read.Copy)
	o.WritePath = orDefault(o.WritePath, write.Chain)
	o.Patience = orDefault(o.Patience, 30*time.Second)
	o.DialPatience = orDefault(o.DialPatience, 5*time.Second)
	o.LeaseWait = orDefault(o.LeaseWait, 5*time.Second)
	o.LeaseIdle = orDefault(o.LeaseIdle, 5*time.Second)
	o.MaxConnections = orDefault(o.MaxConnections, 64)
	o.Counters = orDefault(o.Counters, new(datapath.Counters))
	return o
}

func orDefault[T comparable](value, standard T) T {
	var zero T
	if value == zero {
		return standard
	}
	return value
}

func processIdentity() *Identity {
	i := &Identity{UID: uint32(os.Getuid()), GID: uint32(os.Getgid())}
	groups, err := os.Getgroups()
	if err != nil {
		return i // then only the primary group counts
	}
	for _, g := range groups {
		i.Groups = append(i.Groups, uint32(g))
	}
	return i
}

// Client uses one file system. It is used by many goroutines at once.
type Client struct {
	meta    string
	options Options
	grpc    *grpc.ClientConn
	control control.MetaClient

	session   atomic.Pointer[session]
	sessionMu sync.Mutex // held while a session is opened

	mutations mutator
	servers   servers
	writers   writers

	readPath, writePath string // such as "read=copy"

	copied         *atomic.Int64 // datapath.CopiedInUser
	shortCircuited *atomic.Int64 // bytes read without a server
	// changes counts what this client has changed, by inode, so that its open
	// files notice.
	changes [256]atomic.Uint64

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	tasks  sync.WaitGroup
}

// connectTime bounds one attempt to connect to the metadata server.
const connectTime = 2 * time.Second

// Dial connects to the metadata server at address, "host:port", and opens a
// session. The Client must be closed. ctx bounds Dial alone.
func Dial(ctx context.Context, address string, options Options) (*Client, error) {
	c := &Client{meta: address, options: options.withDefaults()}
	if err := c.choosePaths(); err != nil {
		return nil, err
	}
	conn, err := grpc.NewClient("passthrough:///"+address, control.DialOptions(connectTime)...)
	if err != nil {
		return nil, fmt.Errorf("connect to the metadata server at %q: %w", address, err)
	}
	c.grpc, c.control = conn, control.NewMetaClient(conn)
	c.copied = c.options.Counters.Counter(datapath.CopiedInUser)
	c.shortCircuited = c.options.Counters.Counter("read_shortcircuit_bytes")
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.mutations.init(c)
	c.servers.init(c)
	c.writers.init(c)

	ctx, cancel := context.WithTimeoutCause(ctx, c.options.DialPatience, fmt.Errorf("no answer within %v", c.options.DialPatience))
	defer cancel()
	s, err := c.openSession(ctx)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open a session at the metadata server %s: %w", address, err), conn.Close())
	}
	c.session.Store(s)
	c.tasks.Go(c.keepAlive)
	c.tasks.Go(c.tidy)
	for i := range mutationSenders {
		c.tasks.Go(func() { c.mutations.send(i) })
	}
	return c, nil
}

// choosePaths refuses data paths that there are not. Whether a server can take
// them it says itself.
func (c *Client) choosePaths() error {
	r, err := read.Paths.Get(c.options.ReadPath)
	if err != nil {
		return err
	}
	w, err := write.Paths.Get(c.options.WritePath)
	if err != nil {
		return err
	}
	c.readPath, c.writePath = r.About().String(), w.About().String()
	return nil
}

// Close ends the session and closes all connections. Files that are still open
// lose what they have not written.
func (c *Client) Close() error {
	if c.ctx.Err() != nil {
		return nil
	}
	c.cancel()
	c.mutations.stop()
	c.tasks.Wait()
	s := c.session.Load()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	// A server that is away ends the session by itself.
	c.control.CloseSession(ctx, &control.SessionID{Session: s.id})
	return errors.Join(s.lookups.Close(), c.servers.close(), c.grpc.Close())
}

// Counters returns what the client has counted.
func (c *Client) Counters() *datapath.Counters { return c.options.Counters }

// ReadPath and WritePath name the data paths that the client takes.
func (c *Client) ReadPath() string  { return c.options.ReadPath }
func (c *Client) WritePath() string { return c.options.WritePath }

func (c *Client) changesOf(inode uint64) uint64 { return c.changes[inode%256].Load() }

func (c *Client) changed(inode uint64) { c.changes[inode%256].Add(1) }
