// Package dfstest runs a real cluster inside a test: a metadata server and
// chunk servers with real sockets and files, in the test's process and its
// temporary directory. They end with the test.
package dfstest

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"waggle/dfs/chunk"
	"waggle/dfs/client"
	"waggle/dfs/datapath"
	"waggle/dfs/meta"
)

// Options of a cluster. The zero value is a good start.
type Options struct {
	// ChunkServers is how many there are; default 3.
	ChunkServers int
	// Meta is the metadata server's configuration but for what the test needs
	// to choose.
	Meta meta.Config
	// Chunk is the same for every chunk server.
	Chunk chunk.Config
	// MetaDirectory and ChunkDirectory are where the metadata server and the chunk
	// servers keep what they keep; default temporary directories of the test.
	MetaDirectory, ChunkDirectory string
}

// Cluster is a running cluster.
type Cluster struct {
	t       testing.TB
	options Options
	// Meta is the metadata server's address.
	Meta string

	meta   *role
	chunks []*role
}

// role is a server that can be stopped.
type role struct {
	directory string
	data      string // address of a chunk server's data port
	counters  *datapath.Counters
	cancel    context.CancelFunc
	ended     chan error
}

// Start starts a cluster and waits until it can be used.
func Start(t testing.TB, options Options) *Cluster {
	t.Helper()
	if options.ChunkServers == 0 {
		options.ChunkServers = 3
	}
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	options.Meta.Log, options.Chunk.Log = log, log
	if options.MetaDirectory == "" {
		options.MetaDirectory = t.TempDir()
	}
	if options.ChunkDirectory == "" {
		options.ChunkDirectory = t.TempDir()
	}
	c := &Cluster{t: t, options: options, meta: &role{directory: filepath.Join(options.MetaDirectory, "meta")}}
	t.Cleanup(c.stop)
	c.StartMeta()
	for i := range options.ChunkServers {
		c.chunks = append(c.chunks, &role{directory: filepath.Join(options.ChunkDirectory, fmt.Sprintf("chunk-%d", i))})
		c.StartChunkServer(i)
	}
	return c
}

// serve runs a server until it is stopped.
func (r *role) serve(serve func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel, r.ended = cancel, make(chan error, 1)
	go func() { r.ended <- serve(ctx) }()
}

// stop stops a server, if it runs.
func (r *role) stop(t testing.TB) {
	if r.cancel == nil {
		return
	}
	r.cancel()
	r.cancel = nil
	require.NoError(t, <-r.ended)
}

func (c *Cluster) stop() {
	var all sync.WaitGroup
	for _, r := range append(c.chunks, c.meta) {
		all.Go(func() { r.stop(c.t) })
	}
	all.Wait()
}

// StartMeta starts the metadata server again after StopMeta, at its address.
func (c *Cluster) StartMeta() {
	c.t.Helper()
	config := c.options.Meta
	config.Directory, config.Control = c.meta.directory, c.Meta
	server, err := meta.Open(context.Background(), config)
	require.NoError(c.t, err)
	c.Meta = server.Address()
	c.meta.serve(server.Serve)
}

// StopMeta stops the metadata server. Its address and data stay.
func (c *Cluster) StopMeta() { c.meta.stop(c.t) }

// StartChunkServer starts chunk server i again after StopChunkServer, with its
// replicas, and waits until it is alive. Its address changes.
func (c *Cluster) StartChunkServer(i int) {
	c.t.Helper()
	config := c.options.Chunk
	config.Directory, config.Meta = c.chunks[i].directory, c.Meta
	server, err := chunk.New(config)
	require.NoError(c.t, err)
	c.chunks[i].data, c.chunks[i].counters = server.DataAddress(), server.Counters()
	c.chunks[i].serve(server.Serve)
	c.awaitAlive(server.DataAddress())
}

// StopChunkServer ends chunk server i and all connections to it. Its replicas
// stay.
func (c *Cluster) StopChunkServer(i int) { c.chunks[i].stop(c.t) }

// ChunkDirectory is where chunk server i keeps its replicas.
func (c *Cluster) ChunkDirectory(i int) string { return c.chunks[i].directory }

// Counters are what chunk server i has counted since it was started.
func (c *Cluster) Counters(i int) *datapath.Counters { return c.chunks[i].counters }

// DataAddress is where chunk server i serves data.
func (c *Cluster) DataAddress(i int) string { return c.chunks[i].data }

// awaitAlive waits until the metadata server knows a chunk server as alive.
func (c *Cluster) awaitAlive(address string) {
	c.t.Helper()
	cl := c.dial(client.Options{})
	defer cl.Close()
	require.Eventually(c.t, func() bool {
		state, err := cl.Cluster(context.Background())
		require.NoError(c.t, err)
		for _, s := range state.Servers {
			if s.DataAddress == address && s.Alive {
				return true
			}
		}
		return false
	}, 20*time.Second, 10*time.Millisecond, "chunk server at %s does not register", address)
}

// Dial returns a client of the cluster, which is closed with the test.
func (c *Cluster) Dial(options client.Options) *client.Client {
	c.t.Helper()
	cl := c.dial(options)
	c.t.Cleanup(func() { require.NoError(c.t, cl.Close()) })
	return cl
}

func (c *Cluster) dial(options client.Options) *client.Client {
	c.t.Helper()
	cl, err := client.Dial(context.Background(), c.Meta, options)
	require.NoError(c.t, err)
	return cl
}
