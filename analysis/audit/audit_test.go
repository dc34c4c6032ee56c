package audit

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"waggle/analysis/synthetic"
	"waggle/results"
)

// reference is a run that a machine has really made.
const reference = "../../results/reference"

func openReference(t *testing.T) *results.Run {
	t.Helper()
	run, err := results.Open(reference)
	require.NoError(t, err)
	return run
}

func faults(r *Report) (all []Finding) {
	for _, f := range r.Findings {
		if f.Severity == Fault {
			all = append(all, f)
		}
	}
	return all
}

// written puts a run's records through the writer, which chains them.
func written(t *testing.T, run *results.Run) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "run")
	synthetic.Write(t, dir, run)
	return dir
}

func TestHonestRunIsNeverAccused(t *testing.T) {
	report, err := Run(reference)
	require.NoError(t, err)
	assert.Empty(t, faults(report), "the reference run")
	report, err = Run(written(t, openReference(t)))
	require.NoError(t, err)
	assert.Empty(t, faults(report), "the reference run, written again")
	for _, s := range report.Scores {
		assert.LessOrEqual(t, s.Score, 100)
		assert.Positive(t, s.Checks, "nothing looks at %s", s.Category)
	}
}

// first finds the first record of a run that can be tampered with in some way.
func first(t *testing.T, run *results.Run, fits func(*results.Record) bool) *results.Record {
	t.Helper()
	for i := range run.Records {
		if r := &run.Records[i]; r.Valid && fits(r) {
			return r
		}
	}
	require.FailNow(t, "the reference run has no record to tamper with")
	return nil
}

func timed(r *results.Record) bool {
	return r.Latency != nil && r.LatencyHistogram != "" && r.OperationsPerSecond != nil && r.Search == nil &&
		r.ThroughputBytesPerSecond != nil && r.OfferedOperationsPerSecond == nil
}

// repeated picks timed records of cells that have several.
func repeated(r *results.Record) bool { return timed(r) && r.Experiment == "read-path" }

func ledgered(r *results.Record) bool {
	_, reads := r.Cell["read"]
	return reads && r.Copies != nil && len(r.Copies.ByRole) > 0
}

// cellOf gives all timed records of a record's cell.
func cellOf(run *results.Run, of *results.Record) (all []*results.Record) {
	for i := range run.Records {
		if r := &run.Records[i]; r.Experiment == of.Experiment && r.Control == of.Control && r.Cell.String() == of.Cell.String() && timed(r) {
			all = append(all, r)
		}
	}
	return all
}

// tamperings are ways to make a run say something else. They are looked for
// without the chain, since whoever knows of it makes the chain anew.
var tamperings = map[string]func(*testing.T, *results.Run){
	"a higher throughput": func(t *testing.T, run *results.Run) {
		*first(t, run, timed).ThroughputBytesPerSecond *= 1.2
	},
	"a higher rate": func(t *testing.T, run *results.Run) {
		*first(t, run, timed).OperationsPerSecond *= 1.2
	},
	"a shorter time, rates made to fit": func(t *testing.T, run *results.Run) {
		r := first(t, run, timed)
		*r.Seconds /= 3
		*r.OperationsPerSecond *= 3
		*r.ThroughputBytesPerSecond *= 3
	},
	"more operations, rates made to fit": func(t *testing.T, run *results.Run) {
		r := first(t, run, timed)
		*r.Operations *= 2
		*r.PayloadBytes *= 2
		*r.OperationsPerSecond *= 2
		*r.ThroughputBytesPerSecond *= 2
	},
	"more bytes than the operations can hold": func(t *testing.T, run *results.Run) {
		r := first(t, run, func(r *results.Record) bool { _, ok := r.Cell["size_bytes"]; return ok && timed(r) })
		*r.PayloadBytes *= 2
		*r.ThroughputBytesPerSecond *= 2
	},
	"a lower median": func(t *testing.T, run *results.Run) { first(t, run, timed).Latency.P50 *= 0.7 },
	"a lower 99th percentile": func(t *testing.T, run *results.Run) {
		l := first(t, run, func(r *results.Record) bool { return timed(r) && r.Latency.P99 > 1.1*r.Latency.P90 }).Latency
		l.P99 = l.P90
	},
	"a lower mean": func(t *testing.T, run *results.Run) { first(t, run, timed).Latency.Mean *= 0.8 },
	"a lower maximum": func(t *testing.T, run *results.Run) {
		l := first(t, run, func(r *results.Record) bool { return timed(r) && r.Latency.Max > 1.1*r.Latency.P99 }).Latency
		l.P999, l.Max = l.P99, l.P99
	},
	"a histogram of another trial": func(t *testing.T, run *results.Run) {
		r := first(t, run, timed)
		for i := range run.Records {
			if other := &run.Records[i]; other != r && timed(other) && other.Latency.P50 < 0.8*r.Latency.P50 {
				r.LatencyHistogram, r.Latency = other.LatencyHistogram, other.Latency
				return
			}
		}
	},
	"a trial doubled": func(t *testing.T, run *results.Run) {
		r := first(t, run, repeated)
		same := cellOf(run, r)
		twin := same[len(same)-1]
		trial, repetition := twin.Trial, twin.Repetition
		*twin = *r
		twin.Trial, twin.Repetition = trial, repetition
	},
	"a bad repetition removed": func(t *testing.T, run *results.Run) {
		r := first(t, run, repeated)
		run.Records = slices.DeleteFunc(run.Records, func(x results.Record) bool { return x.Trial == r.Trial })
	},
	"a bad repetition removed, trials numbered anew": func(t *testing.T, run *results.Run) {
		r := first(t, run, repeated)
		run.Records = slices.DeleteFunc(run.Records, func(x results.Record) bool { return x.Trial == r.Trial })
		for i := range run.Records {
			run.Records[i].Trial = i
		}
	},
	"fewer copies than can be": func(t *testing.T, run *results.Run) {
		r := first(t, run, ledgered)
		r.Copies.PerPayloadByte, r.Copies.ByRole = 0.5, nil
		r.Copies.UserToKernelBytes, r.Copies.InUserBytes, r.Copies.InKernelBytes = 0, 0, nil
		r.Copies.KernelToUserBytes = *r.PayloadBytes / 2
	},
	"fewer copies than their sum": func(t *testing.T, run *results.Run) { first(t, run, ledgered).Copies.PerPayloadByte = 1 },
	"one role's copies left out": func(t *testing.T, run *results.Run) {
		delete(first(t, run, func(r *results.Record) bool { return ledgered(r) && r.Copies.ByRole["chunk"].UserToKernelBytes > 0 }).Copies.ByRole, "chunk")
	},
	"processor time that nobody had": func(t *testing.T, run *results.Run) {
		r := first(t, run, func(r *results.Record) bool { return r.CPU != nil && r.Seconds != nil })
		r.CPU.Total = 20 + 4**r.Seconds
	},
	"processor time below its parts": func(t *testing.T, run *results.Run) {
		r := first(t, run, func(r *results.Record) bool { return r.CPU != nil && r.CPU.Total >= 0.05 })
		r.CPU.Total, r.CPU.User, r.CPU.System = 0, 0.2, 0.3
	},
	"a cell smoothed to its mean": func(t *testing.T, run *results.Run) {
		r := first(t, run, repeated)
		rate := *r.OperationsPerSecond
		for i, same := range cellOf(run, r) {
			wanted := rate * (1 + 1e-6*float64(i))
			scale := wanted / *same.OperationsPerSecond
			*same.OperationsPerSecond *= scale
			*same.ThroughputBytesPerSecond *= scale
			*same.Seconds /= scale
		}
	},
	"cells run one after another": func(t *testing.T, run *results.Run) {
		slices.SortStableFunc(run.Records, func(a, b results.Record) int { return slices.Compare([]byte(a.Cell.String()), []byte(b.Cell.String())) })
		for i := range run.Records {
			run.Records[i].Trial = i
		}
	},
	"the same order each time": func(t *testing.T, run *results.Run) {
		slices.SortStableFunc(run.Records, func(a, b results.Record) int {
			if a.Repetition != b.Repetition {
				return a.Repetition - b.Repetition
			}
			return strings.Compare(a.Cell.String()+a.Control, b.Cell.String()+b.Control)
		})
		for i := range run.Records {
			run.Records[i].Trial = i
		}
	},
}

func TestEveryTamperingIsCaughtWithoutTheChain(t *testing.T) {
	require.GreaterOrEqual(t, len(tamperings), 20)
	for name, tamper := range tamperings {
		t.Run(name, func(t *testing.T) {
			run := openReference(t)
			tamper(t, run)
			report := Records(run)
			assert.NotEmpty(t, faults(report))
			assert.False(t, report.Believable())
		})
	}
}

func TestEveryEditIsCaughtByTheChain(t *testing.T) {
	dir := written(t, openReference(t))
	file := filepath.Join(dir, results.RecordsFile)
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	at := slices.Index(text, '7') // some digit of the first record
	text[at] = '8'
	require.NoError(t, os.WriteFile(file, text, 0o600))
	report, err := Run(dir)
	if err == nil {
		assert.False(t, report.Believable())
	}
	assert.ErrorContains(t, results.CheckChain(dir), "chain breaks")
}

func TestRerunAgreesWithItselfAndNotWithAnotherMachine(t *testing.T) {
	run := openReference(t)
	chosen := Choose(run, 0.05, 7)
	require.NotEmpty(t, chosen)
	assert.Equal(t, chosen, Choose(run, 0.05, 7), "the seed decides")
	other := openReference(t)
	for i := range other.Records {
		if r := &other.Records[i]; r.OperationsPerSecond != nil {
			*r.OperationsPerSecond *= 20
		}
	}
	agreeing, differing := Rerun{SameMachine: true}, Rerun{SameMachine: true}
	for _, c := range chosen {
		agreeing.Cells = append(agreeing.Cells, CompareCell(c, run, run))
		differing.Cells = append(differing.Cells, CompareCell(c, run, other))
	}
	report := Records(run)
	report.AddRerun(agreeing)
	assert.True(t, report.Believable())
	report.AddRerun(differing)
	assert.False(t, report.Believable())
	assert.Contains(t, report.Text(), "DIFFERS")
}
