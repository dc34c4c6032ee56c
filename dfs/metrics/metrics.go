// Package metrics shows what a role counts to Prometheus. Every counter of
// datapath.Counters becomes waggle_NAME_total; beside them are a role's gauges,
// and how long its calls take. grafana.json is a dashboard of them all.
package metrics

import (
	"regexp"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"waggle/dfs/datapath"
)

// NewRegistry returns a registry with a role's counters, what its process uses,
// and more. All of it has the label "role".
func NewRegistry(role string, counters *datapath.Counters, more ...prometheus.Collector) *prometheus.Registry {
	r := prometheus.NewRegistry()
	labelled := prometheus.WrapRegistererWith(prometheus.Labels{"role": role}, r)
	labelled.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		counts{counters})
	labelled.MustRegister(more...)
	return r
}

// counts is unchecked: which counters there are is known when they count.
type counts struct{ counters *datapath.Counters }

// Describe implements prometheus.Collector.
func (counts) Describe(chan<- *prometheus.Desc) {}

var notInNames = regexp.MustCompile(`[^a-z0-9_]`)

// Collect implements prometheus.Collector.
func (c counts) Collect(out chan<- prometheus.Metric) {
	for name, n := range c.counters.Snapshot() {
		describes := prometheus.NewDesc("waggle_"+notInNames.ReplaceAllString(name, "_")+"_total", "Counter "+name+" of the role.", nil, nil)
		out <- prometheus.MustNewConstMetric(describes, prometheus.CounterValue, float64(n))
	}
}

// Gauges calls set with each value that goes up and down, whenever somebody
// asks. A name ends in its unit.
type Gauges func(set func(name, help string, value float64))

// Describe implements prometheus.Collector. Gauges are unchecked, so that those
// which can't be told may be left out.
func (Gauges) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (g Gauges) Collect(out chan<- prometheus.Metric) {
	g(func(name, help string, value float64) {
		out <- prometheus.MustNewConstMetric(prometheus.NewDesc(name, help, nil, nil), prometheus.GaugeValue, value)
	})
}
