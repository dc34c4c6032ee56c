package results

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// Limits of what is read.
const (
	MaxRecordBytes  = 1 << 20   // of one line
	MaxRecordsBytes = 512 << 20 // of records.jsonl
	MaxRecords      = 100_000   // in one run
)

// Run is a run directory, read and checked.
type Run struct {
	Plan        Plan
	Environment Environment
	// Records are all records of the run, valid or not, ordered by trial.
	Records []Record
}

// Open reads a run directory. Everything in it is checked, and the first thing
// that is wrong is the error, naming file and line: records that can't be
// trusted must not become a figure.
func Open(dir string) (*Run, error) {
	run, err := openDocuments(dir)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(filepath.Join(dir, RecordsFile))
	if err != nil {
		return nil, fmt.Errorf("read run: %w", err)
	}
	defer f.Close()
	var parsed recordParser
	if _, err := parsed.readAll(f, run.Plan); err != nil {
		return nil, err
	}
	run.Records = parsed.sorted()
	return run, nil
}

// Decode reads a run from the contents of its files, as strictly as Open.
func Decode(plan, environment, records []byte) (*Run, error) {
	run := &Run{}
	if err := decodeStrict(plan, &run.Plan); err != nil {
		return nil, fmt.Errorf("%s: %w", PlanFile, err)
	}
	if err := run.Plan.check(); err != nil {
		return nil, fmt.Errorf("%s: %w", PlanFile, err)
	}
	if err := decodeStrict(environment, &run.Environment); err != nil {
		return nil, fmt.Errorf("%s: %w", EnvironmentFile, err)
	}
	if err := run.Environment.check(); err != nil {
		return nil, fmt.Errorf("%s: %w", EnvironmentFile, err)
	}
	var parsed recordParser
	if _, err := parsed.read(bytes.NewReader(records), RecordsFile, run.Plan); err != nil {
		return nil, err
	}
	run.Records = parsed.sorted()
	return run, nil
}

// Experiment gives the plan of an experiment by name.
func (r *Run) Experiment(name string) (PlannedExperiment, bool) {
	return r.Plan.experiment(name)
}

// OpenPlan reads what a run set out to do, whether it has records or not.
func OpenPlan(dir string) (Plan, error) {
	run, err := openDocuments(dir)
	if err != nil {
		return Plan{}, err
	}
	return run.Plan, nil
}

func openDocuments(dir string) (*Run, error) {
	run := &Run{}
	planFile := filepath.Join(dir, PlanFile)
	if err := readDocumentInto(planFile, &run.Plan); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%s is not a run directory: it has no %s", dir, PlanFile)
		}
		return nil, err
	}
	if err := run.Plan.check(); err != nil {
		return nil, fmt.Errorf("%s: %w", planFile, err)
	}
	environmentFile := filepath.Join(dir, EnvironmentFile)
	if err := readDocumentInto(environmentFile, &run.Environment); err != nil {
		return nil, err
	}
	if err := run.Environment.check(); err != nil {
		return nil, fmt.Errorf("%s: %w", environmentFile, err)
	}
	return run, nil
}

func readDocumentInto(path string, into any) error {
	text, err := readDocument(path)
	if err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	if err := decodeStrict(text, into); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// errTruncated says that the last line has no end, as after a kill -9.
var errTruncated = errors.New("the line is cut short: the run was interrupted here, resume it or remove the line")

// recordParser reads the lines of a records file.
type recordParser struct {
	records []Record
	seen    identities
	chain   string // of the last record; in memory, records carry none
}

// readAll reads records to the end and returns how many bytes of whole, good
// lines it has seen. With errTruncated, these are all but the last line.
func (p *recordParser) readAll(f *os.File, plan Plan) (whole int64, err error) {
	info, err := f.Stat()
	if err != nil {
		return 0, fmt.Errorf("read run: %w", err)
	}
	if info.Size() > MaxRecordsBytes {
		return 0, fmt.Errorf("%s: larger than %d bytes", f.Name(), MaxRecordsBytes)
	}
	return p.read(f, f.Name(), plan)
}

func (p *recordParser) read(from io.Reader, name string, plan Plan) (whole int64, err error) {
	p.seen = identities{}
	lines := bufio.NewReaderSize(from, MaxRecordBytes+1)
	for number := 1; ; number++ {
		line, err := lines.ReadSlice('\n')
		switch {
		case err == io.EOF && len(line) == 0:
			return whole, nil
		case err == io.EOF:
			return whole, fmt.Errorf("%s:%d: %w", name, number, errTruncated)
		case errors.Is(err, bufio.ErrBufferFull):
			return whole, fmt.Errorf("%s:%d: the line is longer than %d bytes", name, number, MaxRecordBytes)
		case err != nil:
			return whole, fmt.Errorf("%s:%d: %w", name, number, err)
		}
		if err := p.add(bytes.TrimSuffix(line, []byte("\n")), number, plan); err != nil {
			return whole, fmt.Errorf("%s:%d: %w", name, number, err)
		}
		whole += int64(len(line))
	}
}

func (p *recordParser) add(line []byte, number int, plan Plan) error {
	if len(p.records) == MaxRecords {
		return fmt.Errorf("there are more than %d records", MaxRecords)
	}
	var r Record
	if err := decodeStrict(line, &r); err != nil {
		return err
	}
	if err := r.Check(); err != nil {
		return err
	}
	if err := plan.holds(&r); err != nil {
		return err
	}
	if err := p.seen.conflict(&r); err != nil {
		return err
	}
	p.seen.add(&r, number)
	p.chain, r.Chain = r.Chain, ""
	p.records = append(p.records, r)
	return nil
}

func (p *recordParser) sorted() []Record {
	slices.SortFunc(p.records, func(a, b Record) int { return a.Trial - b.Trial })
	return p.records
}

// identities remembers on which line each trial, and each repetition of each
// cell, was seen.
type identities map[string]int

func (seen identities) conflict(r *Record) error {
	for _, what := range namesOf(r) {
		if before, ok := seen[what]; ok {
			return fmt.Errorf("%s was recorded already, on line %d", what, before)
		}
	}
	return nil
}

func (seen identities) add(r *Record, line int) {
	for _, what := range namesOf(r) {
		seen[what] = line
	}
}

// namesOf gives the names under which a record must be the only one of its run.
func namesOf(r *Record) [2]string {
	repetition := fmt.Sprintf("repetition %d of experiment %s, cell %s", r.Repetition, r.Experiment, r.Cell)
	if r.Control != "" {
		repetition += ", control " + r.Control
	}
	return [2]string{fmt.Sprintf("trial %d", r.Trial), repetition}
}
