package metrics

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/net/netutil"
)

// Limits of a place where metrics are asked for: few ask, and rarely.
const (
	maxConnections = 16
	maxHeader      = 8 << 10 // bytes
	requestTime    = 10 * time.Second
	idleTime       = 2 * time.Minute // more than between two visits of a collector
)

// Handler answers with a registry's metrics.
func Handler(registry prometheus.Gatherer) http.Handler {
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{MaxRequestsInFlight: maxConnections, Timeout: requestTime})
}

// Endpoint is where a role's metrics are asked for. A nil Endpoint is nowhere.
type Endpoint struct{ listener net.Listener }

// Listen listens on address, "host:port". Without a host only this machine can
// ask: whoever can reach the address can read the metrics. Nothing is returned
// for an empty address.
func Listen(address string) (*Endpoint, error) {
	if address == "" {
		return nil, nil
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("serve metrics on %q: give HOST:PORT, or :PORT for this machine only", address)
	}
	if host == "" {
		host = "127.0.0.1"
	}
	listener, err := net.Listen("tcp", net.JoinHostPort(host, port))
	if err != nil {
		return nil, fmt.Errorf("serve metrics on %q: %w", address, err)
	}
	return &Endpoint{netutil.LimitListener(listener, maxConnections)}, nil
}

// URL is where the metrics are; empty if they are nowhere.
func (e *Endpoint) URL() string {
	if e == nil {
		return ""
	}
	return "http://" + e.listener.Addr().String() + "/metrics"
}

// Close ends an Endpoint, also one that was never used.
func (e *Endpoint) Close() error {
	if e == nil {
		return nil
	}
	if err := e.listener.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("end serving metrics: %w", err)
	}
	return nil
}

// Beside runs serve, and answers with the metrics of a registry for as long as
// that takes. When either fails both end. The registry is not asked for if the
// metrics are nowhere: a role takes no times then that nobody would see.
func (e *Endpoint) Beside(ctx context.Context, registry func() *prometheus.Registry, serve func(context.Context) error) error {
	if e == nil {
		return serve(ctx)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", Handler(registry()))
	web := &http.Server{Handler: mux, ReadTimeout: requestTime, WriteTimeout: 2 * requestTime, IdleTimeout: idleTime,
		MaxHeaderBytes: maxHeader, ErrorLog: log.New(io.Discard, "", 0)}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := web.Serve(e.listener); !errors.Is(err, http.ErrServerClosed) {
			cancel(fmt.Errorf("serve metrics: %w", err))
		}
	}()
	err := serve(ctx)
	web.Close()
	<-ended
	if cause := context.Cause(ctx); err == nil && cause != nil && !errors.Is(cause, context.Canceled) {
		err = cause
	}
	return err
}
