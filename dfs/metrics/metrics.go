// Package metrics shows the counters of a role to Prometheus. Every counter of
// datapath.Counters becomes waggle_NAME_total.
package metrics

import (
	"regexp"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"waggle/dfs/datapath"
)

// NewRegistry returns a registry with a role's counters and what the process
// uses.
func NewRegistry(role string, counters *datapath.Counters) *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		&collector{role: role, counters: counters})
	return r
}

// collector is unchecked: which counters there are is known when they count.
type collector struct {
	role     string
	counters *datapath.Counters
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(chan<- *prometheus.Desc) {}

var notInNames = regexp.MustCompile(`[^a-z0-9_]`)

// Collect implements prometheus.Collector.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	for name, n := range c.counters.Snapshot() {
		describes := prometheus.NewDesc("waggle_"+notInNames.ReplaceAllString(name, "_")+"_total",
			"Counter "+name+" of the role.", nil, prometheus.Labels{"role": c.role})
		out <- prometheus.MustNewConstMetric(describes, prometheus.CounterValue, float64(n))
	}
}
