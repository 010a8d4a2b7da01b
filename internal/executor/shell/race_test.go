//go:build unix

package shell

import (
	"context"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/signalman-ci/signalman/shared/protocol"
)

// A stop comes while a shell is being opened: the race detector sees both in one process here, unlike in a worker.
func TestStopWhileAShellOpens(t *testing.T) {
	env, err := New().Prepare(context.Background(), &protocol.Job{ID: "race"}, &protocol.Settings{
		TempDir: t.TempDir(), Home: t.TempDir(), InstanceID: "race-test", StopGrace: 100 * time.Millisecond,
		BaseEnv: []protocol.EnvVar{{Name: "PATH", Value: os.Getenv("PATH")}},
	}, nil)
	require.NoError(t, err)
	var wg sync.WaitGroup
	wg.Go(func() {
		if shell, err := env.OpenShell(context.Background()); err == nil {
			assert.NoError(t, shell.Close())
		}
	})
	wg.Go(func() { assert.NoError(t, env.Stop(context.Background())) })
	wg.Wait()
	require.NoError(t, env.Close(context.Background()))
}
