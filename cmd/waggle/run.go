package main

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"waggle/analysis/figure"
	"waggle/analysis/report"
	"waggle/bpf/copies"
	"waggle/experiments"
	"waggle/experiments/runner"
	"waggle/experiments/spec"
	"waggle/results"
)

// exitInvalid: the experiments ran, but not every trial is valid.
const exitInvalid = 4

// localResults is where run directories go without --out.
const localResults = "results/local"

func runCommand() *cli.Command {
	return &cli.Command{
		Name:      "run",
		Usage:     "run experiments",
		ArgsUsage: "[EXPERIMENT...]",
		Description: "An experiment is named, a file, `all`, or `claims-all`: those that published claims are about. --list shows those that come with waggle,\n" +
			"--dry-run the cells that would be run and how long that takes. `--resume --out DIR` alone goes on with an\n" +
			"interrupted run as it was begun; what is given beside must be what it was begun with.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "effort", Value: string(spec.Quick), Usage: "how much to run: smoke, quick or full"},
			&cli.PathFlag{Name: "out", Usage: "write the run `DIRECTORY`; default " + localResults + "/TIME"},
			&cli.BoolFlag{Name: "resume", Usage: "go on with the interrupted run in --out"},
			&cli.StringSliceFlag{Name: "set", Usage: "`FACTOR=LEVEL,...` takes the place of a factor's levels; may be given again"},
			&cli.StringSliceFlag{Name: "revision", Usage: "compare programs: `NAME=PROGRAM`, given once for each, runs every cell with the roles of each"},
			&cli.StringFlag{Name: "ledger", Usage: "count copies with the ledger's `BACKEND`, boundary or sites; default: boundary, where it works"},
			&cli.DurationFlag{Name: "budget", Usage: "take about `TIME`: repetitions go to what is not decided yet, up to three times the effort's"},
			&cli.Uint64Flag{Name: "seed", Usage: "`SEED` of the order of trials; default: a random one, which is recorded"},
			&cli.PathFlag{Name: "scratch", Usage: "keep the roles' data in a directory below `DIRECTORY` during the run"},
			&cli.BoolFlag{Name: "list", Usage: "list the experiments that come with waggle"},
			&cli.BoolFlag{Name: "dry-run", Usage: "show what would be run"},
		},
		Action: runExperiments,
	}
}

func runExperiments(c *cli.Context) error {
	if c.Bool("list") {
		return listExperiments(c.App.Writer)
	}
	options, err := runOptions(c)
	if err != nil {
		return err
	}
	if c.Bool("dry-run") {
		return showPlan(c.App.Writer, options)
	}
	summary, err := runner.Run(c.Context, options)
	for _, note := range summary.Notes {
		fmt.Fprintln(c.App.ErrWriter, "note:", note)
	}
	if errors.Is(err, runner.ErrInterrupted) {
		return fmt.Errorf("%w: to go on, run the same command with --resume --out %s", err, options.Out)
	}
	if err != nil {
		return err
	}
	return finishRun(c, options.Out, summary)
}

func runOptions(c *cli.Context) (o runner.Options, err error) {
	if o.Effort, err = spec.ParseEffort(c.String("effort")); err != nil {
		return o, usagef("%v", err)
	}
	known := runner.KnownPaths()
	o.Out, o.Resume, o.Scratch = c.Path("out"), c.Bool("resume"), c.Path("scratch")
	if o.Budget = c.Duration("budget"); o.Budget < 0 || o.Budget > maxBudget {
		return o, usagef("--budget %v: must be from 0 to %v", o.Budget, maxBudget)
	}
	if o.Revisions, err = parseRevisions(c.StringSlice("revision")); err != nil {
		return o, err
	}
	if o.Resume && o.Out == "" {
		return o, usagef("--resume needs --out DIRECTORY, the run to go on with")
	}
	if o.Resume && c.NArg() == 0 {
		err = asBegun(c, &o)
	} else {
		o.Experiments, err = loadExperiments(c.Args().Slice(), known)
	}
	if err != nil {
		return o, err
	}
	for _, text := range c.StringSlice("set") {
		override, err := spec.ParseOverride(text, known)
		if err != nil {
			return o, usagef("%v", err)
		}
		o.Overrides = append(o.Overrides, override)
	}
	if o.Ledger = copies.Backend(c.String("ledger")); o.Ledger != "" && o.Ledger != copies.Boundary && o.Ledger != copies.Sites {
		return o, usagef("--ledger is %q: give %s or %s", o.Ledger, copies.Boundary, copies.Sites)
	}
	if _, err := o.Plan(); err != nil {
		return o, usagef("%v", err)
	}
	if err := checkScratch(o.Scratch); err != nil {
		return o, err
	}
	if o.Out == "" {
		o.Out = filepath.Join(localResults, time.Now().UTC().Format("20060102-150405"))
	}
	if o.Seed = rand.Uint64(); c.IsSet("seed") {
		o.Seed = c.Uint64("seed")
	}
	if o.Program, err = os.Executable(); err != nil {
		return o, fmt.Errorf("find the waggle program to start roles from: %w", err)
	}
	o.CommandLine = os.Args
	o.Progress = newProgress(c.App.ErrWriter)
	return o, nil
}

// asBegun makes the options those that the run in --out was begun with.
func asBegun(c *cli.Context, o *runner.Options) error {
	if c.IsSet("set") {
		return usagef("--set goes with experiments that are named; without them the run in %s goes on as it was begun", o.Out)
	}
	plan, err := results.OpenPlan(o.Out)
	if err != nil {
		return err
	}
	wanted := o.Effort
	if err := o.Begun(plan); err != nil {
		return usagef("resume the run in %s: %v", o.Out, err)
	}
	if c.IsSet("effort") && o.Effort != wanted {
		return usagef("the run in %s was begun at effort %s and not %s", o.Out, o.Effort, wanted)
	}
	return nil
}

// checkScratch says what is wrong with a directory for the roles' data before a
// run directory is made.
func checkScratch(dir string) error {
	if dir == "" {
		return nil
	}
	probe, err := os.MkdirTemp(dir, ".waggle-probe-")
	if err != nil {
		return usagef("--scratch: directories can't be made in %s: %v", dir, errors.Unwrap(err))
	}
	return os.Remove(probe)
}

// maxBudget bounds the time that a run may be given.
const maxBudget = 7 * 24 * time.Hour

// maxRevisions bounds the programs that one run compares.
const maxRevisions = 8

func parseRevisions(list []string) (revisions []runner.Revision, err error) {
	if len(list) > maxRevisions {
		return nil, usagef("--revision is given %d times: at most %d programs can be compared", len(list), maxRevisions)
	}
	for _, text := range list {
		name, program, ok := strings.Cut(text, "=")
		if !ok || name == "" {
			return nil, usagef("--revision %q: write NAME=PROGRAM", text)
		}
		if slices.ContainsFunc(revisions, func(r runner.Revision) bool { return r.Name == name }) {
			return nil, usagef("--revision %s is given twice", name)
		}
		if program, err = filepath.Abs(program); err == nil {
			_, err = os.Stat(program)
		}
		if err != nil {
			return nil, usagef("--revision %s: %v", name, err)
		}
		revisions = append(revisions, runner.Revision{Name: name, Program: program})
	}
	return revisions, nil
}

func newProgress(w io.Writer) runner.Progress {
	f, ok := w.(*os.File)
	return runner.NewProgress(w, ok && term.IsTerminal(int(f.Fd())))
}

func loadExperiments(names []string, known spec.Paths) (list []*spec.Experiment, err error) {
	if len(names) == 0 {
		return nil, usagef("name an experiment, a file, or `all`; `waggle run --list` lists experiments")
	}
	var wanted []string
	for _, name := range names {
		wanted = append(wanted, experiments.Set(name)...)
	}
	seen := map[string]bool{}
	for _, name := range wanted {
		e, err := experiments.Load(name, known)
		if err != nil {
			return nil, usagef("%v", err)
		}
		for _, f := range e.Figures {
			if err := figure.CheckKind(f.Kind); err != nil {
				return nil, usagef("experiment %s, figure %q: %v", e.Name, f.Title, err)
			}
		}
		if seen[e.Name] {
			return nil, usagef("experiment %s is given twice", e.Name)
		}
		seen[e.Name] = true
		list = append(list, e)
	}
	return list, nil
}

func listExperiments(w io.Writer) error {
	list, err := loadExperiments([]string{"all"}, runner.KnownPaths())
	if err != nil {
		return err
	}
	for _, e := range list {
		var times []string
		for _, effort := range spec.Efforts {
			p, err := e.Plan(effort, nil)
			if err != nil {
				return err
			}
			times = append(times, fmt.Sprintf("%s %v", effort, runner.Estimate([]*spec.Plan{p}).Round(time.Second)))
		}
		fmt.Fprintf(w, "%-14s %s\n%-14s about: %s\n", e.Name, e.Question, "", strings.Join(times, ", "))
	}
	return nil
}

func showPlan(w io.Writer, o runner.Options) error {
	plans, err := o.Plan()
	if err != nil {
		return err
	}
	for _, p := range plans {
		fmt.Fprintf(w, "%s (%s, %d repetitions): %s\n", p.Experiment.Name, p.Effort, p.Trial.Repetitions, p.Experiment.Question)
		for _, c := range p.Cells {
			fmt.Fprintf(w, "  %s\n", p.String(c))
		}
	}
	fmt.Fprintf(w, "takes about %v\n", runner.Estimate(plans).Round(time.Second))
	return nil
}

// finishRun draws what a finished run's records show, and says where it is.
func finishRun(c *cli.Context, dir string, summary runner.Summary) error {
	run, err := results.Open(dir)
	if err != nil {
		return err
	}
	undrawn, err := analyse(c, run, dir)
	if err != nil {
		return fmt.Errorf("the run is done, but could not be drawn: %w", err)
	}
	fmt.Fprintf(c.App.Writer, "%d trials, %d valid, %d not valid, %d not supported here\n",
		summary.Trials, summary.Valid, summary.Invalid, summary.Unsupported)
	fmt.Fprintf(c.App.Writer, "the report is %s\n", filepath.Join(dir, results.ReportFile))
	if undrawn != nil {
		return undrawn
	}
	if summary.Invalid > 0 {
		return cli.Exit(fmt.Sprintf("%d of %d trials are not valid: the report says why", summary.Invalid, summary.Trials), exitInvalid)
	}
	return nil
}

// analyse writes all that a run's records show. Undrawn names how many figures
// could not be drawn; everything else is there all the same.
func analyse(c *cli.Context, run *results.Run, dir string) (undrawn, err error) {
	if err := run.SaveBench(filepath.Join(dir, results.BenchFile)); err != nil {
		return nil, err
	}
	figures, skipped := figure.DrawAll(run)
	undrawn = tellSkipped(c, skipped)
	// A figure that can't be written does not keep the report from being.
	unwritten := figure.WriteAll(filepath.Join(dir, results.FiguresDir), figures)
	r, err := report.Make(run, figures, skipped)
	if err == nil {
		err = r.Write(dir)
	}
	return undrawn, errors.Join(unwritten, err)
}

// tellSkipped says which figures are missing. It is an error if there is one that
// the records should have given.
func tellSkipped(c *cli.Context, skipped []figure.Skipped) error {
	failed := 0
	for _, s := range skipped {
		fmt.Fprintf(c.App.ErrWriter, "not drawn: %s: %v\n", s.Spec.Title, s.Reason)
		if s.Failed() {
			failed++
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d of the figures could not be drawn; the others, and the report, are there", failed)
	}
	return nil
}
