package experiments

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// A set names experiments that there are, each once.
func TestSetsNameExperiments(t *testing.T) {
	for name, set := range sets {
		seen := map[string]bool{}
		for _, e := range set {
			require.Contains(t, Names(), e, name)
			require.False(t, seen[e], "%s has %s twice", name, e)
			seen[e] = true
		}
		require.NotContains(t, Names(), name)
	}
	require.Equal(t, Names(), Set("all"))
	require.Equal(t, []string{"read-path"}, Set("read-path"))
}
