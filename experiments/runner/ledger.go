package runner

import (
	"errors"
	"fmt"

	"waggle/bpf/copies"
	"waggle/dfs/datapath"
	"waggle/results"
)

// ledger counts the copies of a stage's roles during one trial. It is attached
// for the trial alone, because it costs every process of the machine something.
// A nil ledger does nothing.
//
// It is the ledger's backend boundary: cheap enough for a measurement, and on
// every machine that has a ledger at all.
type ledger struct {
	counting      *copies.Ledger
	before, after copies.Snapshot
}

func openLedger(s *stage) (*ledger, error) {
	counting, err := copies.Open(copies.Options{Backend: copies.Boundary})
	if err != nil {
		return nil, err
	}
	for _, r := range s.roles {
		if err := counting.AddProcess(r.Role, r.PID()); err != nil {
			return nil, errors.Join(err, counting.Close())
		}
	}
	return &ledger{counting: counting}, nil
}

func (l *ledger) start() (err error) {
	if l != nil {
		l.before, err = l.counting.Snapshot()
	}
	return err
}

func (l *ledger) stop() (err error) {
	if l != nil {
		l.after, err = l.counting.Snapshot()
	}
	return err
}

func (l *ledger) close() error {
	if l == nil {
		return nil
	}
	return l.counting.Close()
}

// fill writes what was counted into a trial's record. Grown holds what roles
// counted themselves, among it what they copied inside their own processes. What
// the ledger could not count is returned as an error: the trial is not valid.
func (l *ledger) fill(r *results.Record, grown map[string]map[string]int64) error {
	if l == nil {
		return nil
	}
	counted := l.after.Minus(l.before)
	if counted.Losses.Any() {
		return fmt.Errorf("the copy ledger lost events: %+v", counted.Losses)
	}
	c := &results.Copies{Backend: string(l.counting.Backend()), ByRole: map[string]results.RoleCopies{}}
	var calls, switches int64
	for role, counts := range counted.Roles {
		part := results.RoleCopies{
			UserToKernelBytes: int64(counts.Crossed(copies.UserToKernel)),
			KernelToUserBytes: int64(counts.Crossed(copies.KernelToUser)),
			InUserBytes:       grown[role][datapath.CopiedInUser],
		}
		c.ByRole[role] = part
		c.UserToKernelBytes += part.UserToKernelBytes
		c.KernelToUserBytes += part.KernelToUserBytes
		c.InUserBytes += part.InUserBytes
		calls += int64(counts.SystemCalls)
		switches += int64(counts.ContextSwitches())
	}
	if payload := *r.PayloadBytes; payload > 0 {
		c.PerPayloadByte = float64(c.UserToKernelBytes+c.KernelToUserBytes+c.InUserBytes) / float64(payload)
	}
	r.Copies, r.Syscalls, r.ContextSwitches = c, &calls, &switches
	return nil
}
