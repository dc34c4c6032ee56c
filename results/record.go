// Package results defines what a run of Waggle leaves behind, and reads and
// writes it: records (one JSON line a trial), the plan that the run followed
// and the environment it ran in.
//
// It is the only thing that experiments and analysis share: experiments write
// a run directory, analysis reads one and nothing else. Units are in the names
// of the fields. An absent field means "not measured" and is never zero, so
// every measurement that can be missing is a pointer.
//
// An experiment makes a directory with [Create] (or goes on with one with
// [Resume]) and gives each trial's [Record] to [Writer.Append]. An analysis
// calls [Open] and asks the records through [Metric], so that everybody means
// the same by "CPU seconds per operation". What is read is checked as strictly
// as what is written: a field without "omitempty" must be there, and anything
// wrong is one error that names file and line.
package results

// Schema is the version of the record format that this package writes. A
// reader refuses any other.
const Schema = 1

// Sources of a record.
const (
	SourceMeasured  = "measured"  // a real trial on a real machine
	SourceSimulated = "simulated" // the simulator's prediction
)

// ControlAA marks the records of a control cell's twin: the same cell, run a
// second time under another name. The difference between the two is the noise
// of the run.
const ControlAA = "A/A"

// Placements of a repetition. Where a wake-up lands, beside its waker or on
// another processor, moves some timings by a factor of two, and the scheduler
// keeps to its choice for a whole trial.
const (
	PlacementApart    = "apart"    // client and servers on processors of their own
	PlacementTogether = "together" // all roles on one processor
	PlacementFree     = "free"     // left to the scheduler
)

// Placements gives all placements, in the order in which they are to be shown.
func Placements() []string { return []string{PlacementApart, PlacementTogether, PlacementFree} }

// Record is what one trial yields.
type Record struct {
	Schema     int    `json:"schema"`
	Run        string `json:"run"`
	Experiment string `json:"experiment"`
	// Trial counts the trials of a run in the order they were run, from 0.
	Trial int `json:"trial"`
	// Repetition counts the trials of one cell, from 0. Trials of one
	// repetition ran in one interleaved block and may be compared in pairs.
	Repetition int    `json:"repetition"`
	Source     string `json:"source"`
	Cell       Cell   `json:"cell"`
	// Control is ControlAA for the twin of a control cell, else empty.
	Control string `json:"control,omitempty"`
	// Placement says on which processors the roles ran in this repetition, where the
	// plan chose that for it: PlacementApart and so on. It is a block of the
	// experiment, not a factor: all cells of a repetition have the same one, and
	// trials are compared within it. Absent where nothing was chosen, or where the
	// cell has a placement of its own (the factor "pin").
	Placement string `json:"placement,omitempty"`

	// Valid says that every byte was verified, that the proof shows the path
	// was taken, that no role died and that the trial ran as long as it had to.
	// Where it is false, Reason says why.
	Valid bool `json:"valid"`
	// Unsupported says that this machine can't run the cell. Valid is false then.
	Unsupported bool   `json:"unsupported,omitzero"`
	Reason      string `json:"reason"`
	// Proof holds the counters by which the data paths show they were taken, and
	// what else they count that is worth knowing.
	Proof map[string]int64 `json:"proof,omitempty"`

	Operations               *int64   `json:"operations,omitempty"`
	PayloadBytes             *int64   `json:"payload_bytes,omitempty"`
	Seconds                  *float64 `json:"seconds,omitempty"`
	ThroughputBytesPerSecond *float64 `json:"throughput_bytes_per_second,omitempty"`
	OperationsPerSecond      *float64 `json:"operations_per_second,omitempty"`
	// OfferedOperationsPerSecond is the rate an open-loop trial was asked to
	// keep; absent in a closed loop.
	OfferedOperationsPerSecond *float64 `json:"offered_operations_per_second,omitempty"`

	// Search is that of a trial that searched for the highest sustainable rate.
	// Such a trial has no rates and latencies of its own, and no costs: they would
	// be those of a mixture of rates.
	Search *Search `json:"search,omitempty"`

	Latency *Latency `json:"latency_seconds,omitempty"`
	// LatencyHistogram is an HdrHistogram of nanoseconds in its V2 compressed
	// encoding, base64.
	LatencyHistogram string `json:"latency_histogram,omitempty"`

	// Timeline shows how the trial went, slice by slice.
	Timeline *Timeline `json:"timeline,omitempty"`

	// Connections are the TCP connections of all roles when the trial ended.
	Connections *Connections `json:"connections,omitempty"`

	// Simulation is there in simulated records, and only there.
	Simulation *Simulation `json:"simulation,omitempty"`

	// Disturbance is what else the machine did meanwhile.
	Disturbance *Disturbance `json:"disturbance,omitempty"`

	CPU             *CPU    `json:"cpu_seconds,omitempty"`
	Copies          *Copies `json:"copies,omitempty"`
	Syscalls        *int64  `json:"syscalls,omitempty"`
	ContextSwitches *int64  `json:"context_switches,omitempty"`

	// Chain is a digest of this record and of all before it, made by [Writer.Append]
	// and checked by [CheckChain]. It is the last field of a line; a record that was
	// read has none.
	Chain string `json:"chain,omitempty"`
}

// Latency summarises a trial's latencies in seconds. With a rate set they count
// from the intended start of an operation, not from when it was sent.
type Latency struct {
	P50  float64 `json:"p50"`
	P90  float64 `json:"p90"`
	P99  float64 `json:"p99"`
	P999 float64 `json:"p999"`
	Max  float64 `json:"max"`
	Mean float64 `json:"mean"`
}

// CPU is the processor time of a trial's timed part in seconds. Total is the whole
// machine's, because kernel paths move work out of the process that asked for it:
// what its processors were neither idle nor taken away from it (source: the kernel's
// idle clocks, to the nanosecond where they may be read). User, System and SoftIRQ
// share Total out as /proc/stat does, which samples; ByRole is each role's own
// processes (source: their cgroup or /proc/PID/stat). ByHost is all the work of
// a host that had processors to itself: its processes, the kernel's soft
// interrupts and threads (source: those processors' idle time).
type CPU struct {
	Total   float64 `json:"total"`
	User    float64 `json:"user"`
	System  float64 `json:"system"`
	SoftIRQ float64 `json:"softirq"`
	// Processors is how many there were: Total can't be more than they could give in
	// the trial's seconds. Absent in records of older programs.
	Processors int                `json:"processors,omitzero"`
	ByRole     map[string]float64 `json:"by_role,omitempty"`
	ByHost     map[string]float64 `json:"by_host,omitempty"`
}

// Disturbance is what took processor time from a trial's timed part without being part
// of it, in seconds (source: /proc/stat, in hundredths of a second).
type Disturbance struct {
	// StealSeconds is what the hypervisor gave to other machines.
	StealSeconds float64 `json:"steal_seconds"`
	// ForeignSeconds is the processor time of processes that are no roles.
	ForeignSeconds float64 `json:"foreign_seconds"`
	// Attempts is how many times the trial was run: those before the last one were
	// disturbed too much, and are not recorded.
	Attempts int `json:"attempts"`
	// Exceeded says which limit even the last attempt exceeded, "" if none.
	Exceeded string `json:"exceeded"`
}

// Connections describes TCP connections as the kernel does (source: sock_diag); both
// ends of one count if roles hold them.
type Connections struct {
	// Congestion counts them by the kernel's name of their congestion control.
	Congestion map[string]int64 `json:"congestion"`
}

// Copies is the copy ledger of a trial: bytes the CPU copied, by direction.
type Copies struct {
	UserToKernelBytes int64 `json:"user_to_kernel_bytes"`
	KernelToUserBytes int64 `json:"kernel_to_user_bytes"`
	// InKernelBytes is absent where the backend can't see inside the kernel.
	InKernelBytes *int64 `json:"in_kernel_bytes,omitempty"`
	InUserBytes   int64  `json:"in_user_bytes"`
	// PerPayloadByte is all of the above over the trial's payload.
	PerPayloadByte float64 `json:"per_payload_byte"`
	// Backend is "boundary" or "sites".
	Backend string                `json:"backend"`
	ByRole  map[string]RoleCopies `json:"by_role,omitempty"`
}

// RoleCopies is one role's part of Copies, in bytes.
type RoleCopies struct {
	UserToKernelBytes int64  `json:"user_to_kernel_bytes"`
	KernelToUserBytes int64  `json:"kernel_to_user_bytes"`
	InKernelBytes     *int64 `json:"in_kernel_bytes,omitempty"`
	InUserBytes       int64  `json:"in_user_bytes"`
}
