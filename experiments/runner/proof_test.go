package runner

import (
	"testing"

	"github.com/stretchr/testify/require"

	"waggle/dfs/datapath"
	"waggle/experiments/spec"
	"waggle/results"
)

// counted is what a role has counted.
func counted(name string, n int64) map[string]map[string]int64 {
	return map[string]map[string]int64{"chunk": {name: n}}
}

func prove(info datapath.Info, p proof) (results.Record, error) {
	r := &run{support: support{infos: map[string]datapath.Info{p.cell.Timed()[0]: info}}}
	var record results.Record
	return record, r.fillProof(&record, p)
}

// A path must have taken 98 of 100 bytes, or operations, and not merely some.
func TestNearlyAllOfATrialMustHaveGoneItsWay(t *testing.T) {
	reads := spec.Parameters{Workload: spec.SequentialRead, Read: "copy", SizeBytes: 4096}
	for counter, info := range map[string]datapath.Info{
		"read_copy_bytes":   {Proof: []string{"read_copy_bytes"}},
		"read_copy_answers": {Proof: []string{"read_copy_answers"}},
	} {
		for n, valid := range map[int64]bool{1000: true, 980: true, 979: false, 595: false, 1: false, 0: false} {
			p := proof{cell: reads, grown: counted(counter, n), payload: 1000, count: 1000}
			_, err := prove(info, p)
			require.Equal(t, valid, err == nil, "%s %d", counter, n)
			if n == 595 {
				require.ErrorContains(t, err, "no proof that read=copy was taken: "+counter+" grew by 595, which is 59.5 % of 1000 ")
			}
		}
	}
}

// All roles' counts are added up, and what is watched is recorded beside them.
func TestProofIsRecorded(t *testing.T) {
	info := datapath.Info{Proof: []string{"read_copy_bytes"}, Watched: []string{"read_copy_passed_bytes"}}
	r := &run{support: support{infos: map[string]datapath.Info{"read=copy": info}}}
	var record results.Record
	require.NoError(t, r.fillProof(&record, proof{cell: spec.Parameters{Workload: spec.SequentialRead, Read: "copy"}, payload: 6, count: 1,
		grown: map[string]map[string]int64{"chunk": {"read_copy_bytes": 5, "read_copy_passed_bytes": 2}, "client": {"read_copy_bytes": 1, "other": 9}}}))
	require.Equal(t, map[string]int64{"read_copy_bytes": 6, "read_copy_passed_bytes": 2}, record.Proof)
}

// Of lookups of which half are of known names, half must be answered by the kernel.
func TestAPathForHitsNeedsNoMisses(t *testing.T) {
	info := datapath.Info{Proof: []string{"answered"}, HitsOnly: true}
	cell := spec.Parameters{Workload: spec.Lookup, Lookup: "xdp", HitPercent: 50}
	for n, valid := range map[int64]bool{5000: true, 4800: true, 4000: false} {
		_, err := prove(info, proof{cell: cell, grown: counted("answered", n), count: 10_000})
		require.Equal(t, valid, err == nil, n)
	}
	cell.HitPercent = 100
	_, err := prove(info, proof{cell: cell, grown: counted("answered", 5000), count: 10_000})
	require.ErrorContains(t, err, "50.0 % of 10000 operations")
}

// Generic XDP is not what a link between hosts is for; the loopback has nothing else.
func TestALesserModeIsNoProofBetweenHosts(t *testing.T) {
	info := datapath.Info{Proof: []string{"answered"}, Lesser: []string{"mode_generic"}}
	cell := spec.Parameters{Workload: spec.Lookup, Lookup: "xdp", HitPercent: 100, Topology: spec.Hosts}
	p := proof{cell: cell, grown: counted("answered", 10), now: counted("mode_generic", 1), count: 10}
	_, err := prove(info, p)
	require.ErrorContains(t, err, "mode_generic says")
	p.cell.Topology = spec.Local
	_, err = prove(info, p)
	require.NoError(t, err)
}
