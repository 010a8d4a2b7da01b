package compose

import (
	"context"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signalman-ci/signalman/internal/engine"
	"github.com/signalman-ci/signalman/internal/testengine"
	"github.com/signalman-ci/signalman/internal/testimage"
	"github.com/signalman-ci/signalman/shared/protocol"
)

// startOwnEngine makes an engine of the test's own the one that Connect finds.
func startOwnEngine(t *testing.T) *testengine.Engine {
	t.Helper()
	testimage.Engine(t)
	e := testengine.Start(t)
	t.Setenv("DOCKER_HOST", e.Address())
	return e
}

// However the engine goes, the job ends in one line, and what it has made goes as soon as the engine is back.
func TestEngineIsLost(t *testing.T) {
	d := startOwnEngine(t)
	for _, how := range []struct {
		name string
		sig  syscall.Signal
		want string
	}{
		{"restarted", syscall.SIGTERM, "Docker engine"},
		{"killed", syscall.SIGKILL, engineLost},
	} {
		t.Run(how.name, func(t *testing.T) {
			eng, err := engine.Connect(within(t))
			require.NoError(t, err)
			defer eng.Close()
			image := testimage.Build(t, eng, true)
			w := newWorld(t, eng, image, protocol.Container{Name: "db", Image: image, Command: mortal})
			out, ended := w.begin(w.shell(), "echo ready; sleep 1000")
			later(t, out, "ready")
			require.Len(t, w.things(""), 3)

			d.End(how.sig)
			err = outcomeOf(t, ended).err
			require.ErrorIs(t, err, protocol.ErrEnvironmentGone)
			require.ErrorContains(t, err, how.want)
			assert.NotContains(t, err.Error(), "\n")
			_, err = w.env.OpenShell(within(t))
			require.ErrorIs(t, err, protocol.ErrEnvironmentGone)

			closed := make(chan error, 1)
			go func() { closed <- w.env.Close(within(t)) }()
			d.Restart()
			if err := <-closed; err != nil { // the engine took its time: the reconciler does it then
				require.Eventually(t, func() bool { return w.executor.Cleanup(within(t), w.job, w.set) == nil }, patience, look)
			}
			w.env = nil
			assert.Empty(t, w.things(""))
		})
	}
}

// An engine that is gone while a job is prepared.
func TestEngineIsLostWhilePreparing(t *testing.T) {
	d := startOwnEngine(t)
	eng, err := engine.Connect(within(t))
	require.NoError(t, err)
	defer eng.Close()
	image := testimage.Build(t, eng, true, "HEALTHCHECK --interval=1h CMD true")
	w := newWorld(t, eng, image, protocol.Container{Name: "db", Image: image, Command: mortal})
	ended := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		_, err := w.executor.Prepare(ctx, w.job, w.set, w.log)
		ended <- err
	}()
	require.Eventually(t, func() bool { return len(w.things("")) == 3 }, patience, look)
	d.End(syscall.SIGKILL)
	d.Restart()
	require.Error(t, <-ended)
	require.Eventually(t, func() bool { return w.executor.Cleanup(within(t), w.job, w.set) == nil }, patience, look)
}
