package k8s

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signalman-ci/signalman/shared/protocol"
	"github.com/signalman-ci/signalman/test/harness"
)

// What a command has started ends by INT, TERM or KILL, and a shell can be opened afterwards.
func TestStopInACommand(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.set.StopGrace = 500 * time.Millisecond
	out, ended := w.begin(w.shell(), `trap '' INT TERM; (trap 'echo got term; exit' TERM; trap '' INT; echo ready; while :; do sleep 0.1; done) & setsid sleep 1000 & wait; sleep 1000`)
	later(t, out, "ready\n")
	require.NoError(t, w.env.Stop(within(t)))
	outcomeOf(t, ended)
	assert.Contains(t, out.String(), "got term")
	after, _ := w.run(w.shell(), "ps -o args | grep -c '[s]leep'")
	assert.Equal(t, "0\n", after)
}

// A job is stopped while it is being prepared: whatever it waits for, nothing is left, scheduled or not.
func TestStopWhilePreparing(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*world)
		when   string
	}{
		"before a node takes it": {func(w *world) { w.podSpec("nodeSelector: {no: such-node}", "{}") }, "Waiting for a node"},
		"pulling":                {func(w *world) { w.options.DefaultImage = unreachable }, "Warning: cannot pull"},
		"with a sidecar that isn't ready": {func(w *world) {
			w.job.Compose = &protocol.Compose{Containers: []protocol.Container{{Name: "main", Image: w.cluster.Image(t)}, {Name: "db", Image: unreachable}}}
		}, "Warning: cannot pull"},
		"at once": {func(*world) {}, "Creating Kubernetes resources"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			c.change(w)
			w.set.Extra = w.options.Extra()
			ctx, stop := context.WithCancel(within(t))
			defer stop()
			failed := make(chan error, 1)
			go func() {
				_, err := w.executor.Prepare(ctx, w.job, w.set, w.log)
				failed <- err
			}()
			require.Eventually(t, func() bool { return strings.Contains(w.log.all(), c.when) }, patience, look)
			start := time.Now()
			stop()
			require.ErrorIs(t, <-failed, context.Canceled)
			t.Logf("ended after %v", time.Since(start))
			w.nothingLeft()
		})
	}
}

// Twenty jobs at a time start, run and go, and nothing of them is left.
func TestTwentyPods(t *testing.T) {
	t.Parallel()
	worlds := make([]*world, 20)
	instance := uuid.NewString()
	for i := range worlds {
		worlds[i] = newWorld(t)
		worlds[i].set.InstanceID = instance
	}
	var group sync.WaitGroup
	start := time.Now()
	for i, w := range worlds {
		group.Go(func() {
			w.set.Extra = w.options.Extra()
			env, err := w.executor.Prepare(within(t), w.job, w.set, w.log)
			if !assert.NoError(t, err, w.log.all()) {
				return
			}
			w.env = env
			s, err := env.OpenShell(within(t))
			if assert.NoError(t, err) {
				var out harness.Buffer
				exit, err := s.Run(within(t), fmt.Sprintf("echo job %d; (exit %d)", i, i), &out)
				assert.NoError(t, err)
				assert.Equal(t, i, exit.Code)
				assert.Equal(t, fmt.Sprintf("job %d\n", i), out.String())
			}
		})
	}
	group.Wait()
	t.Logf("all have run after %v", time.Since(start))
	left, err := worlds[0].list(instance)
	require.NoError(t, err)
	assert.Len(t, left, 20)
	for _, w := range worlds {
		group.Go(func() {
			if w.env != nil {
				assert.NoError(t, w.env.Close(within(t)))
				w.env = nil
			}
		})
	}
	group.Wait()
	t.Logf("all are gone after %v", time.Since(start))
	left, err = worlds[0].list(instance)
	require.NoError(t, err)
	assert.Empty(t, left)
}
