package doctor

import (
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signalman-ci/signalman/internal/job"
	"github.com/signalman-ci/signalman/internal/supervisor"
	"github.com/signalman-ci/signalman/shared/protocol"
)

func TestOpenFiles(t *testing.T) {
	for _, c := range []struct {
		most  uint64
		slots int
		want  Status
	}{{1024, 1, OK}, {1024, 12, OK}, {1024, 13, Warning}, {256, 1, Warning}, {63, 1, Failure}, {1 << 63, 256, OK}} {
		assert.Equal(t, c.want, enoughFiles("open files", "hint", c.most, c.slots).Status, "%v", c)
	}
	isOneLine(t, files(t.Context(), Settings{Slots: 1}))
}

func TestUsers(t *testing.T) {
	c := one(t, users(t.Context(), Settings{}), "job-user")
	assert.Equal(t, Warning, c.Status)
	assert.Contains(t, c.Hint, "set job-user")
	me, err := user.Current()
	require.NoError(t, err)
	assert.Equal(t, Warning, one(t, users(t.Context(), Settings{JobUsers: []string{me.Uid}}), "job-user").Status)
	assert.Equal(t, Failure, one(t, users(t.Context(), Settings{JobUsers: []string{"no-such-user-here"}}), "job-user").Status)
	if os.Geteuid() != 0 {
		assert.Equal(t, Failure, one(t, users(t.Context(), Settings{JobUsers: []string{"nobody"}}), "job-user").Status)
		t.Skip("the rest needs root")
	}
	dir, err := os.MkdirTemp("/tmp", "signalman-doctor-")
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	s := Settings{JobUsers: []string{"nobody"}, StateDir: filepath.Join(dir, "a/state"), Slots: 2}
	c = one(t, users(t.Context(), s), "job-user")
	assert.Equal(t, Failure, c.Status, "the folder is root's alone")
	assert.Contains(t, c.Message, "can't pass through "+dir)
	require.NoError(t, os.Chmod(dir, 0o711))
	c = one(t, users(t.Context(), s), "job-user")
	assert.Equal(t, OK, c.Status, "%+v", c)
	assert.Contains(t, c.Message, "read each other's files")
}

func TestCgroups(t *testing.T) {
	for _, limits := range []protocol.Limits{{}, {Memory: 64 << 20, Pids: 100}} {
		checks := cgroups(t.Context(), Settings{Job: job.Settings{Limits: limits}})
		isOneLine(t, checks)
		one(t, checks, "cgroups")
	}
}

// What is made for a trial goes again.
func TestCgroupsLeaveNothing(t *testing.T) {
	id := uuid.NewString()
	_, err := supervisor.CheckCgroups(id, protocol.Limits{Memory: 64 << 20, Pids: 100})
	t.Log(err) // what this machine allows is its affair
	require.NoError(t, filepath.WalkDir("/sys/fs/cgroup", func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() {
			assert.NotContains(t, entry.Name(), "signalman-"+id[:8], path)
		}
		return nil
	}))
}
