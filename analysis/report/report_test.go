package report

import (
	"cmp"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"waggle/analysis/figure"
	"waggle/analysis/synthetic"
)

func TestLook(t *testing.T) {
	run := synthetic.Realistic(t)
	figures, skipped, err := figure.DrawAll(run)
	require.NoError(t, err)
	r, err := Make(run, figures, skipped)
	require.NoError(t, err)
	require.NoError(t, r.Write(cmp.Or(os.Getenv("LOOK"), t.TempDir())))
}
