package supervisor

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signalman-ci/signalman/internal/hub"
	"github.com/signalman-ci/signalman/internal/hub/hubtest"
)

// passes is the check of a binary that could take over.
func passes(context.Context) (string, error) { return "2", nil }

// handOver upgrades a supervisor and waits for its end.
func (w *world) handOver(s *Supervisor, done <-chan error) {
	w.t.Helper()
	version, err := s.Upgrade(w.ctx())
	require.NoError(w.t, err)
	assert.Equal(w.t, "2", version)
	require.ErrorIs(w.t, w.await(done), ErrHandedOver)
	require.NoError(w.t, s.Close())
}

// passed checks a job's end, and that it ended once.
func (w *world) passed(id string) {
	w.t.Helper()
	j, err := w.hub.WaitFinished(w.ctx(), id)
	require.NoError(w.t, err, "log of the supervisor:\n%s", w.log)
	assert.Equal(w.t, hub.ResultPassed, j.Result)
	assert.Equal(w.t, hubtest.EndedByAgent, j.EndedBy)
	require.NoError(w.t, hubtest.CheckLog(w.hub.LogLines(id)))
}

// leaves interrupts the last supervisor of a test.
func (w *world) leaves(s *Supervisor, done <-chan error) {
	w.t.Helper()
	s.Interrupt()
	require.NoError(w.t, w.await(done))
	require.NoError(w.t, s.Close())
}

// Wherever a job stands, the next supervisor goes on with it, and the request is fetched once.
func TestHandOver(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]*hubtest.Fault{
		"idle":                         nil,
		"while the request is fetched": {Endpoint: hubtest.GetJob},
		"while the log waits":          {Endpoint: hubtest.Logs},
		"while the result waits": {Endpoint: hubtest.Sync, Match: func(_ *http.Request, body []byte) bool {
			return bytes.Contains(body, []byte(hub.StateFinishedJob))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 1)
			w.set.CheckUpgrade = passes
			var ids []string
			submit := func() {
				id, err := w.hub.Submit(hubtest.Request{Commands: []string{"seq 1 5000"}})
				require.NoError(t, err)
				ids = append(ids, id)
			}
			first, err := Open(w.set)
			require.NoError(t, err)
			done := w.run(first)
			require.NoError(t, w.hub.WaitAgents(w.ctx(), func(a []hubtest.Agent) bool { return len(a) == 1 && !a[0].LastSync.IsZero() }))
			if fault != nil {
				rule := w.hub.AddFault(*fault)
				submit()
				require.NoError(t, rule.WaitHits(w.ctx(), 1))
				w.handOver(first, done)
				rule.Clear()
			} else {
				w.handOver(first, done)
			}
			next, err := Open(w.set)
			require.NoError(t, err)
			done = w.run(next)
			submit()
			for _, id := range ids {
				w.passed(id)
			}
			assert.Equal(t, 1, w.hub.Requests(hubtest.Register))
			w.leaves(next, done)
			w.requireHook("INTERRUPTED\n")
		})
	}
}

// A command goes on while its supervisor is replaced, twice.
func TestHandOverOfARunningJob(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2)
	w.set.CheckUpgrade = passes
	gate := filepath.Join(t.TempDir(), "gate")
	id, err := w.hub.Submit(hubtest.Request{Commands: []string{"echo begun; until [ -e " + gate + " ]; do sleep 0.02; done; seq 1 20000"}})
	require.NoError(t, err)
	for range 2 {
		s, err := Open(w.set)
		require.NoError(t, err)
		done := w.run(s)
		_, err = w.hub.WaitLog(w.ctx(), id, 5)
		require.NoError(t, err)
		w.handOver(s, done)
	}
	require.NoError(t, os.WriteFile(gate, nil, 0o600))
	s, err := Open(w.set)
	require.NoError(t, err)
	done := w.run(s)
	w.passed(id)
	w.leaves(s, done)
}

// A slot that has left for good doesn't come back with the next version, but does with the next start.
func TestSlotsThatHaveLeftStayAway(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2)
	w.set.CheckUpgrade = passes
	here := func(n int) func([]hubtest.Agent) bool {
		return func(a []hubtest.Agent) bool {
			return len(a) == n && !slices.ContainsFunc(a, func(a hubtest.Agent) bool { return a.LastSync.IsZero() })
		}
	}
	s, err := Open(w.set)
	require.NoError(t, err)
	done := w.run(s)
	require.NoError(t, w.hub.WaitAgents(w.ctx(), here(2)))
	require.True(t, w.hub.RequestShutdown("host-2"))
	require.NoError(t, w.hub.WaitAgents(w.ctx(), here(1)))
	require.Eventually(t, func() bool { return s.Status().Slots[1].State == "left" }, patience, 5*time.Millisecond)
	w.handOver(s, done)
	for _, slots := range []int{1, 2} {
		s, err = Open(w.set)
		require.NoError(t, err)
		done = w.run(s)
		require.NoError(t, w.hub.WaitAgents(w.ctx(), here(slots)))
		require.Eventually(t, func() bool { return len(s.Status().Slots) == slots }, patience, 5*time.Millisecond)
		w.leaves(s, done)
	}
}

// What the check refuses changes nothing, and a supervisor on its way out isn't upgraded.
func TestUpgradeIsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	s, err := Open(w.set)
	require.NoError(t, err)
	_, err = s.Upgrade(w.ctx())
	require.ErrorContains(t, err, "can't replace itself")
	require.NoError(t, s.Close())

	var check atomic.Pointer[func() (string, error)]
	checks := func(f func() (string, error)) { check.Store(&f) }
	w.set.CheckUpgrade = func(context.Context) (string, error) { return (*check.Load())() }
	s, err = Open(w.set)
	require.NoError(t, err)
	done := w.run(s)
	checks(func() (string, error) { return "", errors.New("no good") })
	_, err = s.Upgrade(w.ctx())
	require.EqualError(t, err, "not upgraded: no good")
	asked := make(chan struct{})
	goOn := make(chan struct{})
	checks(func() (string, error) { close(asked); <-goOn; return "2", nil })
	first := make(chan error, 1)
	go func() { _, err := s.Upgrade(w.ctx()); first <- err }()
	<-asked
	_, err = s.Upgrade(w.ctx())
	require.ErrorContains(t, err, "under way already")
	s.Interrupt()
	close(goOn)
	require.ErrorContains(t, <-first, "interrupted meanwhile")
	require.NoError(t, w.await(done))
	_, err = s.Upgrade(w.ctx())
	require.ErrorContains(t, err, "on its way out")
	require.NoError(t, s.Close())
}
