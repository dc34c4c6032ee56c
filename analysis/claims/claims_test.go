package claims

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"waggle/results"
)

const oneClaim = `
ebpf: {lookup: [xdp]}
controls: [floor]
claims:
- id: c
  claim: XDP is fast.
  source: somebody
  tests:
  - experiment: lookup-path
    metric: operation_rate
    baseline: {lookup: udp}
    treatment: {lookup: xdp}
    expect: %s
    authors: %s
    pairs: %s
`

// lookups is a run in which xdp answers so many times as fast as udp, by the
// number of clients. The floor answers faster than both.
func lookups(repetitions int, factors map[float64]float64) *results.Run {
	random := rand.New(rand.NewPCG(1, 1))
	run := &results.Run{
		Plan:        results.Plan{Experiments: []results.PlannedExperiment{{Name: "lookup-path", Factors: []results.Factor{{Name: "clients", Levels: []any{1.0, 16.0}}}}}},
		Environment: results.Environment{Paths: map[string]string{"lookup=udp": "", "lookup=xdp": ""}},
	}
	add := func(lookup string, clients float64, repetition int, rate float64, control string) {
		rate *= math.Exp(.03 * random.NormFloat64())
		run.Records = append(run.Records, results.Record{Experiment: "lookup-path", Source: results.SourceMeasured, Valid: true,
			Repetition: repetition, Control: control, Cell: results.Cell{"lookup": lookup, "clients": clients}, OperationsPerSecond: &rate,
			Proof: map[string]int64{"answered": 10, "asked": 10}})
	}
	for repetition := range repetitions {
		for clients, factor := range factors {
			add("udp", clients, repetition, 1000*clients, "")
			add("udp", clients, repetition, 1000*clients, results.ControlAA)
			add("xdp", clients, repetition, 1000*clients*factor, "")
			add("floor", clients, repetition, 100_000*clients, "")
		}
	}
	return run
}

func judgeOne(t *testing.T, text string, run *results.Run) Outcome {
	c, err := Parse([]byte(text))
	require.NoError(t, err)
	outcomes := c.Judge(run)
	require.Len(t, outcomes, 1)
	return outcomes[0]
}

func TestVerdictsOfComparisons(t *testing.T) {
	for name, c := range map[string]struct {
		expect, authors, pairs string
		repetitions            int
		factors                map[float64]float64
		want                   Verdict
		reason                 string
	}{
		"far better":             {"better", "18", "best", 10, map[float64]float64{1: 2, 16: 12}, Reproduced, "authors 18x, here clients=16: 1"},
		"half on a log scale":    {"better", "18", "best", 10, map[float64]float64{16: 4.5}, Reproduced, ""},
		"better but far less":    {"better", "18", "best", 10, map[float64]float64{1: 2, 16: 3}, NotReproduced, "clients=16"},
		"worse":                  {"better", "0", "best", 10, map[float64]float64{1: .5}, NotReproduced, ""},
		"one of two":             {"better", "0", "every", 10, map[float64]float64{1: 2, 16: .5}, NotReproduced, "clients=16"},
		"both":                   {"better", "0", "every", 10, map[float64]float64{1: 2, 16: 3}, Reproduced, ""},
		"worse as expected":      {"worse", "0.7", "every", 10, map[float64]float64{1: .7}, Reproduced, ""},
		"equal is not better":    {"not better", "0", "every", 20, map[float64]float64{1: 1}, Reproduced, "no difference"},
		"worse is not better":    {"not better", "0", "every", 10, map[float64]float64{1: .5}, Reproduced, ""},
		"better is not that":     {"not better", "0", "every", 10, map[float64]float64{1: 1.5}, NotReproduced, ""},
		"too few repetitions":    {"better", "18", "best", 3, map[float64]float64{1: 18}, NotTestable, "too few repetitions"},
		"too few to be not that": {"not better", "0", "every", 3, map[float64]float64{1: 18}, NotTestable, "too few repetitions"},
	} {
		t.Run(name, func(t *testing.T) {
			o := judgeOne(t, fmt.Sprintf(oneClaim, c.expect, c.authors, c.pairs), lookups(c.repetitions, c.factors))
			assert.Equal(t, c.want, o.Verdict, o.Tests[0].Reason)
			assert.Contains(t, o.Tests[0].Reason, c.reason)
		})
	}
}

func TestWhatIsMissingIsSaid(t *testing.T) {
	text := fmt.Sprintf(oneClaim, "better", "18", "best")
	for name, c := range map[string]struct {
		change func(*results.Run)
		reason string
	}{
		"no such path yet":   {func(r *results.Run) { delete(r.Environment.Paths, "lookup=xdp") }, "the data path lookup=xdp doesn't exist yet"},
		"unsupported":        {func(r *results.Run) { r.Environment.Paths["lookup=xdp"] = "no rights" }, "lookup=xdp isn't supported here: no rights"},
		"not run":            {func(r *results.Run) { r.Plan.Experiments = nil }, "the run has no experiment lookup-path"},
		"no pair":            {func(r *results.Run) { r.Records = r.Records[:2] }, "no pair of cells"},
		"simulated only":     {func(r *results.Run) { simulate(r) }, "no pair of cells"},
		"no control, no say": {func(r *results.Run) { dropControls(r) }, "no A/A control"},
	} {
		t.Run(name, func(t *testing.T) {
			run := lookups(10, map[float64]float64{1: 18})
			c.change(run)
			o := judgeOne(t, text, run)
			assert.Equal(t, NotTestable, o.Verdict)
			assert.Contains(t, o.Reason, c.reason)
		})
	}
}

func simulate(run *results.Run) {
	for i := range run.Records {
		run.Records[i].Source = results.SourceSimulated
	}
}

func dropControls(run *results.Run) {
	for i := range run.Records {
		if run.Records[i].Control != "" {
			run.Records[i].Valid = false
		}
	}
}

func TestSimulationsAreJudgedApart(t *testing.T) {
	text := strings.Replace(fmt.Sprintf(oneClaim, "better", "18", "best"), "  source: somebody", "  source: somebody\n  simulated: true", 1)
	run := lookups(10, map[float64]float64{1: 18})
	o := judgeOne(t, text, run)
	assert.Equal(t, NotTestable, o.Verdict, "what was measured is no simulation")
	simulate(run)
	delete(run.Environment.Paths, "lookup=xdp") // no machine has it
	o = judgeOne(t, text, run)
	assert.Equal(t, ReproducedInSimulation, o.Verdict, o.Reason)
	assert.Equal(t, ReproducedInSimulation, o.Tests[0].Verdict)
	assert.Contains(t, Text([]Outcome{o}), "1 reproduced in simulation, 0 not reproduced in simulation")
	run = lookups(10, map[float64]float64{1: .5})
	simulate(run)
	assert.Equal(t, NotReproducedInSimulation, judgeOne(t, text, run).Verdict)
}

func TestShareOfCounters(t *testing.T) {
	text := `{claims: [{id: c, claim: x, source: y, tests: [{experiment: lookup-path, where: {lookup: xdp}, share: {of: answered, in: asked, at_least: 1}}]}]}`
	run := lookups(2, map[float64]float64{1: 1})
	o := judgeOne(t, text, run)
	assert.Equal(t, Reproduced, o.Verdict)
	assert.Equal(t, "20 of 20: 1, counted", o.Tests[0].Reason)
	for _, r := range run.Records {
		r.Proof["answered"] = 9
	}
	assert.Equal(t, NotReproduced, judgeOne(t, text, run).Verdict)
	for _, r := range run.Records {
		r.Proof["asked"] = 0
	}
	assert.Equal(t, NotTestable, judgeOne(t, text, run).Verdict)
	for _, r := range run.Records {
		delete(r.Proof, "answered")
	}
	o = judgeOne(t, text, run)
	assert.Equal(t, NotTestable, o.Verdict)
	assert.Equal(t, "the records don't count answered", o.Tests[0].Reason)
}

func TestWinners(t *testing.T) {
	text := `{ebpf: {lookup: [xdp]}, controls: [floor], claims: [{id: c, claim: x, source: y, tests: [{winners: {experiments: [lookup-path, read-path], metric: operation_rate, at_least: 0.5}}]}]}`
	o := judgeOne(t, text, lookups(10, map[float64]float64{1: .5, 16: 3}))
	assert.Equal(t, Reproduced, o.Verdict)
	assert.Equal(t, "no eBPF path is better in 1 of 2 cells; 0 more could not be told", o.Tests[0].Reason)
	o = judgeOne(t, text, lookups(10, map[float64]float64{1: 2, 16: 3}))
	assert.Equal(t, NotReproduced, o.Verdict)
	o = judgeOne(t, text, lookups(0, nil))
	assert.Equal(t, NotTestable, o.Verdict)
}

func TestOneTestRefutesTheClaimAndAllReproduceIt(t *testing.T) {
	yes := `{experiment: lookup-path, metric: operation_rate, baseline: {lookup: udp}, treatment: {lookup: xdp}, expect: better, pairs: every}`
	no := strings.Replace(yes, "expect: better", "expect: worse", 1)
	absent := strings.ReplaceAll(yes, "xdp", "magic")
	run := lookups(10, map[float64]float64{1: 2})
	for tests, want := range map[string]Verdict{
		yes: Reproduced, yes + "," + absent: NotTestable, absent + "," + no: NotReproduced, yes + "," + no: NotReproduced,
	} {
		o := judgeOne(t, `{claims: [{id: c, claim: x, source: y, tests: [`+tests+`]}]}`, run)
		assert.Equal(t, want, o.Verdict, tests)
	}
}

func TestPublishedClaimsParseAndSaySoWherePathsDoNotExist(t *testing.T) {
	c, err := Published()
	require.NoError(t, err)
	empty := &results.Run{}
	outcomes := c.Judge(empty)
	require.Len(t, outcomes, 15)
	for _, o := range outcomes {
		assert.Equal(t, NotTestable, o.Verdict, o.ID)
		assert.NotEmpty(t, o.Reason, o.ID)
	}
	text := Text(outcomes)
	assert.Contains(t, text, "0 reproduced, 0 not reproduced, 15 not testable here")
	assert.Contains(t, text, "the data path mount=passthrough doesn't exist yet")
	assert.Contains(t, text, "so that it is simulated, from the costs")
}

func TestParseIsStrict(t *testing.T) {
	good := fmt.Sprintf(oneClaim, "better", "18", "best")
	for name, c := range map[string]struct{ old, new, want string }{
		"unknown field":  {"expect:", "expects:", "expects"},
		"unknown metric": {"operation_rate", "speed", `no metric "speed"`},
		"bad expect":     {"expect: better", "expect: nice", "expect is"},
		"bad pairs":      {"pairs: best", "pairs: some", "pairs is"},
		"not a ratio":    {"authors: 18", "authors: -1", "authors is -1"},
		"NaN":            {"authors: 18", "authors: .nan", "authors is NaN"},
		"no source":      {"source: somebody", `source: ""`, "needs id, claim and source"},
		"both":           {"source: somebody", "source: somebody\n  untestable: because", "either tests or a reason"},
		"no baseline":    {"{lookup: udp}", "{}", "needs baseline and treatment"},
		"two kinds":      {"experiment: lookup-path", "experiment: e\n    share: {of: a, in: b, at_least: 1}", "must be one of"},
		"two documents":  {"pairs: best", "pairs: best\n---\n{}", "more than one document"},
	} {
		t.Run(name, func(t *testing.T) {
			require.Contains(t, good, c.old)
			_, err := Parse([]byte(strings.Replace(good, c.old, c.new, 1)))
			require.ErrorContains(t, err, c.want)
		})
	}
	_, err := Parse([]byte(good + good[strings.Index(good, "- id"):]))
	require.ErrorContains(t, err, `claim "c" is given twice`)
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(published))
	f.Add([]byte(fmt.Sprintf(oneClaim, "better", "18", "best")))
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := Parse(text)
		if err == nil {
			c.Judge(&results.Run{})
		}
	})
}
