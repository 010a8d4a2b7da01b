package supervisor

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signalman-ci/signalman/internal/agent"
	"github.com/signalman-ci/signalman/internal/config"
	"github.com/signalman-ci/signalman/internal/filewatch"
	"github.com/signalman-ci/signalman/internal/hub"
	"github.com/signalman-ci/signalman/internal/hub/hubtest"
	"github.com/signalman-ci/signalman/internal/regtoken"
	"github.com/signalman-ci/signalman/shared/protocol"
)

// load is what the next reload reads.
type load struct {
	set      atomic.Pointer[Settings]
	err      atomic.Pointer[error]
	warnings []string
}

// change makes the next reload read other settings.
func (l *load) change(how func(*Settings)) {
	next := *l.set.Load()
	how(&next)
	l.set.Store(&next)
}

func (l *load) fail(err error) { l.err.Store(&err) }

// reloadable gives the world's supervisor something to read anew.
func (w *world) reloadable() *load {
	w.t.Helper()
	w.set.Config = w.config("")
	first := w.set
	l := &load{}
	l.set.Store(&first)
	w.set.Load = func() (Settings, []string, error) {
		if err := l.err.Swap(nil); err != nil {
			return Settings{}, nil, *err
		}
		return *l.set.Load(), l.warnings, nil
	}
	return l
}

func (w *world) config(file string) *config.Config {
	w.t.Helper()
	c, _, err := config.Parse(config.Sources{
		Flags: map[string][]string{"endpoint": {w.hub.Endpoint()}, "token": {"t"}}, Root: true, Path: "agent.toml", File: []byte(file),
	})
	require.NoError(w.t, err)
	return c
}

func (w *world) eventually(what string, holds func() bool) {
	w.t.Helper()
	require.Eventually(w.t, holds, patience, 2*time.Millisecond, "%s; log:\n%s", what, w.log)
}

// registered waits until the hub has agents of just these names, which have synced.
func (w *world) registered(names ...string) {
	w.t.Helper()
	require.NoError(w.t, w.hub.WaitAgents(w.ctx(), func(agents []hubtest.Agent) bool {
		var known []string
		for _, a := range agents {
			if !a.LastSync.IsZero() {
				known = append(known, a.Name)
			}
		}
		return assert.ObjectsAreEqual(names, known) && len(agents) == len(names)
	}), "log:\n%s", w.log)
}

func (w *world) submit(commands ...string) string {
	w.t.Helper()
	id, err := w.hub.Submit(hubtest.Request{Commands: commands})
	require.NoError(w.t, err)
	return id
}

func (w *world) logOf(id string) string { return string(bytes.Join(w.hub.LogLines(id), []byte("\n"))) }

func (w *world) outputHas(id, text string) {
	w.t.Helper()
	w.eventually("the log lacks "+text, func() bool { return strings.Contains(w.logOf(id), text) })
}

// A job keeps the settings that it began with; the slot's next one has the new ones.
func TestReloadWithAJob(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	l := w.reloadable()
	s := w.open()
	done := w.run(s)
	gate := filepath.Join(t.TempDir(), "gate")
	first := w.submit("echo first $WHAT", "until [ -e "+gate+" ]; do sleep 0.05; done", "echo still $WHAT")
	w.outputHas(first, "first")
	second := w.submit("echo second $WHAT")
	l.warnings = []string{"mind this"}
	l.change(func(set *Settings) {
		set.Agent.Job.Env = []protocol.EnvVar{{Name: "WHAT", Value: "new"}}
		set.Config = w.config(`env-vars = ["WHAT=new"]`)
	})
	report, err := s.Reload()
	require.NoError(t, err)
	assert.Equal(t, []config.Change{{Key: "env-vars", Old: "[]", New: `["WHAT=[hidden]"]`, When: config.NextJob}}, report.Changes)
	assert.Equal(t, []string{"mind this"}, report.Warnings)
	st := s.Status()
	assert.True(t, st.Slots[0].Pending)
	assert.Equal(t, report.Changes, st.LastReload.Changes)
	require.NoError(t, os.WriteFile(gate, nil, 0o600))
	w.passed(first)
	w.passed(second)
	assert.Contains(t, w.logOf(first), `"still\n"`)
	w.outputHas(second, `"second new\n"`)
	assert.Equal(t, 1, w.hub.Requests(hubtest.Register))
	assert.False(t, s.Status().Slots[0].Pending)
	s.Interrupt()
	require.NoError(t, w.await(done))
}

// More slots are begun, fewer are drained: one with a job first ends that. A slot that was to go and is wanted again stays.
func TestReloadSlots(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	l := w.reloadable()
	s := w.open()
	done := w.run(s)
	w.registered("host")
	reload := func(slots int) {
		t.Helper()
		l.change(func(set *Settings) { set.Slots = slots })
		_, err := s.Reload()
		require.NoError(t, err)
	}
	reload(3)
	w.registered("host", "host-2", "host-3")
	gate := filepath.Join(t.TempDir(), "gate")
	wait := "until [ -e " + gate + " ]; do sleep 0.05; done"
	var jobs []string
	for range 3 {
		id := w.submit("echo here", wait)
		w.outputHas(id, "here")
		jobs = append(jobs, id)
	}
	reload(1)
	reload(2) // the second one is wanted again, and was not gone yet
	require.NoError(t, os.WriteFile(gate, nil, 0o600))
	for _, id := range jobs {
		w.passed(id)
	}
	w.registered("host", "host-2")
	w.eventually("a slot that has left is still told of", func() bool { return len(s.Status().Slots) == 2 })
	assert.Equal(t, 3, w.hub.Requests(hubtest.Register))
	reload(3)
	w.registered("host", "host-2", "host-3")
	w.passed(w.submit("true"))
	s.Interrupt()
	require.NoError(t, w.await(done))
	w.requireHook("INTERRUPTED\n")
}

// Another name needs another registration, which a slot gets when its job has ended. Then a slot that could not register gets it.
func TestReloadRegistration(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	l := w.reloadable()
	s := w.open()
	done := w.run(s)
	gate := filepath.Join(t.TempDir(), "gate")
	job := w.submit("echo here", "until [ -e "+gate+" ]; do sleep 0.05; done")
	w.outputHas(job, "here")
	l.change(func(set *Settings) {
		set.Agent.Registration.Name, set.Config = "other", w.config(`name = "other"`)
	})
	report, err := s.Reload()
	require.NoError(t, err)
	assert.Equal(t, config.NewRegistration, report.Changes[0].When)
	w.registered("host")
	require.NoError(t, os.WriteFile(gate, nil, 0o600))
	w.passed(job)
	w.registered("other")
	w.passed(w.submit("true"))
	s.Interrupt()
	require.NoError(t, w.await(done))
}

// What can't be read changes nothing and is told until it is mended.
func TestReloadOfABrokenConfiguration(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	l := w.reloadable()
	s := w.open()
	_, err := s.Reload()
	require.ErrorContains(t, err, "about to start")
	assert.Nil(t, s.Status().LastReload, "that is no fault of the configuration")
	done := w.run(s)
	w.registered("host")
	l.fail(errors.New("agent.toml:3: concurrency: what\nagent.toml:4: name: which"))
	_, err = s.Reload()
	require.ErrorContains(t, err, "agent.toml:3: concurrency")
	assert.Contains(t, w.log.String(), `reason="agent.toml:3: concurrency: what; agent.toml:4: name: which"`)
	assert.Contains(t, s.Status().LastReload.Error, "agent.toml:4")
	w.passed(w.submit("true"))
	_, err = s.Reload()
	require.NoError(t, err)
	assert.Empty(t, s.Status().LastReload.Error)
	assert.Equal(t, 1, w.hub.Requests(hubtest.Register))
	s.Interrupt()
	require.NoError(t, w.await(done))
	_, err = s.Reload()
	require.ErrorContains(t, err, "on its way out")
	assert.Empty(t, s.Status().LastReload.Error)
}

// A change that can only be had by a restart is told again until then, and an upgrade isn't that.
func TestReloadOfAnotherStateDir(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.set.CheckUpgrade = passes
	l := w.reloadable()
	s := w.open()
	done := w.run(s)
	w.registered("host")
	l.change(func(set *Settings) { set.StateDir, set.Config = "/elsewhere", w.config(`state-dir = "/elsewhere"`) })
	for range 2 {
		report, err := s.Reload()
		require.NoError(t, err)
		require.Len(t, report.Changes, 1)
		assert.Equal(t, config.Restart, report.Changes[0].When)
	}
	_, err := s.Upgrade(w.ctx())
	require.ErrorContains(t, err, "state-dir is /elsewhere now")
	w.passed(w.submit("true"))
	s.Interrupt()
	require.NoError(t, w.await(done))
}

// The file's change is enough; the manager is told.
func TestReloadOnChange(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	manager := make(listener, 1000)
	w.set.Manager = manager
	l := w.reloadable()
	file := filepath.Join(t.TempDir(), "agent.toml")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	w.set.Watch = filewatch.New(filewatch.Options{Files: []string{file}, Quiet: time.Millisecond})
	s := w.open()
	done := w.run(s)
	w.hears(manager, "READY")
	l.change(func(set *Settings) { set.Slots, set.Config = 2, w.config("concurrency = 2") })
	require.NoError(t, os.WriteFile(file, []byte("x"), 0o600))
	w.hears(manager, "RELOADING")
	w.hears(manager, "READY")
	w.registered("host", "host-2")
	s.Interrupt()
	require.NoError(t, w.await(done))
}

// A slot that could not register at the start works after a reload, as do those that have left for want of a hub.
func TestReloadBringsSlotsBack(t *testing.T) {
	for name, c := range map[string]struct {
		s     slot
		drain bool
		back  bool
	}{
		"works":                    {slot{}, false, false},
		"could not register":       {slot{ended: true, err: errors.New("no")}, false, true},
		"was not wanted":           {slot{ended: true, reason: agent.Requested}, true, true},
		"could not sync":           {slot{ended: true, reason: agent.UnableToSync}, false, true},
		"was idle":                 {slot{ended: true, reason: agent.Idle}, false, false},
		"was sent away by the hub": {slot{ended: true, reason: agent.Requested}, false, false},
	} {
		c.s.Agent = agent.New(agent.Settings{Drain: c.drain, Logger: hclog.NewNullLogger()}, nil)
		assert.Equal(t, c.back, c.s.comesBack(), name)
	}
}

// A slot that is wanted again while it takes leave of the hub, and takes up no settings any more, begins anew.
func TestReloadWhileASlotLeaves(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2)
	l := w.reloadable()
	s := w.open()
	done := w.run(s)
	w.registered("host", "host-2")
	leaves := make(chan struct{})
	w.hub.AddFault(hubtest.Fault{Endpoint: hubtest.Disconnect, Kind: hubtest.Delay, For: patience, Until: leaves, Times: 1})
	reload := func(slots int) {
		t.Helper()
		l.change(func(set *Settings) { set.Slots = slots })
		_, err := s.Reload()
		require.NoError(t, err)
	}
	reload(1)
	require.NoError(t, w.hub.WaitRequests(w.ctx(), hubtest.Disconnect, 1))
	reload(2)
	close(leaves)
	require.NoError(t, w.hub.WaitRequests(w.ctx(), hubtest.Register, 3), "log:\n%s", w.log)
	w.registered("host", "host-2")
	s.Interrupt()
	require.NoError(t, w.await(done))
	w.requireHook("INTERRUPTED\n")
}

// A slot that is refused doesn't look as if it were still to register; the status says why it can't work.
func TestReloadAddsASlotThatIsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	right := w.set.Agent.Token
	l := w.reloadable()
	s := w.open()
	done := w.run(s)
	w.registered("host")
	reload := func(token regtoken.Source) {
		t.Helper()
		l.change(func(set *Settings) { set.Slots, set.Agent.Token = 2, token })
		_, err := s.Reload()
		require.NoError(t, err)
	}
	reload(regtoken.Text("wrong"))
	w.eventually("the slot that is refused says why", func() bool {
		st := s.Status().Slots
		return len(st) == 2 && st[1].State == agent.Left && strings.Contains(st[1].Problem, "check token and endpoint")
	})
	reload(right)
	w.registered("host", "host-2")
	s.Interrupt()
	require.NoError(t, w.await(done))
}

// A token that is mended while the wrong one is being refused is asked with, rather than the slot given up.
func TestReloadWhileASlotIsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	right := w.set.Agent.Token
	w.set.Agent.Token = regtoken.Text("wrong")
	l := w.reloadable()
	refused := make(chan struct{})
	w.hub.AddFault(hubtest.Fault{Endpoint: hubtest.Register, Kind: hubtest.Delay, For: patience, Until: refused, Times: 1})
	s := w.open()
	done := w.run(s)
	require.NoError(t, w.hub.WaitRequests(w.ctx(), hubtest.Register, 1))
	l.change(func(set *Settings) { set.Agent.Token = right })
	_, err := s.Reload()
	require.NoError(t, err)
	close(refused)
	w.registered("host")
	s.Interrupt()
	require.NoError(t, w.await(done))
}

// Of operators who want opposite things one has the last word, over a restart too.
func TestDrainAndResumeAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	s := w.open()
	for range 100 {
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() { assert.NoError(t, s.Drain()) })
			all.Go(func() { assert.NoError(t, s.Resume()) })
		}
		all.Wait()
		require.Equal(t, s.Status().Drained, s.dir.drained())
	}
}

// What can't be kept is told in one line.
func TestDrainThatCannotBeKept(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	s := w.open()
	require.NoError(t, os.MkdirAll(filepath.Join(s.dir.drainedFile(), "in the way"), 0o700))
	err := s.Drain()
	require.ErrorContains(t, err, "it holds, but can't be kept over a restart: ")
	assert.NotContains(t, err.Error(), "\n")
	assert.True(t, s.Status().Drained)
}

// Drained: no job is taken, also not by the next supervisor, until someone resumes.
func TestDrain(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2)
	w.set.CheckUpgrade = passes
	s, err := Open(w.set)
	require.NoError(t, err)
	done := w.run(s)
	gate := filepath.Join(t.TempDir(), "gate")
	first := w.submit("echo here", "until [ -e "+gate+" ]; do sleep 0.05; done")
	w.outputHas(first, "here")
	require.NoError(t, s.Drain())
	state := func(s *Supervisor, state string, n int) func() bool {
		return func() bool {
			found := 0
			for _, a := range s.Status().Slots {
				if a.State == state {
					found++
				}
			}
			return found == n
		}
	}
	w.eventually("one slot runs its job, the other is drained", func() bool {
		return state(s, agent.Drained, 1)() && state(s, string(hub.StateRunningJob), 1)()
	})
	assert.True(t, s.Status().Drained)
	require.NoError(t, os.WriteFile(gate, nil, 0o600))
	w.passed(first)
	w.eventually("both are drained", state(s, agent.Drained, 2))
	second := w.submit("echo later")
	w.handOver(s, done)

	next, err := Open(w.set)
	require.NoError(t, err)
	done = w.run(next)
	w.eventually("both are drained", state(next, agent.Drained, 2))
	job, ok := w.hub.Job(second)
	require.True(t, ok)
	assert.Equal(t, hubtest.JobQueued, job.State)
	require.NoError(t, next.Resume())
	w.passed(second)
	w.leaves(next, done)

	last, err := Open(w.set)
	require.NoError(t, err)
	assert.False(t, last.Status().Drained)
	require.NoError(t, last.Close())
}
