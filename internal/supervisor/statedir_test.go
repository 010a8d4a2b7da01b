package supervisor

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signalman-ci/signalman/internal/admin"
)

func TestStateDirHasOneOwner(t *testing.T) {
	path := filepath.Join(t.TempDir(), "deep", "state")
	first, err := OpenStateDir(path, false)
	require.NoError(t, err)
	_, err = OpenStateDir(path, false)
	require.ErrorIs(t, err, ErrInUse)
	assert.ErrorContains(t, err, "--state-dir")
	require.NoError(t, first.Close())
	second, err := OpenStateDir(path, false)
	require.NoError(t, err)
	assert.Equal(t, first.InstanceID, second.InstanceID, "it marks what earlier supervisors have left")
	require.NoError(t, second.Close())

	other, err := OpenStateDir(t.TempDir(), false)
	require.NoError(t, err)
	assert.NotEqual(t, first.InstanceID, other.InstanceID)
	require.NoError(t, other.Close())
}

func TestStateDirModes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	for _, shared := range []bool{false, true, false} { // job-user may be set and taken away again
		s, err := OpenStateDir(path, shared)
		require.NoError(t, err)
		want := os.FileMode(0o700)
		if shared {
			want = 0o711
		}
		for dir, want := range map[string]os.FileMode{path: want, s.JobsDir(): want, filepath.Dir(s.AgentFile(1)): 0o700} {
			info, err := os.Stat(dir)
			require.NoError(t, err)
			assert.Equal(t, want, info.Mode().Perm(), dir)
		}
		require.NoError(t, s.Close())
	}
}

func TestStateDirThatCannotBe(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	_, err := OpenStateDir(file, false)
	require.ErrorContains(t, err, "(state-dir)")

	// An id that can't be read must not be replaced: what carries it would never be found again. The lock is given back.
	dir := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(dir, "instance-id"), 0o700))
	for range 2 {
		_, err = OpenStateDir(dir, false)
		require.ErrorContains(t, err, "the state folder's id")
	}
}

func TestHomes(t *testing.T) {
	s, err := OpenStateDir(t.TempDir(), false)
	require.NoError(t, err)
	defer s.Close()
	one, err := s.Home(1)
	require.NoError(t, err)
	two, err := s.Home(2)
	require.NoError(t, err)
	assert.NotEqual(t, one, two)
	require.NoError(t, os.WriteFile(filepath.Join(one, "cache"), nil, 0o600))
	again, err := s.Home(1)
	require.NoError(t, err)
	assert.Equal(t, one, again)
	assert.FileExists(t, filepath.Join(again, "cache"))
}

// The sockets' folder follows from the state folder, however that is named, and leaves room for the sockets' own names.
func TestRunDir(t *testing.T) {
	deep := filepath.Join(t.TempDir(), strings.Repeat("very/", 60))
	one, err := RunDir(deep)
	require.NoError(t, err)
	same, err := RunDir(deep + "/x/..")
	require.NoError(t, err)
	other, err := RunDir(deep + "/x")
	require.NoError(t, err)
	assert.Equal(t, one, same)
	assert.NotEqual(t, one, other)
	assert.Less(t, len(filepath.Join(one, "plugin-dir1234567890", "plugin1234567890")), 108)
	assert.Less(t, len(filepath.Join(one, admin.SocketName)), 108)
}

func TestRunDirOfSomebodyElse(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, checkOwn(dir))
	require.NoError(t, os.Chmod(dir, 0o777))
	require.ErrorContains(t, checkOwn(dir), "not this user's alone")
	link := filepath.Join(t.TempDir(), "link")
	require.NoError(t, os.Symlink(t.TempDir(), link))
	require.Error(t, checkOwn(link), "a link may lead anywhere")
	if os.Getuid() == 0 {
		foreign := t.TempDir()
		require.NoError(t, os.Chown(foreign, 65534, 65534))
		require.Error(t, checkOwn(foreign))
	}
}
