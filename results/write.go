package results

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"golang.org/x/sys/unix"
)

// Writer appends records to a run directory. Every record is one write of one
// line, synced before Append returns: a run that is killed loses no trial that
// was reported done. The sync costs every cell the same, between trials.
//
// A Writer is not for concurrent use. A second process that opens the same
// directory for writing is refused.
type Writer struct {
	plan  Plan
	file  *os.File
	size  int64 // bytes of whole lines
	lines int
	seen  identities
	chain string // the last record's link
}

// Create starts a new run directory, making it if need be, and writes what the
// run is about to do and where. A directory that already holds a run is
// refused with an error that is [fs.ErrExist].
func Create(dir string, plan Plan, environment Environment) (*Writer, error) {
	plan.Schema, environment.Schema = Schema, Schema
	if err := plan.check(); err != nil {
		return nil, fmt.Errorf("create run: plan: %w", err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("create run: %w", err)
	}
	file, err := openLocked(dir, os.O_CREATE)
	if err != nil {
		return nil, fmt.Errorf("create run: %w", err)
	}
	w := &Writer{plan: plan, file: file, seen: identities{}}
	if err := w.begin(dir, plan, environment); err != nil {
		return nil, errors.Join(fmt.Errorf("create run: %w", err), file.Close())
	}
	return w, nil
}

// begin writes the plan last: a directory with a plan is a run, and one
// without is what is left of a start that failed.
func (w *Writer) begin(dir string, plan Plan, environment Environment) error {
	if _, err := os.Stat(filepath.Join(dir, PlanFile)); err == nil {
		return fmt.Errorf("%s already holds a run: resume it or choose another directory: %w", dir, fs.ErrExist)
	}
	if err := w.file.Truncate(0); err != nil {
		return err
	}
	if err := writeDocument(filepath.Join(dir, EnvironmentFile), environment); err != nil {
		return err
	}
	if err := writeDocument(filepath.Join(dir, PlanFile), plan); err != nil {
		return err
	}
	var err error
	w.chain, err = chainStart(dir)
	return err
}

// Resume opens a run directory to go on with it, and gives what it holds. A
// last line that an interruption cut short is removed; anything else that is
// wrong with the directory is an error. The environment must be the one the
// run began in, or its trials could not be compared.
func Resume(dir string, environment Environment) (*Writer, *Run, error) {
	run, err := openDocuments(dir)
	if err != nil {
		return nil, nil, fmt.Errorf("resume run: %w", err)
	}
	if difference := run.Environment.differs(environment); difference != "" {
		return nil, nil, fmt.Errorf("resume run: %s was begun %s: start a new run", dir, difference)
	}
	file, err := openLocked(dir, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("resume run: %w", err)
	}
	w, err := goOn(file, run)
	if err == nil && w.chain == "" {
		w.chain, err = chainStart(dir)
	}
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("resume run: %w", err), file.Close())
	}
	return w, run, nil
}

// goOn reads the records into the run, and cuts off what follows the last whole
// line.
func goOn(file *os.File, run *Run) (*Writer, error) {
	var parsed recordParser
	whole, err := parsed.readAll(file, run.Plan)
	if err != nil && !errors.Is(err, errTruncated) {
		return nil, err
	}
	if err := file.Truncate(whole); err != nil {
		return nil, err
	}
	w := &Writer{plan: run.Plan, file: file, size: whole, lines: len(parsed.records), seen: parsed.seen, chain: parsed.chain}
	run.Records = parsed.sorted()
	return w, nil
}

// Append adds one record. It fills in the record's schema, run and chain. A record
// that a reader would refuse is an error, and leaves the file as it was.
func (w *Writer) Append(r Record) error {
	r.Schema, r.Run, r.Chain = Schema, w.plan.Run, ""
	if err := w.check(&r); err != nil {
		return fmt.Errorf("append record of trial %d: %w", r.Trial, err)
	}
	line, err := json.Marshal(r, json.Deterministic(true))
	if err != nil {
		return fmt.Errorf("append record of trial %d: %w", r.Trial, tidyJSONError(err))
	}
	line, chain := linked(w.chain, line)
	if len(line) > MaxRecordBytes {
		return fmt.Errorf("append record of trial %d: it has %d bytes, more than %d", r.Trial, len(line), MaxRecordBytes)
	}
	n, err := w.file.WriteAt(append(line, '\n'), w.size)
	if err != nil {
		return errors.Join(fmt.Errorf("append record of trial %d: %w", r.Trial, err), w.file.Truncate(w.size))
	}
	w.size += int64(n)
	w.lines++
	w.chain = chain
	w.seen.add(&r, w.lines)
	if err := w.file.Sync(); err != nil {
		return fmt.Errorf("append record of trial %d: %w", r.Trial, err)
	}
	return nil
}

func (w *Writer) check(r *Record) error {
	if err := r.Check(); err != nil {
		return err
	}
	if err := w.plan.holds(r); err != nil {
		return err
	}
	return w.seen.conflict(r)
}

// Close lets go of the run directory.
func (w *Writer) Close() error { return w.file.Close() }

// openLocked opens the records for writing. The kernel gives the lock back
// when the process ends, however it ends.
func openLocked(dir string, flags int) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, RecordsFile), os.O_RDWR|flags, 0o644)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: another process is writing this run: %w", dir, err), f.Close())
	}
	return f, nil
}

func writeDocument(path string, document any) error {
	text, err := json.Marshal(document, json.Deterministic(true), jsontext.WithIndent("  "))
	if err != nil {
		return fmt.Errorf("write %s: %w", filepath.Base(path), tidyJSONError(err))
	}
	return WriteFile(path, bytes.Join([][]byte{text, []byte("\n")}, nil))
}
