package agent_test

import (
	"context"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signalman-ci/signalman/internal/agent"
	"github.com/signalman-ci/signalman/internal/hub"
	"github.com/signalman-ci/signalman/internal/hub/hubtest"
	"github.com/signalman-ci/signalman/internal/regtoken"
)

// run runs an idle slot until the test's end and gives the reason for which it leaves.
func run(t *testing.T, h *hubtest.Hub, change func(*agent.Settings)) <-chan agent.Reason {
	t.Helper()
	_, left := runAgent(t, h, change)
	return left
}

// runAgent is run, and gives the slot too.
func runAgent(t *testing.T, h *hubtest.Hub, change func(*agent.Settings)) (*agent.Agent, <-chan agent.Reason) {
	t.Helper()
	client, err := hub.New(hub.Options{Endpoint: h.Endpoint(), NoHTTPS: true, UserAgent: "test/1"})
	require.NoError(t, err)
	dir := t.TempDir()
	s := agent.Settings{
		Slot: 1, Hub: client, Token: regtoken.Text(h.RegistrationToken()), Registration: hub.RegisterRequest{Name: "idle-slot"},
		File: filepath.Join(dir, "agent.json"), JobsDir: filepath.Join(dir, "jobs"), Logger: hclog.NewNullLogger(),
	}
	change(&s)
	s.Job.Logger = s.Logger
	a := agent.New(s, nil)
	ctx, cancel := context.WithCancel(context.Background())
	left := make(chan agent.Reason, 1)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		reason, err := a.Run(ctx)
		assert.NoError(t, err)
		left <- reason
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
		client.CloseIdleConnections()
	})
	return a, left
}

func waitForAgent(t *testing.T, h *hubtest.Hub) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	require.NoError(t, h.WaitAgents(ctx, func(agents []hubtest.Agent) bool {
		return len(agents) == 1 && agents[0].State == hub.StateWaitingForJobs
	}))
}

func reasonOf(t *testing.T, left <-chan agent.Reason) agent.Reason {
	t.Helper()
	select {
	case reason := <-left:
		return reason
	case <-time.After(time.Minute):
		t.Fatal("the slot doesn't leave")
		return ""
	}
}

// A hub that has forgotten the agent is registered with again.
func TestForgottenAgentRegistersAgain(t *testing.T) {
	t.Parallel()
	h := hubtest.Start(t, hubtest.Options{})
	run(t, h, func(s *agent.Settings) { s.RegisterAgain, s.Limits.Forgotten = true, time.Millisecond })
	waitForAgent(t, h)
	require.True(t, h.ForgetAgent("idle-slot"))
	waitForAgent(t, h)
	assert.Equal(t, 2, h.Requests(hubtest.Register))
}

// With on-unknown = "exit" the slot leaves.
func TestForgottenAgentLeaves(t *testing.T) {
	t.Parallel()
	h := hubtest.Start(t, hubtest.Options{})
	left := run(t, h, func(s *agent.Settings) { s.Limits.Forgotten = time.Millisecond })
	waitForAgent(t, h)
	require.True(t, h.ForgetAgent("idle-slot"))
	assert.Equal(t, agent.UnableToSync, reasonOf(t, left))
	assert.Equal(t, 1, h.Requests(hubtest.Register))
}

// A single 404, as an ingress may answer it, is no loss of the registration.
func TestOne404IsNotForgotten(t *testing.T) {
	t.Parallel()
	h := hubtest.Start(t, hubtest.Options{})
	run(t, h, func(s *agent.Settings) { s.RegisterAgain, s.Limits.Forgotten = true, time.Hour })
	waitForAgent(t, h)
	rule := h.AddFault(hubtest.Fault{Endpoint: hubtest.Sync, Status: 404, Times: 1})
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	require.NoError(t, rule.WaitHits(ctx, 1))
	require.NoError(t, h.WaitRequests(ctx, hubtest.Sync, h.Requests(hubtest.Sync)+2))
	assert.Equal(t, 1, h.Requests(hubtest.Register))
}

// Without a sync for too long an idle slot leaves.
func TestUnableToSync(t *testing.T) {
	t.Parallel()
	h := hubtest.Start(t, hubtest.Options{})
	left := run(t, h, func(s *agent.Settings) { s.Limits.Alone = time.Millisecond })
	waitForAgent(t, h)
	h.AddFault(hubtest.Fault{Endpoint: hubtest.Sync, Status: 500})
	assert.Equal(t, agent.UnableToSync, reasonOf(t, left))
}

// An ingress that answers 404 to everything for longer than a hub needs to forget an agent makes no slot leave.
func TestIngressThatAnswers404ToEverything(t *testing.T) {
	t.Parallel()
	h := hubtest.Start(t, hubtest.Options{})
	run(t, h, func(s *agent.Settings) { s.RegisterAgain, s.Limits.Forgotten = true, time.Millisecond })
	waitForAgent(t, h)
	h.AddFault(hubtest.Fault{Endpoint: hubtest.Sync, Status: 404})
	refused := h.AddFault(hubtest.Fault{Endpoint: hubtest.Register, Status: 404})
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	require.NoError(t, refused.WaitHits(ctx, 2))
	require.True(t, h.ForgetAgent("idle-slot"))
	h.ClearFaults()
	waitForAgent(t, h)
}

// A slot that is drained leaves as soon as it holds no job, and is no agent of the hub any more.
func TestDrainedSlotLeaves(t *testing.T) {
	t.Parallel()
	h := hubtest.Start(t, hubtest.Options{})
	_, err := h.Submit(hubtest.Request{Commands: []string{"true"}})
	require.NoError(t, err)
	left := run(t, h, func(s *agent.Settings) { s.Drain = true })
	assert.Equal(t, agent.Requested, reasonOf(t, left))
	assert.Empty(t, h.Agents())
}

// A kept access token is for the hub that gave it, and for the settings it was given for.
func TestKeptRegistrationIsForItsHubAndSettings(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "agent.json")
	first, second := hubtest.Start(t, hubtest.Options{}), hubtest.Start(t, hubtest.Options{})
	start := func(h *hubtest.Hub, change func(*agent.Settings)) {
		t.Run("start", func(t *testing.T) { // ends its slot like kill -9
			run(t, h, func(s *agent.Settings) {
				s.File, s.Endpoint = file, h.Endpoint()
				change(s)
			})
			waitForAgent(t, h)
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			require.NoError(t, h.WaitRequests(ctx, hubtest.Sync, h.Requests(hubtest.Sync)+1))
		})
	}
	same := func(*agent.Settings) {}
	start(first, same)
	start(first, same)
	assert.Equal(t, 1, first.Requests(hubtest.Register), "gone on with")

	raw, err := os.ReadFile(file)
	require.NoError(t, err)
	var kept struct {
		Token string `json:"access_token"`
	}
	require.NoError(t, json.Unmarshal(raw, &kept))
	var leaked atomic.Bool
	second.AddFault(hubtest.Fault{Endpoint: hubtest.Sync, Match: func(r *http.Request, _ []byte) bool {
		if strings.Contains(r.Header.Get("Authorization"), kept.Token) {
			leaked.Store(true)
		}
		return false
	}})
	start(second, same)
	assert.Equal(t, 1, second.Requests(hubtest.Register))
	assert.False(t, leaked.Load(), "the first hub's token went to the second")
	require.True(t, second.ForgetAgent("idle-slot")) // else the name is held
	start(second, func(s *agent.Settings) { s.Registration.InterruptionGracePeriod = time.Minute })
	assert.Equal(t, 2, second.Requests(hubtest.Register), "another grace period is another registration")
}
