package figure

import (
	"bytes"
	"cmp"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/recorder"

	"waggle/analysis/synthetic"
	"waggle/results"
)

// pictures is a directory to leave pictures in, for people to look at:
// WAGGLE_TEST_PICTURES, or one that is removed.
func pictures(t *testing.T) string { return cmp.Or(os.Getenv("WAGGLE_TEST_PICTURES"), t.TempDir()) }

func drawAll(t *testing.T, run *results.Run) []*Figure {
	figures, skipped := DrawAll(run)
	require.Empty(t, skipped)
	return figures
}

func TestEveryKindDraws(t *testing.T) {
	run := synthetic.Realistic(t)
	figures := drawAll(t, run)
	require.NoError(t, WriteAll(pictures(t), figures))
	drawn := map[string]bool{}
	for _, f := range figures {
		drawn[f.Spec.Kind] = true
		require.NotEmpty(t, f.Alt)
		require.NotEmpty(t, f.Table.Rows)
		for _, row := range f.Table.Rows {
			require.Len(t, row, len(f.Table.Header), f.Name)
		}
		checkText(t, f)
	}
	for kind := range Kinds() {
		if kind != "operations" && kind != "assumptions" { // is "throughput" with another metric; is of simulated runs alone
			require.True(t, drawn[kind], "the synthetic run has no figure of kind %s", kind)
		}
	}
}

func TestSameRecordsGiveSameBytes(t *testing.T) {
	run := synthetic.Realistic(t)
	shuffled := *run
	shuffled.Records = slices.Clone(run.Records)
	rand.New(rand.NewPCG(3, 4)).Shuffle(len(shuffled.Records), func(i, j int) {
		shuffled.Records[i], shuffled.Records[j] = shuffled.Records[j], shuffled.Records[i]
	})
	first, second := drawAll(t, run), drawAll(t, &shuffled)
	require.Len(t, second, len(first))
	for i, f := range first {
		formats := []func(*Figure) ([]byte, error){(*Figure).SVG, (*Figure).PDF}
		if i == 0 {
			formats = append(formats, (*Figure).PNG) // slow, and drawn by the same strokes
		}
		for _, format := range formats {
			a, err := format(f)
			require.NoError(t, err)
			b, err := format(second[i])
			require.NoError(t, err)
			require.True(t, bytes.Equal(a, b), "%s isn't the same the second time", f.Name)
		}
		require.Equal(t, f.Table, second[i].Table)
	}
}

func TestPDFHasItsFontAndNoDateOfToday(t *testing.T) {
	data, err := drawAll(t, synthetic.Realistic(t))[0].PDF()
	require.NoError(t, err)
	require.True(t, bytes.Contains(data, []byte("/FontFile2")))
	require.True(t, bytes.Contains(data, []byte("(D:19700101000000)")))
}

func TestSeriesLookTheSameInEveryFigure(t *testing.T) {
	colours := newPalette(synthetic.Realistic(t).Plan)
	copying := colours.of("copy")
	require.NotEqual(t, copying, colours.of("sendfile"))
	require.NotEqual(t, copying.colour, colours.of("floor").colour)
	colours.of("a name that no plan lists")
	require.Equal(t, copying, colours.of("copy"))
	require.Equal(t, copying.colour, colours.of("udp").colour, "another factor's levels may look alike")
}

// one draws a figure of one experiment whose records are given.
func one(t *testing.T, spec results.FigureSpec, factors []results.Factor, records ...results.Record) (*Figure, error) {
	e := results.PlannedExperiment{Name: "ugly", Question: "Why?", Repetitions: 1, Factors: factors, Figures: []results.FigureSpec{spec}}
	run := &results.Run{Plan: results.Plan{Run: "r", Experiments: []results.PlannedExperiment{e}}}
	for i, r := range records {
		r.Schema, r.Run, r.Experiment, r.Trial, r.Source = results.Schema, "r", "ugly", i, results.SourceMeasured
		run.Records = append(run.Records, r)
	}
	figures, skipped := DrawAll(run)
	if len(skipped) > 0 {
		return nil, skipped[0].Reason
	}
	return figures[0], nil
}

func throughputs(cell results.Cell, values ...float64) []results.Record {
	var records []results.Record
	for i, v := range values {
		records = append(records, results.Record{Repetition: i, Cell: cell, Valid: true, ThroughputBytesPerSecond: &v})
	}
	return records
}

var bySize = results.FigureSpec{Kind: "throughput", Title: "Ugly", X: "size_bytes", Series: "read"}

func TestFewPlacesAreDotsWithAScaleEach(t *testing.T) {
	figureOf := func(paths int, sizes ...any) *Figure {
		var records []results.Record
		factors := []results.Factor{{Name: "size_bytes", Levels: sizes}, {Name: "read"}}
		for i := range paths {
			path := fmt.Sprint("path", i)
			factors[1].Levels = append(factors[1].Levels, path)
			for _, size := range sizes {
				v := size.(float64)
				records = append(records, throughputs(results.Cell{"read": path, "size_bytes": size}, v, v, v, v)...)
			}
		}
		f, err := one(t, results.FigureSpec{Kind: "throughput", Title: "T", X: "size_bytes", Series: "read"}, factors, records...)
		require.NoError(t, err)
		checkText(t, f)
		return f
	}
	require.Contains(t, figureOf(2, 1024.0).Alt, "Dots")
	require.Contains(t, figureOf(5, 1024.0, 4096.0).Alt, "Dots")
	require.Contains(t, figureOf(2, 1024.0, 4096.0).Alt, "Line chart")
	require.Contains(t, figureOf(5, 1024.0, 4096.0, 16384.0).Alt, "Line chart")
}

func TestRevisionsStandSideBySide(t *testing.T) {
	var records []results.Record
	for _, revision := range []string{"base", "head"} {
		for i := range 12 {
			records = append(records, throughputs(results.Cell{"read": fmt.Sprint(i), "size_bytes": 1.0, results.RevisionFactor: revision}, 1e6)...)
		}
	}
	f, err := one(t, bySize, nil, records...)
	require.NoError(t, err)
	require.Equal(t, "Revision", f.Table.Header[0])
	require.Len(t, f.Table.Rows, 24)
	for i := range 10 {
		records = append(records, throughputs(results.Cell{"read": fmt.Sprint("more", i), "size_bytes": 1.0, results.RevisionFactor: "base"}, 1e6)...)
	}
	_, err = one(t, bySize, nil, records...)
	require.ErrorIs(t, err, ErrTooMany)
}

func TestUglyData(t *testing.T) {
	unsupported := results.Record{Cell: results.Cell{"read": "xdp", "size_bytes": 4096.0}, Unsupported: true, Reason: "no"}
	size := func(path string, size float64) results.Cell { return results.Cell{"read": path, "size_bytes": size} }
	many := throughputs(size("a-path-with-a-name-that-never-ends-and-goes-on", 4096), 1e6, 2e6)
	for _, path := range []string{"<script>", "données", "\u8def\u5f84", "d", "e", "f", "g & h"} {
		many = append(many, throughputs(size(path, 4096), 1e3, 1e9)...)
		many = append(many, throughputs(size(path, 65536), 1e3, 1e9)...)
	}
	for name, records := range map[string][]results.Record{
		"one point":          throughputs(size("copy", 4096), 1e9),
		"only zeros":         throughputs(size("copy", 4096), 0, 0),
		"a zero among large": append(throughputs(size("copy", 4096), 0, 0, 0), throughputs(size("copy", 1<<20), 1e9, 1e6, 1e3)...),
		"a size of zero":     append(throughputs(size("copy", 0), 1e6), throughputs(size("copy", 1<<20), 1e9)...),
		"huge range":         append(throughputs(size("copy", 1), 1e-17), throughputs(size("copy", 1<<40), 1e18)...),
		"missing cell":       append(throughputs(size("copy", 4096), 1e6), append(throughputs(size("copy", 1<<20), 1e9), unsupported)...),
		"many strange names": many,
		"words and numbers":  append(throughputs(size("copy", 1), 1e6), throughputs(results.Cell{"read": "copy", "size_bytes": "all"}, 2e6)...),
		"no level of x":      append(throughputs(size("copy", 1), 1e6), throughputs(results.Cell{"read": "floor"}, 2e6)...),
	} {
		t.Run(name, func(t *testing.T) {
			f, err := one(t, bySize, nil, records...)
			require.NoError(t, err)
			f.Name = "ugly-" + slug(name)
			require.NoError(t, WriteAll(pictures(t), []*Figure{f}))
			checkText(t, f)
			wellFormed(t, f)
		})
	}
}

func TestTooFewRepetitionsStandInThePicture(t *testing.T) {
	f, err := one(t, bySize, nil, throughputs(results.Cell{"read": "copy", "size_bytes": 1.0}, 1e6, 2e6)...)
	require.NoError(t, err)
	svg, err := f.SVG()
	require.NoError(t, err)
	require.Contains(t, string(svg), "Too few repetitions (2;")
	require.Len(t, f.Warnings, 1)
}

func TestNothingMeasuredIsNoPicture(t *testing.T) {
	cell := results.Cell{"read": "xdp", "size_bytes": 4096.0}
	failed := results.Record{Cell: cell, Reason: "a role died"}
	for kind := range kinds {
		spec := results.FigureSpec{Kind: kind, Title: "T", X: "size_bytes", Series: "read", Panel: "clients"}
		_, err := one(t, spec, nil)
		require.ErrorIs(t, err, ErrNoData, kind)
		_, err = one(t, spec, nil, failed)
		require.ErrorIs(t, err, ErrNoData, kind)
	}
}

func TestWrongSpecsAreClearErrors(t *testing.T) {
	records := throughputs(results.Cell{"read": "copy", "size_bytes": 4096.0}, 1e9)
	for _, c := range []struct {
		spec results.FigureSpec
		want string
	}{
		{results.FigureSpec{Kind: "pie"}, "draw figure pie of experiment ugly: there is no kind of figure \"pie\": use one of assumptions, copies, cpu, "},
		{results.FigureSpec{Kind: "throughput", Series: "read"}, "it needs an x factor"},
		{results.FigureSpec{Kind: "throughput", X: "colour", Series: "read"}, `no cell has the x factor "colour"`},
		{results.FigureSpec{Kind: "scaling", X: "read"}, "scaling needs a count"},
		{results.FigureSpec{Kind: "crossover", X: "size_bytes", Series: "read"}, "it needs x, panel"},
	} {
		_, err := one(t, c.spec, nil, records...)
		require.ErrorContains(t, err, c.want)
		require.NotErrorIs(t, err, ErrNoData)
	}
	_, err := one(t, bySize, nil, throughputs(results.Cell{"read": "copy", "size_bytes": 1.0}, 1e300)...)
	require.ErrorContains(t, err, "can't be drawn")

	var crowd []results.Record
	for i := range maxSeries + 1 {
		crowd = append(crowd, throughputs(results.Cell{"read": strings.Repeat("x", i+1), "size_bytes": 1.0}, 1)...)
	}
	_, err = one(t, bySize, nil, crowd...)
	require.ErrorContains(t, err, "narrow it with `where`")
}

// FuzzDraw looks for records that pass the reader's checks and break a figure.
func FuzzDraw(f *testing.F) {
	f.Add(1e9, 2e9, 0.0, 4096.0, 65536.0)
	f.Add(0.0, 0.0, 0.0, 0.0, 0.0)
	f.Add(1e18, 1e-18, 5e-324, -1e18, 1e18)
	f.Add(1.0, 1.0, 1.0, 1.0, 1.0000000001)
	f.Fuzz(func(t *testing.T, a, b, c, x, y float64) {
		var records []results.Record
		for i, cell := range []results.Cell{{"read": "copy", "n": x}, {"read": "floor", "n": x}, {"read": "copy", "n": y}} {
			v := []float64{a, b, c}[i]
			r := results.Record{
				Cell: cell, Valid: true, Repetition: i, ThroughputBytesPerSecond: &v, OperationsPerSecond: &v, OfferedOperationsPerSecond: &a,
				Latency: &results.Latency{P50: v, P90: v, P99: v, P999: v, Max: v, Mean: v},
				Copies:  &results.Copies{PerPayloadByte: v, Backend: "sites"},
			}
			check := r
			check.Schema, check.Run, check.Experiment, check.Source = results.Schema, "r", "ugly", results.SourceMeasured
			if check.Check() != nil {
				t.Skip()
			}
			records = append(records, r)
		}
		for kind := range kinds {
			for _, panel := range []string{"", "n"} {
				figure, err := one(t, results.FigureSpec{Kind: kind, Title: "F", X: "n", Series: "read", Panel: panel}, nil, records...)
				if err != nil {
					continue
				}
				wellFormed(t, figure)
			}
		}
	})
}

func wellFormed(t *testing.T, f *Figure) {
	svg, err := f.SVG()
	require.NoError(t, err)
	for _, wrong := range []string{"NaN", "Inf"} {
		require.False(t, bytes.Contains(svg, []byte(wrong)), "%s holds %s", f.Name, wrong)
	}
	decoder := xml.NewDecoder(bytes.NewReader(svg))
	for {
		_, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			return
		}
		require.NoError(t, err)
	}
}

// textCanvas remembers where text was drawn, all of it that isn't turned.
type textCanvas struct {
	recorder.Canvas
	w, h   vg.Length
	turned int
	boxes  []textBox
}

type textBox struct {
	text string
	vg.Rectangle
}

func (c *textCanvas) Size() (w, h vg.Length) { return c.w, c.h }
func (c *textCanvas) Rotate(r float64)       { c.turned++; c.Canvas.Rotate(r) }
func (c *textCanvas) Pop()                   { c.turned = 0; c.Canvas.Pop() }
func (c *textCanvas) FillString(face font.Face, at vg.Point, text string) {
	if c.turned > 0 || strings.TrimSpace(text) == "" {
		return
	}
	const capitals = 0.7 // of the font's size, all that can be seen of most text
	size := vg.Point{X: face.Width(text), Y: capitals * face.Font.Size}
	c.boxes = append(c.boxes, textBox{text, vg.Rectangle{Min: at, Max: at.Add(size)}})
}

// checkText fails if any text leaves the picture or runs into another.
func checkText(t *testing.T, f *Figure) {
	c := &textCanvas{w: f.width, h: f.height}
	f.paint(draw.New(c))
	for i, a := range c.boxes {
		require.True(t, a.Min.X >= 0 && a.Max.X <= f.width && a.Min.Y >= 0 && a.Max.Y <= f.height,
			"%s: %q leaves the picture: %v of %v x %v", f.Name, a.text, a.Rectangle, f.width, f.height)
		for _, b := range c.boxes[:i] {
			apart := a.Max.X <= b.Min.X || b.Max.X <= a.Min.X || a.Max.Y <= b.Min.Y || b.Max.Y <= a.Min.Y
			require.True(t, apart, "%s: %q runs into %q", f.Name, a.text, b.text)
		}
	}
}

// The knee is the last load before the first that wasn't carried out.
func TestKnees(t *testing.T) {
	var records []results.Record
	add := func(path string, offered, achieved float64) {
		records = append(records, results.Record{
			Cell: results.Cell{"read": path, "rate": offered}, Valid: true, OfferedOperationsPerSecond: &offered, OperationsPerSecond: &achieved,
			Latency: &results.Latency{P50: 1e-3, P90: 1e-3, P99: 1e-3, P999: 1e-3, Max: 1e-3, Mean: 1e-3},
		})
	}
	for _, offered := range []float64{1000, 2000, 3000, 4000} {
		add("weak", offered, min(offered, 2100))
		add("strong", offered, offered)
		add("broken", offered, offered/2)
	}
	add("weak", 5000, 5000) // luck beyond the knee
	f, err := one(t, results.FigureSpec{Kind: "latency", Title: "L", X: "rate", Series: "read"}, nil, records...)
	require.NoError(t, err)
	require.Equal(t, []string{"Highest load sustained: broken none, strong at least 4 k/s, weak 2 k/s."}, f.Findings)
}

// Where trials searched for the knee, it is what they found, with its interval.
func TestSearchedKnees(t *testing.T) {
	rates := []any{1000.0, "search"}
	var records []results.Record
	for i, found := range []float64{9000, 10_000, 10_000, 10_000, 10_000, 12_000} {
		offered := 1000.0
		records = append(records, results.Record{
			Cell: results.Cell{"read": "copy", "rate": offered}, Repetition: i, Valid: true, OfferedOperationsPerSecond: &offered, OperationsPerSecond: &offered,
			Latency: &results.Latency{P50: 1e-3, P90: 1e-3, P99: 1e-3, P999: 1e-3, Max: 1e-3, Mean: 1e-3},
		}, results.Record{
			Cell: results.Cell{"read": "copy", "rate": "search"}, Repetition: i, Valid: true,
			Search: &results.Search{SustainedOperationsPerSecond: found, P99LimitSeconds: 0.02},
		})
	}
	spec := results.FigureSpec{Kind: "latency", Title: "L", X: "rate", Series: "read"}
	factors := []results.Factor{{Name: "rate", Levels: rates}}
	f, err := one(t, spec, factors, records...)
	require.NoError(t, err)
	checkText(t, f)
	require.Equal(t, []string{"Highest load sustained: copy 10.0 k/s [9.00, 12.0]."}, f.Findings)
	require.Equal(t, results.SustainedRate, f.Metrics[0].Name, "that is what paths are compared by")
	require.Empty(t, f.Warnings)

	alone := slices.DeleteFunc(records, func(r results.Record) bool { return r.Search == nil })
	f, err = one(t, spec, factors, alone...)
	require.NoError(t, err)
	require.Contains(t, f.Alt, "Dots")
}

func TestShareOfTheFloor(t *testing.T) {
	records := append(throughputs(results.Cell{"read": "copy", "size_bytes": 4096.0}, 1e9, 1e9),
		throughputs(results.Cell{"read": "floor", "size_bytes": 4096.0}, 2e9, 2e9)...)
	f, err := one(t, results.FigureSpec{Kind: "floor-ratio", Title: "L", X: "size_bytes", Series: "read"}, nil, records...)
	require.NoError(t, err)
	require.Equal(t, []string{"copy reaches 50.0 % [50.0 %, 50.0 %] (4 KiB) of the floor (a rough figure: 2 repetitions)."}, f.Findings)
}

// A square is claimed only if its difference is above the A/A noise.
func TestCrossoverIsHatchedBelowTheNoise(t *testing.T) {
	svg := func(factor float64) string {
		var records []results.Record
		for repetition := range 10 {
			jitter := 1 + 0.002*float64(repetition%3)
			for path, v := range map[string]float64{"copy": 1e9, "sendfile": 1e9 * factor} {
				cell := results.Cell{"read": path, "size_bytes": 4096.0, "clients": 1.0}
				one := throughputs(cell, v*jitter)[0]
				one.Repetition = repetition
				records = append(records, one)
				if path == "copy" {
					twin := throughputs(cell, 1.05*v*jitter)[0]
					twin.Repetition, twin.Control = repetition, results.ControlAA
					records = append(records, twin)
				}
			}
		}
		f, err := one(t, results.FigureSpec{Kind: "crossover", Title: "C", X: "size_bytes", Series: "read", Panel: "clients"}, nil, records...)
		require.NoError(t, err)
		data, err := f.SVG()
		require.NoError(t, err)
		return string(data)
	}
	require.True(t, strings.Contains(svg(1.03), "not above the noise"), "3 % is below the noise of 5 %")
	require.False(t, strings.Contains(svg(1.5), "not above the noise"))
}

func TestNumbersForPeople(t *testing.T) {
	for want, v := range map[string]float64{"0 B/s": 0, "1.00 GB/s": 999.6e6, "999 MB/s": 999.4e6, "12.3 kB/s": 12345, "0.50 B/s": 0.5} {
		require.Equal(t, want, quantityOf(metricNamed(results.Throughput)).text(v))
	}
	require.Equal(t, "12.3 k/s", quantityOf(metricNamed(results.OperationRate)).text(12345))
	require.Equal(t, "85.0 µs", quantityOf(metricNamed(results.LatencyP50)).text(85e-6))
	for want, v := range map[string]float64{"0 B": 0, "1000 B": 1000, "1025 B": 1025, "1.5 KiB": 1536, "64 KiB": 65536, "1.5 MiB": 1.5 * (1 << 20), "4096 TiB": 1 << 52} {
		require.Equal(t, want, LevelText("size_bytes", v))
	}
	require.Equal(t, "4 clients", FactorLevel("clients", 4.0))
	require.Equal(t, "1 client", FactorLevel("clients", 1.0))
	require.Equal(t, "3 replicas", FactorLevel("replication", 3.0))
	require.Equal(t, "no pin", FactorLevel("pin", "none"))
	require.Equal(t, "Hit ratio", FactorName("hit_percent"))
	require.Equal(t, "a hit ratio of 50 %", PlaceText("hit_percent", 50.0))
	require.Equal(t, "0", quantityOf(metricNamed(results.CPUPerGB)).interval(0, 0, 0))
	require.Equal(t, "947 MB/s [903, 1252]", quantityOf(metricNamed(results.Throughput)).interval(947e6, 903e6, 1252e6))
	require.Equal(t, "no offload", FactorLevel("offload", false))
	require.Equal(t, "10 k/s", FactorLevel("rate", 1e4))
}

func TestAFigureThatCannotBeDrawnDoesNotTakeTheOthersAlong(t *testing.T) {
	run := &results.Run{Plan: results.Plan{Schema: results.Schema, Run: "r", Experiments: []results.PlannedExperiment{{Name: "ugly", Repetitions: 2,
		Figures: []results.FigureSpec{{Kind: "pie", Title: "no kind"}, bySize, {Kind: "operations", Title: "beyond", X: "size_bytes", Series: "read",
			Where: results.Cell{"read": "beyond"}}, {Kind: "crossover", Title: "no panel", X: "size_bytes", Series: "read"}, bySize}}}}}
	run.Plan.Experiments[0].Figures[1].Where = results.Cell{"read": "copy"}
	run.Plan.Experiments[0].Figures[4].Where = results.Cell{"read": "copy"}
	records := append(throughputs(results.Cell{"read": "copy", "size_bytes": 4096.0}, 1e9, 2e9),
		throughputs(results.Cell{"read": "beyond", "size_bytes": 4096.0}, 1e19, 1e9)...)
	for i, r := range records {
		r.Schema, r.Run, r.Experiment, r.Trial, r.Source = results.Schema, "r", "ugly", i, results.SourceMeasured
		run.Records = append(run.Records, r)
	}
	figures, skipped := DrawAll(run)
	require.Len(t, figures, 2)
	require.Len(t, skipped, 3)
	for _, s := range skipped {
		require.True(t, s.Failed(), s.Reason)
	}
	require.NoError(t, WriteAll(pictures(t), figures))
	require.False(t, Skipped{Reason: ErrNoData}.Failed())
}

func TestTimelinesShowWhereTrialsStoodStill(t *testing.T) {
	run := synthetic.Realistic(t)
	figures, err := DrawTimelines(run)
	require.NoError(t, err)
	require.Len(t, figures, 1, "one experiment has time lines")
	require.NoError(t, WriteAll(pictures(t), figures))
	checkText(t, figures[0])
	wellFormed(t, figures[0])
	counted := CountStalls(run)
	require.Len(t, counted, 1)
	require.Regexp(t, `^\d+ of \d+ trials stalled \(\d+ stalls of at least 5\.00 ms and 10 times the median latency\), for up to 200 ms \(.+\)\.$`, counted[0].Text())
	require.Contains(t, figures[0].Alt, counted[0].Text())

	run.Records = slices.DeleteFunc(run.Records, func(r results.Record) bool { return len(r.Stalls()) > 0 })
	require.Regexp(t, `^None of \d+ trials stalled\.$`, CountStalls(run)[0].Text())
	for i := range run.Records {
		run.Records[i].Timeline = nil
	}
	_, err = DrawTimelines(run)
	require.ErrorIs(t, err, ErrNoData)
	require.Empty(t, CountStalls(run))
}

// A setting that moves a path more than the path does is said, and named for the
// report's opening.
func TestTornadoNamesWhatMovesMoreThanThePath(t *testing.T) {
	for _, f := range drawAll(t, synthetic.Realistic(t)) {
		if f.Spec.Kind != "tornado" {
			continue
		}
		require.Len(t, f.Findings, 1)
		require.Regexp(t, `^congestion=bbr moves throughput of copy by 0\.\d+× \[.+\], more than the path does \(sockmap, by 2\.\d+× \[.+\]\)\.$`, f.Findings[0])
		require.Equal(t, map[string][]string{"copy": {"congestion=bbr"}}, f.Outdone())
		return
	}
	t.Fatal("there is no tornado")
}

// Values of placements that differ are two heaps: each is drawn, and no interval
// between them.
func TestPlacementsThatDifferAreDrawnOneByOne(t *testing.T) {
	var records []results.Record
	for _, path := range []string{"copy", "sendfile"} {
		values := []float64{}
		for i := range 18 {
			values = append(values, 1e9*[]float64{1, .5, .8}[i%3]*(1+.01*float64(i%5)))
		}
		for i, r := range throughputs(results.Cell{"read": path, "size_bytes": 4096.0}, values...) {
			r.Placement = results.Placements()[i%3]
			records = append(records, r)
		}
	}
	f, err := one(t, bySize, nil, records...)
	require.NoError(t, err)
	f.Name = "placements"
	require.NoError(t, WriteAll(pictures(t), []*Figure{f}))
	checkText(t, f)
	svg, err := f.SVG()
	require.NoError(t, err)
	require.Contains(t, string(svg), "Where placements differ, each is shown")
}
