package spec

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"waggle/results"
)

var known = Paths{Read: []string{"copy", "sendfile"}, Write: []string{"chain"}, Lookup: []string{"udp"}, Relay: []string{"copy", "sockmap"}}

const good = `
name: reads
question: How fast is a read?
metrics: [throughput, cpu]
fixed: {workload: random-read, file_bytes: 8MiB, files: 2}
factors:
  read: [copy, floor]
  size_bytes:
    smoke: [64KiB]
    quick: [4096, 1MiB]
    full: quick
  clients: {smoke: [1], quick: [1, 4], full: quick}
exclude:
  - {read: floor, clients: 4}
control: {read: copy, size_bytes: 64KiB}
trials:
  smoke: {repetitions: 2, warm_up_seconds: 0.1, seconds: 0.5}
  quick: {repetitions: 5, seconds: 1}
  full: {repetitions: 20, operations: 100}
figures:
  - {kind: throughput, title: Reads, x: size_bytes, series: read, panel: clients, where: {size_bytes: 4KiB}}
`

func TestParse(t *testing.T) {
	text := strings.Replace(good, "size_bytes: 64KiB}", "clients: 1}", 1)
	e, err := Parse("reads.yaml", []byte(text), known)
	require.NoError(t, err)
	require.Equal(t, "reads", e.Name)
	require.True(t, e.Measures(CPU))
	require.False(t, e.Measures(Copies))
	require.Equal(t, Trial{Repetitions: 2, Counts: 1, WarmUp: 100 * time.Millisecond, Duration: 500 * time.Millisecond}, e.Trials[Smoke])
	require.Equal(t, results.Cell{"size_bytes": 4096.0}, e.Figures[0].Where)

	smoke, err := e.Plan(Smoke, nil)
	require.NoError(t, err)
	require.Len(t, smoke.Cells, 3, "two read paths and the control's twin")
	full, err := e.Plan(Full, nil)
	require.NoError(t, err)
	require.Len(t, full.Cells, 7, "2x2x2 without the excluded 2, and the twin")
	require.Equal(t, []any{4096.0, 1048576.0}, full.Factors[1].Levels)
	twin := full.Cells[6]
	require.Equal(t, results.ControlAA, twin.Control)
	require.Equal(t, "read=copy size_bytes=4096 clients=1 (A/A)", full.String(twin))
	require.Equal(t, int64(4096), twin.Parameters.SizeBytes)
	require.Equal(t, int64(8<<20), twin.Parameters.FileBytes)
	require.Zero(t, twin.Parameters.Rate)
	require.Equal(t, Local, twin.Parameters.Topology)
	require.Equal(t, "reads", full.Planned().Name)
}

func TestParseErrorsAreOneLineThatHelps(t *testing.T) {
	control := strings.Replace(good, "size_bytes: 64KiB}", "clients: 1}", 1)
	for _, test := range []struct{ name, from, to, want string }{
		{"unknown field", "question:", "kestion:", "line 3: field kestion is unknown: allowed are name, question,"},
		{"unknown trial field", "warm_up_seconds", "warm", "field warm is unknown: allowed are repetitions,"},
		{"unknown figure field", "panel: clients", "pane: clients", "field pane is unknown: allowed are kind,"},
		{"wrong type", "repetitions: 2", "repetitions: two", "line 17: cannot unmarshal !!str `two`"},
		{"bad name", "name: reads", "name: Re ads", `name "Re ads": must be`},
		{"no question", "a read?", "a read", "ends in a question mark"},
		{"unknown metric", "cpu]", "joules]", `"joules" is unknown: choose from throughput`},
		{"unknown parameter", "files: 2", "filez: 2", `line 5: fixed: there is no parameter "filez": choose one of workload,`},
		{"unknown path", "[copy, floor]", "[copy, teleport]", "line 7: factors: read=teleport: choose one of copy, sendfile, floor"},
		{"no size", "1MiB]", "oneMiB]", `line 10: factors: size_bytes="oneMiB" is no size`},
		{"too large", "1MiB]", "1GiB]", "must be a whole number from 1 to 4194304"},
		{"effort missing", "    full: quick\n", "", "size_bytes has no levels for effort full"},
		{"effort unknown", "full: quick\n", "huge: quick\n", `effort "huge" is unknown`},
		{"effort of itself", "full: quick\n", "full: full\n", `full is "full": must be a list`},
		{"level twice", "[copy, floor]", "[copy, copy]", "has the level copy twice"},
		{"factor twice", "  clients:", "  read: [copy]\n  clients:", `"read" is given twice`},
		{"fixed and factor", "files: 2", "clients: 2", "clients is also in fixed"},
		{"empty levels", "[copy, floor]", "[]", "must be a list of 1 to 64 levels"},
		{"nested level", "[copy, floor]", "[[copy]]", "read must be one value"},
		{"alias", "[copy, floor]", "[&a copy, *a]", "read must be one value"},
		{"excluded factor", "{read: floor, clients: 4}", "{depth: 4}", "depth is no factor"},
		{"all excluded", "{read: floor, clients: 4}", "{size_bytes: 64KiB}", "no cell is left"},
		{"control unknown level", "control: {read: copy", "control: {read: sendfile", "control: read=sendfile is no level of effort smoke"},
		{"control no factor", "control: {read: copy, clients: 1}", "control: {depth: 2}", "control: depth is no factor"},
		{"control missing", "control: {read: copy, clients: 1}\n", "", "control: name the cell"},
		{"trial without end", "seconds: 1}", "warm_up_seconds: 1}", "one of seconds and operations must be set"},
		{"trial too long", "seconds: 1}", "seconds: 1e9}", "seconds=1e+09: must be"},
		{"trial not a number", "seconds: 1}", "seconds: .nan}", "seconds=NaN: must be"},
		{"no repetitions", "repetitions: 5", "repetitions: 0", "repetitions=0: must be from 1 to 1000"},
		{"effort without trials", "  quick: {repetitions: 5, seconds: 1}\n", "", "trials: effort quick is missing"},
		{"figure factor", "x: size_bytes", "x: depth", "depth is no factor"},
		{"search of so many operations", "files: 2", "files: 2, rate: search", "a search needs trials of so many seconds"},
		{"combination", "random-read", "random-write", "read=floor goes with workload sequential-read, random-read only"},
		{"size does not divide", "file_bytes: 8MiB", "file_bytes: 8000000", "size_bytes=65536 must divide file_bytes=8000000"},
		{"faults without links", "files: 2", "loss_percent: 1", "go with topology=hosts only"},
		{"no percentage", "files: 2", "loss_percent: 101", "loss_percent=101: must be a number from 0 to 100"},
		{"replicas without servers", "files: 2", "replication: 2", "replication=2 needs as many chunk servers"},
		{"two documents", "figures:", "---\nfigures:", "more than one document"},
		{"no yaml", "name: reads", "name: [", "did not find"},
	} {
		t.Run(test.name, func(t *testing.T) {
			text := strings.Replace(control, test.from, test.to, 1)
			require.NotEqual(t, control, text)
			_, err := Parse("reads.yaml", []byte(text), known)
			require.ErrorContains(t, err, test.want)
			require.NotContains(t, err.Error(), "\n")
			require.NotContains(t, err.Error(), "spec.")
			require.True(t, strings.HasPrefix(err.Error(), "experiment file reads.yaml: "), err)
		})
	}
	_, err := Parse("big.yaml", make([]byte, MaxFileBytes+1), known)
	require.ErrorContains(t, err, "at most 65536 are allowed")
	_, err = Parse("none.yaml", nil, known)
	require.EqualError(t, err, "experiment file none.yaml: is empty")
}

func TestOverrides(t *testing.T) {
	e, err := Parse("reads.yaml", []byte(strings.Replace(good, "size_bytes: 64KiB}", "clients: 1}", 1)), known)
	require.NoError(t, err)
	overrides := func(texts ...string) (list []Override) {
		for _, text := range texts {
			o, err := ParseOverride(text, known)
			require.NoError(t, err)
			list = append(list, o)
		}
		return list
	}
	p, err := e.Plan(Full, overrides("read=sendfile", "files=1,3", "size_bytes=64KiB", "depth=4"))
	require.NoError(t, err)
	require.Len(t, p.Cells, 5, "2 files x 2 clients and the twin; depth is no parameter of this file")
	require.Equal(t, 3, p.Cells[3].Parameters.Files+p.Cells[0].Parameters.Files-1)
	require.Equal(t, "read=sendfile size_bytes=65536 clients=1 files=1 (A/A)", p.String(p.Cells[4]))
	_, err = e.Plan(Full, overrides("size_bytes=12345"))
	require.ErrorContains(t, err, "cell read=copy size_bytes=12345 clients=1: size_bytes=12345 must divide")

	for text, want := range map[string]string{
		"read":                    "write factor=level,level",
		"read=":                   "write factor=level,level",
		"speed=9":                 `no parameter "speed"`,
		"read=warp":               "choose one of copy",
		"clients=1,1":             "1 is given twice",
		"clients=NaN":             "must be a whole number",
		"rate=-1":                 "rate=-1: must be",
		"offload=maybe":           "must be true or false",
		"topology=moon":           "choose one of local, hosts",
		"mtu_bytes=1e300":         "must be a whole number",
		"size_bytes=9999999 TiBx": "is no size",
	} {
		_, err := ParseOverride(text, known)
		require.ErrorContains(t, err, want)
	}
}

func TestTimedPaths(t *testing.T) {
	cell := func(levels results.Cell) []string {
		p, err := resolve(levels, nil)
		require.NoError(t, err)
		return p.Timed()
	}
	require.Equal(t, []string{"read=copy"}, cell(results.Cell{"workload": SequentialRead}))
	require.Equal(t, []string{"write=chain"}, cell(results.Cell{"workload": RandomWrite}))
	require.Equal(t, []string{"lookup=udp"}, cell(results.Cell{"workload": SmallRead, "size_bytes": 1024.0}))
	require.Equal(t, []string{"lookup=udp", "read=copy"}, cell(results.Cell{"workload": SmallRead, "size_bytes": 1025.0}))
	require.Empty(t, cell(results.Cell{"workload": SmallCreate, "size_bytes": 1024.0}))
	require.Empty(t, cell(results.Cell{"read": Floor}))
	require.Empty(t, cell(results.Cell{"workload": Lookup, "size_bytes": 100.0, "lookup": Floor}))
	require.Equal(t, []string{"lookup=floor-xdp"}, cell(results.Cell{"workload": Lookup, "size_bytes": 100.0, "lookup": FloorXDP}))
}

func TestTheFloorInTheDriver(t *testing.T) {
	good := results.Cell{"workload": Lookup, "size_bytes": 100.0, "lookup": FloorXDP, "topology": Hosts, "xdp_pass": true}
	p, err := Resolve(good)
	require.NoError(t, err)
	require.True(t, p.OnFloor())
	for _, test := range []struct {
		name string
		to   any
		want string
	}{
		{"xdp_pass", false, "lookup=floor-xdp with topology=hosts needs xdp_pass=true"},
		{"workload", SmallCreate, "lookup=floor-xdp goes with workload small-read, lookup only, not with small-create"},
		{"size_bytes", 1025.0, "lookup=floor-xdp answers with at most 1024 bytes"},
		{"hit_percent", 50.0, "hit_percent=50 goes with"},
		{"loss_percent", 1.0, "they don't go with loss_percent"},
	} {
		cell := good.Without(test.name)
		cell[test.name] = test.to
		_, err := Resolve(cell)
		require.ErrorContains(t, err, test.want)
	}
}

func TestOnlyLookupsSpin(t *testing.T) {
	p, err := Resolve(results.Cell{"workload": Lookup, "size_bytes": 100.0, "client_spin": true})
	require.NoError(t, err)
	require.True(t, p.ClientSpin)
	_, err = Resolve(results.Cell{"workload": SequentialRead, "client_spin": true})
	require.EqualError(t, err, "client_spin=true goes with workload lookup and small-read only, not with sequential-read")
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(good))
	f.Add([]byte(strings.Replace(good, "size_bytes: 64KiB}", "clients: 1}", 1)))
	f.Add([]byte("factors: {read: &a [*a]}"))
	f.Add([]byte("a: &a [b]\nfixed: *a"))
	files, _ := filepath.Glob("../*.yaml")
	for _, name := range files {
		if data, err := os.ReadFile(name); err == nil {
			f.Add(data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := Parse("fuzz.yaml", data, known)
		if err != nil {
			require.NotContains(t, err.Error(), "\n")
			return
		}
		for _, effort := range Efforts {
			p, err := e.Plan(effort, nil)
			require.NoError(t, err)
			require.NotEmpty(t, p.Cells)
			require.LessOrEqual(t, len(p.Cells), MaxCells+1)
		}
	})
}

func FuzzParseOverride(f *testing.F) {
	f.Add("read=copy,sendfile")
	f.Add("size_bytes=4KiB,1e3")
	f.Fuzz(func(t *testing.T, text string) {
		if o, err := ParseOverride(text, known); err == nil {
			require.NotEmpty(t, o.Levels)
		}
	})
}

func TestGatewayParameters(t *testing.T) {
	for _, test := range []struct{ fixed, relay, want string }{
		{"topology: hosts, workload: http-get, pin: gateway-apart", "copy, sockmap, nginx", ""},
		{"topology: local, workload: http-get", "copy", ""},
		{"topology: local, workload: http-get", "nginx", "relay=nginx is for two hosts: use topology=hosts"},
		{"topology: local, workload: http-get, pin: gateway-apart", "copy", "pin=gateway-apart goes with workload http-get and topology=hosts only"},
		{"topology: hosts, workload: random-read, pin: gateway-apart", "copy", "pin=gateway-apart goes with"},
		{"topology: hosts, workload: http-get, file_bytes: 1GiB", "copy", "http-get takes files of at most"},
		{"topology: hosts, workload: http-get", "teleport", "relay=teleport: choose one of copy, sockmap, nginx"},
	} {
		_, err := Parse("t.yaml", fmt.Appendf(nil, "name: t\nquestion: Does it?\nfixed: {%s}\nfactors: {relay: [%s]}\ncontrol: {}\n"+
			"trials: {smoke: {repetitions: 1, seconds: 1}, quick: {repetitions: 1, seconds: 1}, full: {repetitions: 1, seconds: 1}}\n", test.fixed, test.relay), known)
		if test.want == "" {
			require.NoError(t, err)
		} else {
			require.ErrorContains(t, err, test.want)
		}
	}
	require.Equal(t, []string{"relay=sockmap", "read=copy"}, Parameters{Workload: HTTPGet, Relay: "sockmap", Read: "copy"}.Timed())
	require.Empty(t, Parameters{Workload: HTTPGet, Relay: Nginx, Read: "copy"}.Timed())
}
