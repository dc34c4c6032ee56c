package sockmap

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

// Where these fail, so would the paths; the machine this is developed for has all.
func TestSupported(t *testing.T) {
	requireRoot(t)
	assert.NoError(t, IngressSupported())
	assert.NoError(t, RelaySupported())
}
