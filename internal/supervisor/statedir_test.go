package supervisor

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/signalman-ci/signalman/internal/job"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

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

// What isn't a state folder yet, or isn't one at all, is left as it is.
func TestForeignFolder(t *testing.T) {
	dir := t.TempDir()
	theirs := filepath.Join(dir, ".new-theirs")
	require.NoError(t, os.WriteFile(theirs, nil, 0o600))
	_, err := ReconcileAlone(t.Context(), dir, job.Settings{}, hclog.NewNullLogger(), true)
	require.ErrorContains(t, err, "is no supervisor's state folder")
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	assert.Len(t, entries, 1)
	for range 2 { // from the second time on it is known to be ours
		require.FileExists(t, theirs)
		s, err := OpenStateDir(dir, false)
		require.NoError(t, err)
		require.NoError(t, s.Close())
	}
	assert.NoFileExists(t, theirs)
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
