package figure

import (
	"cmp"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"waggle/analysis/synthetic"
)

func TestLook(t *testing.T) {
	run := synthetic.Realistic(t)
	figures, skipped, err := DrawAll(run)
	require.NoError(t, err)
	require.Empty(t, skipped)
	require.NoError(t, WriteAll(cmp.Or(os.Getenv("LOOK"), t.TempDir()), figures))
	for _, f := range figures {
		t.Log(f.Name, f.Alt, f.Notes)
	}
}
