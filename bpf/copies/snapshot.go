package copies

import (
	"cmp"
	"maps"
	"slices"
)

// A Snapshot is the ledger at one moment: all counts since it was opened. The difference
// of two snapshots of one ledger is what happened between them.
type Snapshot struct {
	Roles  map[string]Counts
	Losses Losses
}

// Minus is what was counted after `earlier` was taken.
func (s Snapshot) Minus(earlier Snapshot) Snapshot {
	difference := Snapshot{Roles: make(map[string]Counts, len(s.Roles)), Losses: s.Losses.minus(earlier.Losses)}
	for role, counts := range s.Roles {
		difference.Roles[role] = counts.Minus(earlier.Roles[role])
	}
	return difference
}

// Counts are the numbers of one role.
type Counts struct {
	Activity
	Moves map[Key]Move
	Sites map[Site]SiteCount // only with backend sites
}

// Activity is what a role did, apart from moving bytes. Laid out as struct activity in
// moves.bpf.h.
type Activity struct {
	SystemCalls         uint64 `json:"system_calls"`
	VoluntarySwitches   uint64 `json:"voluntary_switches"`
	InvoluntarySwitches uint64 `json:"involuntary_switches"`
	Wakeups             uint64 `json:"wakeups"`
	FileFaults          uint64 `json:"file_faults"`       // page faults in mappings of files
	AnonymousFaults     uint64 `json:"anonymous_faults"`  // ... in other memory
	UnresolvedFaults    uint64 `json:"unresolved_faults"` // ... whose mapping could not be looked at
}

// ContextSwitches is how often a thread of the role left a CPU.
func (a Activity) ContextSwitches() uint64 { return a.VoluntarySwitches + a.InvoluntarySwitches }

func (a *Activity) add(o Activity) {
	a.SystemCalls += o.SystemCalls
	a.VoluntarySwitches += o.VoluntarySwitches
	a.InvoluntarySwitches += o.InvoluntarySwitches
	a.Wakeups += o.Wakeups
	a.FileFaults += o.FileFaults
	a.AnonymousFaults += o.AnonymousFaults
	a.UnresolvedFaults += o.UnresolvedFaults
}

func (a Activity) minus(o Activity) Activity {
	return Activity{
		SystemCalls:         a.SystemCalls - o.SystemCalls,
		VoluntarySwitches:   a.VoluntarySwitches - o.VoluntarySwitches,
		InvoluntarySwitches: a.InvoluntarySwitches - o.InvoluntarySwitches,
		Wakeups:             a.Wakeups - o.Wakeups,
		FileFaults:          a.FileFaults - o.FileFaults,
		AnonymousFaults:     a.AnonymousFaults - o.AnonymousFaults,
		UnresolvedFaults:    a.UnresolvedFaults - o.UnresolvedFaults,
	}
}

// Losses is what the ledger noticed but could not count. All zero means complete.
type Losses struct {
	Processes uint64 `json:"processes"` // children that found the table of processes full
	Entries   uint64 `json:"entries"`   // calls that found a table of counters full
	InFlight  uint64 `json:"in_flight"` // io_uring requests and zero-copy sends that were forgotten
	Unread    uint64 `json:"unread"`    // calls whose arguments in memory could not be read
	Compat    uint64 `json:"compat"`    // calls of 32-bit programs: counted, without their bytes
	Misses    uint64 `json:"misses"`    // events that came while the same program was running
}

// Any tells whether anything was lost.
func (l Losses) Any() bool { return l != Losses{} }

func (l *Losses) add(o Losses) {
	l.Processes += o.Processes
	l.Entries += o.Entries
	l.InFlight += o.InFlight
	l.Unread += o.Unread
	l.Compat += o.Compat
	l.Misses += o.Misses
}

func (l Losses) minus(o Losses) Losses {
	return Losses{
		Processes: l.Processes - o.Processes,
		Entries:   l.Entries - o.Entries,
		InFlight:  l.InFlight - o.InFlight,
		Unread:    l.Unread - o.Unread,
		Compat:    l.Compat - o.Compat,
		Misses:    l.Misses - o.Misses,
	}
}

// Minus is what was counted after `earlier` was taken. Rows without any are left out.
func (c Counts) Minus(earlier Counts) Counts {
	return Counts{
		Activity: c.Activity.minus(earlier.Activity),
		Moves:    differences(c.Moves, earlier.Moves, Move.minus),
		Sites:    differences(c.Sites, earlier.Sites, SiteCount.minus),
	}
}

func differences[K, V comparable](now, earlier map[K]V, minus func(V, V) V) map[K]V {
	if now == nil {
		return nil // not counted stays not counted
	}
	var zero V
	result := make(map[K]V, len(now))
	for key, value := range now {
		if difference := minus(value, earlier[key]); difference != zero {
			result[key] = difference
		}
	}
	return result
}

// Plus adds up two roles.
func (c Counts) Plus(o Counts) Counts {
	sum := Counts{
		Activity: c.Activity,
		Moves:    sums(c.Moves, o.Moves, (*Move).add),
		Sites:    sums(c.Sites, o.Sites, (*SiteCount).add),
	}
	sum.Activity.add(o.Activity)
	return sum
}

func sums[K comparable, V any](a, b map[K]V, add func(*V, V)) map[K]V {
	if a == nil && b == nil {
		return nil // not counted stays not counted
	}
	result := make(map[K]V, len(a)+len(b))
	maps.Copy(result, a)
	for key, value := range b {
		sum := result[key]
		add(&sum, value)
		result[key] = sum
	}
	return result
}

// Bytes adds up the rows that `wanted` chooses.
func (c Counts) Bytes(wanted func(Key) bool) uint64 {
	var sum uint64
	for key, move := range c.Moves {
		if wanted(key) {
			sum += move.Bytes
		}
	}
	return sum
}

// Crossed is how many bytes the CPU copied across the boundary in a direction: by calls and
// io_uring completions (MSG_PEEK included), and by zero-copy sends that the kernel reported
// as copied after all.
func (c Counts) Crossed(d Direction) uint64 {
	return c.Bytes(func(k Key) bool { return k.Direction() == d })
}

// OfClass is how many bytes the rows of a class moved.
func (c Counts) OfClass(class Class) uint64 {
	return c.Bytes(func(k Key) bool { return k.Class == class })
}

// Row is a Key with what it counted.
type Row struct {
	Key
	Move
}

// Rows of the ledger, most bytes first, then most calls.
func (c Counts) Rows() []Row {
	rows := make([]Row, 0, len(c.Moves))
	for key, move := range c.Moves {
		rows = append(rows, Row{key, move})
	}
	slices.SortFunc(rows, func(a, b Row) int {
		return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), cmp.Compare(b.Calls, a.Calls),
			cmp.Compare(a.Operation, b.Operation), cmp.Compare(a.Class, b.Class),
			cmp.Compare(a.From, b.From), cmp.Compare(a.To, b.To))
	})
	return rows
}
