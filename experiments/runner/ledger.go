package runner

import (
	"cmp"
	"fmt"

	"waggle/bpf/copies"
	"waggle/dfs/datapath"
	"waggle/results"
)

// ledger counts the copies of all roles of a run. It is attached for the trials that
// count copies, and for no other: what it costs is a time for each system call, so that
// it favours paths that make few. Attaching takes longer than a short trial does, so
// those trials come one after the other. A nil ledger does nothing.
//
// Unless another is asked for, it is the ledger's backend boundary: cheap enough
// for a measurement, and on every machine that has a ledger at all.
type ledger struct {
	counting *copies.Ledger
	backend  copies.Backend
}

func openLedger(backend copies.Backend) (*ledger, error) {
	counting, err := copies.Open(copies.Options{Backend: backend})
	if err != nil {
		return nil, err
	}
	return &ledger{counting, backend}, nil
}

// backend is what copies are counted by.
func (o *Options) backend() copies.Backend { return cmp.Or(o.Ledger, copies.Boundary) }

// setLedger attaches the ledger, or takes it off.
func (r *run) setLedger(on bool) (err error) {
	switch {
	case on && r.ledger == nil:
		if r.ledger, err = openLedger(r.options.backend()); err != nil {
			return err
		}
		for _, s := range r.stages {
			for _, role := range s.roles {
				if err := r.ledger.add(s, role); err != nil {
					return err
				}
			}
		}
	case !on && r.ledger != nil:
		err = r.ledger.close()
		r.ledger = nil
	}
	return err
}

// add counts a role's process from now on.
func (l *ledger) add(s *stage, r *role) error {
	if l == nil {
		return nil
	}
	return l.counting.AddProcess(s.account(r.Role), r.PID())
}

// account names what a role of a stage is counted under. The ledger holds a
// limited number of names, so a stage takes those of one that is gone.
func (s *stage) account(role string) string { return fmt.Sprintf("%d/%s", s.slot, role) }

func (l *ledger) snapshot() (copies.Snapshot, error) {
	if l == nil {
		return copies.Snapshot{}, nil
	}
	return l.counting.Snapshot()
}

func (l *ledger) close() error {
	if l == nil {
		return nil
	}
	return l.counting.Close()
}

// fillCopies writes what was counted into a trial's record. Grown holds what roles
// counted themselves, among it what they copied inside their own processes, and
// what the kernel copied for them in no system call. What
// the ledger could not count is returned as an error: the trial is not valid.
func (m *meter) fillCopies(r *results.Record, grown map[string]map[string]int64) error {
	counted := m.after.copies.Minus(m.before.copies)
	if counted.Losses.Any() {
		return fmt.Errorf("the copy ledger lost events: %+v", counted.Losses)
	}
	c := &results.Copies{Backend: string(m.stage.run.ledger.backend), ByRole: map[string]results.RoleCopies{}}
	var calls, switches int64
	for _, role := range m.stage.kinds() {
		counts := counted.Roles[m.stage.account(role)]
		copied := counts.Copied()
		part := results.RoleCopies{
			UserToKernelBytes: int64(copied.UserToKernelBytes) + grown[role][datapath.CopiedToKernel],
			KernelToUserBytes: int64(copied.KernelToUserBytes) + grown[role][datapath.CopiedFromKernel],
			InKernelBytes:     addInKernel(nil, copied.InKernelBytes),
			InUserBytes:       grown[role][datapath.CopiedInUser],
		}
		c.ByRole[role] = part
		c.UserToKernelBytes += part.UserToKernelBytes
		c.KernelToUserBytes += part.KernelToUserBytes
		c.InUserBytes += part.InUserBytes
		c.InKernelBytes = addInKernel(c.InKernelBytes, copied.InKernelBytes)
		calls += int64(counts.SystemCalls)
		switches += int64(counts.ContextSwitches())
	}
	if payload := *r.PayloadBytes; payload > 0 {
		all := c.UserToKernelBytes + c.KernelToUserBytes + c.InUserBytes
		if c.InKernelBytes != nil {
			all += *c.InKernelBytes
		}
		c.PerPayloadByte = float64(all) / float64(payload)
	}
	r.Copies, r.Syscalls, r.ContextSwitches = c, &calls, &switches
	return nil
}

// addInKernel adds what a backend counted inside the kernel, if it can see there.
func addInKernel(sum *int64, counted *uint64) *int64 {
	if counted == nil {
		return sum
	}
	total := int64(*counted)
	if sum != nil {
		total += *sum
	}
	return &total
}

// costRounds is how often the ledger's cost is measured before a run: about two
// seconds in all.
const costRounds = 5

// ledgerCost measures what counting costs on this machine, if copies are counted.
// Whoever counts by backend sites wants no timings, and need not know.
func (r *run) ledgerCost() (table []results.LedgerCost, err error) {
	if !r.measuresCopies() || r.options.Ledger == copies.Sites || r.support.ledger != nil {
		return nil, nil
	}
	costs, err := copies.MeasureCost(costRounds)
	for _, c := range costs {
		table = append(table, results.LedgerCost{SizeBytes: c.SizeBytes, CountedBy: c.CountedBy, Nanoseconds: c.Nanoseconds, MoreNanoseconds: c.More})
	}
	return table, err
}
