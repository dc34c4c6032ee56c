package meta

import (
	"context"
	"log/slog"
	"os"
	"path"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"waggle/dfs/datapath/lookup"
	"waggle/dfs/wire"
	"waggle/dfs/wire/control"
)

func TestMain(m *testing.M) {
	if directory := os.Getenv(crashDirectory); directory != "" {
		os.Exit(serveUntilKilled(directory))
	}
	goleak.VerifyTestMain(m)
}

// rig is a metadata server with a connection to it.
type rig struct {
	t      testing.TB
	config Config
	server *Server
	conn   *grpc.ClientConn
	meta   control.MetaClient
	stop   func()
}

// quiet keeps expected warnings off the test's output.
var quiet = slog.New(slog.DiscardHandler)

func newRig(t testing.TB, change ...func(*Config)) *rig {
	r := &rig{t: t, config: Config{
		Directory: t.TempDir(), Log: quiet, CacheBytes: 32 << 20,
		Heartbeat: 20 * time.Millisecond, DeadAfter: time.Second, RepairDelay: 1500 * time.Millisecond,
		RepairsPerSecond: 10_000,
	}}
	for _, c := range change {
		c(&r.config)
	}
	r.start()
	t.Cleanup(func() { r.stop() })
	return r
}

func (r *rig) start() {
	config := r.config
	config.Counters = nil
	server, err := Open(context.Background(), config)
	require.NoError(r.t, err)
	r.server = server
	r.config.Control = server.Address() // so that a restart is found
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx) }()
	r.conn, r.meta = dial(r.t, server.Address())
	r.stop = sync.OnceFunc(func() {
		require.NoError(r.t, r.conn.Close())
		cancel()
		require.NoError(r.t, <-done)
	})
}

func (r *rig) restart() {
	r.stop()
	r.start()
}

func dial(t testing.TB, address string) (*grpc.ClientConn, control.MetaClient) {
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	return conn, control.NewMetaClient(conn)
}

// user is a session with short ways to do things.
type user struct {
	*rig
	session   uint64
	hash      wire.HashKey
	number    atomic.Uint64
	transport *lookup.Transport
}

func (r *rig) open(uid uint32, groups ...uint32) *user {
	s, err := r.meta.OpenSession(r.t.Context(), &control.OpenSessionRequest{Client: "test", Uid: uid, Gid: uid, Groups: groups})
	require.NoError(r.t, err)
	transport, err := lookup.Dial(s.LookupAddress)
	require.NoError(r.t, err)
	r.t.Cleanup(func() { transport.Close() })
	return &user{rig: r, session: s.Session, hash: wire.HashKey(s.HashKey), transport: transport}
}

func node(name string) *control.Node {
	n := &control.Node{}
	for part := range strings.SplitSeq(strings.Trim(name, "/"), "/") {
		if part != "" {
			n.Names = append(n.Names, []byte(part))
		}
	}
	return n
}

// try carries out one mutation.
func (u *user) try(change any) (*control.Attributes, error) {
	m := &control.Mutation{Number: u.number.Add(1)}
	switch c := change.(type) {
	case *control.Create:
		m.Change = &control.Mutation_Create{Create: c}
	case *control.Mkdir:
		m.Change = &control.Mutation_Mkdir{Mkdir: c}
	case *control.Symlink:
		m.Change = &control.Mutation_Symlink{Symlink: c}
	case *control.Link:
		m.Change = &control.Mutation_Link{Link: c}
	case *control.Remove:
		m.Change = &control.Mutation_Remove{Remove: c}
	case *control.Rename:
		m.Change = &control.Mutation_Rename{Rename: c}
	case *control.SetAttributes:
		m.Change = &control.Mutation_SetAttributes{SetAttributes: c}
	case *control.SetXattr:
		m.Change = &control.Mutation_SetXattr{SetXattr: c}
	case *control.WriteInline:
		m.Change = &control.Mutation_WriteInline{WriteInline: c}
	case *control.SetSize:
		m.Change = &control.Mutation_SetSize{SetSize: c}
	}
	reply, err := u.meta.Mutate(u.t.Context(), &control.MutateRequest{Session: u.session, AnsweredBelow: m.Number, Mutations: []*control.Mutation{m}})
	if err != nil {
		return nil, err
	}
	require.Len(u.t, reply.Results, 1)
	if r := reply.Results[0]; r.Code != 0 {
		return nil, status.Error(codes.Code(r.Code), r.Message)
	}
	return reply.Results[0].Attributes, nil
}

func (u *user) must(change any) *control.Attributes {
	u.t.Helper()
	a, err := u.try(change)
	require.NoError(u.t, err)
	return a
}

// fails says how a mutation fails: a code's name, or an errno's.
func (u *user) fails(change any) string {
	_, err := u.try(change)
	return outcome(err)
}

func outcome(err error) string {
	if status.Code(err) == codes.FailedPrecondition {
		errno, _, _ := strings.Cut(status.Convert(err).Message(), ":")
		return errno
	}
	return status.Code(err).String()
}

func (u *user) mkdir(name string) *control.Attributes {
	u.t.Helper()
	return u.must(&control.Mkdir{Node: node(name), Mode: 0o755})
}

func (u *user) create(name, content string) *control.Attributes {
	u.t.Helper()
	return u.must(&control.Create{Node: node(name), Mode: 0o644, Inline: []byte(content), Exclusive: true})
}

func (u *user) walk(name string) (*control.WalkReply, error) {
	return u.meta.Walk(u.t.Context(), &control.WalkRequest{Session: u.session, Node: node(name), WantInline: true})
}

func (u *user) read(name string) string {
	u.t.Helper()
	reply, err := u.walk(name)
	require.NoError(u.t, err, name)
	return string(reply.Inline)
}

func (u *user) exists(name string) bool {
	_, err := u.walk(name)
	if err != nil {
		require.Equal(u.t, codes.NotFound, status.Code(err))
	}
	return err == nil
}

// lookup asks for a path with a datagram.
func (u *user) lookup(name string, flags uint16) wire.LookupAnswer {
	u.t.Helper()
	a, err := u.transport.Lookup(u.t.Context(), u.request(name, flags))
	require.NoError(u.t, err)
	return a
}

// request makes the lookup of a path.
func (u *user) request(name string, flags uint16) *wire.LookupRequest {
	hash := u.hash.Hash
	if u.server != nil { // it may have another hash for a test
		hash = u.server.hash
	}
	q := &wire.LookupRequest{Session: u.session, Start: wire.RootInode, Flags: flags}
	for _, part := range node(name).Names {
		q.Names[q.Components] = hash(part)
		q.Components++
	}
	return q
}

// list reads a directory page by page.
func (u *user) list(name string, page uint32) (names []string) {
	u.t.Helper()
	var after []byte
	for {
		reply, err := u.meta.ReadDirectory(u.t.Context(), &control.ReadDirectoryRequest{Session: u.session, Node: node(name), After: after, Limit: page})
		require.NoError(u.t, err)
		for _, e := range reply.Entries {
			names = append(names, string(e.Name))
			after = e.Name
			got, err := u.walk(path.Join(name, string(e.Name)))
			require.NoError(u.t, err)
			require.Equal(u.t, got.Attributes.String(), e.Attributes.String())
		}
		if !reply.More {
			return names
		}
	}
}

// eventually waits for what happens in the background.
func eventually(t testing.TB, what string, done func() bool) {
	t.Helper()
	require.Eventually(t, done, 20*time.Second, 5*time.Millisecond, what)
}
