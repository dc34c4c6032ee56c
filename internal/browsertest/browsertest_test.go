package browsertest

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A test that can't see a complaint would pass on any page.
func TestComplaintsAreSeen(t *testing.T) {
	b := Start(t)
	b.Open("about:blank", 800)
	Look[bool](b, `console.error('seen') === undefined`)
	require.Eventually(t, func() bool { return len(b.Complaints()) > 0 }, 10*time.Second, 10*time.Millisecond)
}
