package pluginhost

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Workers that nobody knows end, with their sockets; those of jobs stay, and so does what isn't a worker's.
func TestEndStrays(t *testing.T) {
	l := launch(t)
	known, unknown := start(t, l), start(t, l)
	other := filepath.Join(l.RunDir, "admin.sock")
	require.NoError(t, os.WriteFile(other, nil, 0o600))
	dead := filepath.Join(l.RunDir, "plugin-dir1") // of one that ended before it listened
	interrupted := filepath.Join(l.RunDir, "stray-plugin-dir2")
	require.NoError(t, os.Mkdir(dead, 0o700))
	require.NoError(t, os.Mkdir(interrupted, 0o700))

	require.NoError(t, EndStrays(l.RunDir, []string{known.Address().Socket}))
	unknown.requireEnded(t)
	assert.Equal(t, "exit code 0", unknown.Status().String(), "it has ended by itself")
	assert.True(t, known.Address().Process.Alive())
	_, err := known.Describe(deadline(t))
	assert.NoError(t, err)
	assert.FileExists(t, other)
	for _, path := range []string{filepath.Dir(unknown.Address().Socket), dead, interrupted} {
		assert.NoDirExists(t, path)
	}

	require.NoError(t, os.Remove(other))
	require.NoError(t, EndStrays(l.RunDir, nil))
	known.requireEnded(t)
	require.NoError(t, EndStrays(filepath.Join(l.RunDir, "missing"), nil))
}
