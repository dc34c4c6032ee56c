package runner

import (
	"fmt"
	"strings"

	"github.com/dustin/go-humanize"

	"waggle/experiments/spec"
	"waggle/experiments/topology"
)

// Settings that nobody studies are as they always are, but in an experiment on
// sensitivity. Most are decided when roles start; those of the whole machine are
// changed for a trial, and restored by whoever owns the run, or by the next run if it
// was killed.

// decidedAtStart leaves out what is not decided when roles start, so that cells which
// differ in that alone share a stage.
func decidedAtStart(p spec.Parameters) spec.Harmless {
	h := p.Harmless
	h.Ledger, h.HugePages = false, ""
	if p.Topology != spec.Hosts { // then it is the machine's
		h.Autocorking = ""
	}
	return h
}

// environment is what the stage's roles are told about their sockets and processors.
func (k stageKey) environment() []string {
	env := []string{"WAGGLE_SOCKET_BUFFERS=" + k.harmless.Buffers, fmt.Sprintf("WAGGLE_TCP_DELAY=%t", k.harmless.Delay)}
	if k.harmless.GOMAXPROCS > 0 {
		env = append(env, fmt.Sprintf("GOMAXPROCS=%d", k.harmless.GOMAXPROCS))
	}
	if k.harmless.EnvironmentBytes > 0 {
		env = append(env, "WAGGLE_PADDING="+strings.Repeat("x", k.harmless.EnvironmentBytes))
	}
	return env
}

// sysctls are the settings of the stage's own network namespaces. The buffers are for
// programs that are not ours: they begin with what ours set themselves.
func (k stageKey) sysctls() map[string]string {
	settings := map[string]string{}
	if k.topology != spec.Hosts {
		return settings
	}
	if bytes, err := humanize.ParseBytes(k.harmless.Buffers); err == nil {
		buffers := fmt.Sprintf("4096 %d %d", bytes, bytes)
		settings["net/ipv4/tcp_rmem"], settings["net/ipv4/tcp_wmem"] = buffers, buffers
	}
	if value := onOff(k.harmless.Autocorking); value != "" {
		settings["net/ipv4/tcp_autocorking"] = value
	}
	return settings
}

// onOff is how the kernel writes such a setting; "" leaves it as it is.
func onOff(level string) string { return map[string]string{"on": "1", "off": "0"}[level] }

// machineSettings are those of the whole machine that a cell changes, by their files.
func machineSettings(p spec.Parameters) map[string]string {
	settings := map[string]string{}
	if p.HugePages != "" && p.HugePages != spec.SettingAsIs {
		settings[topology.HugePages] = p.HugePages
	}
	if value := onOff(p.Autocorking); value != "" && p.Topology != spec.Hosts {
		settings[topology.Autocorking] = value
	}
	return settings
}
