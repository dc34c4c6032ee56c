package runner

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"waggle/experiments/spec"
)

// Where a wake-up lands, beside its waker or on another processor, moves some
// timings by a factor of three, and the scheduler keeps to its choice for a
// whole trial. Pinning takes that choice away: it is a factor, not a default,
// because nobody's file system runs that way by itself.

// pin restricts the stage's roles to the processors that a placement gives them.
func (s *stage) pin(placement string) error {
	all, err := ownProcessors()
	if err != nil {
		return err
	}
	if placement != spec.PinNone && len(all) < 2 {
		return fmt.Errorf("pin=%s needs two processors, this process may use %d", placement, len(all))
	}
	for _, r := range s.roles {
		if err := pinProcess(r.PID(), setOf(placed(placement, r.Role, all))); err != nil {
			return fmt.Errorf("pin %s: %w", r.Name, err)
		}
	}
	return nil
}

// placed chooses among processors for a role.
func placed(placement, role string, processors []int) []int {
	half := len(processors) / 2
	switch {
	case placement == spec.PinTogether:
		return processors[:1]
	case placement == spec.PinApart && role == roleClient:
		return processors[half:]
	case placement == spec.PinApart:
		return processors[:half]
	case placement == spec.PinGateway && role == roleGateway:
		return processors[:half]
	case placement == spec.PinGateway:
		return processors[half:]
	}
	return processors
}

// receiving are the processors that are to receive packets, by host: with
// pin=gateway-apart the gateway's at its host, so that they do all of its work, and no
// other host's.
func receiving(processors []int) map[string][]int {
	half := len(processors) / 2
	return map[string][]int{roleGateway: processors[:half], "": processors[half:]}
}

// ownProcessors are those that this process, and so its roles, may use.
func ownProcessors() (list []int, err error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(os.Getpid(), &set); err != nil {
		return nil, fmt.Errorf("read which processors this process may use: %w", err)
	}
	for i := 0; len(list) < set.Count(); i++ {
		if set.IsSet(i) {
			list = append(list, i)
		}
	}
	return list, nil
}

func setOf(processors []int) (set unix.CPUSet) {
	for _, p := range processors {
		set.Set(p)
	}
	return set
}

// pinProcess restricts all threads of a process. A thread inherits from the one
// that starts it, so when a pass finds nothing to change, no other is left.
func pinProcess(pid int, set unix.CPUSet) error {
	for changed := true; changed; {
		threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
		if err != nil {
			return err
		}
		changed = false
		for _, t := range threads {
			id, err := strconv.Atoi(t.Name())
			if err != nil {
				return err
			}
			did, err := pinThread(id, set)
			if err != nil {
				return err
			}
			changed = changed || did
		}
	}
	return nil
}

// pinThread says whether there was anything to change. A thread that has ended
// needs nothing.
func pinThread(id int, set unix.CPUSet) (changed bool, err error) {
	var now unix.CPUSet
	err = unix.SchedGetaffinity(id, &now)
	if err == nil && now != set {
		changed, err = true, unix.SchedSetaffinity(id, &set)
	}
	if errors.Is(err, unix.ESRCH) {
		return false, nil
	}
	return changed, err
}
