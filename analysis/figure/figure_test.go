package figure

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestLook(t *testing.T) {
	run := realistic(t)
	figures, skipped, err := DrawAll(run)
	require.NoError(t, err)
	require.Empty(t, skipped)
	require.NoError(t, WriteAll(os.Getenv("LOOK"), figures))
	for _, f := range figures {
		t.Log(f.Name, f.Alt, f.Notes)
	}
}
