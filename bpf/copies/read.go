package copies

import (
	"fmt"
	"slices"
)

// Snapshot reads all counters: some hundred microseconds, while counting goes on. Calls
// that are still running are not in it: a call is counted when it returns.
func (l *Ledger) Snapshot() (Snapshot, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := Snapshot{Roles: make(map[string]Counts, len(l.roles))}
	roles := make([]Counts, len(l.roles))
	for i := range roles {
		roles[i].Moves = make(map[Key]Move)
		if err := l.readActivity(uint32(i), &roles[i].Activity); err != nil {
			return Snapshot{}, fmt.Errorf("read the ledger's activity counters: %w", err)
		}
	}
	if err := l.readMoves(roles); err != nil {
		return Snapshot{}, fmt.Errorf("read the ledger's moves: %w", err)
	}
	if l.sites != nil {
		if err := l.sites.read(roles); err != nil {
			return Snapshot{}, fmt.Errorf("read the ledger's copy sites: %w", err)
		}
	}
	if err := l.readLosses(&s.Losses); err != nil {
		return Snapshot{}, fmt.Errorf("read the ledger's losses: %w", err)
	}
	for i, role := range l.roles {
		s.Roles[role] = roles[i]
	}
	return s, nil
}

func (l *Ledger) readActivity(role uint32, sum *Activity) error {
	var perCPU []Activity
	if err := l.boundary.Activities.Lookup(role, &perCPU); err != nil {
		return err
	}
	for _, a := range perCPU {
		sum.add(a)
	}
	return nil
}

func (l *Ledger) readMoves(roles []Counts) error {
	var key boundaryMoveKey
	var perCPU []Move
	entries := l.boundary.Moves.Iterate()
	for entries.Next(&key, &perCPU) {
		if int(key.Role) >= len(roles) {
			return fmt.Errorf("an entry names role %d of %d", key.Role, len(roles))
		}
		var sum Move
		for _, m := range perCPU {
			sum.add(m)
		}
		row := Key{Class(key.Class), Operation(key.Operation), Kind(key.From), Kind(key.To)}
		roles[key.Role].Moves[row] = sum
	}
	return entries.Err()
}

func (l *Ledger) readLosses(sum *Losses) error {
	var perCPU []boundaryLosses
	if err := l.boundary.Lost.Lookup(uint32(0), &perCPU); err != nil {
		return err
	}
	for _, lost := range perCPU {
		sum.add(Losses{
			Processes: lost.Processes,
			Entries:   lost.Entries,
			InFlight:  lost.InFlight,
			Unread:    lost.Unread,
			Compat:    lost.Compat,
		})
	}
	return l.addMisses(sum)
}

// addMisses counts the events for which the kernel skipped a program, because it was
// already running on that CPU.
func (l *Ledger) addMisses(sum *Losses) error {
	programs := l.programs
	if l.sites != nil {
		programs = slices.Concat(programs, l.sites.programs)
	}
	for _, program := range programs {
		stats, err := program.Stats()
		if err != nil {
			return err
		}
		sum.Misses += stats.RecursionMisses
	}
	return nil
}
