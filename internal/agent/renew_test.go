package agent_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signalman-ci/signalman/internal/agent"
	"github.com/signalman-ci/signalman/internal/hub"
	"github.com/signalman-ci/signalman/internal/hub/hubtest"
	"github.com/signalman-ci/signalman/internal/jobdir"
	"github.com/signalman-ci/signalman/internal/regtoken"
	"github.com/signalman-ci/signalman/test/harness"
)

// renewable is a slot and what it was last given.
type renewable struct {
	*agent.Agent
	set  agent.Settings
	log  *harness.Buffer
	left <-chan agent.Reason
}

func startRenewable(t *testing.T, h *hubtest.Hub, change func(*agent.Settings)) *renewable {
	t.Helper()
	r := &renewable{log: &harness.Buffer{}}
	r.Agent, r.left = runAgent(t, h, func(s *agent.Settings) {
		s.Endpoint, s.RegisterAgain = h.Endpoint(), true
		s.Logger = hclog.New(&hclog.LoggerOptions{Output: r.log})
		change(s)
		r.set = *s
	})
	return r
}

func (r *renewable) renew(change func(*agent.Settings)) {
	change(&r.set)
	r.Renew(r.set)
}

func (r *renewable) waitFor(t *testing.T, what string, holds func() bool) {
	t.Helper()
	require.Eventually(t, holds, patience, time.Millisecond, "%s; log:\n%s", what, r.log)
}

// waitForName waits until the hub has one agent, of that name, which waits for jobs.
func waitForName(t *testing.T, h *hubtest.Hub, name string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	require.NoError(t, h.WaitAgents(ctx, func(agents []hubtest.Agent) bool {
		return len(agents) == 1 && agents[0].Name == name && agents[0].State == hub.StateWaitingForJobs
	}))
}

// A slot that is free takes other settings up at once; only those of a registration need another one.
func TestRenew(t *testing.T) {
	t.Parallel()
	h := hubtest.Start(t, hubtest.Options{})
	r := startRenewable(t, h, func(*agent.Settings) {})
	waitForAgent(t, h)
	r.renew(func(s *agent.Settings) { s.FlushTimeout = time.Hour })
	r.waitFor(t, "the settings aren't taken up", func() bool { return !r.Status().Pending })
	assert.Equal(t, 1, h.Requests(hubtest.Register))
	assert.Zero(t, h.Requests(hubtest.Disconnect))

	r.renew(func(s *agent.Settings) { s.Registration.Name = "another-name" })
	waitForName(t, h, "another-name")
	assert.Equal(t, 2, h.Requests(hubtest.Register))
	assert.Equal(t, 1, h.Requests(hubtest.Disconnect))
	r.waitFor(t, "the status has the old name", func() bool { return r.Status().Name == "another-name" })
}

// It leaves one hub and registers with another.
func TestRenewWithAnotherHub(t *testing.T) {
	t.Parallel()
	one, two := hubtest.Start(t, hubtest.Options{}), hubtest.Start(t, hubtest.Options{})
	r := startRenewable(t, one, func(*agent.Settings) {})
	waitForAgent(t, one)
	client, err := hub.New(hub.Options{Endpoint: two.Endpoint(), NoHTTPS: true, UserAgent: "test/1"})
	require.NoError(t, err)
	t.Cleanup(client.CloseIdleConnections)
	r.renew(func(s *agent.Settings) {
		s.Hub, s.Endpoint, s.Token = client, two.Endpoint(), regtoken.Text(two.RegistrationToken())
	})
	waitForAgent(t, two)
	assert.Empty(t, one.Agents())
}

// A token that the hub doesn't know keeps the slot from working, not alive: the next reload mends it.
func TestRenewWithAWrongToken(t *testing.T) {
	t.Parallel()
	h := hubtest.Start(t, hubtest.Options{})
	right := h.RegistrationToken()
	r := startRenewable(t, h, func(s *agent.Settings) { s.Limits.Alone = time.Nanosecond })
	waitForAgent(t, h)
	r.renew(func(s *agent.Settings) { s.Token = regtoken.Text("wrong") })
	r.waitFor(t, "the refusal isn't told", func() bool {
		st := r.Status()
		return st.State == agent.Registering && strings.Contains(st.Problem, "404")
	})
	r.waitFor(t, "it isn't tried again", func() bool { return h.Requests(hubtest.Register) >= 3 })
	r.renew(func(s *agent.Settings) { s.Token = regtoken.Text(right) })
	waitForAgent(t, h)
	r.waitFor(t, "the problem is still told", func() bool { return r.Status().Problem == "" })
}

// A slot that is to be no more leaves the hub in good order, also while it isn't registered.
func TestRenewToDrain(t *testing.T) {
	t.Parallel()
	h := hubtest.Start(t, hubtest.Options{})
	r := startRenewable(t, h, func(*agent.Settings) {})
	waitForAgent(t, h)
	r.renew(func(s *agent.Settings) { s.Drain = true })
	assert.Equal(t, agent.Requested, reasonOf(t, r.left))
	assert.Empty(t, h.Agents())

	h.Down()
	r = startRenewable(t, h, func(*agent.Settings) {})
	r.waitFor(t, "it doesn't try", func() bool { return r.Status().Problem != "" })
	r.renew(func(s *agent.Settings) { s.Drain = true })
	assert.Equal(t, agent.Requested, reasonOf(t, r.left))
}

// What an operator has drained asks for no jobs and says why.
func TestDrained(t *testing.T) {
	t.Parallel()
	h := hubtest.Start(t, hubtest.Options{NextSyncAfter: time.Minute})
	p := startPausable(t, h, func(_ *agent.Settings, g *gate) { g.refusal = agent.ErrDrained })
	waitForAgent(t, h)
	p.gate.shut.Store(true)
	p.Reconsider() // the next sync is a minute away
	p.waitFor(t, "the slot isn't drained", func() bool { return p.Status().State == agent.Drained })
	assert.Contains(t, p.Status().Problem, "supervisor resume")
	job := submit(t, h)
	p.gate.look(t)
	assert.Equal(t, hubtest.JobQueued, jobState(t, h, job))
	p.gate.shut.Store(false)
	p.Reconsider()
	p.runs(t, job)
}

// A slot that goes on with a job under the registration of before takes other settings up that came before it was even begun, not its own.
func TestRenewBeforeTheJobOfBefore(t *testing.T) {
	t.Parallel()
	h := hubtest.Start(t, hubtest.Options{NextSyncAfter: 10 * time.Millisecond})
	client, err := hub.New(hub.Options{Endpoint: h.Endpoint(), NoHTTPS: true, UserAgent: "test/1"})
	require.NoError(t, err)
	t.Cleanup(client.CloseIdleConnections)
	before, err := client.Register(t.Context(), h.RegistrationToken(), hub.RegisterRequest{Name: "before"})
	require.NoError(t, err)
	dir := t.TempDir()
	s := agent.Settings{
		Slot: 1, Hub: client, Endpoint: h.Endpoint(), Token: regtoken.Text(h.RegistrationToken()), Registration: hub.RegisterRequest{Name: "own"},
		File: filepath.Join(dir, "agent.json"), JobsDir: filepath.Join(dir, "jobs"), Limits: agent.Limits{Garbled: time.Millisecond},
		Logger: hclog.NewNullLogger(),
	}
	s.Job.Logger = s.Logger
	require.NoError(t, os.WriteFile(s.File, fmt.Appendf(nil, `{"endpoint":%q,"wanted":"else","name":"before","access_token":%q}`, h.Endpoint(), before.Token), 0o600))
	folder, err := jobdir.Create(s.JobsDir, "one-of-before", 1) // which the hub knows nothing of
	require.NoError(t, err)
	a := agent.New(s, folder)
	s.Registration.Name = "new"
	a.Renew(s)
	ctx, leave := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = a.Run(ctx)
	}()
	defer func() {
		leave()
		<-ended
	}()
	waitForName(t, h, "new")
}
