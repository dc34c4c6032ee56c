package spec

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/dustin/go-humanize"

	"waggle/dfs/wire"
	"waggle/results"
)

// Kinds of workload.
const (
	SequentialRead  = "sequential-read"  // each client reads its file from start to end, again and again
	RandomRead      = "random-read"      // requests at random aligned offsets of all files
	SequentialWrite = "sequential-write" // each client writes its file from start to end, again and again
	RandomWrite     = "random-write"     // requests at random aligned offsets of a client's own file
	SmallRead       = "small-read"       // whole small files, opened by name, chosen at random
	SmallCreate     = "small-create"     // new small files
	Lookup          = "lookup"           // name to attributes and location, chosen at random
	HTTPGet         = "http-get"         // whole files over HTTP/1.1 through a gateway, chosen at random; a client keeps its connection
)

var kinds = []string{SequentialRead, RandomRead, SequentialWrite, RandomWrite, SmallRead, SmallCreate, Lookup, HTTPGet}

// Kinds of topology.
const (
	Local = "local" // one network namespace, loopback
	Hosts = "hosts" // a network namespace a role, veth pairs and a bridge
)

// Placements of roles on processors.
const (
	PinNone     = "none"          // where the scheduler puts them
	PinApart    = "apart"         // clients on one half of the processors, servers on the other
	PinTogether = "together"      // all on one
	PinGateway  = "gateway-apart" // the gateway's host on one half, what the kernel does for it too; all else on the other
)

// Levels of parameter congestion that name no congestion control of the kernel's.
const (
	CongestionAuto    = "auto"    // cubic, or where that can't be had, reno
	CongestionMachine = "machine" // whatever the machine's default is
)

// Floor is the level of a data path's factor that is no data path: the floor
// control, the same bytes over one bare socket without the DFS.
const Floor = results.Floor

// FloorXDP is the level of factor lookup that is the floor of answers from the
// network driver: a program there sends each datagram back.
const FloorXDP = results.FloorXDP

// Nginx is the level of factor relay that is no relay path: nginx, passing the
// same bytes on from an nginx that has them as files, without the DFS.
const Nginx = "nginx"

// ClosedLoop is the rate of a closed loop: each client sends its next request
// when it has the answer to the last one.
const ClosedLoop = "closed"

// SearchedRate is the rate of a trial that searches for the highest rate that can
// be kept: an open loop after the other, each as long as a trial of another rate.
const SearchedRate = "search"

// Parameters are what one cell runs with.
type Parameters struct {
	Workload, Topology  string
	Read, Write, Lookup string
	Relay               string
	SizeBytes           int64 // of one request, or of one small file
	FileBytes           int64 // of one large file
	Files               int
	Depth               int // directories above each file
	Clients             int
	// Rate is operations a second over all clients; 0 is a closed loop.
	Rate         float64
	SearchRate   bool // search for the highest rate instead
	ChunkServers int
	Replication  int
	ChunkBytes   int64
	MTUBytes     int
	Offload      bool // segmentation and checksum offloads of the virtual links
	XDPPass      bool // an XDP program that passes everything at both ends of the virtual links
	// LossPercent, DuplicatePercent and ReorderPercent of the packets that hosts receive
	// are lost, come twice, or are overtaken by later ones.
	LossPercent, DuplicatePercent, ReorderPercent float64
	Pin                                           string
	// Congestion is the congestion control of all TCP connections, or one of
	// CongestionAuto and CongestionMachine.
	Congestion string
	// Harmless holds what nobody studies, and what may move a result all the same.
	Harmless
	ClientSpin bool
	HitPercent int // of lookups: of names that were asked for before
	// Revision is which of the run's programs the roles are started from; "" is
	// the one that carries the run out.
	Revision string
	// Simulation is what only the simulator can vary.
	Simulation Simulation
}

// Paths names the data paths that a file may ask for, by operation, and the
// hardware models of the simulator.
type Paths struct {
	Read, Write, Lookup, Relay []string
	NICs, Disks                []string
}

// parameter describes one entry of Parameters as it is written in a file.
type parameter struct {
	name string
	// what is said about it in an error and in the documentation.
	what string
	// fallback is its level where neither a factor nor `fixed` sets it.
	fallback any
	parse    func(level any, paths Paths) (any, error)
	set      func(p *Parameters, level any)
}

const maxFileBytes = 16 << 30

// parameters is the table of everything that can be set or varied.
var parameters = []parameter{
	choice("workload", "what the clients do", SequentialRead, func(Paths) []string { return kinds },
		func(p *Parameters, s string) { p.Workload = s }),
	choice("topology", "where roles live", Local, func(Paths) []string { return []string{Local, Hosts} },
		func(p *Parameters, s string) { p.Topology = s }),
	choice("read", "read path", "copy", func(k Paths) []string { return append(slices.Clone(k.Read), Floor) },
		func(p *Parameters, s string) { p.Read = s }),
	choice("write", "write path", "chain", func(k Paths) []string { return append(slices.Clone(k.Write), Floor) },
		func(p *Parameters, s string) { p.Write = s }),
	choice("lookup", "lookup path", "udp", func(k Paths) []string { return append(slices.Clone(k.Lookup), Floor, FloorXDP) },
		func(p *Parameters, s string) { p.Lookup = s }),
	choice("relay", "relay path of the gateway", "copy", func(k Paths) []string { return append(slices.Clone(k.Relay), Nginx) },
		func(p *Parameters, s string) { p.Relay = s }),
	size("size_bytes", "bytes of one request", 1, wire.MaxData, 64<<10, func(p *Parameters, n int64) { p.SizeBytes = n }),
	size("file_bytes", "bytes of one file", 1, maxFileBytes, 64<<20, func(p *Parameters, n int64) { p.FileBytes = n }),
	count("files", "files in the data set", 1, 1_000_000, 1, func(p *Parameters, n int) { p.Files = n }),
	count("depth", "directories above each file", 1, wire.MaxComponents-2, 2, func(p *Parameters, n int) { p.Depth = n }),
	count("clients", "concurrent clients", 1, 256, 1, func(p *Parameters, n int) { p.Clients = n }),
	{name: "rate", what: "operations a second, or closed, or search for the highest that can be kept", fallback: ClosedLoop, parse: parseRate, set: setRate},
	count("chunk_servers", "chunk servers", 1, wire.MaxReplicas, 1, func(p *Parameters, n int) { p.ChunkServers = n }),
	count("replication", "replicas a chunk", 1, wire.MaxReplicas, 1, func(p *Parameters, n int) { p.Replication = n }),
	size("chunk_bytes", "bytes a chunk", wire.MinChunkSize, wire.MaxChunkSize, wire.DefaultChunkSize,
		func(p *Parameters, n int64) { p.ChunkBytes = n }),
	count("mtu_bytes", "largest packet of a virtual link (topology hosts)", 1280, 65535, 1500, func(p *Parameters, n int) { p.MTUBytes = n }),
	{name: "offload", what: "segmentation and checksum offloads of the virtual links (topology hosts)", fallback: true,
		parse: parseBool("offload"), set: func(p *Parameters, level any) { p.Offload = level.(bool) }},
	{name: "xdp_pass", what: "an XDP program that passes everything at both ends of the virtual links (topology hosts): lookup=xdp needs it, its rivals need it for a fair comparison",
		fallback: false, parse: parseBool("xdp_pass"), set: func(p *Parameters, level any) { p.XDPPass = level.(bool) }},
	percent("loss_percent", "percent of the packets that hosts receive are lost (topology hosts); with offload=true a packet is up to 64 KiB",
		func(p *Parameters, n float64) { p.LossPercent = n }),
	percent("duplicate_percent", "percent of the packets that hosts receive come twice (topology hosts)",
		func(p *Parameters, n float64) { p.DuplicatePercent = n }),
	percent("reorder_percent", "percent of the packets that hosts receive are held back for 2 ms, so that later ones overtake them (topology hosts)",
		func(p *Parameters, n float64) { p.ReorderPercent = n }),
	choice("pin", "processors that roles may use: any, clients and servers apart, all together on one, or the gateway apart from the rest", PinNone,
		func(Paths) []string { return []string{PinNone, PinApart, PinTogether, PinGateway} }, func(p *Parameters, s string) { p.Pin = s }),
	choice("buffers", "buffers of TCP connections that carry data: a size, or kernel to leave them to it", "4MiB",
		func(Paths) []string { return []string{"4MiB", "1MiB", "256KiB", "kernel"} }, func(p *Parameters, s string) { p.Buffers = s }),
	{name: "nodelay", what: "whether TCP sends small messages at once (TCP_NODELAY)", fallback: true,
		parse: parseBool("nodelay"), set: func(p *Parameters, level any) { p.Delay = !level.(bool) }},
	choice("autocorking", "whether TCP holds small messages back while others are on their way (sysctl tcp_autocorking)", SettingAsIs,
		func(Paths) []string { return []string{SettingAsIs, "on", "off"} }, func(p *Parameters, s string) { p.Autocorking = s }),
	choice("huge_pages", "transparent huge pages of the machine", SettingAsIs,
		func(Paths) []string { return []string{SettingAsIs, "always", "madvise", "never"} }, func(p *Parameters, s string) { p.HugePages = s }),
	count("gomaxprocs", "processors that Go uses in each role; 0 is all", 0, 1024, 0, func(p *Parameters, n int) { p.GOMAXPROCS = n }),
	count("environment_bytes", "how much longer the environment of roles is made", 0, 100_000, 0, func(p *Parameters, n int) { p.EnvironmentBytes = n }),
	choice("link_order", "in which order hosts are linked and get their addresses (topology hosts)", LinkForward,
		func(Paths) []string { return []string{LinkForward, LinkReverse} }, func(p *Parameters, s string) { p.LinkReverse = s == LinkReverse }),
	{name: "ledger", what: "whether copies are counted while time is taken", fallback: false,
		parse: parseBool("ledger"), set: func(p *Parameters, level any) { p.Ledger = level.(bool) }},
	choice("congestion", "congestion control of all TCP connections", CongestionAuto,
		func(Paths) []string { return []string{CongestionAuto, CongestionMachine, "cubic", "reno", "bbr"} },
		func(p *Parameters, s string) { p.Congestion = s }),
	{name: "client_spin", what: "whether clients poll for the answers to lookups, instead of sleeping until they come", fallback: false,
		parse: parseBool("client_spin"), set: func(p *Parameters, level any) { p.ClientSpin = level.(bool) }},
	count("hit_percent", "percent of lookups that are of the data set's files, over and over; each of the others asks for a name that is new, and of no file",
		1, 100, 100, func(p *Parameters, n int) { p.HitPercent = n }),
	{name: results.RevisionFactor, what: "program that roles are started from", fallback: "",
		parse: func(level any, _ Paths) (any, error) {
			return nil, fmt.Errorf("%s=%v: revisions are given with --revision NAME=PROGRAM", results.RevisionFactor, level)
		},
		set: func(p *Parameters, level any) { p.Revision = level.(string) }},
}

func parameterNamed(name string) (parameter, error) {
	var names []string
	for _, p := range parameters {
		if p.name == name {
			return p, nil
		}
		names = append(names, p.name)
	}
	return parameter{}, fmt.Errorf("there is no parameter %q: choose one of %s", name, strings.Join(names, ", "))
}

func choice(name, what, fallback string, allowed func(Paths) []string, set func(*Parameters, string)) parameter {
	return parameter{name: name, what: what, fallback: fallback,
		parse: func(level any, paths Paths) (any, error) {
			s, ok := level.(string)
			if !ok || !slices.Contains(allowed(paths), s) {
				return nil, fmt.Errorf("%s=%v: choose one of %s", name, level, strings.Join(allowed(paths), ", "))
			}
			return s, nil
		},
		set: func(p *Parameters, level any) { set(p, level.(string)) }}
}

// count is a parameter that is a whole number.
func count(name, what string, least, most, fallback int, set func(*Parameters, int)) parameter {
	return parameter{name: name, what: what, fallback: float64(fallback),
		parse: func(level any, _ Paths) (any, error) { return whole(name, level, int64(least), int64(most)) },
		set:   func(p *Parameters, level any) { set(p, int(level.(float64))) }}
}

// percent is a parameter from 0 to 100, 0 unless it is set.
func percent(name, what string, set func(*Parameters, float64)) parameter {
	return parameter{name: name, what: what, fallback: 0.0,
		parse: func(level any, _ Paths) (any, error) {
			n, ok := number(level)
			if !ok || n < 0 || n > 100 {
				return nil, fmt.Errorf("%s=%v: must be a number from 0 to 100", name, level)
			}
			return n, nil
		},
		set: func(p *Parameters, level any) { set(p, level.(float64)) }}
}

// size is a count of bytes, which may be written as "64KiB".
func size(name, what string, least, most, fallback int64, set func(*Parameters, int64)) parameter {
	return parameter{name: name, what: what, fallback: float64(fallback),
		parse: func(level any, _ Paths) (any, error) {
			if s, ok := level.(string); ok {
				n, err := humanize.ParseBytes(s)
				if err != nil {
					return nil, fmt.Errorf("%s=%q is no size: write bytes, or 64KiB, 1MiB, ...", name, s)
				}
				level = float64(n)
			}
			return whole(name, level, least, most)
		},
		set: func(p *Parameters, level any) { set(p, int64(level.(float64))) }}
}

func whole(name string, level any, least, most int64) (any, error) {
	n, ok := number(level)
	if !ok || n != math.Trunc(n) || n < float64(least) || n > float64(most) {
		return nil, fmt.Errorf("%s=%v: must be a whole number from %d to %d", name, level, least, most)
	}
	return n, nil
}

func number(level any) (float64, bool) {
	switch n := level.(type) {
	case int:
		return float64(n), true
	case float64:
		return n, !math.IsNaN(n) && !math.IsInf(n, 0)
	}
	return 0, false
}

const maxRate = 100e6

func parseRate(level any, _ Paths) (any, error) {
	if level == ClosedLoop || level == SearchedRate {
		return level, nil
	}
	n, ok := number(level)
	if !ok || n < 1 || n > maxRate {
		return nil, fmt.Errorf("rate=%v: must be %q, %q or operations a second, from 1 to %.0f", level, ClosedLoop, SearchedRate, maxRate)
	}
	return n, nil
}

func setRate(p *Parameters, level any) {
	if n, ok := level.(float64); ok {
		p.Rate = n
	}
	p.SearchRate = level == SearchedRate
}

func parseBool(name string) func(level any, _ Paths) (any, error) {
	return func(level any, _ Paths) (any, error) {
		switch level {
		case true, "true":
			return true, nil
		case false, "false":
			return false, nil
		}
		return nil, fmt.Errorf("%s=%v: must be true or false", name, level)
	}
}

// resolve turns a cell's levels, the fixed parameters and the defaults into
// what the cell runs with.
func resolve(levels, fixed results.Cell) (Parameters, error) {
	var p Parameters
	for _, q := range parameters {
		level, ok := levels[q.name]
		if !ok {
			level, ok = fixed[q.name]
		}
		if !ok {
			level = q.fallback
		}
		q.set(&p, level)
	}
	return p, p.check()
}

// check refuses combinations that can't be run, or would not be what they say.
func (p Parameters) check() error {
	if p.Replication > p.ChunkServers {
		return fmt.Errorf("replication=%d needs as many chunk servers, there are chunk_servers=%d", p.Replication, p.ChunkServers)
	}
	if p.ChunkBytes&(p.ChunkBytes-1) != 0 {
		return fmt.Errorf("chunk_bytes=%d: must be a power of two", p.ChunkBytes)
	}
	if (p.Lookup == "xdp" || p.Lookup == FloorXDP) && p.Topology == Hosts && !p.XDPPass {
		return fmt.Errorf("lookup=%s with topology=hosts needs xdp_pass=true, or a virtual link would lose its answers", p.Lookup)
	}
	if p.Read == "afxdp" && p.XDPPass {
		return errors.New("read=afxdp brings its own XDP program, for which xdp_pass=true leaves no room on the client's link")
	}
	if p.LinkReverse && p.Topology != Hosts {
		return fmt.Errorf("link_order=%s is for topology=%s", LinkReverse, Hosts)
	}
	if p.HitPercent != 100 && (p.Workload != Lookup || results.IsFloor(p.Lookup)) {
		return fmt.Errorf("hit_percent=%d goes with workload %s of the file system only", p.HitPercent, Lookup)
	}
	if p.ClientSpin && p.Workload != Lookup && p.Workload != SmallRead {
		return fmt.Errorf("client_spin=true goes with workload %s and %s only, not with %s", Lookup, SmallRead, p.Workload)
	}
	if p.Relay == Nginx && p.Topology != Hosts {
		return fmt.Errorf("relay=%s is for two hosts: use topology=%s", Nginx, Hosts)
	}
	if p.Pin == PinGateway && (p.Workload != HTTPGet || p.Topology != Hosts) {
		return fmt.Errorf("pin=%s goes with workload %s and topology=%s only", PinGateway, HTTPGet, Hosts)
	}
	if err := p.checkFaults(); err != nil {
		return err
	}
	if err := p.checkFloor(); err != nil {
		return err
	}
	return p.checkSizes()
}

// HasFaults says whether links are to lose, double or hold back packets.
func (p Parameters) HasFaults() bool { return p.LossPercent+p.DuplicatePercent+p.ReorderPercent > 0 }

// checkFaults allows faults where all of a cell's packets meet them.
func (p Parameters) checkFaults() error {
	switch {
	case !p.HasFaults():
		return nil
	case p.Topology != Hosts:
		return fmt.Errorf("loss_percent, duplicate_percent and reorder_percent go with topology=%s only", Hosts)
	case p.Lookup == "xdp", p.Lookup == FloorXDP, p.Read == "afxdp":
		return errors.New("lookup=xdp, lookup=floor-xdp and read=afxdp take packets before the place where they can be lost: they don't go with loss_percent, duplicate_percent and reorder_percent")
	}
	return nil
}

func (p Parameters) checkSizes() error {
	switch p.Workload {
	case SequentialRead, RandomRead:
		if p.FileBytes%p.SizeBytes != 0 {
			return fmt.Errorf("size_bytes=%d must divide file_bytes=%d", p.SizeBytes, p.FileBytes)
		}
		if int64(p.Files)*p.FileBytes > maxFileBytes {
			return fmt.Errorf("files=%d of file_bytes=%d are more than the %d bytes allowed", p.Files, p.FileBytes, int64(maxFileBytes))
		}
	case HTTPGet:
		if p.FileBytes > MaxDownloadBytes {
			return fmt.Errorf("file_bytes=%d: %s takes files of at most %d bytes", p.FileBytes, HTTPGet, int64(MaxDownloadBytes))
		}
	case SequentialWrite, RandomWrite:
		if p.FileBytes%p.SizeBytes != 0 {
			return fmt.Errorf("size_bytes=%d must divide file_bytes=%d", p.SizeBytes, p.FileBytes)
		}
		if int64(p.Clients)*p.FileBytes > maxFileBytes {
			return fmt.Errorf("clients=%d files of file_bytes=%d are more than the %d bytes allowed", p.Clients, p.FileBytes, int64(maxFileBytes))
		}
	case SmallRead, SmallCreate, Lookup:
		if p.SizeBytes > MaxSmallBytes {
			return fmt.Errorf("size_bytes=%d: %s takes files of at most %d bytes", p.SizeBytes, p.Workload, MaxSmallBytes)
		}
	}
	return nil
}

// MaxSmallBytes is the largest file of the small-file workloads in bytes.
const MaxSmallBytes = 64 << 10

// MaxDownloadBytes is the largest file of workload http-get in bytes: a client
// holds it whole.
const MaxDownloadBytes = 64 << 20

// RequestBytes is how many bytes of payload one operation on large files moves.
func (p Parameters) RequestBytes() int64 {
	if p.Workload == HTTPGet {
		return p.FileBytes
	}
	return p.SizeBytes
}

// checkFloor allows the floor control only where it moves the same bytes as
// the workload, and for one operation at a time.
func (p Parameters) checkFloor() error {
	for _, at := range []struct {
		operation, level string
		kinds            []string
	}{
		{"read", p.Read, []string{SequentialRead, RandomRead}},
		{"write", p.Write, []string{SequentialWrite}},
		{"lookup", p.Lookup, []string{SmallRead, Lookup}},
	} {
		if !results.IsFloor(at.level) {
			continue
		}
		if !slices.Contains(at.kinds, p.Workload) {
			return fmt.Errorf("%s=%s goes with workload %s only, not with %s", at.operation, at.level, strings.Join(at.kinds, ", "), p.Workload)
		}
		if at.operation == "write" && p.Replication != 1 {
			return errors.New("write=floor writes one copy: set replication=1, or exclude it")
		}
		if at.operation == "lookup" && p.SizeBytes > wire.MaxInline {
			return fmt.Errorf("lookup=%s answers with at most %d bytes, not size_bytes=%d", at.level, wire.MaxInline, p.SizeBytes)
		}
	}
	return nil
}

// OnFloor says whether the cell runs the floor control instead of the DFS.
func (p Parameters) OnFloor() bool {
	return p.Read == Floor || p.Write == Floor || results.IsFloor(p.Lookup)
}

// Timed returns the data paths, as "read=copy", that the cell's timed
// operations must take: those whose proof is checked. A floor in a process has
// none, because nothing else could answer.
func (p Parameters) Timed() []string {
	switch {
	case p.Lookup == FloorXDP:
		return []string{"lookup=" + FloorXDP}
	case p.OnFloor():
		return nil
	}
	inline := p.SizeBytes <= wire.MaxInline
	switch p.Workload {
	case SequentialRead, RandomRead:
		return []string{"read=" + p.Read}
	case HTTPGet:
		if p.Relay == Nginx {
			return nil
		}
		return []string{"relay=" + p.Relay, "read=" + p.Read}
	case SequentialWrite, RandomWrite:
		return []string{"write=" + p.Write}
	case SmallRead:
		if inline {
			return []string{"lookup=" + p.Lookup}
		}
		return []string{"lookup=" + p.Lookup, "read=" + p.Read}
	case SmallCreate:
		if inline {
			return nil // metadata alone, over gRPC
		}
		return []string{"write=" + p.Write}
	default:
		return []string{"lookup=" + p.Lookup}
	}
}

// Resolve gives the parameters of a cell whose levels hold all that an experiment
// sets; what they leave out has its default.
func Resolve(levels results.Cell) (Parameters, error) { return resolve(levels, nil) }
