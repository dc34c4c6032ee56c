package chunk

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"waggle/dfs/metrics"
)

// measures are what is counted for people rather than as a path's proof.
type measures struct {
	calls       metrics.Calls
	frames      *prometheus.HistogramVec
	read, write prometheus.Observer
	// timed is set once somebody wants to know how long frames take: that costs a
	// good part of a microsecond each.
	timed atomic.Bool
	// sent and stored are bytes of data, by whichever path. What a client reads
	// itself (read=shortcircuit) does not pass this server.
	sent, stored *atomic.Int64
}

func (s *Server) newMeasures() *measures {
	frames := metrics.NewLatency("waggle_chunk_frame_seconds",
		"Time to carry out a data frame once its header is here; of a write without the servers behind this one.", "frame")
	for _, name := range []string{"chunk_refused_connections", "chunk_broken_connections", "chunk_corrupt_blocks", "chunk_scrubbed_bytes"} {
		s.Counters().Counter(name) // so that there is a 0 to see
	}
	return &measures{calls: metrics.NewCalls(), frames: frames, read: frames.WithLabelValues("read"), write: frames.WithLabelValues("write"),
		sent: s.Counters().Counter("chunk_sent_bytes"), stored: s.Counters().Counter("chunk_stored_bytes")}
}

// took notes how long a frame has taken.
func (m *measures) took(by prometheus.Observer, began time.Time) {
	if m.timed.Load() {
		by.Observe(time.Since(began).Seconds())
	}
}

// Metrics is what Prometheus is told about this server.
func (s *Server) Metrics() *prometheus.Registry {
	s.measures.timed.Store(true)
	return metrics.NewRegistry("chunk", s.Counters(), s.measures.calls, s.measures.frames, metrics.Gauges(s.gauges))
}

func (s *Server) gauges(set func(name, help string, value float64)) {
	s.mu.Lock()
	connections := len(s.connections)
	s.mu.Unlock()
	set("waggle_chunk_connections", "Data connections.", float64(connections))
	set("waggle_chunk_replicas", "Replicas that are kept.", float64(s.store.Count()))
	set("waggle_chunk_used_bytes", "Data in all replicas.", float64(s.store.Bytes()))
	if disk, err := s.disk(); err == nil && disk.capacity > 0 { // or it is not told, and missing is what that is
		set("waggle_chunk_disk_bytes", "Size of the file system that the replicas are on.", float64(disk.capacity))
		set("waggle_chunk_disk_free_bytes", "What is free on it for this process.", float64(disk.free))
	}
}
