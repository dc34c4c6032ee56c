package results

import (
	"bytes"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/perf/benchfmt"
)

func testPlan() Plan {
	return Plan{
		Schema: Schema, Run: "r1", Start: time.Unix(1_700_000_000, 0).UTC(), OrderSeed: 7,
		Experiments: []PlannedExperiment{{
			Name: "read-path", Question: "Which read path wins?", Effort: "smoke", Repetitions: 2,
			Factors: []Factor{{Name: "read", Levels: []any{"copy", "sendfile"}}, {Name: "size_bytes", Levels: []any{4096.0}}},
		}},
	}
}

func testEnvironment() Environment {
	return Environment{
		Schema: Schema, Kernel: "6.18.0", CPU: "Test CPU", CPUs: 2, MemoryBytes: 1 << 30, GoVersion: "go1.26", Commit: "abc",
		CommandLine: []string{"waggle", "run"}, Paths: map[string]string{"read=copy": ""}, Versions: map[string]string{},
	}
}

func pointer[T any](v T) *T { return &v }

func testRecord(trial int) Record {
	return Record{
		Schema: Schema, Run: "r1", Experiment: "read-path", Trial: trial, Repetition: trial, Source: SourceMeasured,
		Cell: Cell{"read": "copy", "size_bytes": 4096.0}, Valid: true, Proof: map[string]int64{"sent_bytes": 4},
		Operations: pointer(int64(10)), PayloadBytes: pointer(int64(40960)), Seconds: pointer(2.0),
		ThroughputBytesPerSecond: pointer(20480.0), OperationsPerSecond: pointer(5.0),
		Latency:  &Latency{P50: 1e-5, P90: 2e-5, P99: 3e-5, P999: 4e-5, Max: 5e-5, Mean: 1.5e-5},
		CPU:      &CPU{Total: 1, User: .25, System: .5, SoftIRQ: .25, ByRole: map[string]float64{"chunk": .5}},
		Copies:   &Copies{UserToKernelBytes: 40960, KernelToUserBytes: 81920, PerPayloadByte: 3, Backend: "boundary"},
		Syscalls: pointer(int64(40)), ContextSwitches: pointer(int64(20)),
	}
}

// writeRun makes a run directory with n records and returns it.
func writeRun(t *testing.T, n int) string {
	dir := filepath.Join(t.TempDir(), "run")
	w, err := Create(dir, testPlan(), testEnvironment())
	require.NoError(t, err)
	for i := range n {
		require.NoError(t, w.Append(testRecord(i)))
	}
	require.NoError(t, w.Close())
	return dir
}

func TestWhatIsWrittenIsReadBack(t *testing.T) {
	dir := writeRun(t, 3)
	run, err := Open(dir)
	require.NoError(t, err)
	require.Len(t, run.Records, 3)
	assert.Equal(t, testRecord(1), run.Records[1])
	assert.Equal(t, testEnvironment(), run.Environment)
	assert.Equal(t, "Which read path wins?", run.Plan.Experiments[0].Question)
	left, err := filepath.Glob(filepath.Join(dir, ".*"))
	require.NoError(t, err)
	assert.Empty(t, left, "temporary files left behind")
}

func TestRecordsAreOrderedByTrialWhateverTheFileOrder(t *testing.T) {
	dir := writeRun(t, 3)
	file := filepath.Join(dir, RecordsFile)
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	lines := strings.SplitAfter(string(text), "\n")
	require.NoError(t, os.WriteFile(file, []byte(lines[2]+lines[0]+lines[1]), 0o644))
	run, err := Open(dir)
	require.NoError(t, err)
	for i, r := range run.Records {
		assert.Equal(t, i, r.Trial)
	}
}

func TestAnythingWrongIsOneErrorWithFileAndLine(t *testing.T) {
	replace := func(old, new string) func(string) string {
		return func(line string) string {
			if !strings.Contains(line, old) {
				panic("the good line has no " + old + ": " + line)
			}
			return strings.Replace(line, old, new, 1)
		}
	}
	for name, c := range map[string]struct {
		damage func(string) string
		want   string
	}{
		"missing field":       {replace(`"valid":true,`, ``), "field valid is missing"},
		"missing inner field": {replace(`"p99":0.00003,`, ``), "field latency_seconds.p99 is missing"},
		"null":                {replace(`"trial":1`, `"trial":null`), "trial is null"},
		"unknown field":       {replace(`"trial":1`, `"trail":1`), "trail"},
		"wrong case":          {replace(`"trial":1`, `"Trial":1`), "Trial"},
		"field twice":         {replace(`"trial":1`, `"trial":1,"trial":2`), "duplicate"},
		"NaN":                 {replace(`"seconds":2`, `"seconds":NaN`), "invalid"},
		"infinite":            {replace(`"seconds":2`, `"seconds":1e999`), "seconds"},
		"negative":            {replace(`"seconds":2`, `"seconds":-2`), "seconds is negative"},
		"negative count":      {replace(`"syscalls":40`, `"syscalls":-40`), "syscalls is negative"},
		"negative in a map":   {replace(`"chunk":0.5`, `"chunk":-0.5`), "cpu_seconds.by_role.chunk is negative"},
		"negative in a list":  {replace(`"valid":true`, `"search":{"sustained_operations_per_second":1,"p99_limit_seconds":0.01,"steps":[{"offered_operations_per_second":-1,"operations_per_second":1,"p99_seconds":1,"held":true}]},"valid":true`), "search.steps[0].offered_operations_per_second is negative"},
		"fraction of a call":  {replace(`"syscalls":40`, `"syscalls":40.5`), "syscalls"},
		"wrong schema":        {replace(`"schema":1`, `"schema":2`), "schema is 2"},
		"other run":           {replace(`"run":"r1"`, `"run":"r2"`), `run "r2"`},
		"unplanned":           {replace(`"experiment":"read-path"`, `"experiment":"other"`), "not in the plan"},
		"bad source":          {replace(`"measured"`, `"guessed"`), "source"},
		"bad control":         {replace(`"valid":true`, `"control":"B","valid":true`), "control"},
		"bad placement":       {replace(`"valid":true`, `"placement":"moon","valid":true`), "placement is"},
		"no slices":           {replace(`"valid":true`, `"timeline":{"slice_seconds":0.1,"operations":[],"slowest_seconds":[]},"valid":true`), "timeline: 0 slices"},
		"no reason":           {replace(`"valid":true`, `"valid":false`), "gives no reason"},
		"contradiction":       {replace(`"valid":true`, `"valid":true,"unsupported":true`), "both valid and unsupported"},
		"nested level":        {replace(`"read":"copy"`, `"read":["copy"]`), "factor read"},
		"control character":   {replace(`"read":"copy"`, `"read":"co\u0000py"`), "factor read"},
		"no factor":           {replace(`{"read":"copy","size_bytes":4096}`, `{}`), "no factor"},
		"percentiles":         {replace(`"p90":0.00002`, `"p90":0.00009`), "not in order"},
		"histogram":           {replace(`"valid":true`, `"valid":true,"latency_histogram":"AAAA"`), "latency_histogram"},
		"same trial":          {replace(`"trial":1`, `"trial":0`), "trial 0 was recorded already, on line 1"},
		"same repetition":     {replace(`"repetition":1`, `"repetition":0`), "on line 1"},
		"duplicated line":     {func(line string) string { return line + line }, "records.jsonl:3"},
		"truncated":           {func(line string) string { return line[:len(line)/2] }, "cut short"},
		"no newline":          {func(line string) string { return strings.TrimSuffix(line, "\n") }, "cut short"},
		"empty line":          {func(string) string { return "\n" }, "records.jsonl:2"},
		"not an object":       {func(string) string { return "[]\n" }, "records.jsonl:2"},
		"two values":          {func(line string) string { return strings.TrimSuffix(line, "\n") + "{}\n" }, "records.jsonl:2"},
		"too long":            {func(string) string { return strings.Repeat("x", MaxRecordBytes+1) + "\n" }, "longer than"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := writeRun(t, 2)
			file := filepath.Join(dir, RecordsFile)
			text, err := os.ReadFile(file)
			require.NoError(t, err)
			lines := strings.SplitAfter(string(text), "\n")
			lines[1] = c.damage(lines[1])
			require.NoError(t, os.WriteFile(file, []byte(strings.Join(lines, "")), 0o644))
			_, err = Open(dir)
			require.Error(t, err)
			assert.Contains(t, err.Error(), c.want)
			assert.Regexp(t, `records\.jsonl:[23]: `, err.Error())
			assert.NotContains(t, err.Error(), "\n")
		})
	}
}

func TestDocumentsAreReadStrictly(t *testing.T) {
	for name, c := range map[string]struct{ file, old, new, want string }{
		"missing seed":   {PlanFile, `"order_seed": 7,`, ``, "plan.json: field order_seed is missing"},
		"wrong schema":   {PlanFile, `"schema": 1`, `"schema": 9`, "plan.json: schema is 9"},
		"no repetitions": {PlanFile, `"repetitions": 2`, `"repetitions": 0`, "0 repetitions"},
		"factor twice":   {PlanFile, `"name": "size_bytes"`, `"name": "read"`, "factor read is given twice"},
		"no CPUs":        {EnvironmentFile, `"cpus": 2`, `"cpus": 0`, "0 CPUs"},
		"not JSON":       {EnvironmentFile, `{`, `(`, "environment.json"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := writeRun(t, 1)
			file := filepath.Join(dir, c.file)
			text, err := os.ReadFile(file)
			require.NoError(t, err)
			require.Contains(t, string(text), c.old)
			require.NoError(t, os.WriteFile(file, []byte(strings.Replace(string(text), c.old, c.new, 1)), 0o644))
			_, err = Open(dir)
			require.ErrorContains(t, err, c.want)
		})
	}
	_, err := Open(t.TempDir())
	require.ErrorContains(t, err, "is not a run directory")
}

func TestResumeCutsOffOnlyTheBrokenLastLine(t *testing.T) {
	dir := writeRun(t, 2)
	file := filepath.Join(dir, RecordsFile)
	whole, err := os.ReadFile(file)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(file, append(bytes.Clone(whole), []byte(`{"schema":1,"ru`)...), 0o644))

	_, err = Open(dir)
	require.ErrorContains(t, err, "records.jsonl:3: the line is cut short")

	w, run, err := Resume(dir, testEnvironment())
	require.NoError(t, err)
	assert.Len(t, run.Records, 2)
	require.ErrorContains(t, w.Append(testRecord(1)), "on line 2")
	require.NoError(t, w.Append(testRecord(2)))
	require.NoError(t, w.Close())

	run, err = Open(dir)
	require.NoError(t, err)
	assert.Len(t, run.Records, 3)
}

func TestResumeRefusesWhatItCannotVouchFor(t *testing.T) {
	dir := writeRun(t, 2)
	other := testEnvironment()
	other.Commit = "def"
	_, _, err := Resume(dir, other)
	require.ErrorContains(t, err, "at commit abc, this is def: start a new run")

	file := filepath.Join(dir, RecordsFile)
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	damaged := bytes.Replace(text, []byte(`"trial":0`), []byte(`"trial":-1`), 1)
	require.NoError(t, os.WriteFile(file, damaged, 0o644))
	_, _, err = Resume(dir, testEnvironment())
	require.ErrorContains(t, err, "records.jsonl:1: trial is negative")
	now, err := os.ReadFile(file)
	require.NoError(t, err)
	assert.Equal(t, damaged, now, "a file that is refused must not be changed")

	empty := t.TempDir()
	_, _, err = Resume(empty, testEnvironment())
	require.ErrorContains(t, err, "is not a run directory")
	left, err := os.ReadDir(empty)
	require.NoError(t, err)
	assert.Empty(t, left)
}

func TestOneWriterADirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	w, err := Create(dir, testPlan(), testEnvironment())
	require.NoError(t, err)
	_, _, err = Resume(dir, testEnvironment())
	require.ErrorContains(t, err, "another process is writing")
	require.NoError(t, w.Close())
	_, err = Create(dir, testPlan(), testEnvironment())
	require.ErrorIs(t, err, fs.ErrExist)
}

func TestAppendRefusesWhatAReaderWould(t *testing.T) {
	w, err := Create(filepath.Join(t.TempDir(), "run"), testPlan(), testEnvironment())
	require.NoError(t, err)
	defer w.Close()
	bad := testRecord(0)
	bad.Seconds = pointer(math.NaN())
	require.ErrorContains(t, w.Append(bad), "seconds is NaN")
	bad = testRecord(0)
	bad.Reason = strings.Repeat("x", maxReason+1)
	require.ErrorContains(t, w.Append(bad), "reason")
	bad = testRecord(0)
	bad.Experiment = "never-planned"
	require.ErrorContains(t, w.Append(bad), "not in the plan")
	require.NoError(t, w.Append(testRecord(0)))
}

func TestWriteFileReplacesWhole(t *testing.T) {
	path := filepath.Join(t.TempDir(), "summary.md")
	require.NoError(t, WriteFile(path, []byte("old and long")))
	require.NoError(t, WriteFile(path, []byte("new")))
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.Equal(t, "new", string(text))
	require.Error(t, WriteFile(filepath.Join(t.TempDir(), "missing", "x"), nil))
}

func TestCellsAreTheSameExactlyIfTheyLookTheSame(t *testing.T) {
	assert.Equal(t, "clients=4 read=copy size_bytes=1048576", Cell{"size_bytes": 1 << 20, "read": "copy", "clients": 4.0}.String())
	levels := []any{"4", 4.0, true, "true", "", " ", "a b", "a", "a=b", 4.5, "NaN", "!x", `"a"`, 1e300, -1.0}
	seen := map[string]any{}
	for _, level := range levels {
		text := FormatLevel(level)
		assert.NotContains(t, seen, text)
		seen[text] = level
	}
	cell := Cell{"read": "copy", "clients": 4.0}
	assert.True(t, cell.Has(nil))
	assert.True(t, cell.Has(Cell{"clients": 4}))
	assert.False(t, cell.Has(Cell{"clients": "4"}))
	assert.False(t, cell.Has(Cell{"topology": "local"}))
	assert.Equal(t, Cell{"clients": 4.0}, cell.Without("read"))
}

func TestMetricsHaveKnownAnswers(t *testing.T) {
	r := testRecord(0)
	for name, want := range map[string]float64{
		Throughput: 20480, OperationRate: 5, LatencyP99: 3e-5, CPUPerGB: 1 / 40960e-9, CPUPerOperation: .1,
		SoftIRQPerOperation: .025, CopiesPerByte: 3, UserToKernelPerByte: 1, KernelToUserPerByte: 2, InUserPerByte: 0,
		CopiedPerOperation: 3 * 4096, SyscallsPerOperation: 4, SwitchesPerOperation: 2, PayloadPerOperation: 4096,
		"cpu_per_gb_chunk": .5 / 40960e-9, "cpu_per_operation_chunk": .05,
	} {
		m, err := MetricNamed(name)
		require.NoError(t, err)
		got, ok := m.Of(&r)
		require.True(t, ok, name)
		assert.InEpsilon(t, want+1, got+1, 1e-12, name)
		_, ok = m.Of(&Record{})
		assert.False(t, ok, "%s has an answer for a record that measured nothing", name)
	}
	inKernel, err := MetricNamed(InKernelPerByte)
	require.NoError(t, err)
	_, ok := inKernel.Of(&r)
	assert.False(t, ok, "not measured is not zero")
	for name, want := range map[string]string{LatencyP50: "85 µs", CopiesPerByte: "8.5e-05 copies/B", Throughput: "85 µB/s"} {
		m, err := MetricNamed(name)
		require.NoError(t, err)
		assert.Equal(t, want, m.Format(85e-6))
	}
	_, err = MetricNamed("speed")
	require.ErrorContains(t, err, `no metric "speed"`)
}

func TestBenchFileIsReadByItsOwnParser(t *testing.T) {
	dir := writeRun(t, 2)
	run, err := Open(dir)
	require.NoError(t, err)
	run.Records[1].Control = ControlAA
	run.Records = append(run.Records, Record{Experiment: "read-path", Valid: false, Reason: "died"})
	path := filepath.Join(dir, BenchFile)
	require.NoError(t, run.SaveBench(path))

	f, err := os.Open(path)
	require.NoError(t, err)
	defer f.Close()
	reader := benchfmt.NewReader(f, BenchFile)
	var names []string
	for reader.Scan() {
		switch r := reader.Result().(type) {
		case *benchfmt.SyntaxError:
			t.Fatal(r)
		case *benchfmt.Result:
			names = append(names, r.Name.String())
			rate, ok := r.Value("B/s")
			assert.True(t, ok)
			assert.Equal(t, 20480.0, rate)
			assert.Equal(t, 10, r.Iters)
			assert.Equal(t, "abc", r.GetConfig("commit"))
		}
	}
	require.NoError(t, reader.Err())
	assert.Equal(t, []string{"ReadPath/read=copy/size_bytes=4096-2", "ReadPath/read=copy/size_bytes=4096/control=A:A-2"}, names)
	assert.Equal(t, 1, reader.Units().GetBetter("B/s"))
	assert.Equal(t, -1, reader.Units().GetBetter("p50-sec"))
}

func TestHistogramsComeBack(t *testing.T) {
	h := hdrhistogram.New(1, 3_600_000_000_000, 3)
	for _, ns := range []int64{1000, 2000, 3000} {
		require.NoError(t, h.RecordValue(ns))
	}
	text, err := EncodeHistogram(h)
	require.NoError(t, err)
	back, err := DecodeHistogram(text)
	require.NoError(t, err)
	assert.Equal(t, int64(3), back.TotalCount())
	assert.Equal(t, h.Max(), back.Max())
	_, err = DecodeHistogram(strings.Repeat("A", MaxHistogramText+1))
	require.ErrorContains(t, err, "more than")
}

func FuzzRecords(f *testing.F) {
	dir := f.TempDir()
	w, err := Create(dir, testPlan(), testEnvironment())
	require.NoError(f, err)
	for i := range 2 {
		require.NoError(f, w.Append(testRecord(i)))
	}
	require.NoError(f, w.Close())
	good, err := os.ReadFile(filepath.Join(dir, RecordsFile))
	require.NoError(f, err)
	f.Add(good)
	f.Add(good[:len(good)-9])
	f.Add([]byte("{}\n"))
	f.Add([]byte(`{"schema":1,"cell":{"a":null}}` + "\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		var p recordParser
		whole, err := p.read(bytes.NewReader(text), RecordsFile, testPlan())
		assert.LessOrEqual(t, whole, int64(len(text)))
		if err != nil {
			assert.Contains(t, err.Error(), fmt.Sprintf("%s:%d: ", RecordsFile, len(p.records)+1))
			return
		}
		for _, r := range p.records {
			require.NoError(t, r.Check())
		}
	})
}

func FuzzDocuments(f *testing.F) {
	f.Add([]byte(`{"schema":1,"run":"r","start":"2026-01-01T00:00:00Z","order_seed":1,"experiments":[]}`))
	f.Add([]byte(`{"schema":1,"kernel":"","cpu":"","cpus":1}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var p Plan
		if decodeStrict(text, &p) == nil {
			_ = p.check()
		}
		var e Environment
		if decodeStrict(text, &e) == nil {
			_ = e.check()
		}
	})
}

func TestSequentialPlansAreChecked(t *testing.T) {
	good := func() *Sequential {
		return &Sequential{Looks: []int{3, 6}, Spent: []float64{.25, .75}, Questions: []SequentialQuestion{{Throughput, "read", "copy"}}}
	}
	require.NoError(t, good().check(6))
	require.NoError(t, (*Sequential)(nil).check(6))
	for want, change := range map[string]func(*Sequential){
		"0 looks":                  func(s *Sequential) { s.Looks = nil },
		"2 looks with 1 shares":    func(s *Sequential) { s.Spent = s.Spent[:1] },
		"are not ascending":        func(s *Sequential) { s.Looks[0] = 6 },
		"add up to 0.5":            func(s *Sequential) { s.Spent[1] = .25 },
		"the share of look 1":      func(s *Sequential) { s.Spent[0] = math.NaN() },
		"up to 6":                  func(s *Sequential) { s.Looks[1] = 9 },
		`there is no metric "wit"`: func(s *Sequential) { s.Questions[0].Metric = "wit" },
		"baseline is empty":        func(s *Sequential) { s.Questions[0].Baseline = "" },
	} {
		s := good()
		change(s)
		require.ErrorContains(t, s.check(6), want)
	}
}

func TestStallsAreCounted(t *testing.T) {
	line := &Timeline{SliceSeconds: .001, Operations: make([]int64, 50), SlowestSeconds: make([]float64, 50)}
	for i := range line.SlowestSeconds {
		line.Operations[i], line.SlowestSeconds[i] = 10, 200e-6
	}
	require.Empty(t, line.Stalls(1e-4))
	line.SlowestSeconds[29], line.SlowestSeconds[30] = .020, .019 // two clients that waited at the same time
	line.SlowestSeconds[45] = .006
	stalls := line.Stalls(1e-4)
	require.Len(t, stalls, 2)
	require.InDelta(t, .021, stalls[0].Seconds(), 1e-9)
	require.InDelta(t, .010, stalls[0].From, 1e-9)
	require.Empty(t, line.Stalls(.003), "where operations take 3 ms anyway, none of these stalled")
	require.Empty(t, (*Timeline)(nil).Stalls(1e-4))

	require.NoError(t, line.check())
	line.Operations = line.Operations[1:]
	require.ErrorContains(t, line.check(), "49 slices of operations and 50 of latencies")
	require.ErrorContains(t, (&Timeline{}).check(), "is none")
}

// A record that claims more processor time than its processors could give is refused.
func TestProcessorTimeHasALimit(t *testing.T) {
	r := testRecord(0)
	seconds := 0.05
	r.Seconds = &seconds
	for total, valid := range map[float64]bool{0.05: true, 0.1: true, 0.105: false, 0.5: false} {
		r.CPU = &CPU{Total: total, Processors: 2}
		require.Equal(t, valid, r.Check() == nil, total)
	}
}
