package metrics

import (
	"context"
	"path"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
)

// latencyBuckets bound what is told apart: from 10 microseconds to 20 seconds,
// by factors of two.
var latencyBuckets = prometheus.ExponentialBuckets(10e-6, 2, 22)

// NewLatency returns histograms of times in seconds, one for each value of a
// label.
func NewLatency(name, help, label string) *prometheus.HistogramVec {
	return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: latencyBuckets}, []string{label})
}

// Calls times a role's control calls.
type Calls struct{ *prometheus.HistogramVec }

// NewCalls returns a collector of which Intercept is to be installed.
func NewCalls() Calls {
	return Calls{NewLatency("waggle_control_call_seconds", "Time of a control call that is answered once, by its method.", "method")}
}

// Intercept is a grpc.UnaryServerInterceptor.
func (c Calls) Intercept(ctx context.Context, q any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	began := time.Now()
	reply, err := handle(ctx, q)
	c.WithLabelValues(path.Base(info.FullMethod)).Observe(time.Since(began).Seconds())
	return reply, err
}
