package runner

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"waggle/dfs/datapath"
	"waggle/dfs/tcp"
	"waggle/experiments/spec"
	"waggle/experiments/topology"
	"waggle/results"
)

// All TCP connections of a cell have one congestion control: the machine's default
// would slow those paths that use TCP, and not those that go around it. Our own
// programs set it on each socket; what is no program of ours, or an older revision
// of it, gets it from a program on its control group. Whether that worked is asked of
// the kernel after each trial.

// congestions are those that experiments may name, the preferred ones first.
var congestions = []string{"cubic", "reno", "bbr"}

// addCongestion finds out which congestion controls this process may choose.
func (s *support) addCongestion() {
	for _, name := range congestions {
		err := tcp.Policy{Congestion: name}.Supported()
		if err != nil {
			err = fmt.Errorf("congestion=%s: %w: %w", name, datapath.ErrUnsupported, err)
		}
		s.reasons["congestion="+name] = err
		if err == nil && s.congestion == "" && name != "bbr" {
			s.congestion = name
		}
	}
}

// congestionOf is the kernel's name of a cell's congestion control, or "" for the
// machine's default.
func (s support) congestionOf(level string) string {
	switch level {
	case spec.CongestionAuto:
		return s.congestion
	case spec.CongestionMachine:
		return ""
	}
	return level
}

// holdCongestion has a role use the stage's congestion control.
func (s *stage) holdCongestion(c *topology.Command) {
	name := s.run.support.congestionOf(s.key.congestion)
	// Without a name it is taken out of the environment that roles inherit.
	c.Env = append(c.Env, "WAGGLE_CONGESTION="+name)
	ours := c.Args[0] == s.run.options.Program
	if !ours && os.Geteuid() == 0 {
		c.Congestion = name
	}
}

// connections asks the kernel about all TCP connections of the stage's roles.
func (s *stage) connections() (*results.Connections, error) {
	c := &results.Connections{Congestion: map[string]int64{}}
	for _, r := range s.roles {
		list, err := r.Connections()
		if err != nil {
			return nil, err
		}
		for _, one := range list {
			c.Congestion[one.Congestion]++
		}
	}
	return c, nil
}

// checkCongestion returns nil if all connections had the cell's congestion control.
func (s support) checkCongestion(p spec.Parameters, c *results.Connections) error {
	wanted := s.congestionOf(p.Congestion)
	if wanted == "" {
		return nil
	}
	var others []string
	for _, name := range slices.Sorted(maps.Keys(c.Congestion)) {
		if name != wanted {
			others = append(others, fmt.Sprintf("%d of %s", c.Congestion[name], name))
		}
	}
	if len(others) > 0 {
		return fmt.Errorf("TCP connections were not under congestion control %s: %s", wanted, strings.Join(others, ", "))
	}
	return nil
}
