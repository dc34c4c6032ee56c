package meta

import (
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"waggle/dfs/metrics"
)

// Metrics is what Prometheus is told about this server.
func (s *Server) Metrics() *prometheus.Registry {
	return metrics.NewRegistry("meta", s.config.Counters, s.calls, metrics.Gauges(s.gauges))
}

// gauges may be asked for while the server ends, which no call is.
func (s *Server) gauges(set func(name, help string, value float64)) {
	s.asking.Lock()
	defer s.asking.Unlock()
	if s.closed {
		return
	}
	r := s.published.snapshot()
	defer r.close()
	if t, found := read(r, totalsKey(), decodeTotals); found {
		set("waggle_meta_files", "Files and symbolic links.", float64(t.files))
		set("waggle_meta_directories", "Directories.", float64(t.directories))
		set("waggle_meta_chunks", "Chunks of all files.", float64(t.chunks))
		set("waggle_meta_file_bytes", "Sum of the sizes of all files.", float64(t.bytes))
	}
	for _, q := range s.mender.queues() {
		name := "waggle_meta_queue_" + strings.ReplaceAll(q.Name, " ", "_")
		set(name+"_waiting", "What waits in the queue: chunks, removed files, or replicas to be deleted.", float64(q.Waiting))
		set(name+"_retrying", "Of those, what waits after a failure.", float64(q.Retrying))
	}
	trashed, trashedBytes := s.trash.size()
	set("waggle_meta_trash_files", "Removed files that can be undeleted.", float64(trashed))
	set("waggle_meta_trash_bytes", "Sum of their sizes.", float64(trashedBytes))
	set("waggle_meta_sessions", "Sessions of clients.", float64(s.sessions.count()))
	var alive, capacity, free uint64
	all := s.servers.status()
	for _, server := range all {
		if server.Alive {
			alive, capacity, free = alive+1, capacity+server.CapacityBytes, free+server.FreeBytes
		}
	}
	set("waggle_meta_chunk_servers", "Chunk servers that have joined.", float64(len(all)))
	set("waggle_meta_chunk_servers_alive", "Those that were heard of lately.", float64(alive))
	set("waggle_meta_disk_bytes", "Size of the file systems of those alive; servers that share one count it each.", float64(capacity))
	set("waggle_meta_disk_free_bytes", "What is free on them.", float64(free))
}
