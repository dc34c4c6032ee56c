package storm

import (
	"errors"

	"waggle/dfs/client"
)

// saysLost says whether an error tells that writes that were acknowledged before
// may be lost.
func saysLost(err error) bool { return errors.Is(err, client.ErrLost) }
