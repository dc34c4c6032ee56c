// Package synthetic makes runs with made-up records, for the tests of what is
// drawn and written from records. The numbers look like those of a small
// machine and come from a fixed seed. Nothing but tests may import it.
package synthetic

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/stretchr/testify/require"

	"waggle/results"
)

// maker fills a run with records.
type maker struct {
	t      testing.TB
	run    *results.Run
	random *rand.Rand
}

func newMaker(t testing.TB, experiments ...results.PlannedExperiment) *maker {
	return &maker{t: t, random: rand.New(rand.NewPCG(1, 2)), run: &results.Run{
		Plan: results.Plan{Schema: results.Schema, Run: "synthetic", Start: time.Unix(1.7e9, 0), OrderSeed: 7, Experiments: experiments},
		Environment: results.Environment{
			Schema: results.Schema, Kernel: "6.18.0", CPU: "Made-up CPU", CPUs: 2, MemoryBytes: 4 << 30, GoVersion: "go1.26",
			Commit: "0123456789abcdef0123456789abcdef01234567", CommandLine: []string{"waggle", "run", "--effort", "full"},
			Paths:    map[string]string{"read=copy": "", "read=sendfile": "", "read=sockmap": "", "lookup=xdp": ""},
			Versions: map[string]string{"example.org/module": "v1.0.0"},
		},
	}}
}

// add appends a trial of a cell; tell fills in what it measured.
func (s *maker) add(experiment string, repetition int, cell results.Cell, tell func(*results.Record)) {
	r := results.Record{
		Schema: results.Schema, Run: "synthetic", Experiment: experiment, Trial: len(s.run.Records),
		Repetition: repetition, Source: results.SourceMeasured, Cell: cell, Valid: true,
	}
	tell(&r)
	require.NoError(s.t, r.Check())
	s.run.Records = append(s.run.Records, r)
}

func (s *maker) noisy(v float64) float64 { return v * math.Exp(0.02*s.random.NormFloat64()) }

// rate fills in operations of a size at a throughput in bytes per second.
func (s *maker) rate(r *results.Record, size, throughput float64) {
	throughput = s.noisy(throughput)
	seconds := 1.0
	operations := int64(throughput / size)
	payload := int64(float64(operations) * size)
	perSecond := throughput / size
	r.Seconds, r.Operations, r.PayloadBytes = &seconds, &operations, &payload
	r.ThroughputBytesPerSecond, r.OperationsPerSecond = &throughput, &perSecond
}

// timeline fills in how the operations came in a trial, one in thirty of which stands
// still for a fifth of its time.
func (s *maker) timeline(r *results.Record) {
	const slices = 100
	line := &results.Timeline{SliceSeconds: *r.Seconds / slices, Operations: make([]int64, slices), SlowestSeconds: make([]float64, slices)}
	from, to := slices, slices
	if s.random.IntN(30) == 0 {
		from = s.random.IntN(slices / 2)
		to = from + slices/5
	}
	each := float64(*r.Operations) / float64(slices-(to-from))
	for i := range slices {
		if i < from || i >= to {
			line.Operations[i] = int64(each * (1 + .1*s.random.Float64()))
			line.SlowestSeconds[i] = line.SliceSeconds / 5
		}
	}
	if to < slices {
		line.SlowestSeconds[to] = float64(to-from) * line.SliceSeconds
	}
	r.Timeline = line
}

// latency fills in latencies around a median in seconds, with a tail.
func (s *maker) latency(r *results.Record, median float64) {
	h := hdrhistogram.New(1, 3600e9, 3)
	for range 2000 {
		v := median * math.Exp(0.25*s.random.NormFloat64())
		if s.random.IntN(100) == 0 {
			v *= 4 + 6*s.random.Float64()
		}
		require.NoError(s.t, h.RecordValue(int64(v*1e9)))
	}
	at := func(p float64) float64 { return float64(h.ValueAtPercentile(p)) / 1e9 }
	r.Latency = &results.Latency{P50: at(50), P90: at(90), P99: at(99), P999: at(99.9), Max: at(100), Mean: h.Mean() / 1e9}
	r.Latency.Mean = min(r.Latency.Mean, r.Latency.Max)
	text, err := results.EncodeHistogram(h)
	require.NoError(s.t, err)
	r.LatencyHistogram = text
}

// ledger fills in copies: so many per payload byte in each direction.
func ledger(r *results.Record, chunk, client [4]float64) {
	bytes := func(perByte float64) int64 { return int64(perByte * float64(*r.PayloadBytes)) }
	role := func(v [4]float64) results.RoleCopies {
		inKernel := bytes(v[2])
		return results.RoleCopies{UserToKernelBytes: bytes(v[0]), KernelToUserBytes: bytes(v[1]), InKernelBytes: &inKernel, InUserBytes: bytes(v[3])}
	}
	a, b := role(chunk), role(client)
	inKernel := *a.InKernelBytes + *b.InKernelBytes
	c := &results.Copies{
		UserToKernelBytes: a.UserToKernelBytes + b.UserToKernelBytes, KernelToUserBytes: a.KernelToUserBytes + b.KernelToUserBytes,
		InKernelBytes: &inKernel, InUserBytes: a.InUserBytes + b.InUserBytes, Backend: "sites",
		ByRole: map[string]results.RoleCopies{"chunk": a, "client": b},
	}
	c.PerPayloadByte = float64(c.UserToKernelBytes+c.KernelToUserBytes+inKernel+c.InUserBytes) / float64(*r.PayloadBytes)
	r.Copies = c
}

func (s *maker) cpu(r *results.Record, chunk, client, softirq float64) {
	gb := float64(*r.PayloadBytes) / 1e9
	roles := map[string]float64{"chunk": s.noisy(chunk * gb), "client": s.noisy(client * gb), "meta": 0.005 * gb}
	r.CPU = &results.CPU{Total: s.noisy((chunk + client + softirq + 0.05) * gb), User: 0.2 * gb, System: 0.5 * gb, SoftIRQ: s.noisy(softirq * gb), ByRole: roles,
		ByHost: map[string]float64{"chunk": roles["chunk"] + softirq/2*gb}}
	calls := int64(float64(*r.Operations) * 4)
	r.Syscalls = &calls
}

const kib = 1024.0

// Realistic is a run with one experiment of each sort, and with cells that the
// machine doesn't support, cells that failed, and a control cell.
func Realistic(t testing.TB) *results.Run {
	sizes := []any{4 * kib, 16 * kib, 64 * kib, 256 * kib, 1024 * kib, 4096 * kib, 16384 * kib}
	paths := []any{"copy", "sendfile", "splice", "mmap", "zerocopy", "sockmap", "floor"}
	read := results.PlannedExperiment{
		Name: "read-path", Question: "Which read path moves most bytes, and at what cost?", Effort: "full", Repetitions: 8,
		Factors: []results.Factor{{Name: "size_bytes", Levels: sizes}, {Name: "read", Levels: paths}, {Name: "topology", Levels: []any{"local", "hosts"}}},
		Figures: []results.FigureSpec{
			{Kind: "throughput", Title: "Read throughput by size", X: "size_bytes", Series: "read", Panel: "topology", Baseline: "copy"},
			{Kind: "throughput", Title: "Read throughput by size, local", X: "size_bytes", Series: "read", Baseline: "copy", Where: results.Cell{"topology": "local"}},
			{Kind: "floor-ratio", Title: "How near the limit", X: "size_bytes", Series: "read", Where: results.Cell{"topology": "local"}},
			{Kind: "copies", Title: "Copies per payload byte", X: "size_bytes", Series: "read", Baseline: "copy", Where: results.Cell{"topology": "local", "size_bytes": 1024 * kib}},
			{Kind: "cpu", Title: "CPU per GB", X: "size_bytes", Series: "read", Baseline: "copy", Where: results.Cell{"topology": "local"}},
			{Kind: "cpu-per-operation", Title: "CPU per operation", X: "topology", Series: "read", Where: results.Cell{"size_bytes": 4 * kib}},
			{Kind: "host-cpu", Title: "CPU of the chunk server's host", X: "size_bytes", Series: "read", Baseline: "copy", Where: results.Cell{"topology": "hosts"}},
		},
	}
	rates := []any{1000.0, 5000.0, 10000.0, 15000.0, 20000.0, 30000.0, 40000.0, "search"}
	load := results.PlannedExperiment{
		Name: "read-load", Question: "How much load can a chunk server take?", Effort: "full", Repetitions: 6,
		Factors: []results.Factor{{Name: "rate", Levels: rates}, {Name: "read", Levels: []any{"copy", "sendfile", "sockmap"}}},
		Figures: []results.FigureSpec{
			{Kind: "latency", Title: "Latency by offered load", X: "rate", Series: "read", Baseline: "copy"},
			{Kind: "latency-distribution", Title: "Latency at 10 k/s", Series: "read", Where: results.Cell{"rate": 10000.0}},
		},
	}
	lookup := results.PlannedExperiment{
		Name: "lookup", Question: "What does one lookup cost?", Effort: "full", Repetitions: 6,
		Factors: []results.Factor{{Name: "lookup", Levels: []any{"udp", "xdp"}}, {Name: "topology", Levels: []any{"local", "hosts"}}},
		Figures: []results.FigureSpec{{Kind: "lookup-cost", Title: "Cost of one lookup", Series: "lookup", Panel: "topology", Baseline: "udp"}},
	}
	clients := []any{1.0, 2.0, 4.0, 8.0, 16.0, 32.0}
	scale := results.PlannedExperiment{
		Name: "crossover", Question: "Which path wins where?", Effort: "full", Repetitions: 8,
		Factors: []results.Factor{{Name: "size_bytes", Levels: sizes[:6]}, {Name: "clients", Levels: clients}, {Name: "read", Levels: paths[:4]}},
		Figures: []results.FigureSpec{
			{Kind: "crossover", Title: "Which path wins", X: "size_bytes", Panel: "clients", Series: "read", Baseline: "copy"},
			{Kind: "scaling", Title: "Scaling with clients", X: "clients", Series: "read", Where: results.Cell{"size_bytes": 4 * kib}},
		},
	}
	settings := results.PlannedExperiment{
		Name: "sensitivity", Question: "What else moves the result?", Effort: "full", Repetitions: 12,
		Factors: []results.Factor{
			{Name: "setting", Levels: []any{"as is", "congestion=bbr", "nodelay=off", "mtu=1500", "hugepages=off", "gomaxprocs=1"}},
			{Name: "read", Levels: []any{"copy", "sockmap"}},
		},
		Figures: []results.FigureSpec{{Kind: "tornado", Title: "What moves a read of 1 MiB", X: "setting", Series: "read", Baseline: "copy"}},
	}
	s := newMaker(t, read, load, lookup, scale, settings)
	s.sensitivity(settings)
	s.reads(read)
	s.loads(load)
	s.lookups(lookup)
	s.crossings(scale)
	return s.run
}

// speed is a made-up model of a path: a cost an operation and a cost a byte.
func speed(path string, size float64) float64 {
	perOperation := map[string]float64{"copy": 18e-6, "sendfile": 22e-6, "splice": 30e-6, "mmap": 19e-6, "zerocopy": 35e-6, "sockmap": 25e-6, "floor": 12e-6}[path]
	perByte := map[string]float64{"copy": 1 / 2.3e9, "sendfile": 1 / 3.1e9, "splice": 1 / 3.0e9, "mmap": 1 / 4.2e9, "zerocopy": 1 / 2.0e9, "sockmap": 1 / 5e9, "floor": 1 / 6e9}[path]
	return size / (perOperation + size*perByte)
}

func (s *maker) reads(e results.PlannedExperiment) {
	for rep := range e.Repetitions {
		for _, size := range e.Factors[0].Levels {
			for _, path := range e.Factors[1].Levels {
				for _, topology := range e.Factors[2].Levels {
					cell := results.Cell{"size_bytes": size, "read": path, "topology": topology}
					s.read(e.Name, rep, cell, "")
					if path == "copy" && size == 64*kib {
						s.read(e.Name, rep, cell, results.ControlAA)
					}
				}
			}
		}
	}
}

func (s *maker) read(experiment string, rep int, cell results.Cell, control string) {
	size, path := cell["size_bytes"].(float64), cell["read"].(string)
	s.add(experiment, rep, cell, func(r *results.Record) {
		r.Control = control
		if path == "sockmap" && cell["topology"] == "hosts" {
			r.Valid, r.Unsupported, r.Reason = false, true, "read=sockmap needs both ends on one host"
			return
		}
		v := speed(path, size)
		if cell["topology"] == "hosts" {
			v *= 0.6
		}
		s.rate(r, size, v)
		s.timeline(r)
		switch path {
		case "copy", "floor":
			ledger(r, [4]float64{1, 1, 0, 0.02}, [4]float64{0, 1, 0, 0})
			s.cpu(r, 0.35, 0.30, 0.12)
		case "sockmap":
			ledger(r, [4]float64{0, 0, 0, 0}, [4]float64{0, 1, 0, 0})
			s.cpu(r, 0.1, 0.25, 0.02)
		default:
			ledger(r, [4]float64{0, 0, 0.3, 0}, [4]float64{0, 1, 0, 0})
			s.cpu(r, 0.18, 0.28, 0.12)
		}
	})
}

// sensitivity makes congestion control move the slow path more than the paths differ.
func (s *maker) sensitivity(e results.PlannedExperiment) {
	moves := map[any]map[any]float64{"congestion=bbr": {"copy": .4}, "nodelay=off": {"copy": .93, "sockmap": .95}, "gomaxprocs=1": {"copy": .8, "sockmap": 1.1}}
	for rep := range e.Repetitions {
		for _, setting := range e.Factors[0].Levels {
			for _, path := range e.Factors[1].Levels {
				for _, control := range []string{"", results.ControlAA} {
					if control != "" && setting != "as is" {
						continue
					}
					s.add(e.Name, rep, results.Cell{"setting": setting, "read": path}, func(r *results.Record) {
						factor, ok := moves[setting][path]
						if !ok {
							factor = 1
						}
						r.Control = control
						s.rate(r, 1024*kib, factor*speed(path.(string), 1024*kib))
					})
				}
			}
		}
	}
}

func (s *maker) loads(e results.PlannedExperiment) {
	capacity := map[any]float64{"copy": 17000, "sendfile": 22000, "sockmap": 50000}
	for rep := range e.Repetitions {
		for _, rate := range e.Factors[0].Levels {
			for _, path := range e.Factors[1].Levels {
				s.add(e.Name, rep, results.Cell{"rate": rate, "read": path}, func(r *results.Record) {
					offered, isNumber := rate.(float64)
					if !isNumber {
						r.Search = &results.Search{SustainedOperationsPerSecond: s.noisy(capacity[path]), P99LimitSeconds: results.SustainedP99.Seconds()}
						return
					}
					achieved := min(offered, capacity[path])
					s.rate(r, 4*kib, achieved*4*kib)
					r.OfferedOperationsPerSecond = &offered
					wait := 60e-6 / max(0.02, 1-offered/capacity[path])
					s.latency(r, wait)
				})
			}
		}
	}
}

func (s *maker) lookups(e results.PlannedExperiment) {
	for rep := range e.Repetitions {
		for _, path := range e.Factors[0].Levels {
			for _, topology := range e.Factors[1].Levels {
				s.add(e.Name, rep, results.Cell{"lookup": path, "topology": topology}, func(r *results.Record) {
					median := 85e-6
					if path == "xdp" {
						median = 6e-6
					}
					s.rate(r, 100, 100/median)
					s.latency(r, median)
					s.cpu(r, 400, 300, 80)
				})
			}
		}
	}
}

func (s *maker) crossings(e results.PlannedExperiment) {
	for rep := range e.Repetitions {
		for _, size := range e.Factors[0].Levels {
			for _, clients := range e.Factors[1].Levels {
				for _, path := range e.Factors[2].Levels {
					cell := results.Cell{"size_bytes": size, "clients": clients, "read": path}
					n := clients.(float64)
					if path == "splice" && n == 32 {
						s.add(e.Name, rep, cell, func(r *results.Record) { r.Valid, r.Reason = false, "a role died" })
						continue
					}
					s.add(e.Name, rep, cell, func(r *results.Record) {
						s.rate(r, size.(float64), speed(path.(string), size.(float64))*n/(1+0.15*n))
					})
				}
			}
		}
	}
}

// Write puts a run into a directory.
func Write(t testing.TB, dir string, run *results.Run) {
	w, err := results.Create(dir, run.Plan, run.Environment)
	require.NoError(t, err)
	for _, r := range run.Records {
		require.NoError(t, w.Append(r))
	}
	require.NoError(t, w.Close())
}
