// Package weaken names the guarantees of the file system that a test can take
// away again, one at a time, to see whether the storm notices (mutation testing).
//
// At each place that upholds a guarantee stands weaken.On(Guarantee). Without the
// build tag "weaken" that is the constant false, and costs nothing. With it, the
// environment variable WAGGLE_WEAKEN names the guarantee that is off:
//
//	go build -tags weaken ./cmd/waggle && WAGGLE_WEAKEN=keep-settled-length waggle up
package weaken

// Guarantee is one that can be taken away.
type Guarantee string

// The guarantees. What is said of each is what happens without it.
const (
	// KeepSettledLength: a chunk whose writer's session has ended is cut to a size
	// that the file had before.
	KeepSettledLength Guarantee = "keep-settled-length"
	// CompareGrant: a client that gets a lease again believes that all its
	// acknowledged writes are there.
	CompareGrant Guarantee = "compare-grant"
	// SyncBeforeRelease: a chunk is released as settled while it is dirty.
	SyncBeforeRelease Guarantee = "sync-before-release"
	// KeepAnswers: the answers of mutations are forgotten with a restart.
	KeepAnswers Guarantee = "keep-answers"
	// RefuseForgotten: a mutation whose answer may be forgotten is carried out.
	RefuseForgotten Guarantee = "refuse-forgotten"
	// AnswerEach: a mutation that can't be carried out fails its whole call.
	AnswerEach Guarantee = "answer-each"
	// LapseLeases: a lease that is not named by its holder any more does not lapse.
	LapseLeases Guarantee = "lapse-leases"
	// FenceLeftBehind: a replica that is left behind goes on serving reads.
	FenceLeftBehind Guarantee = "fence-left-behind"
	// ServeUnderLease: a chunk server that has lost touch goes on serving reads.
	ServeUnderLease Guarantee = "serve-under-lease"
	// ReportBeforeServing: a chunk server serves reads before the metadata server
	// has looked at its replicas.
	ReportBeforeServing Guarantee = "report-before-serving"
	// ExpectLength: a replica that is too short is filled up with zeros.
	ExpectLength Guarantee = "expect-length"
	// SettleOnlyWhole: a chunk is settled at less than what was settled before.
	SettleOnlyWhole Guarantee = "settle-only-whole"
	// AppendOnce: appending takes the end of the file for where it was last seen.
	AppendOnce Guarantee = "append-once"
)
