package control

import (
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	"waggle/dfs/tcp"
)

// Times of a link between two roles. A side that has gone without a word, as with
// its machine or the network, is noticed after Idle and Answer together; calls under
// way fail then, and the next ones connect anew.
const (
	linkIdle   = 10 * time.Second // gRPC allows no less
	linkAnswer = 5 * time.Second
	// pingLimit is how often the other side may ask. Some ask more often than they say.
	pingLimit = time.Second
)

// reconnect keeps the wait short until a role that has started again is found.
var reconnect = backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.5, Jitter: 0.2, MaxDelay: time.Second}

// DialOptions are those of every connection that carries control calls. Connecting
// may take connectTime.
func DialOptions(connectTime time.Duration) []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(tcp.DialControl),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: reconnect, MinConnectTimeout: connectTime}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: linkIdle, Timeout: linkAnswer, PermitWithoutStream: true}),
	}
}

// ServerOptions are those of every server of control calls.
func ServerOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: linkIdle, Timeout: linkAnswer}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: pingLimit, PermitWithoutStream: true}),
	}
}
