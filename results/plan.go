package results

import "time"

// Names of the files in a run directory.
const (
	RecordsFile     = "records.jsonl"
	PlanFile        = "plan.json"
	EnvironmentFile = "environment.json"
	BenchFile       = "bench.txt"
	FiguresDir      = "figures"
	ReportFile      = "report.html"
	SummaryFile     = "summary.md"
)

// Plan is what a run set out to do, written before its first trial: enough for
// analysis to know each experiment's question and figures without reading the
// experiment files again, and for an interrupted run to be resumed in the same
// order.
type Plan struct {
	Schema int       `json:"schema"`
	Run    string    `json:"run"`
	Start  time.Time `json:"start"`
	// OrderSeed is the seed of the interleaving.
	OrderSeed   uint64              `json:"order_seed"`
	Experiments []PlannedExperiment `json:"experiments"`
}

// PlannedExperiment is one experiment of a plan, its levels already those of
// the chosen effort.
type PlannedExperiment struct {
	Name        string   `json:"name"`
	Question    string   `json:"question"`
	Effort      string   `json:"effort"`
	Repetitions int      `json:"repetitions"`
	Factors     []Factor `json:"factors"`
	// Figures are drawn from this experiment's records, in this order.
	Figures []FigureSpec `json:"figures"`
}

// Factor is one thing an experiment varies, with its levels in the order they
// are to be shown.
type Factor struct {
	Name   string `json:"name"`
	Levels []any  `json:"levels"`
}

// FigureSpec asks for one figure.
type FigureSpec struct {
	// Kind is the figure function to use, such as "throughput" or "latency".
	Kind  string `json:"kind" yaml:"kind"`
	Title string `json:"title" yaml:"title"`
	// X is the factor along the horizontal axis; Series the factor whose levels
	// are the lines or bars; Panel, if set, the factor with a panel a level.
	X      string `json:"x" yaml:"x"`
	Series string `json:"series" yaml:"series"`
	Panel  string `json:"panel,omitempty" yaml:"panel,omitempty"`
	// Baseline is the level of Series that ratios are taken against.
	Baseline string `json:"baseline,omitempty" yaml:"baseline,omitempty"`
	// Where keeps only the records whose cell has these levels.
	Where Cell `json:"where,omitempty" yaml:"where,omitempty"`
}

// Environment is where a run took place. It names no private path of the
// machine.
type Environment struct {
	Schema      int      `json:"schema"`
	Kernel      string   `json:"kernel"`
	CPU         string   `json:"cpu"`
	CPUs        int      `json:"cpus"`
	MemoryBytes int64    `json:"memory_bytes"`
	GoVersion   string   `json:"go_version"`
	Commit      string   `json:"commit"`
	Dirty       bool     `json:"dirty"`
	CommandLine []string `json:"command_line"`
	// Paths says for each data path, as "read=copy", whether this machine
	// supports it: "" if so, else the reason.
	Paths map[string]string `json:"paths"`
	// Versions are those of the modules the numbers depend on.
	Versions map[string]string `json:"versions"`
}
