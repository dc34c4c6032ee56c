package gateway

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc"

	"waggle/dfs/tcp"
	"waggle/dfs/wire/control"
)

// adminService says over gRPC what the gateway is and what it has counted, as
// every role does.
type adminService struct {
	control.UnimplementedAdminServer
	g *Gateway
}

func (a adminService) Status(context.Context, *control.Empty) (*control.RoleStatus, error) {
	return &control.RoleStatus{Role: "gateway", Version: a.g.config.Version, Counters: a.g.counts.all.Snapshot()}, nil
}

// Limits of control calls.
const (
	maxControlMessage = 1 << 20 // bytes
	maxControlStreams = 64      // of one connection
)

// listenControl makes ready for control calls, if there is an address for them.
func (g *Gateway) listenControl() (err error) {
	if g.config.ControlAddress == "" {
		return nil
	}
	if g.controlListener, err = tcp.Listen(context.Background(), g.config.ControlAddress); err != nil {
		return fmt.Errorf("serve control calls on %q: %w", g.config.ControlAddress, err)
	}
	g.control = grpc.NewServer(grpc.MaxRecvMsgSize(maxControlMessage), grpc.MaxConcurrentStreams(maxControlStreams))
	control.RegisterAdminServer(g.control, adminService{g: g})
	return nil
}

// ControlAddress is where control calls are served, "" if they are not.
func (g *Gateway) ControlAddress() string {
	if g.controlListener == nil {
		return ""
	}
	return g.controlListener.Addr().String()
}

func (g *Gateway) serveControl() error {
	err := g.control.Serve(g.controlListener)
	if errors.Is(err, grpc.ErrServerStopped) {
		return nil
	}
	return fmt.Errorf("serve control calls: %w", err)
}

// closeControl ends control calls, which take no time.
func (g *Gateway) closeControl() {
	if g.control != nil {
		g.control.Stop()
		g.controlListener.Close() // is still open if nobody has served
	}
}
