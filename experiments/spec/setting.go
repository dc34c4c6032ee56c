package spec

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"waggle/results"
)

// Harmless are the settings that an experiment on sensitivity varies one at a time, to
// see how far each moves a result beside what is studied.
type Harmless struct {
	Buffers          string // of data connections; a size, or "kernel"
	Delay            bool   // TCP_NODELAY is off
	Autocorking      string // SettingAsIs, on or off
	HugePages        string // SettingAsIs, or as the kernel writes it
	GOMAXPROCS       int    // of each role; 0 is all processors
	EnvironmentBytes int    // more in each role's environment
	LinkReverse      bool   // hosts are linked in the opposite order
	Ledger           bool   // copies are counted while time is taken
}

// SettingFactor is the factor whose levels are settings, each "NAME=VALUE" of another
// parameter, or SettingAsIs.
const SettingFactor = "setting"

// SettingAsIs is the level at which everything is as it always is.
const SettingAsIs = "as is"

// Levels of parameter link_order.
const (
	LinkForward = "forward"
	LinkReverse = "reverse"
)

// settable are the parameters that a setting may change. None of them is what an
// experiment is about.
var settable = []string{"congestion", "buffers", "nodelay", "autocorking", "huge_pages", "offload", "mtu_bytes", "pin",
	"ledger", "gomaxprocs", "environment_bytes", "link_order"}

// The setting comes last in the table, because it changes what others have set.
func init() {
	parameters = append(parameters, parameter{
		name: SettingFactor, what: "one other parameter at another level, as NAME=VALUE, or " + SettingAsIs, fallback: SettingAsIs,
		parse: func(level any, paths Paths) (any, error) {
			_, _, err := parseSetting(level, paths)
			return level, err
		},
		set: func(p *Parameters, level any) {
			if q, value, err := parseSetting(level, Paths{}); err == nil && q.set != nil {
				q.set(p, value)
			}
		},
	})
}

// parseSetting reads a setting; one that changes nothing has no parameter.
func parseSetting(level any, paths Paths) (q parameter, value any, err error) {
	text, _ := level.(string)
	if text == SettingAsIs {
		return q, nil, nil
	}
	name, raw, ok := strings.Cut(text, "=")
	if !ok || !slices.Contains(settable, name) {
		return q, nil, fmt.Errorf("setting=%v: write %q, or NAME=VALUE with one of %s", level, SettingAsIs, strings.Join(settable, ", "))
	}
	if q, err = parameterNamed(name); err != nil {
		return q, nil, err
	}
	value, err = q.parse(rawLevel(raw), paths)
	if err != nil {
		err = fmt.Errorf("setting: %w", err)
	}
	return q, value, err
}

// rawLevel is a level as it is written on a command line: a number, or text.
func rawLevel(text string) any {
	if n, err := strconv.ParseFloat(text, 64); err == nil {
		return n
	}
	return text
}

// setsPlacement says whether a factor decides where roles run.
func setsPlacement(f results.Factor) bool {
	return f.Name == "pin" || f.Name == SettingFactor && slices.ContainsFunc(f.Levels, func(level any) bool {
		text, _ := level.(string)
		return strings.HasPrefix(text, "pin=")
	})
}
