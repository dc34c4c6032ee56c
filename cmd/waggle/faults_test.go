package main

import (
	"encoding/json"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"waggle/bpf/faults"
)

func TestFaultsSaysWhatIsWrong(t *testing.T) {
	for _, args := range [][]string{{"--drop", "101"}, {"--drop", "-1"}, {"--from", "nobody", "--cut"}, {"--hold", "1h", "--cut"}, {},
		{"--from", "127.0.0.1", "--to", "::1", "--cut"}} {
		code, _, stderr := waggle(t, append([]string{"faults", "--interface", "lo", "--for", "1ns"}, args...)...)
		if os.Geteuid() != 0 && code == exitUnsupported {
			continue
		}
		require.Equal(t, exitUsage, code, args)
		require.Regexp(t, `^waggle: [^\n]+\n$`, stderr, args)
	}
}

func TestFaultsAreInjectedForATime(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("faults need root")
	}
	// An address that nobody has: other tests use this interface.
	code, stdout, stderr := waggle(t, "faults", "--interface", "lo", "--to", "127.99.99.99", "--both-ways", "--drop", "0.5", "--reorder", "1", "--for", "1ms", "--json")
	require.Zero(t, code, stderr)
	var done map[faults.Hook]faults.Counters
	require.NoError(t, json.Unmarshal([]byte(stdout), &done))
	require.Equal(t, map[faults.Hook]faults.Counters{faults.Egress: {}, faults.Ingress: {}}, done)
}
