package admin

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestToken(t *testing.T) {
	dir := t.TempDir()
	_, err := ReadToken(dir)
	require.ErrorIs(t, err, ErrNoToken)
	made, err := MakeToken(dir)
	require.NoError(t, err)
	assert.GreaterOrEqual(t, len(made), 40)
	info, err := os.Stat(filepath.Join(dir, tokenName))
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	again, err := MakeToken(dir)
	require.NoError(t, err)
	assert.Equal(t, made, again, "it is made once")
	other, err := MakeToken(t.TempDir())
	require.NoError(t, err)
	assert.NotEqual(t, made, other)

	require.NoError(t, os.WriteFile(filepath.Join(dir, tokenName), []byte("short\n"), 0o600))
	_, err = MakeToken(dir)
	require.ErrorContains(t, err, "too short")
	require.NoError(t, os.WriteFile(filepath.Join(dir, tokenName), nil, 0o600)) // a power loss
	anew, err := MakeToken(dir)
	require.NoError(t, err)
	assert.NotEqual(t, made, anew)
}
