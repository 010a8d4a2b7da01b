package hostuser

import (
	"os/user"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestLookup(t *testing.T) {
	self, err := user.Current()
	require.NoError(t, err)
	for _, name := range []string{self.Username, self.Uid} {
		u, err := Lookup(name)
		require.NoError(t, err)
		assert.Equal(t, self.Uid, u.Uid)
	}
	_, err = Lookup("nobody of that name")
	require.ErrorContains(t, err, "nobody of that name")
}
