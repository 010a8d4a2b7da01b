package agent_test

import (
	"context"
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
	"github.com/signalman-ci/signalman/internal/hub"
	"github.com/signalman-ci/signalman/internal/hub/hubtest"
	"github.com/signalman-ci/signalman/test/harness"
)

// gate admits jobs while it is open.
type gate struct {
	shut    atomic.Bool
	looks   atomic.Int64
	refusal error // nil: a full disk
}

func (g *gate) admit(context.Context) error {
	g.looks.Add(1)
	switch {
	case g.shut.Load() && g.refusal != nil:
		return g.refusal
	case g.shut.Load():
		return errors.New("only 12 MiB of disk free at /state")
	}
	return nil
}

// look waits until the slot has looked at the gate from now on, at least twice: what it saw at first may be old.
func (g *gate) look(t *testing.T) {
	t.Helper()
	seen := g.looks.Load()
	require.Eventually(t, func() bool { return g.looks.Load() >= seen+2 }, patience, time.Millisecond, "the slot doesn't look for room")
}

type pausable struct {
	*agent.Agent
	gate *gate
	hub  *hubtest.Hub
	log  *harness.Buffer
	left <-chan agent.Reason
}

const patience = time.Minute

// startPausable runs a slot that looks at a gate. The gate is open unless change shuts it.
func startPausable(t *testing.T, h *hubtest.Hub, change func(*agent.Settings, *gate)) *pausable {
	t.Helper()
	p := &pausable{gate: &gate{}, hub: h, log: &harness.Buffer{}}
	p.Agent, p.left = runAgent(t, h, func(s *agent.Settings) {
		s.Admit = p.gate.admit
		s.Limits.Look = time.Millisecond
		s.Logger = hclog.New(&hclog.LoggerOptions{Output: p.log})
		change(s, p.gate)
	})
	return p
}

// waitFor waits for a condition of the slot.
func (p *pausable) waitFor(t *testing.T, what string, holds func() bool) {
	t.Helper()
	require.Eventually(t, holds, patience, time.Millisecond, "%s; log:\n%s", what, p.log)
}

func (p *pausable) requirePaused(t *testing.T) {
	t.Helper()
	p.waitFor(t, "the slot isn't paused", func() bool { return p.Status().State == "paused" })
	assert.Equal(t, "only 12 MiB of disk free at /state", p.Status().Problem)
}

// runs checks that the slot takes a job. The slots here have no worker: the job ends as failed, which is enough.
func (p *pausable) runs(t *testing.T, job string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	j, err := p.hub.WaitFinished(ctx, job)
	require.NoError(t, err, "log:\n%s", p.log)
	assert.Equal(t, hubtest.EndedByAgent, j.EndedBy)
}

func submit(t *testing.T, h *hubtest.Hub) string {
	t.Helper()
	id, err := h.Submit(hubtest.Request{Commands: []string{"true"}})
	require.NoError(t, err)
	return id
}

func jobState(t *testing.T, h *hubtest.Hub, id string) hubtest.JobState {
	t.Helper()
	j, ok := h.Job(id)
	require.True(t, ok)
	return j.State
}

// A slot without room asks for no jobs, says why, and goes on by itself.
func TestPausedSlotAsksForNoJobs(t *testing.T) {
	t.Parallel()
	h := hubtest.Start(t, hubtest.Options{NextSyncAfter: time.Millisecond})
	p := startPausable(t, h, func(*agent.Settings, *gate) {})
	waitForAgent(t, h)
	p.gate.shut.Store(true)
	p.requirePaused(t)
	syncs := h.Requests(hubtest.Sync)
	job := submit(t, h)
	p.gate.look(t)
	assert.Equal(t, syncs, h.Requests(hubtest.Sync))
	assert.Equal(t, hubtest.JobQueued, jobState(t, h, job))

	p.gate.shut.Store(false)
	p.runs(t, job)
	p.waitFor(t, "the slot doesn't wait for jobs", func() bool { return p.Status().State == "waiting-for-jobs" })
	assert.Empty(t, p.Status().Problem)
	assert.Equal(t, 1, h.Requests(hubtest.Register), "the registration was kept")
	assert.Equal(t, 1, strings.Count(p.log.String(), "asking for no more jobs"), p.log)
	assert.Contains(t, p.log.String(), "only 12 MiB of disk free at /state")
	assert.Equal(t, 1, strings.Count(p.log.String(), "asking for jobs again"), p.log)
}

// Before the hub would remove a silent slot, it leaves; it comes back when there is room.
func TestPausedForLongSlotLeavesAndComesBack(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*agent.Settings){
		"of its own": func(*agent.Settings) {},
		"with a hub that was silent for long, and to which a forgotten slot wouldn't come back": func(s *agent.Settings) {
			s.RegisterAgain, s.Limits.Alone = false, time.Millisecond
		},
		"for one job": func(s *agent.Settings) { s.Registration.SingleJob = true },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := hubtest.Start(t, hubtest.Options{})
			p := startPausable(t, h, func(s *agent.Settings, _ *gate) {
				s.Limits.Refused = time.Millisecond
				change(s)
			})
			waitForAgent(t, h)
			p.gate.shut.Store(true)
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			require.NoError(t, h.WaitAgents(ctx, func(agents []hubtest.Agent) bool { return len(agents) == 0 }))
			assert.Equal(t, 1, h.Requests(hubtest.Disconnect), "in good order")
			p.requirePaused(t)
			job := submit(t, h)
			p.gate.look(t)
			p.requirePaused(t)
			assert.Equal(t, 1, h.Requests(hubtest.Register))
			assert.Equal(t, hubtest.JobQueued, jobState(t, h, job))

			p.gate.shut.Store(false)
			p.runs(t, job)
			assert.Equal(t, 2, h.Requests(hubtest.Register))
		})
	}
}

// The silence of a pause is the slot's own: it isn't taken for the hub's, for which a slot gives up.
func TestPauseIsNoSilenceOfTheHub(t *testing.T) {
	t.Parallel()
	h := hubtest.Start(t, hubtest.Options{})
	const alone = 10 * time.Second
	p := startPausable(t, h, func(s *agent.Settings, _ *gate) { s.Limits.Alone, s.Limits.Refused = alone, time.Millisecond })
	waitForAgent(t, h)
	p.gate.shut.Store(true)
	p.requirePaused(t)
	since := time.Now()
	p.waitFor(t, "the pause isn't long", func() bool { return time.Since(since) > alone })
	refusal := h.AddFault(hubtest.Fault{Endpoint: hubtest.Register, Status: 500, Times: 1})
	p.gate.shut.Store(false)
	waitForAgent(t, h)
	assert.Equal(t, 1, refusal.Hits())
}

// A slot for one job registers for it when there is room.
func TestSlotForAJobThatStartsWithoutRoom(t *testing.T) {
	t.Parallel()
	h := hubtest.Start(t, hubtest.Options{})
	submit(t, h)
	job := submit(t, h)
	p := startPausable(t, h, func(s *agent.Settings, g *gate) {
		g.shut.Store(true)
		s.Registration.SingleJob, s.Registration.JobID = true, job
	})
	p.requirePaused(t)
	p.gate.look(t)
	assert.Zero(t, h.Requests(hubtest.Register))
	p.gate.shut.Store(false)
	p.runs(t, job)
	assert.Equal(t, agent.JobFinished, reasonOf(t, p.left))
}

// One that had to leave for want of room, and whose job is gone meanwhile, is of no more use.
func TestPausedSlotWhoseJobIsGoneLeaves(t *testing.T) {
	t.Parallel()
	h := hubtest.Start(t, hubtest.Options{})
	job := submit(t, h)
	var registered sync.Once
	p := startPausable(t, h, func(s *agent.Settings, g *gate) {
		s.Registration.SingleJob, s.Registration.JobID = true, job
		s.Limits.Refused, s.Limits.Alone = time.Millisecond, time.Millisecond
		s.Admit = func(ctx context.Context) error {
			err := g.admit(ctx)
			registered.Do(func() { g.shut.Store(true) }) // which comes before the first sync
			return err
		}
	})
	p.waitFor(t, "it doesn't leave the hub", func() bool { return h.Requests(hubtest.Disconnect) == 1 })
	p.gate.look(t)
	assert.Zero(t, h.Requests(hubtest.Sync))
	require.True(t, h.StopJob(job))
	p.gate.shut.Store(false)
	assert.Equal(t, agent.UnableToSync, reasonOf(t, p.left))
	assert.Contains(t, p.log.String(), "cannot register again")
}

// Without room a slot doesn't even register.
func TestSlotThatStartsWithoutRoom(t *testing.T) {
	t.Parallel()
	h := hubtest.Start(t, hubtest.Options{})
	job := submit(t, h)
	p := startPausable(t, h, func(_ *agent.Settings, g *gate) { g.shut.Store(true) })
	p.requirePaused(t)
	p.gate.look(t)
	assert.Zero(t, h.Requests(hubtest.Register))
	p.gate.shut.Store(false)
	p.runs(t, job)
	assert.Equal(t, 1, h.Requests(hubtest.Register))
}

// Interrupted while it is paused a slot leaves at once, with a word to a hub that knows it.
func TestInterruptedWhilePaused(t *testing.T) {
	t.Parallel()
	t.Run("registered", func(t *testing.T) {
		t.Parallel()
		h := hubtest.Start(t, hubtest.Options{})
		p := startPausable(t, h, func(s *agent.Settings, _ *gate) { s.Limits.Look = time.Hour })
		waitForAgent(t, h)
		p.gate.shut.Store(true)
		p.requirePaused(t)
		submit(t, h)
		p.Interrupt()
		assert.Equal(t, agent.Interrupted, reasonOf(t, p.left))
		assert.Empty(t, h.Agents())
		assert.Equal(t, 1, h.Requests(hubtest.Disconnect))
	})
	t.Run("not registered yet", func(t *testing.T) {
		t.Parallel()
		h := hubtest.Start(t, hubtest.Options{})
		p := startPausable(t, h, func(s *agent.Settings, g *gate) {
			g.shut.Store(true)
			s.Limits.Look = time.Hour
		})
		p.requirePaused(t)
		p.Interrupt()
		assert.Equal(t, agent.Interrupted, reasonOf(t, p.left))
		assert.Zero(t, h.Requests(hubtest.Register)+h.Requests(hubtest.Disconnect))
	})
	t.Run("not registered any more", func(t *testing.T) {
		t.Parallel()
		h := hubtest.Start(t, hubtest.Options{})
		p := startPausable(t, h, func(s *agent.Settings, _ *gate) { s.Limits.Refused = time.Millisecond })
		waitForAgent(t, h)
		p.gate.shut.Store(true)
		p.waitFor(t, "it doesn't disconnect", func() bool { return h.Requests(hubtest.Disconnect) == 1 })
		p.gate.look(t)
		p.Interrupt()
		assert.Equal(t, agent.Interrupted, reasonOf(t, p.left))
		assert.Equal(t, []int{1, 1}, []int{h.Requests(hubtest.Register), h.Requests(hubtest.Disconnect)})
	})
}

func TestDrainedWhilePaused(t *testing.T) {
	t.Parallel()
	h := hubtest.Start(t, hubtest.Options{})
	p := startPausable(t, h, func(s *agent.Settings, g *gate) {
		g.shut.Store(true)
		s.Drain = true
	})
	assert.Equal(t, agent.Requested, reasonOf(t, p.left))
	assert.Zero(t, h.Requests(hubtest.Register))
}

// A job that the hub has given the slot is the slot's, room or not: the hub gives it to nobody else.
func TestJobThatWasGivenIsTakenWithoutRoom(t *testing.T) {
	t.Parallel()
	h := hubtest.Start(t, hubtest.Options{NextSyncAfter: time.Millisecond})
	dir := t.TempDir()
	jobs := filepath.Join(dir, "jobs")
	require.NoError(t, os.WriteFile(jobs, nil, 0o600)) // no folder can be made in it
	p := startPausable(t, h, func(s *agent.Settings, _ *gate) {
		s.JobsDir, s.Limits.Refused = jobs, time.Millisecond
	})
	waitForAgent(t, h)
	job := submit(t, h)
	p.waitFor(t, "it isn't given the job", func() bool { return strings.Contains(p.log.String(), "cannot take a job") })
	p.gate.shut.Store(true)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	require.NoError(t, h.WaitRequests(ctx, hubtest.Sync, h.Requests(hubtest.Sync)+3))
	require.NoError(t, os.Remove(jobs))
	p.runs(t, job)
	p.requirePaused(t)
}

// A registration that can't be kept on disk doesn't end the slot.
func TestRegistrationThatCannotBeKept(t *testing.T) {
	t.Parallel()
	h := hubtest.Start(t, hubtest.Options{})
	job := submit(t, h)
	p := startPausable(t, h, func(s *agent.Settings, _ *gate) { s.File = filepath.Join(s.File, "no", "folder") })
	p.runs(t, job)
	assert.Contains(t, p.log.String(), "cannot keep the registration")
	assert.Equal(t, hub.StateWaitingForJobs, waitForAgentState(t, h))
}

func waitForAgentState(t *testing.T, h *hubtest.Hub) hub.State {
	t.Helper()
	waitForAgent(t, h)
	return h.Agents()[0].State
}

// An upgrade while a slot is paused takes place at once, and is no goodbye to the hub.
func TestHandedOverWhilePaused(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		shut                  bool
		refused               time.Duration
		registers, goneBefore int
	}{
		"not registered yet":      {shut: true, refused: time.Hour},
		"registered":              {refused: time.Hour, registers: 1},
		"not registered any more": {refused: time.Millisecond, registers: 1, goneBefore: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := hubtest.Start(t, hubtest.Options{})
			p := startPausable(t, h, func(s *agent.Settings, g *gate) {
				s.Limits.Refused = c.refused
				g.shut.Store(c.shut)
			})
			if !c.shut {
				waitForAgent(t, h)
				p.gate.shut.Store(true)
			}
			p.requirePaused(t)
			p.waitFor(t, "it doesn't disconnect", func() bool { return h.Requests(hubtest.Disconnect) == c.goneBefore })
			p.gate.look(t)
			p.HandOver()
			assert.Equal(t, agent.HandedOver, reasonOf(t, p.left))
			assert.Equal(t, []int{c.registers, c.goneBefore}, []int{h.Requests(hubtest.Register), h.Requests(hubtest.Disconnect)})
		})
	}
}
