package supervisor

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signalman-ci/signalman/internal/admission"
	"github.com/signalman-ci/signalman/internal/agent"
	"github.com/signalman-ci/signalman/internal/jobdir"
	"github.com/signalman-ci/signalman/internal/testdisk"
)

func open(t *testing.T, s Settings) (*Supervisor, *bytes.Buffer) {
	t.Helper()
	log := &bytes.Buffer{}
	s.Logger = hclog.New(&hclog.LoggerOptions{Output: log})
	if s.StateDir == "" {
		s.StateDir = t.TempDir()
	}
	sup, err := Open(s)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, sup.Close()) })
	return sup, log
}

func TestStateDirHasOneOwner(t *testing.T) {
	dir := t.TempDir()
	first, err := OpenStateDir(dir, false)
	require.NoError(t, err)
	_, err = OpenStateDir(dir, false)
	require.ErrorIs(t, err, ErrInUse)
	assert.Contains(t, err.Error(), dir)
	require.NoError(t, first.Close())

	second, err := OpenStateDir(dir, false)
	require.NoError(t, err)
	assert.Equal(t, first.InstanceID, second.InstanceID, "the id is made once")
	require.NoError(t, second.Close())
}

func TestStateDirLetsOthersThroughOnlyForJobUsers(t *testing.T) {
	for shared, mode := range map[bool]os.FileMode{false: 0o700, true: 0o711} {
		dir, err := OpenStateDir(filepath.Join(t.TempDir(), "state"), shared)
		require.NoError(t, err)
		for _, path := range []string{dir.Path, dir.JobsDir()} {
			info, err := os.Stat(path)
			require.NoError(t, err)
			assert.Equal(t, mode, info.Mode().Perm(), path)
		}
		info, err := os.Stat(filepath.Dir(dir.AgentFile(1)))
		require.NoError(t, err)
		assert.Equal(t, os.FileMode(0o700), info.Mode().Perm(), "tokens are nobody else's")
		require.NoError(t, dir.Close())
	}
}

func TestRunDirIsShortAndFollowsTheStateDir(t *testing.T) {
	long := "/" + strings.Repeat("very-long/", 30)
	a, err := RunDir(long + "a")
	require.NoError(t, err)
	b, err := RunDir(long + "b")
	require.NoError(t, err)
	again, err := RunDir(long + "x/../a")
	require.NoError(t, err)
	assert.NotEqual(t, a, b)
	assert.Equal(t, a, again)
	assert.Less(t, len(a), 60, "there must be room for a socket's name")
}

func TestSlotsHaveTheirOwn(t *testing.T) {
	sup, _ := open(t, Settings{Slots: 2, Agent: agent.Settings{}})
	sup.Agent.Registration.Name = "host"
	one, err := sup.agentSettings(1)
	require.NoError(t, err)
	two, err := sup.agentSettings(2)
	require.NoError(t, err)
	assert.Equal(t, "host", one.Registration.Name)
	assert.Equal(t, "host-2", two.Registration.Name)
	assert.NotEqual(t, one.File, two.File)
	assert.NotEqual(t, one.Job.Home, two.Job.Home)
	assert.DirExists(t, two.Job.Home)
}

func TestOneSlotKeepsTheUsersHome(t *testing.T) {
	sup, _ := open(t, Settings{Slots: 1})
	s, err := sup.agentSettings(1)
	require.NoError(t, err)
	assert.Empty(t, s.Job.Home)
}

func TestJobUsers(t *testing.T) {
	sup, _ := open(t, Settings{Slots: 3, JobUsers: []string{"ci"}})
	s, err := sup.agentSettings(3)
	require.NoError(t, err)
	assert.Equal(t, "ci", s.Job.User)

	sup, _ = open(t, Settings{Slots: 2, JobUsers: []string{"ci1", "ci2"}})
	s, err = sup.agentSettings(2)
	require.NoError(t, err)
	assert.Equal(t, "ci2", s.Job.User)
	assert.Empty(t, s.Job.Home, "different users have different homes")

	_, err = Open(Settings{Slots: 3, JobUsers: []string{"ci1", "ci2"}, StateDir: t.TempDir()})
	assert.ErrorContains(t, err, "job-user names 2 users for 3 slots")
}

// A slot is admitted by the room in the state folder, in /tmp and in its own home, and by what else is to hold.
func TestAdmission(t *testing.T) {
	full, room := testdisk.Mount(t, testdisk.Limits{Bytes: 1 << 20}), testdisk.Mount(t, testdisk.Limits{Bytes: 4 << 20})
	admit := func(change func(*Settings)) error {
		set := Settings{Slots: 1, StateDir: filepath.Join(room, "state"), Floors: admission.Floors{Disk: 2 << 20}}
		change(&set)
		t.Setenv("HOME", full)
		var err error
		t.Run("admit", func(t *testing.T) {
			sup, _ := open(t, set)
			a, settingsErr := sup.agentSettings(1)
			require.NoError(t, settingsErr)
			err = a.Admit(context.Background())
		})
		return err
	}
	require.NoError(t, admit(func(s *Settings) { s.Slots = 2 }), "with a home in the state folder")
	require.ErrorContains(t, admit(func(*Settings) {}), "of disk free at "+full+" (admission.min-disk is 2 MiB)")
	require.NoError(t, admit(func(s *Settings) { s.JobUsers = []string{"root"} }))
	require.ErrorContains(t, admit(func(s *Settings) { s.Slots, s.StateDir = 2, filepath.Join(full, "state") }), full)
	require.ErrorContains(t, admit(func(s *Settings) { s.Slots, s.Floors.Disk = 2, 1<<62 }), "/tmp")
	require.EqualError(t, admit(func(s *Settings) {
		s.Slots, s.AdmissionChecks = 2, []func() error{func() error { return errors.New("limits can't be enforced") }}
	}), "limits can't be enforced")
}

func TestRecoverSortsJobsBySlotAndSetsBrokenFoldersAside(t *testing.T) {
	sup, log := open(t, Settings{Slots: 2})
	jobs := sup.dir.JobsDir()
	for _, j := range []struct {
		id   string
		slot int
	}{{"older", 2}, {"newer", 2}, {"other", 1}} {
		_, err := jobdir.Create(jobs, j.id, j.slot)
		require.NoError(t, err)
	}
	done, err := jobdir.Create(jobs, "done", 1)
	require.NoError(t, err)
	require.NoError(t, done.Finish())
	require.NoError(t, os.MkdirAll(filepath.Join(jobs, "rubbish"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(jobs, "rubbish", "job.json"), []byte("{"), 0o600))

	found, err := sup.recover()
	require.NoError(t, err)
	require.Len(t, found[2], 2)
	assert.Equal(t, "newer", newest(found[2]).ID())
	require.Len(t, found[1], 1)
	assert.DirExists(t, filepath.Join(jobs, "rubbish.broken"))
	assert.Equal(t, 1, strings.Count(log.String(), "rubbish.broken"), "one line says so: %s", log)

	again, err := sup.recover()
	require.NoError(t, err)
	assert.Len(t, again, 2)
	assert.Equal(t, 1, strings.Count(log.String(), "set aside"), "once")
}

func TestShutdownHook(t *testing.T) {
	dir := t.TempDir()
	hook := filepath.Join(dir, "hook.sh")
	require.NoError(t, os.WriteFile(hook, []byte("echo \"$SEMAPHORE_AGENT_SHUTDOWN_REASON\" >>"+dir+"/ran; exit 3\n"), 0o600))
	sup, log := open(t, Settings{Slots: 1, ShutdownHook: hook})
	sup.shutdownHook(context.Background(), agent.Idle)
	ran, err := os.ReadFile(filepath.Join(dir, "ran"))
	require.NoError(t, err)
	assert.Equal(t, "IDLE\n", string(ran))
	assert.Contains(t, log.String(), "the shutdown hook failed")
}

// Fewer slots than at the last start: a job that one of them holds doesn't block the start, and the slot takes no other job.
func TestSlotsThatShrinkAreDrained(t *testing.T) {
	for name, users := range map[string][]string{"no users": nil, "a user a slot": {"ci1", "ci2"}} {
		t.Run(name, func(t *testing.T) {
			sup, _ := open(t, Settings{Slots: 2, JobUsers: users})
			folder, err := jobdir.Create(sup.dir.JobsDir(), "held", 3)
			require.NoError(t, err)
			agents, err := sup.makeSlots(map[int][]*jobdir.Folder{3: {folder}})
			require.NoError(t, err)
			require.Len(t, agents, 3)
			assert.Equal(t, []bool{false, false, true}, []bool{agents[0].Drain, agents[1].Drain, agents[2].Drain})
			assert.Equal(t, users != nil, folder.State().StopRequested, "a job that has not begun doesn't run as the supervisor's user")
		})
	}
}

// The hook has no use for the registration token, and may leave a child behind that keeps its output open.
func TestShutdownHookHasNoTokenAndMayLeaveAChild(t *testing.T) {
	t.Setenv("SEMAPHORE_AGENT_TOKEN", "s3cret")
	hook := filepath.Join(t.TempDir(), "hook.sh")
	require.NoError(t, os.WriteFile(hook, []byte("echo \"token:$SEMAPHORE_AGENT_TOKEN\"; sleep 1000 & echo child:$!\n"), 0o600))
	sup, log := open(t, Settings{Slots: 1, ShutdownHook: hook})
	sup.shutdownHook(context.Background(), agent.Idle)
	said := log.String()
	assert.Contains(t, said, "the shutdown hook has run")
	assert.NotContains(t, said, "s3cret")
	child := regexp.MustCompile(`child:(\d+)`).FindStringSubmatch(said)
	require.NotNil(t, child, said)
	pid, err := strconv.Atoi(child[1])
	require.NoError(t, err)
	process, err := os.FindProcess(pid)
	require.NoError(t, err)
	require.NoError(t, process.Kill(), "it goes on")
}
