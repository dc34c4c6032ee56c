package storm

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The model itself: what it allows and what it finds.
func TestCellsAreJudgedByWhatWasAcknowledged(t *testing.T) {
	newModel := func() (*cells, func(acked bool) (*cellWrite, []byte)) {
		c := newCells(&clock{time.Now()}, 7, 1, 4)
		return c, func(acked bool) (*cellWrite, []byte) {
			data, writes := c.begin(0, 1)
			c.end(writes, acked)
			return writes[0], data
		}
	}
	read := func(c *cells, data []byte) string {
		now := c.clock.now()
		return c.judge(now, now+1, 0, data)
	}
	c, write := newModel()
	_, first := write(true)
	require.Empty(t, read(c, first))
	require.Contains(t, read(c, make([]byte, cellSize)), "zeros")
	_, second := write(true)
	require.Empty(t, read(c, second))
	require.Contains(t, read(c, first), "acknowledged before")

	_, failed := write(false)
	require.Empty(t, read(c, second), "a failed write may not have happened")
	require.Empty(t, read(c, failed), "or it may")
	early := c.clock.now()
	_, third := write(true)
	require.Empty(t, c.judge(early, c.clock.now(), 0, second), "a read that began before the write ended")
	require.Contains(t, read(c, failed), "acknowledged before", "what has failed does not happen later")

	c.lose()
	require.Empty(t, read(c, third))
	require.Empty(t, read(c, second), "the third was not synced")
	require.True(t, c.mayBeDamaged(1), "it is in the same block")

	c, write = newModel()
	_, old := write(true)
	w, _ := write(true)
	c.sync([]*cellWrite{w})
	c.lose()
	require.False(t, c.mayBeDamaged(0) && len(c.writes[0]) == 1)
	require.Contains(t, read(c, old), "acknowledged before", "what was synced stays")

	c, write = newModel()
	_, old = write(true)
	w, _ = write(true)
	c.tellLost([]*cellWrite{w})
	require.Empty(t, read(c, old), "its writer was told")
	wrong := append([]byte(nil), old...)
	wrong[cellSize-1]++
	require.Contains(t, read(c, wrong), "nobody wrote")
}
