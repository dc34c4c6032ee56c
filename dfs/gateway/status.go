package gateway

import (
	"errors"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/prometheus/client_golang/prometheus"

	"waggle/dfs/datapath"
	"waggle/dfs/datapath/relay"
	"waggle/dfs/metrics"
)

// counts is what the gateway counts beside its data paths.
type counts struct {
	all       *datapath.Counters
	requests  *atomic.Int64
	refused   *atomic.Int64 // connections
	stalled   *atomic.Int64 // connections whose clients took too little
	evicted   *atomic.Int64 // connections that were quiet and made room for others
	broken    *atomic.Int64 // bodies that ended early
	continued *atomic.Int64 // bodies that went on after a chunk server failed
	relayed   *atomic.Int64 // bytes of downloads, by the relay path
	declined  *atomic.Int64 // bytes copied because a replica was not as long as expected
	zeros     *atomic.Int64 // bytes of holes
	library   *atomic.Int64 // bytes that the client library read
	uploaded  *atomic.Int64 // bytes
	passed    *atomic.Int64 // of these, by the relay path
	ahead     *atomic.Int64 // of these, that came with the header and were copied before the relay path took over

	latency *prometheus.HistogramVec
	ways    [ways]recent
}

// way is how a body gets through the gateway.
type way int

const (
	relayed  way = iota // passed on by the relay path
	verified            // read and verified by the client library
	uploaded            // written by the client library, or relayed to chunk servers
	ways
)

func (w way) String() string { return [...]string{"relayed", "verified", "uploaded"}[w] }

// operation is what the data path of a way does.
func (w way) operation() datapath.Operation {
	return [...]datapath.Operation{datapath.Relay, datapath.Read, datapath.Write}[w]
}

func (c *counts) init(all *datapath.Counters) {
	c.all = all
	for name, n := range map[string]**atomic.Int64{
		"gateway_requests": &c.requests, "gateway_refused_connections": &c.refused, "gateway_stalled_connections": &c.stalled, "gateway_evicted_connections": &c.evicted,
		"gateway_broken_bodies":    &c.broken,
		"gateway_continued_bodies": &c.continued, "gateway_relayed_bytes": &c.relayed, "gateway_declined_bytes": &c.declined,
		"gateway_hole_bytes": &c.zeros, "gateway_library_bytes": &c.library, "gateway_uploaded_bytes": &c.uploaded,
		"gateway_upload_relayed_bytes": &c.passed, "gateway_upload_ahead_bytes": &c.ahead,
	} {
		*n = all.Counter(name)
	}
	c.latency = metrics.NewLatency("waggle_gateway_body_seconds",
		"Time from a GET's or PUT's header to the end of its body, by how that got through the gateway.", "way")
	for w := range ways {
		c.latency.WithLabelValues(w.String()) // so that there is a 0 to see
		c.ways[w].last = hdrhistogram.NewWindowed(latencyWindows, 1, maxLatency.Microseconds(), 2)
	}
}

// took notes how long a body has taken.
func (c *counts) took(w way, d time.Duration) {
	c.latency.WithLabelValues(w.String()).Observe(d.Seconds())
	c.ways[w].note(d)
}

// recent are the times of the last seconds.
type recent struct {
	mu     sync.Mutex
	last   *hdrhistogram.WindowedHistogram // microseconds
	turned time.Time
}

const (
	latencyWindows = 6
	latencyWindow  = 5 * time.Second
	maxLatency     = 10 * time.Minute
)

func (r *recent) note(d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.turn()
	r.last.Current.RecordValue(min(d.Microseconds(), maxLatency.Microseconds()))
}

// turn drops what is too old.
func (r *recent) turn() {
	for n := 0; time.Since(r.turned) > latencyWindow; n++ {
		if n == latencyWindows {
			r.turned = time.Now()
			return
		}
		r.last.Rotate()
		r.turned = r.turned.Add(latencyWindow)
	}
}

// latency is that of the bodies of the last 30 s.
type latency struct {
	Count int64   `json:"count"`
	P50   float64 `json:"p50_seconds"`
	P99   float64 `json:"p99_seconds"`
	Max   float64 `json:"max_seconds"`
}

func (r *recent) latency() latency {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.turn()
	all := r.last.Merge()
	const second = 1e6
	return latency{all.TotalCount(), float64(all.ValueAtQuantile(50)) / second, float64(all.ValueAtQuantile(99)) / second, float64(all.Max()) / second}
}

// status is what the live panel shows.
type status struct {
	Version     string           `json:"version"`
	Connections int              `json:"connections"`
	Paths       []pathStatus     `json:"paths"`
	Counters    map[string]int64 `json:"counters"`
}

// pathStatus is what went through the gateway by one data path.
type pathStatus struct {
	Way       string             `json:"way"`
	Operation datapath.Operation `json:"operation"`
	Path      string             `json:"path"`
	Bytes     int64              `json:"bytes"` // of bodies
	// Copied are the bytes that this process has read from a connection for these
	// bodies, and those that it has written to one. Absent means not counted.
	Copied  *int64  `json:"copied_bytes,omitempty"`
	Latency latency `json:"latency"`
}

func (g *Gateway) status() status {
	s := status{Version: g.config.Version, Counters: g.counts.all.Snapshot()}
	g.mu.Lock()
	s.Connections = len(g.connections)
	g.mu.Unlock()
	for w := range ways {
		if w == relayed && g.relay == nil {
			continue
		}
		p := pathStatus{Way: w.String(), Operation: w.operation(), Latency: g.counts.ways[w].latency()}
		p.Path, p.Bytes, p.Copied = g.traffic(w, s.Counters)
		s.Paths = append(s.Paths, p)
	}
	return s
}

// traffic says what has gone one way.
func (g *Gateway) traffic(w way, counters map[string]int64) (path string, n int64, copied *int64) {
	switch w {
	case relayed:
		n = counters["gateway_relayed_bytes"]
		// The path's proof is of both directions. The few bytes of uploads that it does
		// not prove are taken for copied ones of downloads: too many rather than too few.
		byKernel := max(g.movedByKernel(counters)-counters["gateway_upload_relayed_bytes"], 0)
		through := 2 * max(n-byKernel, 0)
		return g.config.Relay, n, &through
	case verified:
		n = counters["gateway_library_bytes"]
		through := 2 * n
		return g.client.ReadPath(), n, &through
	}
	return g.client.WritePath(), counters["gateway_uploaded_bytes"], nil
}

// movedByKernel is how many of the relayed bytes never came to this process, as
// the path proves. Of all others it is taken that they came and went.
func (g *Gateway) movedByKernel(counters map[string]int64) (n int64) {
	if g.config.Relay == relay.Copy {
		return 0
	}
	path, err := relay.Paths.Get(g.config.Relay)
	if err != nil {
		return 0 // New has got it
	}
	for _, proof := range path.About().Proof {
		n += counters[proof]
	}
	return n
}

// Metrics is what Prometheus is told about this gateway.
func (g *Gateway) Metrics() *prometheus.Registry {
	return metrics.NewRegistry("gateway", g.counts.all, g.counts.latency, metrics.Gauges(func(set func(name, help string, value float64)) {
		g.mu.Lock()
		defer g.mu.Unlock()
		set("waggle_gateway_connections", "Connections of clients.", float64(len(g.connections)))
	}))
}

func isReset(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}
