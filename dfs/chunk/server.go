// Package chunk is the chunk server: it keeps replicas of chunks (package
// replica) and serves them, bytes by data frames over TCP (data.go, write.go),
// everything else by gRPC (control.go). It registers with the metadata server
// and sends it heartbeats (register.go), and reads all that it holds again
// slowly, to find damage before a client does (scrub.go).
//
// Start with New and Server.Serve.
package chunk

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"
	"google.golang.org/grpc"

	"waggle/dfs/chunk/replica"
	"waggle/dfs/datapath"
	"waggle/dfs/datapath/read"
	"waggle/dfs/datapath/read/shortcircuit"
	"waggle/dfs/datapath/write"
	"waggle/dfs/tcp"
	"waggle/dfs/weaken"
	"waggle/dfs/wire"
)

// Config says how a chunk server runs. Only Directory must be set.
type Config struct {
	Directory string // where replicas are kept; made if it does not exist
	// Meta is the metadata server's control address, "host:port". Without one
	// the server serves what it is asked for, and registers nowhere.
	Meta string
	// DataAddress and ControlAddress are listened on; default "127.0.0.1:0".
	DataAddress    string
	ControlAddress string
	// Advertise is the IP address that others reach this server at. It must be
	// set if the server listens on all addresses.
	Advertise string

	MaxConnections int           // of the data port; default 512. Each can take 8 MiB of buffers
	OpenFiles      int           // replicas kept open; default 512
	IdleTimeout    time.Duration // an idle data connection is closed; default 10 minutes
	// PeerTimeout bounds how long a peer may take to send the rest of a frame, to
	// take an answer, and each server of a chain to acknowledge; default 15 s.
	PeerTimeout time.Duration
	// SockmapCgroup is the directory of a control group (version 2). Within it
	// connections whose client asks for it are redirected (read=sockmap+...);
	// this process must be in it, or below, before New is called.
	SockmapCgroup string
	// ScrubRate is how many bytes a second are read to look for damage; 0 turns
	// it off.
	ScrubRate int

	Version string // of the program, for Admin.Status
	Log     *slog.Logger
}

func (c *Config) setDefaults() {
	c.DataAddress = cmp.Or(c.DataAddress, "127.0.0.1:0")
	c.ControlAddress = cmp.Or(c.ControlAddress, "127.0.0.1:0")
	c.MaxConnections = cmp.Or(c.MaxConnections, 512)
	c.OpenFiles = cmp.Or(c.OpenFiles, 512)
	c.IdleTimeout = cmp.Or(c.IdleTimeout, 10*time.Minute)
	c.PeerTimeout = cmp.Or(c.PeerTimeout, 15*time.Second)
	c.Log = cmp.Or(c.Log, slog.Default())
}

// Server is a chunk server.
type Server struct {
	config   Config
	log      *slog.Logger
	complain *rate.Limiter // bounds the log lines that bad peers can cause
	store    *replica.Store
	identity identity
	// incarnation tells this process from those before it with the same directory.
	incarnation uint64
	served      bool        // since it was started; of the goroutine that registers
	senders     read.Server // what they share
	measures    *measures
	lender      *shortcircuit.Server
	lease       servingLease
	links       links
	corrupt     chan corruptBlock // to be told to the metadata server

	defaultRead  read.Path
	defaultWrite write.Path

	data        *net.TCPListener
	control     net.Listener
	stopping    atomic.Bool
	mu          sync.Mutex
	connections map[*net.TCPConn]bool
	serving     sync.WaitGroup
}

// New opens the directory, recovering what a crash interrupted, and listens.
// The server must then be served or closed.
func New(config Config) (*Server, error) {
	config.setDefaults()
	s := &Server{config: config, log: config.Log, complain: rate.NewLimiter(rate.Every(time.Second), 10),
		connections: make(map[*net.TCPConn]bool), corrupt: make(chan corruptBlock, 256), links: newLinks()}
	s.incarnation = rand.Uint64()
	s.measures = s.newMeasures()
	var err error
	if s.defaultRead, err = read.Paths.Use(read.Copy); err != nil {
		return nil, err
	}
	if s.defaultWrite, err = write.Paths.Use(write.Chain); err != nil {
		return nil, err
	}
	if s.store, err = replica.Open(config.Directory, replica.Options{OpenFiles: config.OpenFiles, Log: config.Log}); err != nil {
		return nil, fmt.Errorf("start chunk server: %w", err)
	}
	if err = s.open(); err != nil {
		return nil, errors.Join(fmt.Errorf("start chunk server: %w", err), s.Close())
	}
	return s, nil
}

func (s *Server) open() (err error) {
	if s.identity, err = readIdentity(s.config.Directory); err != nil {
		return err
	}
	if s.data, err = tcp.ListenData(context.Background(), s.config.DataAddress); err != nil {
		return fmt.Errorf("listen for data: %w", err)
	}
	if s.control, err = tcp.Listen(context.Background(), s.config.ControlAddress); err != nil {
		return fmt.Errorf("listen for control: %w", err)
	}
	if s.lender, err = shortcircuit.Listen(s.lend); err != nil {
		return err
	}
	s.lease.lender, s.lease.fences = s.lender, make(map[uint64]uint64)
	if s.config.Meta == "" || weaken.On(weaken.ReportBeforeServing) {
		s.lease.set(forever)
	} else {
		s.lease.end()
	}
	if s.config.SockmapCgroup != "" {
		if err := s.senders.ListenSockmap(s.config.SockmapCgroup, uint16(s.data.Addr().(*net.TCPAddr).Port)); err != nil {
			return err
		}
	}
	for _, a := range []string{s.DataAddress(), s.ControlAddress()} {
		if at, err := netip.ParseAddrPort(a); err != nil || at.Addr().IsUnspecified() {
			return fmt.Errorf("address %s can't be reached by others: say which IP address to advertise", a)
		}
	}
	return nil
}

// DataAddress is where others reach the data port, "ip:port".
func (s *Server) DataAddress() string { return s.advertised(s.data.Addr()) }

// ControlAddress is where others reach the gRPC services, "ip:port".
func (s *Server) ControlAddress() string { return s.advertised(s.control.Addr()) }

func (s *Server) advertised(a net.Addr) string {
	host, port, err := net.SplitHostPort(a.String())
	if err != nil {
		return a.String()
	}
	return net.JoinHostPort(cmp.Or(s.config.Advertise, host), port)
}

// Counters are the server's counts, as Admin.Status answers them.
func (s *Server) Counters() *datapath.Counters { return &s.senders.Counters }

// Serve serves until ctx is done, and then ends what is under way and closes
// the server. It returns nil if it was stopped, or why it could not go on.
func (s *Server) Serve(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	rpc := s.newControlServer()
	g.Go(func() error { return s.acceptData() })
	g.Go(func() error { return ignoreStopped(rpc.Serve(s.control)) })
	g.Go(func() error { return s.scrub(ctx) })
	stopped := make(chan struct{})
	g.Go(func() error { return s.keepRegistered(ctx, stopped) })
	g.Go(func() error {
		<-ctx.Done()
		s.stop(rpc)
		s.lease.end()
		close(stopped)
		return nil
	})
	err := g.Wait()
	return errors.Join(err, s.Close())
}

func ignoreStopped(err error) error {
	if errors.Is(err, grpc.ErrServerStopped) {
		return nil
	}
	return err
}

// stopTimeout is how long what is under way may take when the server stops.
const stopTimeout = 5 * time.Second

// stop ends accepting, lets frames and calls that are under way end, and then
// closes what is left.
func (s *Server) stop(rpc *grpc.Server) {
	s.mu.Lock()
	s.stopping.Store(true)
	s.mu.Unlock()
	s.data.Close()
	force := time.AfterFunc(stopTimeout, func() {
		rpc.Stop()
		s.eachConnection(func(c *net.TCPConn) { c.Close() })
	})
	defer force.Stop()
	s.eachConnection(func(c *net.TCPConn) { c.SetReadDeadline(time.Now()) })
	rpc.GracefulStop()
	s.serving.Wait()
}

func (s *Server) eachConnection(do func(*net.TCPConn)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.connections {
		do(c)
	}
}

// Close closes a server that is not being served.
func (s *Server) Close() error {
	s.links.idle.CloseAll()
	if s.data != nil {
		s.data.Close()
	}
	if s.control != nil {
		s.control.Close()
	}
	err := errors.Join(s.senders.Close(), s.store.Close())
	if s.lender != nil {
		err = errors.Join(err, s.lender.Close())
	}
	return err
}

// lend opens a replica for a client that reads it without this server.
func (s *Server) lend(chunk, epoch uint64, lend func(*shortcircuit.Loan, uint64) *shortcircuit.Loan) (shortcircuit.Replica, wire.Status, error) {
	r, err := s.store.Get(chunk)
	var lent shortcircuit.Replica
	if err == nil {
		err = s.lease.admits(r.State())
	}
	if err == nil {
		lent, err = r.Share(epoch, lend)
	}
	return lent, statusOf(err), err
}
