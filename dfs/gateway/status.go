package gateway

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"waggle/dfs/client"
	"waggle/dfs/datapath"
	"waggle/dfs/metrics"
)

// counts is what the gateway counts beside its data paths.
type counts struct {
	all       *datapath.Counters
	requests  *atomic.Int64
	refused   *atomic.Int64 // connections
	broken    *atomic.Int64 // bodies that ended early
	continued *atomic.Int64 // bodies that went on after a chunk server failed
	relayed   *atomic.Int64 // bytes, by the relay path
	declined  *atomic.Int64 // bytes copied because a replica was not as long as expected
	zeros     *atomic.Int64 // bytes of holes
	library   *atomic.Int64 // bytes that the client library read
	uploaded  *atomic.Int64 // bytes

	latency prometheus.Histogram

	mu     sync.Mutex
	recent *hdrhistogram.WindowedHistogram // microseconds of the last seconds
	turned time.Time
}

const (
	latencyWindows = 6
	latencyWindow  = 5 * time.Second
	maxLatency     = 10 * time.Minute
)

func (c *counts) init(all *datapath.Counters) {
	c.all = all
	for name, n := range map[string]**atomic.Int64{
		"gateway_requests": &c.requests, "gateway_refused_connections": &c.refused, "gateway_broken_bodies": &c.broken,
		"gateway_continued_bodies": &c.continued, "gateway_relayed_bytes": &c.relayed, "gateway_declined_bytes": &c.declined,
		"gateway_hole_bytes": &c.zeros, "gateway_library_bytes": &c.library, "gateway_uploaded_bytes": &c.uploaded,
	} {
		*n = all.Counter(name)
	}
	c.latency = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "waggle_gateway_get_seconds", Help: "Time from a GET's header to the end of its body.",
		Buckets: prometheus.ExponentialBuckets(50e-6, 2, 22),
	})
	c.recent = hdrhistogram.NewWindowed(latencyWindows, 1, maxLatency.Microseconds(), 2)
}

// took notes how long a GET has taken.
func (c *counts) took(d time.Duration) {
	c.latency.Observe(d.Seconds())
	c.mu.Lock()
	defer c.mu.Unlock()
	c.turn()
	c.recent.Current.RecordValue(min(d.Microseconds(), maxLatency.Microseconds()))
}

// turn drops what is too old.
func (c *counts) turn() {
	for n := 0; time.Since(c.turned) > latencyWindow; n++ {
		if n == latencyWindows {
			c.turned = time.Now()
			return
		}
		c.recent.Rotate()
		c.turned = c.turned.Add(latencyWindow)
	}
}

// status is what the live panel shows.
type status struct {
	Version     string            `json:"version"`
	Paths       map[string]string `json:"paths"` // by operation
	Connections int               `json:"connections"`
	Counters    map[string]int64  `json:"counters"`
	// Latency is that of the GETs of the last 30 s.
	Latency struct {
		Count int64   `json:"count"`
		P50   float64 `json:"p50_seconds"`
		P99   float64 `json:"p99_seconds"`
		Max   float64 `json:"max_seconds"`
	} `json:"latency"`
}

func (g *Gateway) status() status {
	s := status{Version: g.config.Version, Counters: g.counts.all.Snapshot(),
		Paths: map[string]string{"relay": g.config.Relay, "read": g.config.ReadPath}}
	g.mu.Lock()
	s.Connections = len(g.connections)
	g.mu.Unlock()
	g.counts.mu.Lock()
	defer g.counts.mu.Unlock()
	g.counts.turn()
	recent := g.counts.recent.Merge()
	s.Latency.Count = recent.TotalCount()
	s.Latency.P50 = float64(recent.ValueAtQuantile(50)) / 1e6
	s.Latency.P99 = float64(recent.ValueAtQuantile(99)) / 1e6
	s.Latency.Max = float64(recent.Max()) / 1e6
	return s
}

// metricsHandler serves what Prometheus collects.
func (g *Gateway) metricsHandler() http.Handler {
	registry := metrics.NewRegistry("gateway", g.counts.all)
	registry.MustRegister(g.counts.latency, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "waggle_gateway_connections", Help: "Connections of clients.",
	}, func() float64 {
		g.mu.Lock()
		defer g.mu.Unlock()
		return float64(len(g.connections))
	}))
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{})
}

// errorStatuses says what an error of the file system is in HTTP.
var errorStatuses = []struct {
	err    error
	status int
}{
	{fs.ErrNotExist, http.StatusNotFound},
	{syscall.ENOTDIR, http.StatusNotFound},
	{fs.ErrPermission, http.StatusForbidden},
	{fs.ErrInvalid, http.StatusBadRequest},
	{syscall.ENOSPC, http.StatusInsufficientStorage},
	{client.ErrBusy, http.StatusConflict},
	{fs.ErrExist, http.StatusConflict},
	{syscall.EISDIR, http.StatusConflict},
	{syscall.ENOTEMPTY, http.StatusConflict},
	{client.ErrUnavailable, http.StatusServiceUnavailable},
}

func statusOf(err error) int {
	var tooLarge *http.MaxBytesError
	var slow net.Error
	switch {
	case errors.As(err, &tooLarge):
		return http.StatusRequestEntityTooLarge
	case errors.As(err, &slow) && slow.Timeout():
		return http.StatusRequestTimeout
	}
	for _, e := range errorStatuses {
		if errors.Is(err, e.err) {
			return e.status
		}
	}
	return http.StatusInternalServerError
}

func fail(w http.ResponseWriter, err error) {
	status := statusOf(err)
	http.Error(w, fmt.Sprintf("%s: %v", http.StatusText(status), err), status)
}

func isReset(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}
