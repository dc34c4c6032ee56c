package copies

import (
	"errors"
	"fmt"
	"os"
	"testing"
	"text/tabwriter"

	"github.com/stretchr/testify/require"
)

// BenchmarkCost is what counting costs: (nothing, a ledger for others, boundary, sites) x the
// size of a read from the page cache. Run it with -benchtime 20x for twenty rounds.
func BenchmarkCost(b *testing.B) {
	b.ReportAllocs()
	table, err := MeasureCost(b.N)
	var unsupported *UnsupportedError
	if errors.As(err, &unsupported) {
		b.Skip(err)
	}
	require.NoError(b, err)
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight) // b.Log would show ten lines of it
	fmt.Fprintln(w, "\nread size\tcounted by\tns per call\tmore\t%\t")
	for _, c := range table {
		fmt.Fprintf(w, "%d\t%s\t%.0f\t%+.0f\t%+.1f\t\n", c.SizeBytes, c.CountedBy, c.Nanoseconds, c.More, 100*c.More/(c.Nanoseconds-c.More))
		b.ReportMetric(c.More, fmt.Sprintf("%s-%dB-ns/call", c.CountedBy, c.SizeBytes))
	}
	require.NoError(b, w.Flush())
}

func TestMeasureCost(t *testing.T) {
	if err := preconditions(Boundary); err != nil {
		t.Skip(err)
	}
	table, err := MeasureCost(1)
	require.NoError(t, err)
	require.NotEmpty(t, table)
	for i, c := range table {
		require.Positive(t, c.Nanoseconds, c)
		if c.CountedBy == CostNothing {
			require.Zero(t, c.More, c)
			require.Equal(t, CostSizes[i*len(CostSizes)/len(table)], c.SizeBytes)
		}
	}
}

func TestCostTableComparesWithinRounds(t *testing.T) {
	times := map[Cost][]float64{}
	for _, size := range CostSizes {
		times[Cost{SizeBytes: size, CountedBy: CostNothing}] = []float64{10, 30, 20}
		times[Cost{SizeBytes: size, CountedBy: CostBoundary}] = []float64{15, 35, 26}
	}
	table := costTable([]string{CostNothing, CostBoundary}, times)
	require.Len(t, table, 2*len(CostSizes))
	require.Equal(t, Cost{SizeBytes: 64, CountedBy: CostNothing, Nanoseconds: 20}, table[0])
	require.Equal(t, Cost{SizeBytes: 64, CountedBy: CostBoundary, Nanoseconds: 26, More: 5}, table[1])
}
