// Package gateway is the front door of the file system for those who speak only
// HTTP: browsers, curl, WebDAV clients.
//
// Files are at their own paths, the gateway's pages below "/-/". GET, HEAD, PUT,
// DELETE, and the verbs of WebDAV (class 1, 2 and 3) work on files and directories;
// a directory is answered as a page, or as JSON for "Accept: application/json".
// PUT, COPY and MOVE are atomic: what is there stays until the new one is whole.
//
// # What a request may change
//
// Whatever changes something asks handler.permit (conditions.go) first. That
// evaluates the conditions of the request (If-Match and the like, WebDAV's If) and
// looks for the locks of others, and keeps other changes of the same names off until
// this one is made (claims.go). A PUT asks twice: before its body comes, so that none
// is sent in vain, and when it is here. So of two uploads of one file the last to
// finish wins, unless it was for a version that is no more.
//
// WebDAV's messages and locks are in package dav, what they do to files in dav.go,
// copymove.go and properties.go, the refusals in refuse.go.
//
// # How a body gets to a client
//
// The body of a GET is moved from the chunk server's connection to the client's
// by a relay path (dfs/datapath/relay), which may do so in the kernel. Two
// owners take turns with a client's connection: a small loop (connection.go)
// that only understands plain GETs of files, and net/http for all else. The loop
// looks at a request without consuming it. Only if every byte of it was
// understood, it answers; otherwise the connection goes to net/http with all its
// bytes, and comes back at the next GET of a file. So nothing is parsed twice
// with two outcomes, which is what request smuggling lives on.
//
// # How a body gets from a client
//
// The body of a PUT goes the other way by the same relay path (intake.go), if its
// length is known and more than fits into an inode. net/http parses every such
// request, so its checks, those of cross-origin requests, and the conditions hold;
// then the connection goes to the loop with the body unread, which is told to go on
// (100 Continue), and comes back to either with the next request. Exactly
// Content-Length bytes are taken.
//
// The gateway waits until a part of the body has arrived, sends a write's header to
// the chunk's first server, and has the part moved behind it. So what is begun can
// be ended at once: neither a slow client nor one that is gone holds a chunk server
// up. The rejected way was to announce the largest part and to move it as it comes:
// chunk servers give up on half a frame after 15 s. What net/http has read together
// with the header, 4 KiB at most, is written by the gateway; it is counted
// (gateway_upload_ahead_bytes), and no part of the path's proof.
//
// A write's checksums stand before its data, but here nobody knows them. The frame
// says so (wire.FlagUnsummed): the first chunk server computes them, passes them on
// along the chain, and answers with them.
//
// What was moved can't be sent again. When a chunk server fails, the upload fails
// with it (503, and the connection is closed); the old file stays, as ever.
//
// # What is verified
//
// A relayed body is not seen by the gateway, so it can't verify it: the answer
// says "Waggle-Verified: no". A client that sends "TE: trailers" gets the
// checksum that the chunk servers stored for exactly these bytes behind them,
// as "Content-Digest: crc32c=:...:" (RFC 9530). With no relay path the client library
// reads, verifies and tries every replica, and the answer says "yes".
//
// The answer to an upload says what was stored, as "Repr-Digest: crc32c=:...:", put
// together from the checksums that the chunk servers computed on arrival: a client
// that compares it has verified its upload from end to end. One that sends
// Content-Digest or Repr-Digest has the gateway compare, before the file appears:
// then the answer says "Waggle-Verified: yes", or the upload is refused. For sha-256
// and sha-512, which chunk servers don't compute, the gateway reads the body itself.
//
// # Limits
//
// Everything a client sends has a limit: see Config. There is no authentication:
// every client has the rights of the gateway's own identity.
package gateway

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"golang.org/x/time/rate"
	"google.golang.org/grpc"

	"waggle/dfs/client"
	"waggle/dfs/datapath"
	"waggle/dfs/datapath/read"
	"waggle/dfs/datapath/relay"
	"waggle/dfs/gateway/dav"
	"waggle/dfs/tcp"
)

// NoRelay is the name that stands for no relay path: the client library reads,
// and verifies, each body.
const NoRelay = "none"

// Config says how to run a gateway. Client must be set; zero values of the
// others mean the defaults.
type Config struct {
	Client  *client.Client
	Address string // to serve HTTP on; default "127.0.0.1:9440"
	// ControlAddress is where to tell over gRPC what was counted; "" is nowhere.
	ControlAddress string
	// Relay names the relay path, default "copy", or NoRelay.
	Relay string
	// ReadPath names the chunk servers' side of it; default "copy".
	ReadPath string
	// Counters receive what is counted; default: the client's.
	Counters *datapath.Counters
	Log      *slog.Logger // default: slog.Default()
	Version  string

	MaxConnections int           // default 1,024
	MaxHeader      int           // bytes of a request's header; default 16 KiB
	MaxUpload      int64         // bytes of one PUT; default 1 TiB
	HeaderTimeout  time.Duration // to send a header in; default 10 s
	IdleTimeout    time.Duration // between requests; default 60 s
	// Grace and MinRate bound how long a client may take for a body. It has Grace
	// (default 30 s), and for each byte that it has sent or taken the time that the
	// byte takes at MinRate (bytes per second, default 4 KiB); and it may never send
	// or take nothing for longer than Grace. Slower clients lose their connection.
	// If there are MaxConnections, a new one takes the place of the one that has been
	// quiet longest, if for a tenth of Grace.
	Grace   time.Duration
	MinRate int64
}

func (c Config) withDefaults() Config {
	c.Address = cmp.Or(c.Address, "127.0.0.1:9440")
	c.Relay = cmp.Or(c.Relay, relay.Copy)
	c.ReadPath = cmp.Or(c.ReadPath, read.Copy)
	c.Counters = cmp.Or(c.Counters, c.Client.Counters())
	c.Log = cmp.Or(c.Log, slog.Default())
	c.MaxConnections = cmp.Or(c.MaxConnections, 1024)
	c.MaxHeader = cmp.Or(c.MaxHeader, 16<<10)
	c.MaxUpload = cmp.Or(c.MaxUpload, 1<<40)
	c.HeaderTimeout = cmp.Or(c.HeaderTimeout, 10*time.Second)
	c.IdleTimeout = cmp.Or(c.IdleTimeout, time.Minute)
	c.Grace = cmp.Or(c.Grace, 30*time.Second)
	c.MinRate = cmp.Or(c.MinRate, 4<<10)
	return c
}

// stopTime is how long requests have to end when the gateway is stopped.
const stopTime = 3 * time.Second

// Gateway serves one file system.
type Gateway struct {
	config    Config
	client    *client.Client
	log       *slog.Logger
	complain  *rate.Limiter // for what clients can cause
	listener  *net.TCPListener
	relay     relay.Relay // nil with NoRelay
	upstreams *upstreams
	uploads   string // directory of uploads that are not whole
	counts    counts
	handler   *handler
	web       *http.Server
	handed    *handedOver

	controlListener *net.TCPListener // nil without control calls, as control
	control         *grpc.Server

	ctx    context.Context // ends when the gateway is to stop
	cancel context.CancelFunc
	// bodies is the context of bodies on their way, which may go on for a while.
	bodies       context.Context
	cancelBodies context.CancelFunc
	loops        sync.WaitGroup // accept, open connections, and what serves them but net/http

	mu          sync.Mutex
	connections map[*connection]bool
}

// New listens. Serve must be called, or Close.
func New(config Config) (*Gateway, error) {
	config = config.withDefaults()
	g := &Gateway{config: config, client: config.Client, log: config.Log, complain: rate.NewLimiter(2, 20),
		connections: make(map[*connection]bool)}
	if _, err := read.Paths.Get(config.ReadPath); err != nil {
		return nil, err
	}
	g.ctx, g.cancel = context.WithCancel(context.Background())
	g.bodies, g.cancelBodies = context.WithCancel(context.Background())
	g.counts.init(config.Counters)
	if config.Relay != NoRelay {
		path, err := relay.Paths.Use(config.Relay)
		if err != nil {
			return nil, err
		}
		if g.relay, err = path.Open(config.Counters); err != nil {
			return nil, err
		}
		g.upstreams = newUpstreams(g.relay, config.ReadPath)
	}
	if err := g.listen(); err != nil {
		return nil, errors.Join(err, g.closeRelay())
	}
	return g, nil
}

func (g *Gateway) listen() (err error) {
	if g.listener, err = tcp.ListenData(context.Background(), g.config.Address); err != nil {
		return fmt.Errorf("serve HTTP on %q: %w", g.config.Address, err)
	}
	// Nobody else listens here, so nobody else uploads under this name, and what
	// is there was left behind.
	host, err := os.Hostname()
	if err != nil {
		return errors.Join(fmt.Errorf("name the gateway's uploads: %w", err), g.listener.Close())
	}
	if err := g.listenControl(); err != nil {
		return errors.Join(err, g.listener.Close())
	}
	g.uploads = uploadsRoot + "/" + host + "-" + g.Address()
	g.handed = newHandedOver(g.listener.Addr())
	g.handler = &handler{g: g, pages: g.newPages(), locks: dav.NewLocks(maxLocks), claims: newClaims()}
	g.web = g.newServer()
	return nil
}

// Address is where the gateway serves HTTP.
func (g *Gateway) Address() string { return g.listener.Addr().String() }

// Serve serves until ctx ends, which is no error. The client stays open.
func (g *Gateway) Serve(ctx context.Context) error {
	if err := g.client.RemoveAll(ctx, g.uploads); err != nil && ctx.Err() == nil {
		return errors.Join(fmt.Errorf("remove what uploads were left behind: %w", err), g.close())
	}
	g.loops.Go(func() { g.watch(g.ctx) })
	ended := make(chan error, 3)
	g.loops.Go(func() { ended <- g.accept() })
	if g.control != nil {
		go func() { ended <- g.serveControl() }()
	}
	go func() { ended <- g.web.Serve(g.handed) }()
	var err error
	select {
	case <-ctx.Done():
	case err = <-ended:
	}
	return errors.Join(err, g.close())
}

// close ends everything: what is idle at once, requests after some time.
func (g *Gateway) close() error {
	err := g.listener.Close()
	ctx, cancel := context.WithTimeout(context.Background(), stopTime)
	defer cancel()
	g.cancel()
	g.web.Shutdown(ctx)
	g.endIdle()
	done := make(chan struct{})
	go func() { g.loops.Wait(); close(done) }()
	select {
	case <-done:
	case <-ctx.Done():
	}
	g.handed.Close()
	g.cancelBodies()
	g.web.Close()
	g.closeControl()
	g.closeAll()
	<-done
	return errors.Join(err, g.closeRelay())
}

func (g *Gateway) closeRelay() error {
	g.cancel()
	g.cancelBodies()
	if g.relay == nil {
		return nil
	}
	return errors.Join(g.upstreams.close(), g.relay.Close())
}

// warn logs what a client can cause, so not too often.
func (g *Gateway) warn(message string, args ...any) {
	if g.complain.Allow() {
		g.log.Warn(message, args...)
	}
}

// moreBy is by when more must have come of a body that began then, of which so much
// has come, the last of it then.
func (c *Config) moreBy(began time.Time, taken int64, last time.Time) time.Time {
	slow, stalled := began.Add(c.bodyTime(taken)), last.Add(c.Grace)
	if slow.Before(stalled) {
		return slow
	}
	return stalled
}

// bodyTime is how long a body of n bytes may take.
func (c *Config) bodyTime(n int64) time.Duration {
	return c.Grace + time.Duration(min(float64(n)/float64(c.MinRate), mostSeconds)*float64(time.Second))
}

// mostSeconds is a century, which a time.Duration holds.
const mostSeconds = 100 * 365 * 24 * 3600
