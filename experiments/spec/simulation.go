package spec

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Simulation are the parameters that only the simulator can vary: a machine at
// hand has the cards and disks that it has. Zero is what the machine model says.
type Simulation struct {
	// Servers and ClientHosts are hosts of their own; `clients` run on each of
	// ClientHosts.
	Servers, ClientHosts int
	LinkGbps             float64 // of every host's network card, 10^9 bits a second
	LinkLatencyUS        float64 // from host to host, one way
	Oversubscription     float64 // of the racks' links to one another; 1 is none
	Cores                int     // of every host
	MemoryGBps           float64 // 10^9 bytes a second that copies can move in a host
	NIC, Disk            string  // models of the hardware catalogue
	CachePercent         int     // of the data that fits into the servers' page caches; 0 is all
	WritePercent         int     // of operations
	Zipf                 float64 // exponent of the files' popularity; 0 is all alike
	Stripes              int     // servers that a read asks at once for a part each
	FailedServers        int     // servers that fail after a third of the time
	IndexDepth           int     // reads that depend on each other, for a look-up in an index on disk
	Trace                string  // file of request sizes
	Vary                 string  // number of the machine model that is multiplied, as "card.gigabits_per_second*1.3"
}

// NoVariation is the level of parameter vary that leaves the machine as it is.
const NoVariation = "none"

// Asked says whether a cell needs the simulator.
func (s Simulation) Asked() bool { return s != Simulation{} }

// Limits of simulated clusters.
const (
	MaxServers     = 1000
	MaxClientHosts = 10_000
	MaxTraceName   = 128
)

// simulationParameters are in the table of all parameters, behind the others.
var simulationParameters = []parameter{
	count("servers", "chunk servers of a simulated cluster, a host each", 1, MaxServers, 0, func(p *Parameters, n int) { p.Simulation.Servers = n }),
	count("client_hosts", "hosts of a simulated cluster that clients run on, as many as `clients` on each", 1, MaxClientHosts, 0, func(p *Parameters, n int) { p.Simulation.ClientHosts = n }),
	real("link_gbps", "rate of every host's network card in 10^9 bits a second (simulated)", 0.1, 1600, func(p *Parameters, v float64) { p.Simulation.LinkGbps = v }),
	real("link_latency_us", "time from host to host in microseconds, one way (simulated)", 0.01, 1e6, func(p *Parameters, v float64) { p.Simulation.LinkLatencyUS = v }),
	real("oversubscription", "how many times more the hosts of a rack can send than its link to other racks (simulated)", 1, 64, func(p *Parameters, v float64) { p.Simulation.Oversubscription = v }),
	count("cores", "processors of every host (simulated)", 1, 256, 0, func(p *Parameters, n int) { p.Simulation.Cores = n }),
	real("memory_gbps", "10^9 bytes a second that copies can move in a host (simulated)", 0.1, 10_000, func(p *Parameters, v float64) { p.Simulation.MemoryGBps = v }),
	model("nic", "model of the hosts' network cards (simulated)", func(k Paths) []string { return k.NICs }, func(p *Parameters, s string) { p.Simulation.NIC = s }),
	model("disk", "model of the servers' disks (simulated)", func(k Paths) []string { return k.Disks }, func(p *Parameters, s string) { p.Simulation.Disk = s }),
	count("cache_percent", "percent of the data that the servers' page caches hold (simulated)", 1, 100, 0, func(p *Parameters, n int) { p.Simulation.CachePercent = n }),
	count("write_percent", "percent of operations that are writes (simulated)", 1, 100, 0, func(p *Parameters, n int) { p.Simulation.WritePercent = n }),
	real("zipf", "exponent of the popularity of files (simulated)", 0.1, 3, func(p *Parameters, v float64) { p.Simulation.Zipf = v }),
	count("stripes", "servers that a read asks at once, for a part each (simulated)", 1, MaxServers, 0, func(p *Parameters, n int) { p.Simulation.Stripes = n }),
	count("failed_servers", "servers that fail after a third of the time (simulated)", 1, MaxServers, 0, func(p *Parameters, n int) { p.Simulation.FailedServers = n }),
	count("index_depth", "levels of an index on disk, each a read that depends on the last (simulated)", 1, 64, 0, func(p *Parameters, n int) { p.Simulation.IndexDepth = n }),
	{name: "trace", what: "file with a request's size a line (simulated)", fallback: "", parse: parseTrace,
		set: func(p *Parameters, level any) { p.Simulation.Trace = level.(string) }},
	{name: "vary", what: "a number of the machine model and by how much it is multiplied (simulated)", fallback: "", parse: parseVary,
		set: func(p *Parameters, level any) { p.Simulation.Vary = level.(string) }},
}

func parseVary(level any, _ Paths) (any, error) {
	s, ok := level.(string)
	name, factor, product := strings.Cut(s, "*")
	by, err := strconv.ParseFloat(factor, 64)
	if !ok || s != NoVariation && (!product || name == "" || err != nil || !(by > 0 && by < 1000)) {
		return nil, fmt.Errorf("vary=%v: write %s, or NAME*FACTOR, as card.gigabits_per_second*1.3", level, NoVariation)
	}
	return s, nil
}

func simulationOnly(name string) bool {
	return slices.ContainsFunc(simulationParameters, func(q parameter) bool { return q.name == name })
}

// NeedsSimulator names a parameter of the plan that only the simulator can vary, or
// "".
func (p *Plan) NeedsSimulator() string {
	for _, c := range p.Cells {
		for _, q := range simulationParameters {
			_, varied := c.Levels[q.name]
			if _, fixed := p.Experiment.Fixed[q.name]; varied || fixed {
				return q.name
			}
		}
	}
	return ""
}

func init() { parameters = append(parameters, simulationParameters...) }

// real is a number that need not be whole; 0, its default, stands for what the
// machine model says.
func real(name, what string, least, most float64, set func(*Parameters, float64)) parameter {
	return parameter{name: name, what: what, fallback: 0.0,
		parse: func(level any, _ Paths) (any, error) {
			n, ok := number(level)
			if !ok || n < least || n > most {
				return nil, fmt.Errorf("%s=%v: must be a number from %v to %v", name, level, least, most)
			}
			return n, nil
		},
		set: func(p *Parameters, level any) { set(p, level.(float64)) }}
}

// model is the name of a hardware model; "", its default, is what the machine
// model has.
func model(name, what string, allowed func(Paths) []string, set func(*Parameters, string)) parameter {
	return parameter{name: name, what: what, fallback: "",
		parse: func(level any, paths Paths) (any, error) {
			s, ok := level.(string)
			if !ok || !slices.Contains(allowed(paths), s) {
				return nil, fmt.Errorf("%s=%v: choose one of %s", name, level, strings.Join(allowed(paths), ", "))
			}
			return s, nil
		},
		set: func(p *Parameters, level any) { set(p, level.(string)) }}
}

func parseTrace(level any, _ Paths) (any, error) {
	s, ok := level.(string)
	if !ok || s == "" || len(s) > MaxTraceName {
		return nil, fmt.Errorf("trace=%v: must be the name of a file, of at most %d bytes", level, MaxTraceName)
	}
	return s, nil
}
