package results

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/perf/benchfmt"
)

// WriteBench writes the valid records of a run in the Go benchmark format, one
// line a trial, so that benchstat can compare runs. Twins of control cells are
// named with "/control=A:A".
func (r *Run) WriteBench(to io.Writer) error {
	w := benchfmt.NewWriter(to)
	config := r.Environment.benchConfig()
	for i := range r.Records {
		record := &r.Records[i]
		if !record.Valid {
			continue
		}
		result := &benchfmt.Result{
			Config: config,
			Name:   benchName(record, r.Environment.CPUs),
			Iters:  1,
		}
		if record.Operations != nil && *record.Operations > 0 {
			result.Iters = int(*record.Operations)
		}
		for _, m := range Metrics() {
			if v, ok := m.Of(record); ok {
				result.Values = append(result.Values, benchfmt.Value{Value: v, Unit: m.BenchUnit})
			}
		}
		if err := w.Write(result); err != nil {
			return fmt.Errorf("write benchmark format: %w", err)
		}
	}
	return writeBenchUnits(w)
}

// SaveBench writes a run's records to bench.txt in its directory.
func (r *Run) SaveBench(path string) error {
	var text bytes.Buffer
	if err := r.WriteBench(&text); err != nil {
		return err
	}
	return WriteFile(path, text.Bytes())
}

// writeBenchUnits tells benchstat which way is better; without it, benchstat
// takes less as better for any unit it doesn't know.
func writeBenchUnits(w *benchfmt.Writer) error {
	for _, m := range Metrics() {
		better := "lower"
		if m.HigherBetter {
			better = "higher"
		}
		key := benchfmt.UnitMetadataKey{Unit: m.BenchUnit, Key: "better"}
		if err := w.Write(&benchfmt.UnitMetadata{UnitMetadataKey: key, OrigUnit: m.BenchUnit, Value: better}); err != nil {
			return fmt.Errorf("write benchmark format: %w", err)
		}
	}
	return nil
}

func (e *Environment) benchConfig() []benchfmt.Config {
	config := []benchfmt.Config{
		{Key: "goos", Value: []byte("linux"), File: true},
		{Key: "pkg", Value: []byte("waggle"), File: true},
	}
	for _, kv := range [][2]string{{"cpu", e.CPU}, {"kernel", e.Kernel}, {"commit", e.Commit}} {
		if value := oneLine(kv[1]); value != "" {
			config = append(config, benchfmt.Config{Key: kv[0], Value: []byte(value), File: true})
		}
	}
	return config
}

// benchName is such as "ReadPath/read=copy/size_bytes=4096-2". The number of
// CPUs at the end is always there, so that a level ending in "-4" can't be taken
// for it.
func benchName(r *Record, cpus int) benchfmt.Name {
	var b strings.Builder
	for word := range strings.FieldsFuncSeq(r.Experiment, func(c rune) bool { return !unicode.IsLetter(c) && !unicode.IsDigit(c) }) {
		first, size := utf8.DecodeRuneInString(word)
		b.WriteString(string(unicode.ToUpper(first)) + word[size:])
	}
	for _, factor := range slices.Sorted(maps.Keys(r.Cell)) {
		fmt.Fprintf(&b, "/%s=%s", benchWord(factor), benchWord(FormatLevel(r.Cell[factor])))
	}
	if r.Control != "" {
		fmt.Fprintf(&b, "/control=%s", benchWord(r.Control))
	}
	fmt.Fprintf(&b, "-%d", cpus)
	return benchfmt.Name(b.String())
}

// benchWord replaces what would end a part of a benchmark's name.
func benchWord(s string) string {
	return strings.Map(func(c rune) rune {
		switch {
		case c == '/':
			return ':'
		case unicode.IsSpace(c) || !unicode.IsPrint(c):
			return '_'
		}
		return c
	}, s)
}

func oneLine(s string) string {
	return strings.Join(strings.FieldsFunc(s, unicode.IsControl), " ")
}
