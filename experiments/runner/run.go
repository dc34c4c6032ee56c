// Package runner carries out experiments: it plans the trials of all their
// cells, interleaves them in a random order, gives each the roles it needs,
// measures it from outside, and writes a run directory.
//
//   - order.go: which trial comes when; sequential.go: and whether at all.
//   - paths.go: what this machine supports, and how a path proves it was taken.
//   - congestion.go: the congestion control of all connections.
//   - harmless.go: settings that nobody studies.
//   - stage.go: the roles, kept up from trial to trial.
//   - trial.go: one trial; measure.go, ledger.go: what it cost; proof.go: whether it
//     went the way that it names; disturbance.go: what else the machine did.
//   - pin.go: on which processors roles run.
//   - environment.go: where it took place.
//   - progress.go: what a person sees meanwhile.
package runner

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"waggle/bpf/copies"
	"waggle/experiments/spec"
	"waggle/experiments/topology"
	"waggle/results"
)

// Options of a run.
type Options struct {
	Experiments []*spec.Experiment
	Effort      spec.Effort
	Overrides   []spec.Override
	// Out is the run directory. Resume goes on with the run in it, which must
	// have been begun with the same experiments, effort and overrides.
	Out    string
	Resume bool
	// Seed decides the order of a new run.
	Seed uint64
	// Program is the waggle program that roles are started from.
	Program string
	// Ledger is the copy ledger's backend, "" for boundary.
	Ledger copies.Backend
	// Revisions, if any, are programs to compare: every cell is run with the
	// roles of each.
	Revisions []Revision
	// Budget, if not 0, is how long the run may take: repetitions are then added
	// where they decide something, and left out where all is clear.
	Budget time.Duration
	// Scratch is where roles keep their data during the run; "" is the system's
	// directory for temporary files. Stores and replicas lie here, so its disk is
	// part of what is measured.
	Scratch string
	// CommandLine is recorded, without its directories.
	CommandLine []string
	Progress    Progress
	// begun are the sequential plans of a run that is resumed as it was begun.
	begun map[string]*results.Sequential
}

// Revision is a program under the name that it has in the factor "revision".
type Revision struct{ Name, Program string }

// overrides are those that were asked for, and the factor of the revisions.
func (o *Options) overrides() []spec.Override {
	if len(o.Revisions) == 0 {
		return o.Overrides
	}
	factor := spec.Override{Name: results.RevisionFactor}
	for _, r := range o.Revisions {
		factor.Levels = append(factor.Levels, r.Name)
	}
	return append(slices.Clone(o.Overrides), factor)
}

// program is what the roles of a revision are started from.
func (o *Options) program(revision string) string {
	for _, r := range o.Revisions {
		if r.Name == revision {
			return r.Program
		}
	}
	return o.Program
}

// Summary says how a run ended.
type Summary struct {
	Trials, Valid, Invalid, Unsupported int
	// Notes are what a person should know, one line each.
	Notes []string
}

// ErrInterrupted is wrapped by the error of a run that its context ended.
var ErrInterrupted = errors.New("interrupted")

// run is a run under way.
type run struct {
	options Options
	support support
	owner   *topology.Owner
	writer  *results.Writer
	logs    string
	ledger  *ledger // nil while copies are not counted
	looking *looking

	stages       []*stage // the most recently used last
	stagesOpened int
	failures     int
	// repeated is how many times a disturbed trial was run again, mayRepeat how many
	// times that may be.
	repeated, mayRepeat int
}

// maxStages is how many stages are kept up at once. An idle one costs heartbeats;
// bringing one up costs more than a second, and interleaved trials change stages
// all the time.
const maxStages = 8

// Plan expands the chosen experiments at the chosen effort.
func (o *Options) Plan() ([]*spec.Plan, error) {
	for _, override := range o.Overrides {
		applies := false
		for _, e := range o.Experiments {
			applies = applies || override.AppliesTo(e)
		}
		if !applies {
			return nil, fmt.Errorf("--set %s: none of the chosen experiments has it as a factor or fixed", override.Name)
		}
	}
	var plans []*spec.Plan
	for _, e := range o.Experiments {
		p, err := e.Plan(o.Effort, o.overrides())
		if err != nil {
			return nil, err
		}
		if name := p.NeedsSimulator(); name != "" {
			return nil, fmt.Errorf("experiment %s sets %s, which no machine at hand can vary: use `waggle sim %s`", e.Name, name, e.Name)
		}
		plans = append(plans, p)
	}
	return plans, nil
}

// Estimate is about how long plans take, without what is unsupported here.
func Estimate(plans []*spec.Plan) time.Duration {
	const stageStart, trialExtra, operation = 2 * time.Second, 80 * time.Millisecond, 50 * time.Microsecond
	const searchSteps = 10
	total := time.Duration(0)
	stages := map[stageKey]bool{}
	for _, p := range plans {
		trial := p.Trial.WarmUp + p.Trial.Duration + time.Duration(p.Trial.Operations)*operation + trialExtra
		total += trial * time.Duration(len(p.Cells)*p.Trial.Repetitions)
		if p.Experiment.Measures(spec.Copies) {
			total += trial * time.Duration(len(p.Cells)*p.Trial.Counts)
		}
		for _, c := range p.Cells {
			if c.Parameters.SearchRate {
				total += (searchSteps - 1) * p.Trial.Duration * time.Duration(p.Trial.Repetitions)
			}
			stages[keyOf(c.Parameters)] = true
		}
	}
	return total + stageStart*time.Duration(len(stages))
}

// Run carries out experiments. On an error, and when ctx ends, what was
// measured so far is in the run directory, and the run can be resumed.
func Run(ctx context.Context, o Options) (summary Summary, err error) {
	plans, err := o.Plan()
	if err != nil {
		return summary, err
	}
	r := &run{options: o, support: findSupport(), logs: filepath.Join(o.Out, "logs")}
	if err := r.support.askedFor(o.Overrides); err != nil {
		return summary, err
	}
	if r.support.ledger = copies.Supported(o.backend()); r.support.ledger != nil && o.Ledger != "" {
		return summary, r.support.ledger
	}
	if swept, err := topology.Sweep(); err != nil {
		return summary, fmt.Errorf("clean up after an earlier run: %w", err)
	} else if len(swept) > 0 {
		summary.note("cleaned up after what was killed earlier: %s", strings.Join(swept, ", "))
	}
	trials, err := r.open(plans)
	if err != nil {
		return summary, err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	return summary, r.carryOut(ctx, trials, &summary)
}

func (s *Summary) note(format string, args ...any) {
	s.Notes = append(s.Notes, fmt.Sprintf(format, args...))
}

// open opens the run directory, new or resumed, and claims what roles need. It
// returns the trials that are still to be run.
func (r *run) open(plans []*spec.Plan) (todo []planned, err error) {
	wanted := results.Plan{Run: runName(r.options), Start: time.Now().UTC(), OrderSeed: r.options.Seed}
	places, err := placements()
	if err != nil {
		return nil, err
	}
	for _, p := range plans {
		sequential := r.options.begun[p.Experiment.Name]
		if sequential == nil && r.options.Budget > 0 {
			sequential = sequence(p, places, r.options.Budget)
		}
		e := p.Planned()
		e.Sequential = sequential
		wanted.Experiments = append(wanted.Experiments, e)
	}
	environment := captureEnvironment(r.support, r.options)
	if environment.Revisions, err = commits(r.options.Revisions); err != nil {
		return nil, err
	}
	done := map[int]bool{}
	r.looking = newLooking(wanted, r.options.Budget)
	if r.options.Resume {
		if wanted, done, err = r.resume(wanted, environment); err != nil {
			return nil, err
		}
	} else if environment.LedgerCost, err = r.ledgerCost(); err != nil {
		return nil, err
	} else if r.writer, err = results.Create(r.options.Out, wanted, environment); err != nil {
		return nil, err
	}
	for _, t := range order(plans, wanted.OrderSeed, places) {
		if !done[t.number] {
			todo = append(todo, t)
		}
	}
	if err := os.MkdirAll(r.logs, 0o755); err != nil {
		return nil, errors.Join(fmt.Errorf("make the directory for logs: %w", err), r.writer.Close())
	}
	if r.owner, err = topology.Claim(wanted.Run, r.options.Scratch); err != nil {
		return nil, errors.Join(err, r.writer.Close())
	}
	return todo, nil
}

func (r *run) measuresCopies() bool {
	return slices.ContainsFunc(r.options.Experiments, func(e *spec.Experiment) bool { return e.Measures(spec.Copies) })
}

// runName is unique on this machine, and not too long for what is named by it.
func runName(o Options) string {
	return fmt.Sprintf("%s-%s-%04x", time.Now().UTC().Format("20060102-150405"), o.Effort, o.Seed&0xffff)
}

// resume opens the run directory of a run that was begun, and says which trials
// are done.
func (r *run) resume(wanted results.Plan, environment results.Environment) (results.Plan, map[int]bool, error) {
	writer, begun, err := results.Resume(r.options.Out, environment)
	if err != nil {
		return wanted, nil, err
	}
	if difference := planDifference(begun.Plan, wanted); difference != "" {
		return wanted, nil, errors.Join(fmt.Errorf("resume the run in %s: %s: give the same experiments, effort and --set (--resume --out alone does), or start a new run",
			r.options.Out, difference), writer.Close())
	}
	r.writer = writer
	r.looking = newLooking(begun.Plan, r.options.Budget)
	done := map[int]bool{}
	for _, record := range begun.Records {
		done[record.Trial] = true
		r.looking.add(record, 0)
	}
	return begun.Plan, done, nil
}

// carryOut runs the trials in their order.
func (r *run) carryOut(ctx context.Context, trials []planned, summary *Summary) error {
	r.mayRepeat = int(repeatedShare * float64(len(trials)))
	progress := r.options.Progress
	progress.Begin(len(trials))
	defer progress.End()
	if missing := r.support.ledger; missing != nil && r.measuresCopies() {
		summary.note("copies, system calls and context switches are not measured: %v", missing)
	}
	for i, t := range trials {
		if t.counted && r.support.ledger != nil || !r.looking.wants(t, trials[i:]) {
			progress.Skip()
			continue
		}
		began := time.Now()
		record, err := r.record(ctx, t)
		if ctx.Err() != nil {
			return fmt.Errorf("%w with %d trials left to run", ErrInterrupted, len(trials)-i)
		}
		if appended := r.writer.Append(record); appended != nil {
			return errors.Join(err, appended)
		}
		summary.add(record)
		r.looking.add(record, time.Since(began))
		progress.Trial(t.plan.String(t.cell), record)
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *Summary) add(r results.Record) {
	s.Trials++
	switch {
	case r.Valid:
		s.Valid++
	case r.Unsupported:
		s.Unsupported++
	default:
		s.Invalid++
	}
}

// stageFor returns a stage that a cell can run on, with its generator up.
func (r *run) stageFor(p spec.Parameters) (*stage, error) {
	key := keyOf(p)
	r.dropPolling(key)
	for i, s := range r.stages {
		if s.key == key {
			r.stages = append(append(r.stages[:i:i], r.stages[i+1:]...), s)
			return s, nil
		}
	}
	if len(r.stages) == maxStages {
		r.drop(r.stages[0])
	}
	s, err := r.openStage(key)
	if err != nil {
		return nil, fmt.Errorf("%w the roles: %w", errStart, err)
	}
	r.stages = append(r.stages, s)
	return s, nil
}

// dropPolling ends the stages, but the one that is wanted, whose roles burn
// processor time while they are idle: they would take it from the next trial.
func (r *run) dropPolling(wanted stageKey) {
	for _, s := range slices.Clone(r.stages) {
		if s.key != wanted && r.support.infos["lookup="+s.key.lookup].Polls {
			r.drop(s)
		}
	}
}

// freeSlot is the lowest that no stage has.
func (r *run) freeSlot() int {
	slot := 0
	for slices.ContainsFunc(r.stages, func(s *stage) bool { return s.slot == slot }) {
		slot++
	}
	return slot
}

// drop ends a stage.
func (r *run) drop(s *stage) {
	for i := range r.stages {
		if r.stages[i] == s {
			r.stages = append(r.stages[:i:i], r.stages[i+1:]...)
			break
		}
	}
	s.close()
}

// close ends all roles and removes everything but the run directory.
func (r *run) close() error {
	for len(r.stages) > 0 {
		r.drop(r.stages[0])
	}
	return errors.Join(r.ledger.close(), r.owner.Hold(nil), r.owner.Close(), r.writer.Close())
}
