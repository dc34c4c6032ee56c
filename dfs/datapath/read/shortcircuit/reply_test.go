package shortcircuit

import (
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"waggle/dfs/wire"
)

// A reply is understood, refused for a reason, or malformed, whatever came; and
// what is understood can be used without a look behind any memory or file.
func FuzzReply(f *testing.F) {
	good := reply{slots - 1, 2, 3, 4}.append(nil)
	f.Add(good, 2)
	f.Add(good, 1)
	f.Add(good[:replySize-1], 2)
	f.Add(reply{slots, 2, 3, 4}.append(nil), 2)
	f.Add(reply{1, 2, 3, -1}.append(nil), 2)
	f.Add(appendRefusal(nil, wire.StatusNotFound, "no such chunk"), 0)
	f.Add(appendRefusal(nil, math.MaxUint32, strings.Repeat("x", maxText+1)), 2)
	f.Fuzz(func(t *testing.T, text []byte, files int) {
		r, err := parseReply(text, files)
		var refused *RefusedError
		switch {
		case errors.As(err, &refused):
			require.NotEqual(t, wire.StatusOK, refused.Status)
		case err != nil:
			require.ErrorIs(t, err, wire.ErrMalformed)
		default:
			require.Less(t, r.slot, uint32(slots))
			require.GreaterOrEqual(t, r.sumsStart, int64(0))
			require.Equal(t, 2, files)
			require.Equal(t, text[:replySize], r.append(nil))
		}
	})
}

// Any request of the right length is answered, any other ends the connection:
// the server goes on either way.
func FuzzRequest(f *testing.F) {
	f.Add([]byte("0123456789abcdef"))
	f.Add([]byte("x"))
	f.Add([]byte(strings.Repeat("y", 100)))
	f.Fuzz(func(t *testing.T, request []byte) {
		l := lend(t)
		c := dial(t, l)
		c.conn.Write(request)
		_, err := dial(t, l).Borrow(t.Context(), 1, 0)
		require.NoError(t, err)
	})
}
